"""The polyphase GPU kernel alone, beside a device copy of the same bytes: for tuning, without Python and MAX models.

    mojo build --target-accelerator sm_90a -I src/maxconv benchmarks/mojo/bench_polyphase_gpu.mojo -o bench_polyphase

Each line is one configuration, timed together with a copy that reads and writes as many bytes as it must move. PASS or
FAIL says whether the ratio keeps the goal of the usual rates with 20*max(up, down) + 1 taps; other lines have no goal.
"""

from max.gpu.host import DeviceContext

from _ops.kernels.polyphase_gpu import polyphase_gpu
from _ops.shared.border import OMIT
from _ops.shared.extension import Extension
from _ops.shared.polyphase_geometry import PolyphaseGeometry
from _ops.shared.polyphase_tiling import choose_tiling
from _ops.shared.tuning_gpu import POLYPHASE_GROUP, POLYPHASE_PERIODS, POLYPHASE_SHARED_BYTES

comptime ELEMENTS = 1 << 27
"""N + L_out: 512 MB of float32, more than any cache holds."""

comptime LAUNCHES = 20
"""Launches that are timed together."""

comptime GOAL = 1.3
"""Device copies that a usual rate may take."""


def measure[dtype: DType](ctx: DeviceContext, up: Int, down: Int, taps: Int, has_goal: Bool) raises -> Bool:
    """Times one configuration, on numbers that are neither zero nor denormal.

    Parameters:
        dtype: Element type.

    Args:
        ctx: The device.
        up: Rate of the inserted zeros.
        down: Rate of the outputs.
        taps: K.
        has_goal: Whether the ratio is to keep `GOAL`.

    Returns:
        False if it does not.

    Raises:
        If the device refuses.
    """
    var samples = ELEMENTS // (up + down) * down
    var outputs = samples * up // down
    var x = ctx.enqueue_create_buffer[dtype](samples)
    var y = ctx.enqueue_create_buffer[dtype](outputs)
    var h = ctx.enqueue_create_buffer[dtype](taps)
    var copied = ctx.enqueue_create_buffer[dtype]((samples + outputs) // 2)
    var copy_of = ctx.enqueue_create_buffer[dtype]((samples + outputs) // 2)
    ctx.enqueue_memset(x, Scalar[dtype](1.37))
    ctx.enqueue_memset(h, Scalar[dtype](0.73))
    ctx.enqueue_memset(copied, Scalar[dtype](1.37))
    # The part that a centred resampling takes.
    var geometry = PolyphaseGeometry(samples, taps, up, down, taps // 2 // down, outputs, 1, samples, outputs)
    var yp = Pointer[Scalar[dtype], MutAnyOrigin](unsafe_from_address=Int(y.unsafe_ptr()))
    var xp = Pointer[Scalar[dtype], MutAnyOrigin](unsafe_from_address=Int(x.unsafe_ptr()))
    var hp = Pointer[Scalar[dtype], MutAnyOrigin](unsafe_from_address=Int(h.unsafe_ptr()))

    def launch() raises {imm}:
        polyphase_gpu(yp, xp, hp, geometry, Extension[dtype](OMIT, 0), ctx)

    def copy() raises {imm}:
        ctx.enqueue_copy(copy_of, copied)

    _ = ctx.execution_time(launch, 3)
    var microseconds = Float64(ctx.execution_time(launch, LAUNCHES)) / 1000 / LAUNCHES
    _ = ctx.execution_time(copy, 3)
    var copying = Float64(ctx.execution_time(copy, LAUNCHES)) / 1000 / LAUNCHES
    var ratio = microseconds / copying
    var multiply_adds = Float64(geometry.multiply_adds()) / microseconds * 1e-6
    var verdict = "    "
    if has_goal:
        verdict = "PASS" if ratio <= GOAL else "FAIL"
    var tiling = choose_tiling[dtype](geometry, POLYPHASE_SHARED_BYTES)
    print(
        t"{verdict} {dtype} up {up} down {down} K {taps}: {microseconds} us, copy {copying} us, ratio {ratio}, ",
        t"{multiply_adds}e12 multiply-adds/s; period {tiling.period}, {tiling.panels} panels, ",
        t"{tiling.chunk} of {tiling.positions} positions",
        sep="",
    )
    _ = x^
    _ = y^
    _ = h^
    _ = copied^
    _ = copy_of^
    return not has_goal or ratio <= GOAL


def main() raises:
    """Times the rates that the project promises figures for, and some that take other ways.

    Raises:
        If the device refuses.
    """
    var ctx = DeviceContext()
    print(ctx.name(), "outputs per group", POLYPHASE_GROUP, "periods per thread", POLYPHASE_PERIODS)
    var is_kept = True
    var usual: List[Tuple[Int, Int]] = [(2, 1), (1, 2), (3, 2), (160, 147), (147, 160)]
    for rate in usual:
        var taps = 20 * max(rate[0], rate[1]) + 1
        is_kept = measure[DType.float32](ctx, rate[0], rate[1], taps, True) and is_kept
    for rate in usual:
        _ = measure[DType.float64](ctx, rate[0], rate[1], 20 * max(rate[0], rate[1]) + 1, False)
    var others: List[Tuple[Int, Int, Int]] = [
        (1, 1, 64),
        (1, 1, 1001),
        (3, 1, 61),
        (4, 1, 81),
        (8, 1, 161),
        (1, 3, 61),
        (1, 4, 81),
        (1, 8, 161),
        (2, 3, 61),
        (3, 4, 81),
        (4, 3, 81),
        (1, 100, 2001),
        (33, 5, 661),
        (1000, 999, 20001),
    ]
    for other in others:
        _ = measure[DType.float32](ctx, other[0], other[1], other[2], False)
    print("PASS" if is_kept else "FAIL", ": usual rates in float32 within", GOAL, "device copies")
