"""Copy of some columns of a matrix on GPU: what puts the blocks of a stream together and keeps their ends.

Computes:   y[r, i] = x[r, i], i in [0, count), r in [0, rows).
Algorithm:  a thread an element; one row of thread blocks for each row.
Cost:       no arithmetic; reads and writes each element once, memory-bound.
Layout:     rows of x and of y any number of elements apart; elements within a row contiguous.
Accuracy:   exact.
Gate:       rows, count >= 0; x and y do not overlap.
Tuning:     none: streams come in small blocks, where the launch is what costs.
Source:     none needed.
"""

from std.math import ceildiv
from max.gpu import block_idx, thread_idx
from max.gpu.host import DeviceContext

from ..shared.tuning_gpu import COPY_COLUMNS_THREADS as THREADS, MAX_GRID_ROWS


def copy_columns_gpu[
    dtype: DType
](
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    rows: Int,
    count: Int,
    y_stride: Int,
    x_stride: Int,
    ctx: DeviceContext,
) raises:
    """Enqueues the copy; returns before it is done.

    Parameters:
        dtype: Any type of the elements' size.

    Args:
        y: First element to write on the device.
        x: First element to read on the device.
        rows: Number of rows.
        count: Elements of each row.
        y_stride: Elements from one row of y to the next.
        x_stride: Elements from one row of x to the next.
        ctx: The device and its queue.

    Raises:
        If the launch is refused.
    """
    if count == 0:
        return  # a grid of no blocks is an error
    comptime kernel = copy_element[dtype]
    for first_row in range(0, rows, MAX_GRID_ROWS):
        ctx.enqueue_function[kernel](
            y.unsafe_offset(first_row * y_stride),
            x.unsafe_offset(first_row * x_stride),
            Int64(count),
            Int64(y_stride),
            Int64(x_stride),
            grid_dim=(ceildiv(count, THREADS), min(MAX_GRID_ROWS, rows - first_row)),
            block_dim=THREADS,
        )


def copy_element[
    dtype: DType
](
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    count: Int64,
    y_stride: Int64,
    x_stride: Int64,
):
    """Kernel: each thread copies one element.

    Parameters:
        dtype: Element type.

    Args:
        y: First element to write.
        x: First element to read.
        count: Elements of each row.
        y_stride: Elements from one row of y to the next.
        x_stride: Elements from one row of x to the next.
    """
    var i = Int(block_idx.x) * THREADS + Int(thread_idx.x)
    var row = Int(block_idx.y)
    if i < Int(count):
        y[unsafe_offset=row * Int(y_stride) + i] = x[unsafe_offset=row * Int(x_stride) + i]
