"""Transforms longer than a block's shared memory, as a matrix: its columns, and the turn between columns and rows.

Computes:   the twiddle factors exp(-2*pi*i * column * frequency / nfft) of the four-step transform; where they, the
            roots of unity and the spectra lie in a plan; moves columns to and from the workspace.
Algorithm:  a table of one factor a thread and column; those of a thread's other registers are powers, by squaring.
Cost:       10 products of complex numbers for 16 points of a thread, 16 bytes of table (float32).
Layout:     plan: roots of unity of a column, twiddle factors, roots of unity of a row, a spectrum for each filter.
Accuracy:   tables are computed in float64 and rounded once; powers by at most 4 squarings.
Gate:       nfft from SHORTEST to LONGEST.
Tuning:     FFT_COLUMNS_COLUMN of tuning_gpu.mojo.
Source:     Bailey, FFTs in external or hierarchical memory, 1990 (the four-step transform).
"""

from std.sys.info import size_of
from max.gpu import block_idx, thread_idx

from .fft_points import LARGEST_SIZE, SMALLEST_SIZE, log2_exact, reversed_phase, threads
from .fft_threads import multiply, root_of_unity, roots_length
from .level2 import LINE_BYTES
from .tuning_gpu import FFT_COLUMNS_COLUMN as COLUMN

comptime SHORTEST = COLUMN * SMALLEST_SIZE
"""The shortest transform of this file: 2^18."""

comptime LONGEST = COLUMN * LARGEST_SIZE
"""The longest: 2^22."""


def lanes(bytes: Int) -> Int:
    """Counts the columns that a block transforms side by side.

    Args:
        bytes: Size of a real number.

    Returns:
        Columns: a whole line of a row of the workspace.
    """
    return LINE_BYTES // (2 * bytes)


def twiddle_length(nfft: Int) -> Int:
    """Gives the length of what `fill_twiddles` fills.

    Args:
        nfft: Length of the transform.

    Returns:
        Real numbers.
    """
    return 2 * (nfft // COLUMN) * (threads(COLUMN) + 1)


def row_roots_offset(nfft: Int) -> Int:
    """Gives where the roots of unity of a row begin in a plan.

    Args:
        nfft: Length of the transform.

    Returns:
        Elements of the accumulation type.
    """
    return roots_length(COLUMN) + twiddle_length(nfft)


def spectra_offset(nfft: Int) -> Int:
    """Gives where the spectra begin in a plan.

    Args:
        nfft: Length of the transform.

    Returns:
        Elements of the accumulation type.
    """
    return row_roots_offset(nfft) + roots_length(nfft // COLUMN)


def plan_length_long_gpu(nfft: Int, tap_rows: Int) -> Int:
    """Gives the length of a plan.

    Args:
        nfft: Length of the transform.
        tap_rows: Number of filters.

    Returns:
        Elements of the accumulation type.
    """
    return spectra_offset(nfft) + tap_rows * 2 * nfft


@always_inline
def row_frequency(thread: Int) -> Int:
    """Finds the frequency that a thread's first register holds after a column's transform.

    The order is bit-reversed; register e holds a frequency COLUMN / points(COLUMN) * reversed(e) higher.

    Args:
        thread: Index of the thread within the column.

    Returns:
        Frequency, below threads(COLUMN).
    """
    comptime bits = log2_exact(threads(COLUMN))
    return reversed_phase(thread, bits)


def fill_twiddles[acc: DType](twiddles: Pointer[Scalar[acc], MutAnyOrigin], row_length: Int64):
    """Kernel: computes exp(-2*pi*i * column * frequency / nfft) for the first register of each thread and column.

    Behind them lies, for each column, what turns register e's frequency further for each unit of its reversed index.

    Parameters:
        acc: Accumulation type.

    Args:
        twiddles: As many elements as `twiddle_length` says.
        row_length: Number of columns, a multiple of the threads of a block.
    """
    comptime THREADS = threads(COLUMN)
    var columns = Int(row_length)
    var column = Int(block_idx.x) * THREADS + Int(thread_idx.x)
    var thread = Int(block_idx.y)
    var frequency = row_frequency(thread) if thread < THREADS else THREADS
    var root = root_of_unity(-column * frequency, columns * COLUMN)
    var place = 2 * (thread * columns + column)
    twiddles[unsafe_offset=place] = root[0].cast[acc]()
    twiddles[unsafe_offset=place + 1] = root[1].cast[acc]()


@always_inline
def turn[
    acc: DType, count: Int, //, is_back: Bool
](
    mut re: Array[Scalar[acc], count],
    mut im: Array[Scalar[acc], count],
    twiddles: Pointer[Scalar[acc], MutAnyOrigin],
    columns: Int,
    column: Int,
    thread: Int32,
):
    """Multiplies a thread's points of a column by their twiddle factors.

    The factor of register e is base * step^reversed(e): four squarings and up to five products, against a table as
    long as the signal.

    Parameters:
        acc: Accumulation type.
        count: Points of a thread, a power of two.
        is_back: True: by the conjugate factors.

    Args:
        re: Real parts, in the order after a column's transform.
        im: Imaginary parts.
        twiddles: What `fill_twiddles` filled.
        columns: Number of columns.
        column: Index of the column.
        thread: Index of the thread within the column.
    """
    comptime WIDTH = 2 * size_of[acc]()
    var mine = twiddles.unsafe_offset(2 * column)
    var factor = mine.unsafe_load[width=2, alignment=WIDTH, invariant=True](2 * Int(thread) * columns)
    var step = mine.unsafe_load[width=2, alignment=WIDTH, invariant=True](2 * threads(COLUMN) * columns)
    comptime if is_back:
        factor[1] = -factor[1]
        step[1] = -step[1]
    comptime for e in range(count):
        var product = multiply(SIMD[acc, 2](re[e], im[e]), factor)
        re[e] = product[0]
        im[e] = product[1]
    comptime bits = log2_exact(count)
    comptime for bit in range(bits):
        comptime for e in range(count):
            comptime if (e >> (bits - 1 - bit)) & 1 == 1:
                var product = multiply(SIMD[acc, 2](re[e], im[e]), step)
                re[e] = product[0]
                im[e] = product[1]
        comptime if bit < bits - 1:
            step = multiply(step, step)


@always_inline
def move_column[
    acc: DType, count: Int, //, is_store: Bool
](
    mut re: Array[Scalar[acc], count],
    mut im: Array[Scalar[acc], count],
    matrix: Pointer[Scalar[acc], MutAnyOrigin],
    columns: Int,
    column: Int,
    thread: Int32,
):
    """Reads or writes a thread's points of a column in the workspace.

    Parameters:
        acc: Accumulation type.
        count: Points of a thread.
        is_store: True: writes.

    Args:
        re: Real parts, in the order after a column's transform.
        im: Imaginary parts.
        matrix: One matrix of the workspace.
        columns: Number of columns.
        column: Index of the column.
        thread: Index of the thread within the column.
    """
    comptime WIDTH = 2 * size_of[acc]()
    var mine = matrix.unsafe_offset(2 * (Int(thread) * count * columns + column))
    comptime for e in range(count):
        comptime if is_store:
            mine.unsafe_store[alignment=WIDTH](0, SIMD[acc, 2](re[e], im[e]))
        else:
            var point = mine.unsafe_load[width=2, alignment=WIDTH](0)
            re[e] = point[0]
            im[e] = point[1]
        mine = mine.unsafe_offset(2 * columns)
