"""Two neighbouring blocks of overlap-save as real and imaginary part of one complex transform on GPU.

The taps are real, so both parts come out convolved. Of nfft outputs of a block the first `hop` are good, and the next
block begins `hop` samples later. A thread holds the points first, first + spacing, first + 2*spacing, ... of both.
"""

from std.sys.info import size_of

from .border import Border
from .fft_points import padded_place, read_points, threads
from .geometry import Geometry

comptime STORE_ELEMENTS = 32
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


@always_inline
def load_pair[
    dtype: DType, acc: DType, count: Int, //, length: Int, lanes: Int = 1
](
    mut re: Array[Scalar[acc], count],
    mut im: Array[Scalar[acc], count],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    first: Int,
    spacing: Int,
    hop: Int,
    samples: Int,
    border: Border[dtype],
    is_interior: Bool,
    shared: Pointer[Scalar[acc], MutUntrackedOrigin, address_space=AddressSpace.SHARED],
    thread: Int32,
):
    """Reads a thread's points of both blocks.

    Near the ends of the signal by way of the thread's own places in shared memory, in a loop that is not unrolled:
    the arithmetic of borders, once for each point, would cost every block registers.

    Parameters:
        dtype: Element type of the signal.
        acc: Type of the transform.
        count: Points of a thread.
        length: Length of the transform that follows.
        lanes: Transforms side by side.

    Args:
        re: Where the points of the first block go.
        im: Where those of the second go.
        x: The row of the signal.
        first: Position of the thread's first point in the row; may lie outside.
        spacing: Samples from one of its points to the next.
        hop: Samples from the first block to the second.
        samples: N.
        border: What lies beyond the ends; to OMIT terms its value must be 0.
        is_interior: True if both blocks lie inside the row.
        shared: The exchange memory of the transform that follows.
        thread: Index of the thread within its transform.
    """
    if is_interior:
        var block = x.unsafe_offset(first)
        var next_block = block.unsafe_offset(hop)
        comptime for e in range(count):
            re[e] = block.unsafe_load[invariant=True](spacing * e).cast[acc]()
            im[e] = next_block.unsafe_load[invariant=True](spacing * e).cast[acc]()
    else:
        for e in range(count):
            var position = first + spacing * e
            var point = SIMD[acc, 2](
                border.sample(x, position, samples).cast[acc](), border.sample(x, position + hop, samples).cast[acc]()
            )
            var place = Int32(2 * lanes) * padded_place[length, lanes](thread + Int32(threads(length) * e))
            shared.unsafe_store[alignment=2 * size_of[acc]()](place, point)
        read_points[length, 0, lanes](re, im, shared, thread)


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
    hop: Int32,
    outputs: Int,
):
    """Writes those of a thread's points that are good outputs.

    Parameters:
        dtype: Element type of the output.
        acc: Type of the transform.
        count: Points of a thread.

    Args:
        y: The row of the output.
        re: Points of the first block.
        im: Points of the second block.
        begin: Output that the first block begins with.
        first: The thread's first point within the block.
        spacing: Outputs from one of its points to the next.
        hop: Good outputs of a block.
        outputs: L_out.
    """
    # Stepping pointers, because sixteen addresses each would not fit the registers where `spacing` is a variable.
    var block = y.unsafe_offset(begin + Int(first))
    var next_block = block.unsafe_offset(Int(hop))
    # How far this thread's outputs reach in either block; one branch for whole and for cut blocks spares registers.
    var end = Int32(min(outputs - begin - Int(first), 2 * Int(hop)))
    var limit = min(hop - first, end)
    var next_limit = min(hop - first, end - hop)
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
