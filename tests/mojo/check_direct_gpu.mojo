"""The GPU kernels against the CPU kernels at awkward sizes, as a program of its own: small enough for compute-sanitizer.

`mojo build --target-accelerator sm_90a` makes it on a machine without a GPU. With any argument it checks a few sizes
only, enough for compute-sanitizer's racecheck. It fails unless every output, poisoned
beforehand, is what the CPU kernel gives; the numbers are small integers, so that sums are exact in every type.
"""

from std.math import isnan
from std.sys import argv
from std.utils.numerics import inf
from max.gpu.host import DeviceContext

from _ops.kernels.direct_cpu import direct_cpu
from _ops.kernels.direct_gpu import direct_gpu
from _ops.shared.border import (
    CONSTANT,
    MIRROR,
    NEAREST,
    OMIT,
    REFLECT,
    WRAP,
    Border,
)
from _ops.shared.geometry import Geometry


def check[
    dtype: DType
](
    ctx: DeviceContext,
    geometry: Geometry,
    shift: Int,
    mode: Int = OMIT,
    y_shift: Int = 0,
    has_infinity: Bool = False,
) raises:
    """Compares one call on the GPU with the same on the CPU.

    Parameters:
        dtype: Element type.

    Args:
        ctx: The device.
        geometry: Sizes and shifts of the call.
        shift: How many elements the signal begins behind an aligned address.
        mode: How the signals go on beyond their ends.
        y_shift: How many elements the outputs begin behind an aligned address.
        has_infinity: Whether a sample in the middle of each signal is infinite.

    Raises:
        If an output differs, or something else was written.
    """
    var border = Border[dtype](mode, 3)
    var x = ctx.enqueue_create_host_buffer[dtype](geometry.rows * geometry.samples + shift)
    var k = ctx.enqueue_create_host_buffer[dtype](geometry.tap_rows * geometry.taps)
    var y = ctx.enqueue_create_host_buffer[dtype](geometry.rows * geometry.outputs + 2 * y_shift)
    var expected = ctx.enqueue_create_host_buffer[dtype](geometry.rows * geometry.outputs)
    ctx.synchronize()
    for i in range(len(x)):
        x[i] = Scalar[dtype](i * 7 % 5 - 2)
    comptime if dtype.is_floating_point():
        if has_infinity:
            for row in range(geometry.rows):
                x[shift + row * geometry.samples + geometry.samples // 2] = inf[dtype]()
    for j in range(len(k)):
        k[j] = Scalar[dtype](j * 5 % 3 - 1)
    for i in range(len(y)):
        y[i] = Scalar[dtype](99)
    direct_cpu(
        pointer_to[dtype](Int(expected.unsafe_ptr())),
        pointer_to[dtype](Int(x.unsafe_ptr().unsafe_offset(shift))),
        pointer_to[dtype](Int(k.unsafe_ptr())),
        geometry,
        1,
        border,
    )
    var x_there = ctx.enqueue_create_buffer[dtype](len(x))
    var k_there = ctx.enqueue_create_buffer[dtype](len(k))
    var y_there = ctx.enqueue_create_buffer[dtype](len(y))
    ctx.enqueue_copy(x_there, x)
    ctx.enqueue_copy(k_there, k)
    ctx.enqueue_copy(y_there, y)
    direct_gpu(
        pointer_to[dtype](Int(y_there.unsafe_ptr().unsafe_offset(y_shift))),
        pointer_to[dtype](Int(x_there.unsafe_ptr().unsafe_offset(shift))),
        pointer_to[dtype](Int(k_there.unsafe_ptr())),
        geometry,
        ctx,
        border,
    )
    ctx.enqueue_copy(y, y_there)
    ctx.synchronize()
    for i in range(y_shift):
        if y[i] != Scalar[dtype](99) or y[len(y) - 1 - i] != Scalar[dtype](99):
            raise Error(
                dtype,
                ": N=",
                geometry.samples,
                " K=",
                geometry.taps,
                ": wrote outside y",
            )
    for i in range(geometry.rows * geometry.outputs):
        var found = y[y_shift + i]
        if found != expected[i] and not (isnan(found) and isnan(expected[i])):
            raise Error(
                dtype,
                ": N=",
                geometry.samples,
                " K=",
                geometry.taps,
                " border ",
                mode,
                " output ",
                i,
                ": ",
                found,
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


def check_few_taps(ctx: DeviceContext, is_brief: Bool) raises -> Int:
    """Checks filters that fit into registers: wherever in a vector signals and outputs begin, and with an infinity.

    Args:
        ctx: The device.
        is_brief: True: a few only.

    Returns:
        Number of calls.

    Raises:
        If one differs.
    """
    var checked = 0
    for taps in range(1, 19):
        for samples in [4, 16, 17, 8195]:
            for shift in range(0, 9):
                if is_brief and (taps % 5 != 3 or shift % 4 != 1 or samples > 100):
                    continue
                var same = Geometry(samples, taps, samples, taps // 2, True, 2, 1)
                var full = Geometry(samples, taps, samples + taps - 1, taps - 1, False, 3, 3)
                var late = Geometry(samples, taps, samples + 40, -7, False, 1, 1)
                comptime for dtype in [
                    DType.float32,
                    DType.float64,
                    DType.float16,
                    DType.bfloat16,
                    DType.int16,
                ]:
                    check[dtype](
                        ctx,
                        same,
                        shift,
                        OMIT,
                        shift * 3 % 8,
                        dtype.is_floating_point(),
                    )
                    check[dtype](ctx, full, shift, OMIT, shift * 5 % 8)
                    check[dtype](ctx, late, shift, REFLECT, shift)
                    checked += 3
    return checked


def check_many_tiles(ctx: DeviceContext, is_brief: Bool) raises -> Int:
    """Checks filters that fit into registers on so many tiles that a block computes several: rows end within a block's.

    Args:
        ctx: The device.
        is_brief: True: of 16 taps only.

    Returns:
        Number of calls.

    Raises:
        If one differs.
    """
    var checked = 0
    for taps in [16, 3]:
        var many = Geometry(8203, taps, 8203 + taps - 1, taps - 1, True, 1100, 1100)
        comptime for dtype in [DType.float32, DType.float64, DType.float16, DType.bfloat16]:
            check[dtype](ctx, many, taps % 4)
            check[dtype](ctx, many, 0, REFLECT, 1)
            checked += 2
        if is_brief:
            break
    return checked


def main() raises:
    """Checks every type at sizes around the tile (2048 outputs) and the tap chunk (256); with an argument, a few.

    Raises:
        If one differs.
    """
    var ctx = DeviceContext()
    var checked = 0
    var is_brief = len(argv()) > 1
    checked += check_many_tiles(ctx, is_brief)
    checked += check_few_taps(ctx, is_brief)
    for samples in [1, 3, 15, 255, 2047, 2048, 2049, 9001]:
        for taps in [1, 4, 7, 255, 256, 257, 600]:
            if is_brief and (samples % 7 != 1 or taps % 4 != 0):
                continue
            for shift in [0, 1]:
                var seed = Geometry(samples, taps, samples, 0, False, 1, 1)
                var full = Geometry(
                    samples,
                    taps,
                    samples + taps - 1,
                    taps - 1,
                    True,
                    3,
                    1 + 2 * shift,
                )
                var centred = Geometry(samples, taps, samples, taps // 2, True, 3, 1)
                comptime for dtype in [
                    DType.float32,
                    DType.float64,
                    DType.float16,
                    DType.bfloat16,
                    DType.int8,
                    DType.int64,
                ]:
                    check[dtype](ctx, seed, shift)
                    check[dtype](ctx, full, shift)
                    checked += 2
                    for mode in [CONSTANT, NEAREST, REFLECT, MIRROR, WRAP]:
                        check[dtype](ctx, centred, shift, mode)
                        checked += 1
    print(checked, "calls agree with the CPU kernels on", ctx.name())
