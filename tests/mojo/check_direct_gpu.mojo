"""The GPU kernels against the CPU kernels at awkward sizes, as a program of its own: small enough for compute-sanitizer.

`mojo build --target-accelerator sm_90a` makes it on a machine without a GPU. With any argument it checks a few sizes
only, enough for compute-sanitizer's racecheck. It fails unless every output, poisoned
beforehand, is what the CPU kernel gives; the numbers are small integers, so that sums are exact in every type.
"""

from std.sys import argv
from max.gpu.host import DeviceContext

from _ops.kernels.direct_cpu import direct_cpu
from _ops.kernels.direct_gpu import direct_gpu
from _ops.shared.border import CONSTANT, MIRROR, NEAREST, OMIT, REFLECT, WRAP, Border
from _ops.shared.geometry import Geometry


def check[dtype: DType](ctx: DeviceContext, geometry: Geometry, shift: Int, mode: Int = OMIT) raises:
    """Compares one call on the GPU with the same on the CPU.

    Parameters:
        dtype: Element type.

    Args:
        ctx: The device.
        geometry: Sizes and shifts of the call.
        shift: How many elements the signal begins behind an aligned address.
        mode: How the signals go on beyond their ends.

    Raises:
        If an output differs.
    """
    var border = Border[dtype](mode, 3)
    var x = ctx.enqueue_create_host_buffer[dtype](geometry.rows * geometry.samples + shift)
    var k = ctx.enqueue_create_host_buffer[dtype](geometry.tap_rows * geometry.taps)
    var y = ctx.enqueue_create_host_buffer[dtype](geometry.rows * geometry.outputs)
    var expected = ctx.enqueue_create_host_buffer[dtype](geometry.rows * geometry.outputs)
    ctx.synchronize()
    for i in range(len(x)):
        x[i] = Scalar[dtype](i * 7 % 5 - 2)
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
        pointer_to[dtype](Int(y_there.unsafe_ptr())),
        pointer_to[dtype](Int(x_there.unsafe_ptr().unsafe_offset(shift))),
        pointer_to[dtype](Int(k_there.unsafe_ptr())),
        geometry,
        ctx,
        border,
    )
    ctx.enqueue_copy(y, y_there)
    ctx.synchronize()
    for i in range(geometry.rows * geometry.outputs):
        if y[i] != expected[i]:
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
    """Checks every type at sizes around the tile (2048 outputs) and the tap chunk (256); with an argument, a few.

    Raises:
        If one differs.
    """
    var ctx = DeviceContext()
    var checked = 0
    var is_brief = len(argv()) > 1
    for samples in [1, 3, 15, 255, 2047, 2048, 2049, 9001]:
        for taps in [1, 4, 7, 255, 256, 257, 600]:
            if is_brief and (samples % 7 != 1 or taps % 4 != 0):
                continue
            for shift in [0, 1]:
                var seed = Geometry(samples, taps, samples, 0, False, 1, 1)
                var full = Geometry(samples, taps, samples + taps - 1, taps - 1, True, 3, 1 + 2 * shift)
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
