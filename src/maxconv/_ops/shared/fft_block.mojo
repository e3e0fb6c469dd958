"""One block of overlap-save on CPU: where it lies, and the passes that read its samples and write its outputs.

Computes:   the first pass of a block's transform, from x; the last one, to y; what lies between: fft_lanes.mojo.
Algorithm:  a real block of nfft samples is nfft/2 complex coefficients, its second half their imaginary part. Lines of
            SIMD width: neighbouring samples are neighbouring lanes. Samples that do not exist are masked, or read one
            by one from the other end as a `Border` says.
Cost:       2 passes over the block, in the cache; each does `levels` stages of the transform on the way.
Layout:     plan: twiddle factors, then the spectrum of the taps, from the first cache line of its buffer on.
Accuracy:   as overlap_save_cpu.mojo says.
Gate:       nfft a power of two of at least `shortest_block`.
Tuning:     PASS_LEVELS in fft_plan.mojo.
Source:     right-angle convolution: Crandall and Fagin, Discrete weighted transforms and large-integer arithmetic,
            Math. Comp. 62 (1994).
"""

from std.math import ceildiv, iota
from std.sys.info import simd_width_of, size_of
from std.sys.intrinsics import masked_load, masked_store

from .accumulate import accum_dtype
from .border import Border
from .fft_lanes import join, split
from .fft_plan import Elements, PASS_LEVELS, Transform, plan_elements
from .geometry import Geometry

comptime ALIGNMENT = 64
"""Bytes: one cache line, one AVX-512 vector."""


def shortest_block[dtype: DType, is_complex: Bool = False]() -> Int:
    """Gives the shortest block length: W lines of W complex coefficients.

    Parameters:
        dtype: Element type of the arrays.
        is_complex: True if elements come in pairs (real, imaginary).

    Returns:
        The least nfft.
    """
    comptime WIDTH = simd_width_of[accum_dtype[dtype]()]()
    return max(WIDTH, 2) * WIDTH * (1 if is_complex else 2)


def plan_length[dtype: DType, is_complex: Bool = False](nfft: Int) -> Int:
    """Counts the elements of the accumulation type that a plan needs.

    Parameters:
        dtype: Element type of the arrays.
        is_complex: True if elements come in pairs (real, imaginary).

    Args:
        nfft: Block length, a power of two of at least `shortest_block`.

    Returns:
        About 2*nfft (4*nfft if complex), room for aligning included.
    """
    comptime ACC = accum_dtype[dtype]()
    return plan_elements[ACC](nfft if is_complex else nfft // 2) + ALIGNMENT // size_of[ACC]()


@always_inline
def transform_of[dtype: DType, is_complex: Bool](plan: Elements[dtype], nfft: Int) -> Transform[dtype]:
    """Finds the aligned start of a plan.

    Parameters:
        dtype: Accumulation type.
        is_complex: True if elements come in pairs (real, imaginary).

    Args:
        plan: What the caller allocated.
        nfft: Block length.

    Returns:
        The transform of a block.
    """
    return Transform(align(plan), nfft if is_complex else nfft // 2)


@always_inline
def untracked[dtype: DType](elements: Pointer[Scalar[dtype], MutAnyOrigin]) -> Elements[dtype]:
    """Forgets where an address came from: the caller keeps its arrays alive.

    Parameters:
        dtype: Element type.

    Args:
        elements: An address.

    Returns:
        The same address, fit for the field of a struct.
    """
    return Elements[dtype](unsafe_from_address=Int(elements))


@always_inline
def align[dtype: DType](elements: Elements[dtype]) -> Elements[dtype]:
    """Moves an address up to the next cache line.

    Parameters:
        dtype: Element type.

    Args:
        elements: Address of a buffer with room for it.

    Returns:
        A multiple of ALIGNMENT.
    """
    return Elements[dtype](unsafe_from_address=ceildiv(Int(elements), ALIGNMENT) * ALIGNMENT)


struct Site[dtype: DType, is_complex: Bool](TrivialRegisterPassable):
    """Where one block lies.

    Parameters:
        dtype: Element type of the arrays.
        is_complex: True if elements come in pairs.
    """

    comptime ACC = accum_dtype[Self.dtype]()
    """Accumulation type."""

    var y: Elements[Self.dtype]
    """Outputs of the block's row."""
    var x: Elements[Self.dtype]
    """Signal of the block's row."""
    var transform: Transform[Self.ACC]
    """Transform of the block, with the spectrum of the row's taps."""
    var border: Border[Self.dtype]
    """How the signal goes on beyond its ends."""
    var samples: Int
    """N."""
    var needed: Int
    """One past the index of the last sample that an output of the row needs."""
    var start: Int
    """Index of the block's first sample; negative if that does not exist."""
    var first: Int
    """First output of the block."""
    var last: Int
    """One past its last output."""

    @always_inline
    def __init__(
        out self,
        y: Elements[Self.dtype],
        x: Elements[Self.dtype],
        plan: Elements[Self.ACC],
        geometry: Geometry,
        border: Border[Self.dtype],
        nfft: Int,
        block: Int,
    ):
        """Locates a block.

        Args:
            y: Output.
            x: Signal.
            plan: The plans of `tap_rows` filters, which rows take in turn.
            geometry: Sizes and shifts.
            border: How the signals go on beyond their ends.
            nfft: Block length.
            block: Index of the block, of all rows.
        """
        comptime PARTS = 2 if Self.is_complex else 1
        var hop = nfft - geometry.taps + 1
        var row_blocks = ceildiv(geometry.outputs, hop)
        var row = block // row_blocks
        var plan_offset = row % geometry.tap_rows * plan_length[Self.dtype, Self.is_complex](nfft)
        self.y = y.unsafe_offset(row * geometry.outputs * PARTS)
        self.x = x.unsafe_offset(row * geometry.samples * PARTS)
        self.transform = transform_of[Self.ACC, Self.is_complex](plan.unsafe_offset(plan_offset), nfft)
        self.border = border
        self.samples = geometry.samples
        self.needed = geometry.input_index(geometry.outputs, geometry.taps - 1)
        self.first = (block - row * row_blocks) * hop
        self.last = min(self.first + hop, geometry.outputs)
        self.start = geometry.input_index(self.first, 0)

    @always_inline
    def children(self) -> Int:
        """Counts the subtrees below the root.

        Returns:
            2 to the power of the levels of the first pass.
        """
        return 1 << self.transform.first_levels()

    @always_inline
    def columns(self) -> Int:
        """Counts the lines of one such subtree.

        Returns:
            How many independent butterflies the first and last pass have.
        """
        return self.transform.lines() >> self.transform.first_levels()

    @always_inline
    def is_interior(self) -> Bool:
        """Tells whether all samples of the block exist.

        Returns:
            True if none lies outside x.
        """
        var nfft = self.transform.length if Self.is_complex else 2 * self.transform.length
        return self.start >= 0 and self.start + nfft <= self.samples


def load_block[
    dtype: DType, is_complex: Bool, //
](site: Site[dtype, is_complex], lines: Elements[accum_dtype[dtype]()], begin: Int, end: Int):
    """Reads a block in the first pass over it.

    Parameters:
        dtype: Element type of the arrays.
        is_complex: True if elements come in pairs.

    Args:
        site: The block.
        lines: Work space, all lines of a block.
        begin: First column to compute.
        end: One past the last column.
    """
    comptime for levels in range(1, PASS_LEVELS + 1):
        if site.transform.first_levels() == levels:
            if site.is_interior():
                load_lines[levels, True](site, lines, begin, end)
            else:
                load_lines[levels, False](site, lines, begin, end)


@no_inline
def load_lines[
    dtype: DType, is_complex: Bool, //, levels: Int, inside: Bool
](site: Site[dtype, is_complex], lines: Elements[accum_dtype[dtype]()], begin: Int, end: Int):
    """Does the first pass of a block.

    Parameters:
        dtype: Element type of the arrays.
        is_complex: True if elements come in pairs.
        levels: Levels of the pass.
        inside: True if all samples of the block exist.

    Args:
        site: The block.
        lines: Work space, all lines of a block.
        begin: First column to compute.
        end: One past the last column.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime WIDTH = Transform[ACC].WIDTH
    comptime LINE = Transform[ACC].LINE
    var columns = site.columns()
    for column in range(begin, end):
        var re = Array[SIMD[ACC, WIDTH], 1 << levels](fill=0)
        var im = Array[SIMD[ACC, WIDTH], 1 << levels](fill=0)
        comptime for j in range(1 << levels):
            var at = site.start + (column + j * columns) * WIDTH
            comptime if is_complex:
                var pairs = load_samples[2 * WIDTH, inside](site, at).cast[ACC]().deinterleave()
                re[j] = rebind[SIMD[ACC, WIDTH]](pairs[0])
                im[j] = rebind[SIMD[ACC, WIDTH]](pairs[1])
            else:
                re[j] = load_samples[WIDTH, inside](site, at).cast[ACC]()
                im[j] = load_samples[WIDTH, inside](site, at + site.transform.length).cast[ACC]()
        split[levels](re, im, site.transform.plan)
        comptime for j in range(1 << levels):
            lines.unsafe_store((column + j * columns) * LINE, re[j])
            lines.unsafe_store((column + j * columns) * LINE + WIDTH, im[j])


@always_inline
def load_samples[
    dtype: DType, is_complex: Bool, //, width: Int, inside: Bool
](site: Site[dtype, is_complex], position: Int) -> SIMD[dtype, width]:
    """Loads neighbouring elements of x, or of what stands where there are none.

    Parameters:
        dtype: Element type.
        is_complex: True if elements come in pairs.
        width: How many.
        inside: True if all are known to exist.

    Args:
        site: The block.
        position: Index of the first sample.

    Returns:
        The elements.
    """
    comptime PARTS = 2 if is_complex else 1
    var at = position * PARTS
    comptime if not inside:
        var end = site.samples * PARTS
        if at < 0 or at + width > end:
            if not site.border.omits():
                return load_extended[width](site, position)
            if at <= -width or at >= end:
                return 0
            var lanes = iota[DType.int, width]()
            var exists = lanes.ge(-at) & lanes.lt(end - at)
            return masked_load[width](site.x.unsafe_offset(at), exists, SIMD[dtype, width](0))
    return site.x.unsafe_load[width=width](at)


@no_inline
def load_extended[
    dtype: DType, is_complex: Bool, //, width: Int
](site: Site[dtype, is_complex], position: Int) -> SIMD[dtype, width]:
    """Loads neighbouring elements of the extended signal, one by one.

    Parameters:
        dtype: Element type.
        is_complex: True if elements come in pairs.
        width: How many.

    Args:
        site: The block.
        position: Index of the first sample.

    Returns:
        The elements; zeros behind the last sample that an output of the row needs.
    """
    comptime PARTS = 2 if is_complex else 1
    var elements = SIMD[dtype, width](0)
    for sample in range(min(width // PARTS, site.needed - position)):
        var at = site.border.index(position + sample, site.samples)
        if at < 0:
            elements[sample * PARTS] = site.border.value
            continue
        for part in range(PARTS):
            elements[sample * PARTS + part] = site.x[unsafe_offset=at * PARTS + part]
    return elements


def store_block[
    dtype: DType, is_complex: Bool, //
](site: Site[dtype, is_complex], lines: Elements[accum_dtype[dtype]()], begin: Int, end: Int):
    """Writes a block's outputs in the last pass over it.

    Parameters:
        dtype: Element type of the arrays.
        is_complex: True if elements come in pairs.

    Args:
        site: The block.
        lines: Work space, all lines of a block.
        begin: First column to compute.
        end: One past the last column.
    """
    comptime for levels in range(1, PASS_LEVELS + 1):
        if site.transform.first_levels() == levels:
            store_lines[levels](site, lines, begin, end)


@no_inline
def store_lines[
    dtype: DType, is_complex: Bool, //, levels: Int
](site: Site[dtype, is_complex], lines: Elements[accum_dtype[dtype]()], begin: Int, end: Int):
    """Does the last pass of a block.

    Parameters:
        dtype: Element type of the arrays.
        is_complex: True if elements come in pairs.
        levels: Levels of the pass.

    Args:
        site: The block.
        lines: Work space, all lines of a block.
        begin: First column to compute.
        end: One past the last column.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime WIDTH = Transform[ACC].WIDTH
    comptime LINE = Transform[ACC].LINE
    var columns = site.columns()
    for column in range(begin, end):
        var re = Array[SIMD[ACC, WIDTH], 1 << levels](fill=0)
        var im = Array[SIMD[ACC, WIDTH], 1 << levels](fill=0)
        comptime for j in range(1 << levels):
            re[j] = lines.unsafe_load[width=WIDTH]((column + j * columns) * LINE)
            im[j] = lines.unsafe_load[width=WIDTH]((column + j * columns) * LINE + WIDTH)
        join[levels](re, im, site.transform.plan)
        comptime for j in range(1 << levels):
            var at = site.first + (column + j * columns) * WIDTH
            comptime if is_complex:
                store_outputs(site.y, 2 * at, 2 * site.last, re[j].interleave(im[j]).cast[dtype]())
            else:
                store_outputs(site.y, at, site.last, re[j].cast[dtype]())
                store_outputs(site.y, at + site.transform.length, site.last, im[j].cast[dtype]())


@always_inline
def store_outputs[
    dtype: DType, width: SIMDLength, //
](y: Elements[dtype], at: Int, end: Int, values: SIMD[dtype, width]):
    """Stores those of some neighbouring values that are outputs of the block.

    Parameters:
        dtype: Element type.
        width: How many values.

    Args:
        y: Output.
        at: Index of the first value.
        end: One past the last output of the block.
        values: The values.
    """
    if at + Int(width) <= end:
        y.unsafe_store(at, values)
    elif at < end:
        masked_store[width](values, y.unsafe_offset(at), iota[DType.int, width]().lt(end - at))
