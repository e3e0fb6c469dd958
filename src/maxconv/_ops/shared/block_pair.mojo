"""Two neighbouring blocks of overlap-save as real and imaginary part of one complex transform on GPU.

The taps are real, so both parts come out convolved. Of nfft outputs of a block the first `hop` are good, and the next
block begins `hop` samples later. A thread holds the points first, first + spacing, first + 2*spacing, ... of both.
"""

from .border import Border
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
    dtype: DType, acc: DType, count: Int
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
):
    """Reads a thread's points of both blocks.

    Parameters:
        dtype: Element type of the signal.
        acc: Type of the transform.
        count: Points of a thread.

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
    """
    if is_interior:
        var block = x.unsafe_offset(first)
        var next_block = block.unsafe_offset(hop)
        comptime for e in range(count):
            re[e] = block.unsafe_load[invariant=True](spacing * e).cast[acc]()
            im[e] = next_block.unsafe_load[invariant=True](spacing * e).cast[acc]()
    else:
        comptime for e in range(count):
            re[e] = border.sample(x, first + spacing * e, samples).cast[acc]()
            im[e] = border.sample(x, first + spacing * e + hop, samples).cast[acc]()


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
    var block = y.unsafe_offset(begin + Int(first))
    var next_block = block.unsafe_offset(Int(hop))
    var left = hop - first  # in outputs
    if begin + 2 * Int(hop) <= outputs:
        comptime for e in range(count):
            if Int32(spacing * e) < left:
                block[unsafe_offset=spacing * e] = re[e].cast[dtype]()
                next_block[unsafe_offset=spacing * e] = im[e].cast[dtype]()
    else:
        var end = outputs - begin - Int(first)
        comptime for e in range(count):
            if Int32(spacing * e) < left:
                if spacing * e < end:
                    block[unsafe_offset=spacing * e] = re[e].cast[dtype]()
                if spacing * e + Int(hop) < end:
                    next_block[unsafe_offset=spacing * e] = im[e].cast[dtype]()


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
