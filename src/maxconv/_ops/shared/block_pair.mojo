"""Blocks of overlap-save as complex numbers on GPU: two as real and imaginary part, or the halves of a long one.

The taps are real, so two blocks of one complex transform both come out convolved. Of nfft outputs of a block the first
`hop` are good, and the next block begins `hop` samples later. A block above LONGEST_PAIRED is *folded* instead: its
second half is the imaginary part of its first, in a transform of half the length whose products are taken modulo
t^(nfft/2) - i, so that a sum that leaves the block comes in again at its beginning with the other sign, where it spoils
what would be spoilt anyway. With the same points it has one hop of 2n - K + 1 where two blocks have 2 of n - K + 1.
A thread holds the points first, first + spacing, first + 2*spacing, ... of both parts.
"""

from std.sys.info import size_of

from .border import CONSTANT, Border
from .fft_points import padded_place, read_points, threads
from .geometry import Geometry
from .level2 import LINE_BYTES
from .tuning_gpu import BLOCK_PAIR_LONGEST_PAIRED as LONGEST_PAIRED

comptime FAR = 1 << 30
"""Further than a thread's points reach."""

comptime STORE_ELEMENTS = LINE_BYTES // 4
"""Hop is a multiple of it where possible: float32 blocks then begin on whole lines of 128 bytes."""


def hop_length(nfft: Int, taps: Int) -> Int:
    """Gives the outputs of one real block.

    Args:
        nfft: Length of the transform.
        taps: K, at most `nfft`.

    Returns:
        At most nfft - K + 1.
    """
    var hop = nfft - taps + 1
    return hop // STORE_ELEMENTS * STORE_ELEMENTS if hop >= 8 * STORE_ELEMENTS else hop


def is_folded(nfft: Int) -> Bool:
    """Tells whether blocks of a length are folded.

    Args:
        nfft: Length of a block.

    Returns:
        False if two share a transform.
    """
    return nfft > LONGEST_PAIRED


def transform_length(nfft: Int) -> Int:
    """Gives the length of the complex transform.

    Args:
        nfft: Length of a block.

    Returns:
        Points.
    """
    return nfft // 2 if is_folded(nfft) else nfft


def reach(nfft: Int, hop: Int) -> Int:
    """Gives the good outputs of one transform.

    Args:
        nfft: Length of a block.
        hop: Good outputs of a block.

    Returns:
        Those of one block, or of two.
    """
    return hop if is_folded(nfft) else 2 * hop


@always_inline
def load_pair[
    dtype: DType, acc: DType, count: Int, //, length: Int, lanes: Int = 1
](
    mut re: Array[Scalar[acc], count],
    mut im: Array[Scalar[acc], count],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    first: Int,
    spacing: Int,
    distance: Int,
    samples: Int,
    border: Border[dtype],
    is_interior: Bool,
    shared: Pointer[Scalar[acc], MutUntrackedOrigin, address_space=AddressSpace.SHARED],
    thread: Int32,
):
    """Reads a thread's points of both parts.

    Where a signal is mirrored or repeated beyond its ends, by way of the thread's own places in shared memory, in a loop that is not unrolled:
    the arithmetic of borders, once for each point, would cost every block registers.

    Parameters:
        dtype: Element type of the signal.
        acc: Type of the transform.
        count: Points of a thread.
        length: Length of the transform that follows.
        lanes: Transforms side by side.

    Args:
        re: Where the points of the first part go.
        im: Where those of the second go.
        x: The row of the signal.
        first: Position of the thread's first point in the row; may lie outside.
        spacing: Samples from one of its points to the next.
        distance: Samples from the first part to the second.
        samples: N.
        border: What lies beyond the ends; to OMIT terms its value must be 0.
        is_interior: True if both parts lie inside the row.
        shared: The exchange memory of the transform that follows.
        thread: Index of the thread within its transform.
    """
    if is_interior:
        var block = x.unsafe_offset(first)
        var next_block = block.unsafe_offset(distance)
        comptime for e in range(count):
            re[e] = block.unsafe_load[invariant=True](spacing * e).cast[acc]()
            im[e] = next_block.unsafe_load[invariant=True](spacing * e).cast[acc]()
    elif border.mode <= CONSTANT:
        load_existing(re, x, first, spacing, samples, border.value)
        load_existing(im, x, first + distance, spacing, samples, border.value)
    else:
        for e in range(count):
            var position = first + spacing * e
            var point = SIMD[acc, 2](
                border.sample(x, position, samples).cast[acc](),
                border.sample(x, position + distance, samples).cast[acc](),
            )
            var place = Int32(2 * lanes) * padded_place[length, lanes](thread + Int32(threads(length) * e))
            shared.unsafe_store[alignment=2 * size_of[acc]()](place, point)
        read_points[length, 0, lanes](re, im, shared, thread)


@always_inline
def load_existing[
    dtype: DType, acc: DType, count: Int
](
    mut part: Array[Scalar[acc], count],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    first: Int,
    spacing: Int,
    samples: Int,
    value: Scalar[dtype],
):
    """Reads a thread's points of one part that lies in the row only partly.

    Parameters:
        dtype: Element type of the signal.
        acc: Type of the transform.
        count: Points of a thread.

    Args:
        part: Where the points go.
        x: The row of the signal.
        first: Position of the thread's first point in the row; may lie outside.
        spacing: Samples from one of its points to the next.
        samples: N.
        value: What stands where there is no sample.
    """
    var begin = Int32(min(max(-first, 0), FAR))
    var end = Int32(min(max(samples - first, 0), FAR))
    comptime for e in range(count):
        var at = Int32(spacing * e)
        part[e] = value.cast[acc]()
        if begin <= at and at < end:
            part[e] = x.unsafe_load[invariant=True](first + spacing * e).cast[acc]()


@always_inline
def store_pair[
    dtype: DType, acc: DType, count: Int
](
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    re: Array[Scalar[acc], count],
    im: Array[Scalar[acc], count],
    begin: Int,
    first: Int32,
    spacing: Int,
    distance: Int32,
    good: Int32,
    outputs: Int,
):
    """Writes those of a thread's points that are good outputs.

    Parameters:
        dtype: Element type of the output.
        acc: Type of the transform.
        count: Points of a thread.

    Args:
        y: The row of the output.
        re: Points of the first part.
        im: Points of the second part.
        begin: Output that the first part begins with.
        first: The thread's first point within its part.
        spacing: Outputs from one of its points to the next.
        distance: Outputs from the first part to the second.
        good: Good outputs of both.
        outputs: L_out.
    """
    # Stepping pointers, because sixteen addresses each would not fit the registers where `spacing` is a variable.
    var block = y.unsafe_offset(begin + Int(first))
    var next_block = block.unsafe_offset(Int(distance))
    # How far this thread's outputs reach in either part; one branch for whole and for cut blocks spares registers.
    var end = Int32(min(outputs - begin, Int(good))) - first
    var limit = min(distance - first, end)
    var next_limit = min(distance - first, end - distance)
    comptime for e in range(count):
        if Int32(spacing * e) < limit:
            block[unsafe_offset=0] = re[e].cast[dtype]()
        if Int32(spacing * e) < next_limit:
            next_block[unsafe_offset=0] = im[e].cast[dtype]()
        block = block.unsafe_offset(spacing)
        next_block = next_block.unsafe_offset(spacing)


@always_inline
def load_taps[
    dtype: DType, acc: DType, count: Int
](
    mut re: Array[Scalar[acc], count],
    k: Pointer[Scalar[dtype], MutAnyOrigin],
    first: Int,
    spacing: Int,
    nfft: Int,
    taps: Int,
    is_flipped: Bool,
):
    """Reads a thread's points of the filter, divided by nfft.

    The cyclic convolution with h gives z[i + j] * g[j] summed over j if h[-j mod nfft] = g[j] = k[tap_index(j)].

    Parameters:
        dtype: Element type of the taps.
        acc: Type of the transform.
        count: Points of a thread.

    Args:
        re: Where the points go; those that meet no tap stay as they are.
        k: Taps.
        first: The thread's first point.
        spacing: Distance from one of its points to the next.
        nfft: Length of the transform.
        taps: K.
        is_flipped: True for convolution, False for correlation.
    """
    var geometry = Geometry(samples=0, taps=taps, outputs=0, pad_left=0, flip=is_flipped, rows=1, tap_rows=1)
    var scale = (1 / Float64(nfft)).cast[acc]()
    comptime for e in range(count):
        var j = (nfft - first - spacing * e) & (nfft - 1)
        if j < taps:
            re[e] = k[unsafe_offset=geometry.tap_index(j)].cast[acc]() * scale


@always_inline
def load_folded_taps[
    dtype: DType, acc: DType, count: Int
](
    mut re: Array[Scalar[acc], count],
    mut im: Array[Scalar[acc], count],
    k: Pointer[Scalar[dtype], MutAnyOrigin],
    first: Int,
    spacing: Int,
    length: Int,
    taps: Int,
    is_flipped: Bool,
):
    """Reads a thread's points of the filter for folded blocks, divided by the length of the transform.

    As in `load_taps` h[-j] = g[j], where now h[-j] = -h[2*length - j], and the second half of h is the imaginary part.

    Parameters:
        dtype: Element type of the taps.
        acc: Type of the transform.
        count: Points of a thread.

    Args:
        re: Where the real parts go; those that meet no tap stay as they are.
        im: Where the imaginary parts go.
        k: Taps.
        first: The thread's first point.
        spacing: Distance from one of its points to the next.
        length: Length of the transform.
        taps: K.
        is_flipped: True for convolution, False for correlation.
    """
    var geometry = Geometry(samples=0, taps=taps, outputs=0, pad_left=0, flip=is_flipped, rows=1, tap_rows=1)
    var scale = (1 / Float64(length)).cast[acc]()
    comptime for e in range(count):
        var n = first + spacing * e
        if n == 0:
            re[e] = k[unsafe_offset=geometry.tap_index(0)].cast[acc]() * scale
        elif 2 * length - n < taps:
            re[e] = -k[unsafe_offset=geometry.tap_index(2 * length - n)].cast[acc]() * scale
        if length - n < taps:
            im[e] = -k[unsafe_offset=geometry.tap_index(length - n)].cast[acc]() * scale
