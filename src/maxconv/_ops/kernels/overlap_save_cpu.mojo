"""1-D convolution by FFT on CPU: overlap-save, one real block per complex transform of half its length.

Computes:   y[i] = sum_j x[i + j - pad_left] * k[tap_index(j)], i in [0, L_out); x goes on beyond its ends as a
            `Border` says, or samples outside it count as zeros.
Algorithm:  blocks of nfft samples, hop = nfft - K + 1 apart, each a product of polynomials modulo X^m - i. A real block
            has m = nfft/2: its second half becomes the imaginary part of its first, since X^m = i (right-angle
            convolution). That is the product modulo X^nfft + 1; outputs that wrap around, whatever their sign, are
            those that overlap-save drops. So real data need no post-processing and no partner block; complex data
            have m = nfft.
            Taps stand at negative powers of X, so that the outputs kept are the first hop ones. The first pass of the
            transform reads x, the last one writes y; the transform itself: shared/fft_lanes.mojo.
Cost:       blocks * 5*nfft*log2(nfft/2) flop, blocks = rows * ceil(L_out/hop). For choosing nfft: blocks * nfft * c,
            with c(nfft) = 0.7 ns for float32 (nfft 512 to 2048), 0.8 (4096), 0.9 to 1.1 (8192 to 65536), 1.1 to 1.3
            (to 2^19), on one core of an AMD EPYC with AVX-512, data in the cache; 1.2, 1.5, 1.7 to 2.0 and 2.3 for
            float64; 1.1 to 1.3 times that with AVX2 alone (2026-11-22, a shared machine: minima).
            `prepare_plan` costs 2 to 10 us and 1.2 ns (float64: 2 ns) per sample of nfft.
Layout:     x (rows, N), k (1 or rows, K), y (rows, L_out), contiguous, aligned to their own element only; complex
            elements are pairs (real, imaginary). Work space: nfft elements per worker (complex: 2*nfft).
Accuracy:   |error| <= 10*eps*log2(nfft)*||x||*||k|| (tests/mojo/test_overlap_save.mojo; measured 0.3 for 10), eps that
            of dtype; half types are computed in float32. An error is relative to the largest values of its block,
            not to its own output: exact zeros may come out as rounding noise, integers are not exact. The same bits
            whatever the number of workers; not the same for another nfft or SIMD width.
            NaN or infinity in x spreads over all outputs of every block that holds it (not further); in k, over all.
            Sums of a block's samples times taps must not overflow, even where those of the outputs would not.
Gate:       float types; nfft a power of two >= K and >= `shortest_block`; N >= 1 with a border.
Tuning:     SAMPLES_PER_WORKER, SHARED_BLOCK below; PASS_LEVELS, RESIDENT_BYTES in shared/fft_lanes.mojo.
Tried:      faster than `direct_cpu` from K = 48 (float32) and K = 40 (float64) on, with nfft = 1024 and 512.
            Not built: one block per lane, which has W times the working set (2 MB for nfft = 16384 and float32) and
            transposes as often as the tiles do.
Source:     overlap-save: Oppenheim and Schafer, Discrete-Time Signal Processing, section 8.7; right-angle convolution:
            Crandall and Fagin, Discrete weighted transforms and large-integer arithmetic, Math. Comp. 62 (1994).
"""

from std.math import ceildiv, iota
from std.sys.info import simd_width_of, size_of
from std.sys.intrinsics import masked_load, masked_store
from max.algorithm import sync_parallelize
from max.runtime.asyncrt import parallelism_level

from ..shared.accumulate import accum_dtype
from ..shared.border import OMIT, Border
from ..shared.fft_lanes import (
    Elements,
    PASS_LEVELS,
    Transform,
    join,
    plan_elements,
    prepare_twiddles,
    split,
    split_lines,
    visit_node,
    visit_resident,
)
from ..shared.geometry import Geometry

comptime SAMPLES_PER_WORKER = 1 << 17
"""Samples to transform below which a further thread does not pay: one core takes about 100 us for them (float32). A
parallel region costs 20 to 40 us, but was seen to cost 270: 10^5 samples took 92 us on one core, 367 us on two."""

comptime SHARED_BLOCK = 1 << 16
"""Block length from which several workers may share one block, at the price of three parallel regions."""

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


def prepare_plan[
    dtype: DType, is_complex: Bool = False
](
    plan: Pointer[Scalar[accum_dtype[dtype]()], MutAnyOrigin],
    k: Pointer[Scalar[dtype], MutAnyOrigin],
    taps: Int,
    flip: Bool,
    nfft: Int,
):
    """Computes twiddles and the spectrum of the taps, once per filter.

    Parameters:
        dtype: Element type of the taps.
        is_complex: True if elements come in pairs (real, imaginary).

    Args:
        plan: Room for `plan_length` elements.
        k: Taps.
        taps: K, 1 <= K <= nfft.
        flip: True: convolution. False: correlation.
        nfft: Block length, a power of two of at least `shortest_block`.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime WIDTH = Transform[ACC].WIDTH
    comptime LINE = Transform[ACC].LINE
    var transform = transform_of[ACC, is_complex](untracked(plan), nfft)
    prepare_twiddles(transform)
    var length = transform.length
    var spectrum = transform.spectrum()
    for at in range(0, 2 * length, WIDTH):
        spectrum.unsafe_store(at, SIMD[ACC, WIDTH](0))

    # Output t of a block is sum_j x[t + j]*g[j], which is coefficient t of x times sum_j g[j]*X^(-j): the valid outputs
    # then are the first ones. The way there and back multiplies by m, a power of two: undone here, exactly.
    var geometry = Geometry(0, taps, 0, 0, flip, 1, 1)
    var scale = Scalar[ACC](1) / Scalar[ACC](length)

    @always_inline
    def add(position: Int, part: Int, value: Scalar[ACC]) {imm}:
        spectrum[unsafe_offset=position // WIDTH * LINE + part * WIDTH + position % WIDTH] = value * scale

    for j in range(taps):
        var tap = geometry.tap_index(j)
        comptime if is_complex:
            var re = k[unsafe_offset=2 * tap].cast[ACC]()
            var im = k[unsafe_offset=2 * tap + 1].cast[ACC]()
            if j == 0:
                add(0, 0, re)
                add(0, 1, im)
            else:
                # X^(-j) = -i * X^(m - j)
                add(length - j, 0, im)
                add(length - j, 1, -re)
        else:
            var value = k[unsafe_offset=tap].cast[ACC]()
            if j == 0:
                add(0, 0, value)
            elif j <= length:
                # X^(-j) = -i * X^(m - j)
                add(length - j, 1, -value)
            else:
                # X^(-j) = -X^(2m - j)
                add(2 * length - j, 0, -value)

    comptime for levels in range(1, PASS_LEVELS + 1):
        if transform.first_levels() == levels:
            split_lines[levels](spectrum, transform.lines(), transform.plan)
    visit_children[False](transform, spectrum, 0, 1 << transform.first_levels())


def overlap_save_cpu[
    dtype: DType, is_complex: Bool = False
](
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    plan: Pointer[Scalar[accum_dtype[dtype]()], MutAnyOrigin],
    geometry: Geometry,
    nfft: Int,
    max_workers: Int,
    border: Border[dtype] = Border[dtype](OMIT, 0),
):
    """Computes all outputs, on as many threads as the work is worth.

    Parameters:
        dtype: Element type of the arrays.
        is_complex: True if x, y and the taps hold pairs (real, imaginary); sizes then count pairs.

    Args:
        y: Outputs, shape (rows, L_out); every one is written.
        x: Signals, shape (rows, N).
        plan: What `prepare_plan` made for the same nfft, taps and `flip`; with `tap_rows` filters as many plans, each
            `plan_length` elements behind the one before.
        geometry: Sizes and shifts.
        nfft: Block length, at least K.
        max_workers: Upper bound of threads; 0 for one per core, 1 to stay on the calling thread.
        border: How the signals go on beyond their ends; complex ones with `value` + 0i where it is CONSTANT.
    """
    comptime ACC = accum_dtype[dtype]()
    var transform = transform_of[ACC, is_complex](untracked(plan), nfft)
    var hop = nfft - geometry.taps + 1
    var row_blocks = ceildiv(geometry.outputs, hop)
    var blocks = row_blocks * geometry.rows
    var workers = blocks * nfft // SAMPLES_PER_WORKER
    if workers > 1 and max_workers != 1:
        workers = min(workers, parallelism_level(None) if max_workers == 0 else max_workers)
    if max_workers == 1 or workers < 1:
        workers = 1

    # How blocks are computed does not depend on who computes them: the same bits whatever the split.
    var helpers = min(workers, 1 << transform.first_levels())
    if nfft >= SHARED_BLOCK and helpers > 1 and 8 * ceildiv(blocks, workers) * helpers > 9 * blocks:
        var buffer = List[Scalar[ACC]](unsafe_uninit_length=2 * transform.length + ALIGNMENT)
        var lines = align(Elements[ACC](unsafe_from_address=Int(buffer.unsafe_ptr())))
        for block in range(blocks):
            share_block[dtype, is_complex](
                untracked(y), untracked(x), untracked(plan), geometry, border, nfft, block, lines, helpers
            )
        _ = buffer^
        return

    workers = max(1, min(workers, blocks))

    def compute_share(worker: Int) {imm}:
        compute_blocks[dtype, is_complex](
            untracked(y),
            untracked(x),
            untracked(plan),
            geometry,
            border,
            nfft,
            worker * blocks // workers,
            (worker + 1) * blocks // workers,
        )

    if workers == 1:
        compute_share(0)
    else:
        sync_parallelize(compute_share, workers)


def compute_blocks[
    dtype: DType, is_complex: Bool
](
    y: Elements[dtype],
    x: Elements[dtype],
    plan: Elements[accum_dtype[dtype]()],
    geometry: Geometry,
    border: Border[dtype],
    nfft: Int,
    begin: Int,
    end: Int,
):
    """Computes the blocks [begin, end) on the calling thread.

    Parameters:
        dtype: Element type of the arrays.
        is_complex: True if elements come in pairs.

    Args:
        y: Output.
        x: Signal.
        plan: What `prepare_plan` made.
        geometry: Sizes and shifts.
        border: How the signals go on beyond their ends.
        nfft: Block length.
        begin: First block.
        end: One past the last block.
    """
    comptime ACC = accum_dtype[dtype]()
    var buffer = List[Scalar[ACC]](unsafe_uninit_length=2 * nfft + ALIGNMENT)
    var lines = align(Elements[ACC](unsafe_from_address=Int(buffer.unsafe_ptr())))
    for block in range(begin, end):
        var site = Site[dtype, is_complex](y, x, plan, geometry, border, nfft, block)
        load_block(site, lines, 0, site.columns())
        visit_children[True](site.transform, lines, 0, site.children())
        store_block(site, lines, 0, site.columns())
    _ = buffer^


def share_block[
    dtype: DType, is_complex: Bool
](
    y: Elements[dtype],
    x: Elements[dtype],
    plan: Elements[accum_dtype[dtype]()],
    geometry: Geometry,
    border: Border[dtype],
    nfft: Int,
    block: Int,
    lines: Elements[accum_dtype[dtype]()],
    workers: Int,
):
    """Computes one long block on several threads.

    Parameters:
        dtype: Element type of the arrays.
        is_complex: True if elements come in pairs.

    Args:
        y: Output.
        x: Signal.
        plan: What `prepare_plan` made.
        geometry: Sizes and shifts.
        border: How the signals go on beyond their ends.
        nfft: Block length.
        block: Index of the block, of all rows.
        lines: Work space, all lines of a block.
        workers: How many threads, at most the children of the root.
    """
    var site = Site[dtype, is_complex](y, x, plan, geometry, border, nfft, block)
    var columns = site.columns()
    var children = site.children()

    def load_share(worker: Int) {imm}:
        load_block(site, lines, worker * columns // workers, (worker + 1) * columns // workers)

    def visit_share(worker: Int) {imm}:
        visit_children[True](site.transform, lines, worker * children // workers, (worker + 1) * children // workers)

    def store_share(worker: Int) {imm}:
        store_block(site, lines, worker * columns // workers, (worker + 1) * columns // workers)

    sync_parallelize(load_share, workers)
    sync_parallelize(visit_share, workers)
    sync_parallelize(store_share, workers)


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
            plan: One plan, or one for each row.
            geometry: Sizes and shifts.
            border: How the signals go on beyond their ends.
            nfft: Block length.
            block: Index of the block, of all rows.
        """
        comptime PARTS = 2 if Self.is_complex else 1
        var hop = nfft - geometry.taps + 1
        var row_blocks = ceildiv(geometry.outputs, hop)
        var row = block // row_blocks
        var plan_offset = row * plan_length[Self.dtype, Self.is_complex](nfft) if geometry.tap_rows > 1 else 0
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


def visit_children[
    dtype: DType, //, multiply: Bool
](transform: Transform[dtype], lines: Elements[dtype], begin: Int, end: Int):
    """Takes what the first pass left down to the leaves and back: subtrees [begin, end) below the root.

    Parameters:
        dtype: Accumulation type.
        multiply: As for `visit_node`.

    Args:
        transform: The transform.
        lines: All lines.
        begin: First child.
        end: One past the last child.
    """
    comptime LINE = Transform[dtype].LINE
    comptime WIDTH = Transform[dtype].WIDTH
    var depth = transform.first_levels()
    var size = transform.lines() >> depth
    var table = transform.plan.unsafe_offset(Transform[dtype].NODE)
    if transform.lines() <= Transform[dtype].RESIDENT_LINES:
        visit_resident[multiply](
            lines, transform.lines(), size, depth, 0, table, transform.lane_twiddles(), transform.spectrum()
        )
        return
    for child in range(begin, end):
        var line = child * size
        visit_node[multiply](
            lines.unsafe_offset(line * LINE),
            size,
            depth,
            child,
            table,
            transform.lane_twiddles().unsafe_offset(line * WIDTH),
            transform.spectrum().unsafe_offset(line * LINE),
        )


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
