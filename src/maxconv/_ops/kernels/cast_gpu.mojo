"""Conversion of element types on GPU, for arrays there that are of another type than their result.

Computes:   y[i] = x[i] as `target`, i in [0, count); rounded to nearest where `target` holds fewer digits.
Algorithm:  a thread an element, and every so many further ones.
Cost:       no arithmetic; reads and writes each element once, memory-bound.
Layout:     x, y contiguous.
Accuracy:   exact, or one rounding.
Gate:       none: any count >= 0.
Tuning:     the constants below; none was measured yet.
Source:     none needed.
"""

from std.math import ceildiv
from max.gpu import block_idx, grid_dim, thread_idx
from max.gpu.host import DeviceContext

comptime THREADS = 256
"""Threads of a block."""

comptime MAX_BLOCKS = 1 << 13
"""Blocks of a launch: some 8 times as many as an H200 holds."""


def cast_gpu[
    target: DType, source: DType
](
    y: Pointer[Scalar[target], MutAnyOrigin],
    x: Pointer[Scalar[source], MutAnyOrigin],
    count: Int,
    ctx: DeviceContext,
) raises:
    """Enqueues the conversion of all elements; returns before it is done.

    Parameters:
        target: Element type of y.
        source: Element type of x.

    Args:
        y: The converted elements on the device.
        x: The elements on the device.
        count: How many.
        ctx: The device and its queue.

    Raises:
        If the launch is refused.
    """
    if count == 0:
        return  # a grid of no blocks is an error
    comptime kernel = cast_elements[target, source]
    ctx.enqueue_function[kernel](
        y, x, Int64(count), grid_dim=min(ceildiv(count, THREADS), MAX_BLOCKS), block_dim=THREADS
    )


def cast_elements[
    target: DType, source: DType
](y: Pointer[Scalar[target], MutAnyOrigin], x: Pointer[Scalar[source], MutAnyOrigin], count: Int64):
    """Kernel: each thread converts one element and every so many further ones.

    Parameters:
        target: Element type of y.
        source: Element type of x.

    Args:
        y: The converted elements.
        x: The elements.
        count: How many.
    """
    var i = Int(block_idx.x) * THREADS + Int(thread_idx.x)
    while i < Int(count):
        y[unsafe_offset=i] = x[unsafe_offset=i].cast[target]()
        i += Int(grid_dim.x) * THREADS
