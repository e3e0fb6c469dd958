"""Sums down columns and conversions of types on a GPU, each beside a copy of as many bytes: for tuning, without Python.

    mojo build --target-accelerator sm_90a -I src/maxconv benchmarks/mojo/bench_columns_gpu.mojo -o bench_columns_gpu
"""

from std.sys.info import size_of
from max.gpu.host import DeviceContext

from _ops.kernels.cast_gpu import cast_gpu
from _ops.kernels.columns_gpu import columns_gpu
from _ops.shared.border import OMIT, Border
from _ops.shared.geometry import Geometry

comptime BYTES = 1 << 28
"""Of each array: more than any cache holds."""

comptime LAUNCHES = 10
"""Launches that are timed together."""


def time[F: def() raises -> None](ctx: DeviceContext, run: F) raises -> Float64:
    """Times a launch.

    Parameters:
        F: Its type.

    Args:
        ctx: The device.
        run: Enqueues it.

    Returns:
        Microseconds.

    Raises:
        If the device refuses.
    """
    _ = ctx.execution_time(run, 3)
    return Float64(ctx.execution_time(run, LAUNCHES)) / 1000 / LAUNCHES


def measure_columns[dtype: DType, per_column: Bool](ctx: DeviceContext, inner: Int, taps: Int) raises:
    """Times sums down the columns of a matrix.

    Parameters:
        dtype: Element type.
        per_column: Whether each column has a filter.

    Args:
        ctx: The device.
        inner: Columns.
        taps: K.

    Raises:
        If the device refuses.
    """
    var rows = BYTES // size_of[dtype]() // inner
    var x = ctx.enqueue_create_buffer[dtype](rows * inner)
    var y = ctx.enqueue_create_buffer[dtype](rows * inner)
    var k = ctx.enqueue_create_buffer[dtype](taps * inner)
    ctx.enqueue_memset(x, Scalar[dtype](1.37))
    ctx.enqueue_memset(k, Scalar[dtype](0.73))
    var yp = Pointer[Scalar[dtype], MutAnyOrigin](unsafe_from_address=Int(y.unsafe_ptr()))
    var xp = Pointer[Scalar[dtype], MutAnyOrigin](unsafe_from_address=Int(x.unsafe_ptr()))
    var kp = Pointer[Scalar[dtype], MutAnyOrigin](unsafe_from_address=Int(k.unsafe_ptr()))
    var geometry = Geometry(rows, taps, rows, taps // 2, True, 1, 1)

    def launch() raises {imm}:
        columns_gpu[dtype, per_column](yp, xp, kp, geometry, inner, Border[dtype](OMIT, 0), ctx)

    def copy() raises {imm}:
        ctx.enqueue_copy(y, x)

    var copying = time(ctx, copy)
    var summing = time(ctx, launch)
    print(t"{dtype} columns {inner} K {taps} filter a column {per_column}: {summing} us, {summing / copying} copies")
    _ = x^
    _ = y^
    _ = k^


def measure_cast[source: DType, dtype: DType](ctx: DeviceContext) raises:
    """Times the conversion of an array.

    Parameters:
        source: Element type of the array.
        dtype: Element type of the result.

    Args:
        ctx: The device.

    Raises:
        If the device refuses.
    """
    var count = BYTES // size_of[dtype]()
    var x = ctx.enqueue_create_buffer[source](count)
    var y = ctx.enqueue_create_buffer[dtype](count)
    var bytes = count * (size_of[source]() + size_of[dtype]()) // 2
    var copied = ctx.enqueue_create_buffer[DType.uint8](bytes)
    var copy_of = ctx.enqueue_create_buffer[DType.uint8](bytes)
    ctx.enqueue_memset(x, Scalar[source](1))
    ctx.enqueue_memset(copied, UInt8(1))
    var yp = Pointer[Scalar[dtype], MutAnyOrigin](unsafe_from_address=Int(y.unsafe_ptr()))
    var xp = Pointer[UInt8, MutAnyOrigin](unsafe_from_address=Int(x.unsafe_ptr()))

    def launch() raises {imm}:
        cast_gpu[dtype](yp, xp, source, count, ctx)

    def copy() raises {imm}:
        ctx.enqueue_copy(copy_of, copied)

    var copying = time(ctx, copy)
    var casting = time(ctx, launch)
    print(t"{source} as {dtype}: {casting} us, {casting / copying} copies")
    _ = x^
    _ = y^
    _ = copied^
    _ = copy_of^


def main() raises:
    """Times usual sizes.

    Raises:
        If the device refuses.
    """
    var ctx = DeviceContext()
    print(ctx.name())
    comptime for dtype in [DType.float32, DType.float64, DType.bfloat16]:
        for taps in [4, 16, 64]:
            measure_columns[dtype, False](ctx, 1024, taps)
        measure_columns[dtype, True](ctx, 1024, 16)
    measure_columns[DType.float32, False](ctx, 1023, 16)
    measure_columns[DType.float32, False](ctx, 2, 16)
    measure_cast[DType.bfloat16, DType.float32](ctx)
    measure_cast[DType.int8, DType.float32](ctx)
    measure_cast[DType.float64, DType.float32](ctx)
    measure_cast[DType.int32, DType.float64](ctx)
