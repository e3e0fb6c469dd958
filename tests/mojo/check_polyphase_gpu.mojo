"""The polyphase GPU kernels against the CPU kernel, as a program of its own: small enough for compute-sanitizer.

`mojo build --target-accelerator sm_90a` makes it on a machine without a GPU. With any argument it checks a few sizes
only, enough for compute-sanitizer's racecheck. It prints a line for each pair of rates, then PASS, or fails at the
first difference: unless every output, poisoned beforehand, is what the CPU kernel gives, and nothing between the rows
changes. The numbers are small integers, so that sums are exact in every type. Work is bounded: some ten seconds.
"""

from std.math import ceildiv
from std.sys import argv
from max.gpu.host import DeviceContext

from _ops.kernels.polyphase_cpu import polyphase_cpu
from _ops.kernels.polyphase_gpu import polyphase_gpu
from _ops.shared.border import OMIT
from _ops.shared.extension import ANTIREFLECT, Extension, LINE
from _ops.shared.polyphase_geometry import PolyphaseGeometry
from _ops.shared.polyphase_tiling import choose_tiling
from _ops.shared.tuning_gpu import POLYPHASE_SHARED_BYTES as SHARED_BYTES

comptime MOST_OUTPUTS = 1 << 17
"""Outputs of a row at most: more blocks of the same kind would show nothing new."""

comptime MOST_MULTIPLY_ADDS = 1 << 26
"""Work of a call at most: the CPU kernel does it in some 10 ms."""


def check[dtype: DType](ctx: DeviceContext, geometry: PolyphaseGeometry, mode: Int, is_infinite: Bool) raises:
    """Compares one call on the GPU with the same on the CPU.

    Parameters:
        dtype: Element type.

    Args:
        ctx: The device.
        geometry: Sizes, rates and shifts of the call.
        mode: As in `Extension`.
        is_infinite: Whether the last tap is infinite, and some samples.

    Raises:
        If an output differs.
    """
    var x = ctx.enqueue_create_host_buffer[dtype](max(1, geometry.rows * geometry.x_stride))
    var h = ctx.enqueue_create_host_buffer[dtype](geometry.taps)
    var y = ctx.enqueue_create_host_buffer[dtype](max(1, geometry.rows * geometry.y_stride))
    var expected = ctx.enqueue_create_host_buffer[dtype](len(y))
    ctx.synchronize()
    for i in range(len(x)):
        x[i] = Scalar[dtype](i * 7 % 5 - 2)
    if mode == LINE:  # a slope that is a whole number
        for row in range(geometry.rows):
            x[row * geometry.x_stride + geometry.samples - 1] = x[row * geometry.x_stride] + Scalar[dtype](
                geometry.samples - 1
            )
    for j in range(len(h)):
        h[j] = Scalar[dtype](j * 5 % 3 - 1)
    comptime if dtype.is_floating_point():
        if is_infinite:
            var infinity = Scalar[dtype](1) / Scalar[dtype](0)
            h[geometry.taps - 1] = infinity
            for i in range(0, len(x), 997):
                x[i] = infinity
    for i in range(len(y)):
        y[i] = Scalar[dtype](99)
        expected[i] = Scalar[dtype](99)
    var extension = Extension[dtype](mode, Scalar[dtype](0 if mode == OMIT else 2))
    polyphase_cpu(
        pointer_to[dtype](Int(expected.unsafe_ptr())),
        pointer_to[dtype](Int(x.unsafe_ptr())),
        pointer_to[dtype](Int(h.unsafe_ptr())),
        geometry,
        0,
        extension,
    )
    var x_there = ctx.enqueue_create_buffer[dtype](len(x))
    var h_there = ctx.enqueue_create_buffer[dtype](len(h))
    var y_there = ctx.enqueue_create_buffer[dtype](len(y))
    ctx.enqueue_copy(x_there, x)
    ctx.enqueue_copy(h_there, h)
    ctx.enqueue_copy(y_there, y)
    polyphase_gpu(
        pointer_to[dtype](Int(y_there.unsafe_ptr())),
        pointer_to[dtype](Int(x_there.unsafe_ptr())),
        pointer_to[dtype](Int(h_there.unsafe_ptr())),
        geometry,
        extension,
        ctx,
    )
    ctx.enqueue_copy(y, y_there)
    ctx.synchronize()
    for i in range(len(y)):
        # NaN (infinity times a zero sample) equals NaN here.
        if y[i] != expected[i] and not (y[i] != y[i] and expected[i] != expected[i]):
            raise Error(
                "FAIL: ",
                dtype,
                t": N={geometry.samples} K={geometry.taps} up={geometry.up} down={geometry.down} ",
                t"start={geometry.start} rows={geometry.rows} mode={mode} place {i}: ",
                y[i],
                " != ",
                expected[i],
            )


def pointer_to[dtype: DType](address: Int) -> Pointer[Scalar[dtype], MutAnyOrigin]:
    """Makes a pointer of an address.

    Parameters:
        dtype: Element type.

    Args:
        address: The address.

    Returns:
        The pointer.
    """
    return Pointer[Scalar[dtype], MutAnyOrigin](unsafe_from_address=address)


def check_sizes(ctx: DeviceContext, up: Int, down: Int, samples: Int, taps: Int, rows: Int) raises -> Int:
    """Checks every type at one set of sizes: the whole result, and a part with places left free between the rows.

    Args:
        ctx: The device.
        up: Rate of the inserted zeros.
        down: Rate of the outputs.
        samples: N.
        taps: K.
        rows: How many signals.

    Returns:
        How many calls were compared.

    Raises:
        If an output differs.
    """
    var length = ((samples - 1) * up + taps + down - 1) // down
    if length > MOST_OUTPUTS or rows * length * ceildiv(taps, up) > MOST_MULTIPLY_ADDS:
        return 0
    var whole = PolyphaseGeometry(samples, taps, up, down, 0, length, rows, samples, length)
    var begin = length // 3
    var part = PolyphaseGeometry(samples, taps, up, down, begin, length - begin, rows, samples + 3, length - begin + 5)
    var checked = 0
    comptime for dtype in [DType.float32, DType.float64, DType.bfloat16, DType.int32]:
        check[dtype](ctx, whole, OMIT, False)
        check[dtype](ctx, part, OMIT, False)
        check[dtype](ctx, part, OMIT, True)
        checked += 3
    if samples <= 2000 and taps <= 1001:
        for mode in range(OMIT + 1, ANTIREFLECT + 1):
            check[DType.float32](ctx, whole, mode, False)
            check[DType.float64](ctx, part, mode, False)
            checked += 2
    return checked


def main() raises:
    """Checks all types at sizes around tiles, at every kind of tiling; with an argument, a few.

    Raises:
        If one differs.
    """
    var ctx = DeviceContext()
    var checked = 0
    var is_brief = len(argv()) > 1
    var rates: List[Tuple[Int, Int]] = [
        (1, 1),
        (1, 2),
        (1, 3),
        (1, 4),
        (1, 8),
        (1, 100),
        (2, 1),
        (2, 3),
        (3, 1),
        (3, 2),
        (3, 4),
        (4, 1),
        (4, 3),
        (4, 6),
        (8, 1),
        (7, 5),
        (33, 5),
        (160, 147),
        (147, 160),
        (24, 25),
        (45, 43),
        (255, 4),
        (257, 2),
        (511, 600),
        (700, 3),
        (5, 3000000),
    ]
    for rate in rates:
        var up = rate[0]
        var down = rate[1]
        var before = checked
        for taps in [1, 50, 20 * max(up, down) % 20000 + 1, 2001]:
            if is_brief:
                if taps == 50:
                    checked += check_sizes(ctx, up, down, min(5000, 5000 * down // up + 20), taps, 1)
                continue
            for samples in [1, 7, 2000, 5000 * down // up % 60000 + 20, 40000 * down // up % 60000 + 20]:
                checked += check_sizes(ctx, up, down, samples, taps, 1 if samples > 2000 else 3)
        var tiling = choose_tiling[DType.float32](PolyphaseGeometry(1, 50, up, down, 0, 1, 1, 1, 1), SHARED_BYTES)
        print(
            t"ok: up {up} down {down}, {checked - before} calls; 50 taps: period {tiling.period},"
            t" {tiling.panels} panels, {tiling.chunk} of {tiling.positions} positions, spread {tiling.spread}"
        )
    if not is_brief:
        checked += check_sizes(ctx, 2, 3, 20, 7, 70000)  # more rows than a grid has blocks along y
        checked += check_sizes(ctx, 1, 1, 3000, 7, 300)
        checked += check_sizes(ctx, 1, 1, 40000, 20001, 1)  # taps in chunks
        checked += check_sizes(ctx, 160, 147, 36000, 3201, 70)  # more tiles than blocks
        checked += check_sizes(ctx, 147, 160, 40000, 3201, 70)
        checked += check_sizes(ctx, 1, 4, 160000, 81, 20)
    print("PASS:", checked, "calls agree with the CPU kernel on", ctx.name())
