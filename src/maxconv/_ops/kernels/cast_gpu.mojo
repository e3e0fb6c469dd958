"""Conversion of element types on GPU, for arrays there that are of another type than their result.

Computes:   y[i] = x[i] as `dtype`, i in [0, count); rounded to nearest where `dtype` holds fewer digits.
Algorithm:  a thread an element, and every so many further ones; the same kernel for every source, chosen at run time:
            one for each pair of types would take longer to build than all other kernels.
Cost:       no arithmetic; reads and writes each element once, memory-bound.
Layout:     x, y contiguous.
Accuracy:   exact, or one rounding.
Gate:       none: any count >= 0.
Tuning:     shared/tuning_gpu.mojo; no other numbers were measured.
Measured:   by benchmarks/mojo/bench_columns_gpu.mojo on an H200 (2026-11-23), 256 MB of results, in copies of the
            bytes: bfloat16 to float32 1.57, int8 to float32 1.81, float64 to float32 1.12, int32 to float64 1.18.
Source:     none needed.
"""

from std.math import ceildiv
from max.gpu import block_idx, grid_dim, thread_idx
from max.gpu.host import DeviceContext

from ..shared.tuning_gpu import CAST_MAX_BLOCKS as MAX_BLOCKS, CAST_THREADS as THREADS

comptime SOURCES = [
    DType.bool,
    DType.float16,
    DType.bfloat16,
    DType.float32,
    DType.float64,
    DType.int8,
    DType.int16,
    DType.int32,
    DType.int64,
    DType.uint8,
    DType.uint16,
    DType.uint32,
    DType.uint64,
]
"""Element types that are converted."""


def cast_gpu[
    dtype: DType
](
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[UInt8, MutAnyOrigin],
    source: DType,
    count: Int,
    ctx: DeviceContext,
) raises:
    """Enqueues the conversion of all elements; returns before it is done.

    Parameters:
        dtype: Element type of y.

    Args:
        y: The converted elements on the device.
        x: The elements on the device, wherever `source` may lie.
        source: Element type of x, one of `SOURCES`; nothing is written for others.
        count: How many.
        ctx: The device and its queue.

    Raises:
        If the launch is refused.
    """
    if count == 0:
        return  # a grid of no blocks is an error
    var code = Int32(-1)
    comptime for place in range(len(SOURCES)):
        comptime given = SOURCES[place]
        if source == given:
            code = Int32(place)
    comptime kernel = cast_elements[dtype]
    ctx.enqueue_function[kernel](
        y, x, Int64(count), code, grid_dim=min(ceildiv(count, THREADS), MAX_BLOCKS), block_dim=THREADS
    )


def cast_elements[
    dtype: DType
](y: Pointer[Scalar[dtype], MutAnyOrigin], x: Pointer[UInt8, MutAnyOrigin], count: Int64, source: Int32):
    """Kernel: each thread converts one element and every so many further ones.

    Parameters:
        dtype: Element type of y.

    Args:
        y: The converted elements.
        x: The elements.
        count: How many.
        source: Which of `SOURCES` they are.
    """
    comptime for place in range(len(SOURCES)):
        comptime given = SOURCES[place]
        if source == Int32(place):
            var elements = x.unsafe_bitcast[Scalar[given]]()
            var i = Int(block_idx.x) * THREADS + Int(thread_idx.x)
            while i < Int(count):
                y[unsafe_offset=i] = elements[unsafe_offset=i].cast[dtype]()
                i += Int(grid_dim.x) * THREADS
