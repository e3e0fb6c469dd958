"""The GPU column kernels against the CPU column kernels at awkward sizes, as a program of its own.

`mojo build --target-accelerator sm_90a` makes it on a machine without a GPU. With any argument it checks a few sizes
only, enough for compute-sanitizer's racecheck. It fails unless every output, poisoned beforehand, is what the CPU
kernel gives; the numbers are small integers, so that sums are exact in every type.
"""

from std.sys import argv
from max.gpu.host import DeviceContext

from _ops.kernels.columns_cpu import columns_cpu
from _ops.kernels.columns_gpu import columns_gpu
from _ops.shared.border import OMIT, WRAP, Border
from _ops.shared.geometry import Geometry


def check[
    dtype: DType, per_column: Bool
](ctx: DeviceContext, geometry: Geometry, inner: Int, mode: Int, shift: Int) raises:
    """Compares one call on the GPU with the same on the CPU.

    Parameters:
        dtype: Element type.
        per_column: Whether there is a filter for each column.

    Args:
        ctx: The device.
        geometry: Sizes and shifts of the call.
        inner: Columns.
        mode: Of the border.
        shift: How many elements the signal begins behind an aligned address.

    Raises:
        If an output differs.
    """
    var x = ctx.enqueue_create_host_buffer[dtype](geometry.rows * geometry.samples * inner + shift)
    var k = ctx.enqueue_create_host_buffer[dtype](geometry.taps * (inner if per_column else 1))
    var y = ctx.enqueue_create_host_buffer[dtype](geometry.rows * geometry.outputs * inner)
    var expected = ctx.enqueue_create_host_buffer[dtype](len(y))
    ctx.synchronize()
    for i in range(len(x)):
        x[i] = Scalar[dtype](i * 7 % 5 - 2)
    for j in range(len(k)):
        k[j] = Scalar[dtype](j * 5 % 3 - 1)
    for i in range(len(y)):
        y[i] = Scalar[dtype](99)
    var border = Border[dtype](mode, 2)
    columns_cpu[dtype, per_column](
        pointer_to[dtype](Int(expected.unsafe_ptr())),
        pointer_to[dtype](Int(x.unsafe_ptr().unsafe_offset(shift))),
        pointer_to[dtype](Int(k.unsafe_ptr())),
        geometry,
        inner,
        border,
        1,
    )
    var x_there = ctx.enqueue_create_buffer[dtype](len(x))
    var k_there = ctx.enqueue_create_buffer[dtype](len(k))
    var y_there = ctx.enqueue_create_buffer[dtype](len(y))
    ctx.enqueue_copy(x_there, x)
    ctx.enqueue_copy(k_there, k)
    ctx.enqueue_copy(y_there, y)
    columns_gpu[dtype, per_column](
        pointer_to[dtype](Int(y_there.unsafe_ptr())),
        pointer_to[dtype](Int(x_there.unsafe_ptr().unsafe_offset(shift))),
        pointer_to[dtype](Int(k_there.unsafe_ptr())),
        geometry,
        inner,
        border,
        ctx,
    )
    ctx.enqueue_copy(y, y_there)
    ctx.synchronize()
    for i in range(len(y)):
        if y[i] != expected[i]:
            raise Error(
                dtype,
                ": N=",
                geometry.samples,
                " K=",
                geometry.taps,
                " columns=",
                inner,
                " border=",
                mode,
                " output ",
                i,
                ": ",
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


def main() raises:
    """Checks every type at sizes around a run (8 rows), a tile (64) and a warp (32 lanes); with an argument, a few.

    Raises:
        If one differs.
    """
    var ctx = DeviceContext()
    var checked = 0
    var is_brief = len(argv()) > 1
    for inner in [1, 2, 16, 33, 128, 144, 1040]:
        for samples in [1, 7, 63, 65, 200]:
            for taps in [1, 7, 8, 9, 33]:
                if is_brief and (samples % 7 != 0 or taps % 4 != 1):
                    continue
                for mode in range(OMIT, WRAP + 1):
                    var shift = (inner + samples + taps) % 2
                    var full = Geometry(samples, taps, samples + taps - 1, taps - 1, True, 2, 1)
                    var late = Geometry(samples, taps, samples + 3, -2, False, 1, 1)
                    comptime for dtype in [
                        DType.float32,
                        DType.float64,
                        DType.float16,
                        DType.bfloat16,
                        DType.int8,
                        DType.int64,
                    ]:
                        check[dtype, False](ctx, full, inner, mode, shift)
                        check[dtype, True](ctx, late, inner, mode, 0)
                        checked += 2
    print(checked, "calls agree with the CPU kernels on", ctx.name())
