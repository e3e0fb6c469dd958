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
            Layers have a filter for each channel: a thread makes its spectrum, uses it and makes the next in its place.
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
Tuning:     SAMPLES_PER_WORKER, SHARED_BLOCK below; PASS_LEVELS, RESIDENT_BYTES in shared/fft_plan.mojo.
Tried:      faster than `direct_cpu` from K = 48 (float32) and K = 40 (float64) on, with nfft = 1024 and 512.
            Plans of all filters of a layer, 20 MB of them for the 768 filters of 2048 taps of Hyena: slower, since
            they leave the cache.
            Not built: one block per lane, which has W times the working set (2 MB for nfft = 16384 and float32) and
            transposes as often as the tiles do.
Source:     overlap-save: Oppenheim and Schafer, Discrete-Time Signal Processing, section 8.7; right-angle convolution:
            Crandall and Fagin, Discrete weighted transforms and large-integer arithmetic, Math. Comp. 62 (1994).
"""

from std.math import ceildiv
from std.sys.info import simd_width_of
from std.utils.numerics import isfinite
from max.algorithm import sync_parallelize
from max.runtime.asyncrt import parallelism_level

from ..shared.accumulate import accum_dtype
from ..shared.border import OMIT, Border
from ..shared.epilogue import Epilogue
from ..shared.fft_block import ALIGNMENT, Site, align, load_block, plan_length, store_block, transform_of, untracked
from ..shared.fft_lanes import split_lines, visit_node, visit_resident
from ..shared.fft_plan import Elements, PASS_LEVELS, Transform, prepare_twiddles
from ..shared.geometry import Geometry
from ..shared.shares import Shares

comptime SAMPLES_PER_WORKER = 1 << 17
"""Samples to transform below which a further thread does not pay: one core takes about 100 us for them (float32). A
parallel region costs 20 to 40 us, but was seen to cost 270: 10^5 samples took 92 us on one core, 367 us on two."""

comptime SHARED_BLOCK = 1 << 16
"""Block length from which several workers may share one block, at the price of three parallel regions."""


def prepare_plans[
    dtype: DType
](
    plans: Pointer[Scalar[accum_dtype[dtype]()], MutAnyOrigin],
    k: Pointer[Scalar[dtype], MutAnyOrigin],
    tap_rows: Int,
    taps: Int,
    flip: Bool,
    nfft: Int,
    max_workers: Int,
):
    """Computes the plans of several filters, on as many threads as the work is worth.

    Parameters:
        dtype: Element type of the taps.

    Args:
        plans: Room for `tap_rows` times `plan_length` elements.
        k: Taps, shape (tap_rows, K).
        tap_rows: How many filters.
        taps: K, 1 <= K <= nfft.
        flip: True: convolution. False: correlation.
        nfft: Block length, a power of two of at least `shortest_block`.
        max_workers: Upper bound of threads; 0 for one per core, 1 to stay on the calling thread.
    """
    var workers = 1
    if max_workers != 1 and tap_rows * nfft >= 2 * SAMPLES_PER_WORKER:
        var most = parallelism_level(None) if max_workers == 0 else max_workers
        workers = min(most, tap_rows, tap_rows * nfft // SAMPLES_PER_WORKER)

    def prepare_share(worker: Int) {imm}:
        for row in range(worker * tap_rows // workers, (worker + 1) * tap_rows // workers):
            var plan = plans.unsafe_offset(row * plan_length[dtype](nfft))
            prepare_plan[dtype](plan, k.unsafe_offset(row * taps), taps, flip, nfft)

    if workers == 1:
        prepare_share(0)
    else:
        sync_parallelize(prepare_share, workers)


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
    var transform = transform_of[accum_dtype[dtype](), is_complex](untracked(plan), nfft)
    prepare_twiddles(transform)
    prepare_spectrum[dtype, is_complex](transform, k, taps, flip)


def prepare_spectrum[
    dtype: DType, is_complex: Bool = False
](transform: Transform[accum_dtype[dtype]()], k: Pointer[Scalar[dtype], MutAnyOrigin], taps: Int, flip: Bool):
    """Computes the spectrum of the taps for a transform whose twiddles are there.

    Parameters:
        dtype: Element type of the taps.
        is_complex: True if elements come in pairs (real, imaginary).

    Args:
        transform: Receives the spectrum.
        k: Taps.
        taps: K, at most nfft.
        flip: True: convolution. False: correlation.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime WIDTH = Transform[ACC].WIDTH
    comptime LINE = Transform[ACC].LINE
    var length = transform.length
    var spectrum = transform.spectrum()

    # Output t of a block is sum_j x[t + j]*g[j], which is coefficient t of x times sum_j g[j]*X^(-j): the valid outputs
    # then are the first ones. The way there and back multiplies by m, a power of two: undone here, exactly.
    var geometry = Geometry(0, taps, 0, 0, flip, 1, 1)
    var scale = Scalar[ACC](1) / Scalar[ACC](length)
    comptime if is_complex:
        for at in range(0, 2 * length, WIDTH):
            spectrum.unsafe_store(at, SIMD[ACC, WIDTH](0))

        @always_inline
        def add(position: Int, part: Int, value: Scalar[ACC]) {imm}:
            spectrum[unsafe_offset=position // WIDTH * LINE + part * WIDTH + position % WIDTH] = value * scale

        for j in range(taps):
            var tap = geometry.tap_index(j)
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
        for at in range(0, length, WIDTH):
            # X^(-j) = -i * X^(m - j) = -X^(2m - j)
            spectrum.unsafe_store(2 * at, scale * load_descending[ACC](k, geometry, 2 * length - at))
            spectrum.unsafe_store(2 * at + WIDTH, scale * load_descending[ACC](k, geometry, length - at))
        spectrum[] = k[unsafe_offset=geometry.tap_index(0)].cast[ACC]() * scale

    comptime for levels in range(1, PASS_LEVELS + 1):
        if transform.first_levels() == levels:
            split_lines[levels](spectrum, transform.lines(), transform.plan)
    visit_children[False](transform, spectrum, 0, 1 << transform.first_levels())


@always_inline
def load_descending[
    dtype: DType, //, acc: DType
](k: Pointer[Scalar[dtype], MutAnyOrigin], geometry: Geometry, last: Int) -> SIMD[acc, simd_width_of[acc]()]:
    """Loads the negatives of neighbouring taps, the last one first.

    Parameters:
        dtype: Element type of the taps.
        acc: Accumulation type.

    Args:
        k: Taps.
        geometry: How many there are, and their order.
        last: Which tap comes first, at least the vector's width.

    Returns:
        The values; zeros for taps that do not exist.
    """
    comptime WIDTH = simd_width_of[acc]()
    var values = SIMD[acc, WIDTH](0)
    if last < geometry.taps:
        var first = last - (WIDTH - 1)
        if geometry.flip:
            return -k.unsafe_load[width=WIDTH](geometry.tap_index(last)).cast[acc]()
        return -k.unsafe_load[width=WIDTH](geometry.tap_index(first)).cast[acc]().reversed()
    for lane in range(max(0, last + 1 - geometry.taps), WIDTH):
        values[lane] = -k[unsafe_offset=geometry.tap_index(last - lane)].cast[acc]()
    return values


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
            `plan_length` elements behind the one before, for as many rows and again for the rows behind them.
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
        compute_block(Site[dtype, is_complex](y, x, plan, geometry, border, nfft, block), lines)
    _ = buffer^


@always_inline
def compute_block[
    dtype: DType, is_complex: Bool, //
](site: Site[dtype, is_complex], lines: Elements[accum_dtype[dtype]()]):
    """Computes one block on the calling thread.

    Parameters:
        dtype: Element type of the arrays.
        is_complex: True if elements come in pairs.

    Args:
        site: The block.
        lines: Work space, all lines of a block.
    """
    load_block(site, lines, 0, site.columns())
    visit_children[True](site.transform, lines, 0, site.children())
    store_block(site, lines, 0, site.columns())


def overlap_save_channels_cpu[
    dtype: DType
](
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    k: Pointer[Scalar[dtype], MutAnyOrigin],
    epilogue: Epilogue,
    geometry: Geometry,
    nfft: Int,
    max_workers: Int,
) -> Bool:
    """Computes all outputs of a layer of one filter a channel; each spectrum is made where it is used, and forgotten.

    A thread's one plan stays in its caches; plans of all filters would be several times as large as the layer.

    Parameters:
        dtype: Element type of the arrays.

    Args:
        y: Outputs, shape (N, C, L_out); every one is written.
        x: Signals, shape (N, C, L).
        k: Taps, shape (C, K).
        epilogue: What is added to each channel, and an activation.
        geometry: Sizes and shifts of N*C rows and C filters.
        nfft: Block length, at least K.
        max_workers: Upper bound of threads; 0 for one per core, 1 to stay on the calling thread.

    Returns:
        Whether all sums were finite: NaN and infinity are in outputs that they do not belong to.
    """
    var channels = geometry.tap_rows
    var blocks = geometry.rows // channels * ceildiv(geometry.outputs, nfft - geometry.taps + 1)  # of a channel
    var workers = channels * (blocks + 1) * nfft // SAMPLES_PER_WORKER
    if workers > 1 and max_workers != 1:
        workers = min(workers, parallelism_level(None) if max_workers == 0 else max_workers)
    if max_workers == 1 or workers < 1:
        workers = 1
    # Few channels are cut into parts, each with a spectrum of its own.
    var parts = min(blocks, ceildiv(workers, channels))
    var shares = Shares(channels * parts)
    var finite = List[Bool](length=workers, fill=True)
    var are_finite = Pointer[Bool, MutUntrackedOrigin](unsafe_from_address=Int(finite.unsafe_ptr()))

    def compute_shares(worker: Int) {imm}:
        are_finite[unsafe_offset=worker] = compute_channels(y, x, k, epilogue, geometry, nfft, shares, parts)

    if workers == 1:
        compute_shares(0)
    else:
        sync_parallelize(compute_shares, workers)
    var are_all = True
    for each in finite:
        are_all = are_all and each
    return are_all


def compute_channels[
    dtype: DType
](
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    k: Pointer[Scalar[dtype], MutAnyOrigin],
    epilogue: Epilogue,
    geometry: Geometry,
    nfft: Int,
    shares: Shares,
    parts: Int,
) -> Bool:
    """Computes parts of channels on the calling thread until there are none left.

    Parameters:
        dtype: Element type of the arrays.

    Args:
        y: All outputs.
        x: All signals.
        k: All taps.
        epilogue: Bias and activation.
        geometry: Sizes and shifts.
        nfft: Block length.
        shares: The parts, counted over channels.
        parts: Into how many parts the blocks of a channel are cut.

    Returns:
        Whether all sums were finite.
    """
    comptime ACC = accum_dtype[dtype]()
    var plan = List[Scalar[ACC]](unsafe_uninit_length=plan_length[dtype](nfft))
    var buffer = List[Scalar[ACC]](unsafe_uninit_length=2 * nfft + ALIGNMENT)
    var there = Elements[ACC](unsafe_from_address=Int(plan.unsafe_ptr()))
    var lines = align(Elements[ACC](unsafe_from_address=Int(buffer.unsafe_ptr())))
    var transform = transform_of[ACC, False](there, nfft)
    prepare_twiddles(transform)
    var nothing = Border[dtype](OMIT, 0)
    var own = Geometry(geometry.samples, geometry.taps, geometry.outputs, geometry.pad_left, geometry.flip, 1, 1)
    var row_blocks = ceildiv(geometry.outputs, nfft - geometry.taps + 1)
    var channels = geometry.tap_rows
    var blocks = geometry.rows // channels * row_blocks
    var are_finite = True
    while True:
        var share = shares.take()
        if not share:
            break
        var channel = share.value() // parts
        var part = share.value() % parts
        prepare_spectrum[dtype](transform, k.unsafe_offset(channel * geometry.taps), geometry.taps, geometry.flip)
        for index in range(part * blocks // parts, (part + 1) * blocks // parts):
            var block = (index // row_blocks * channels + channel) * row_blocks + index % row_blocks
            var site = Site[dtype, False](untracked(y), untracked(x), there, own, nothing, nfft, block)
            compute_block(site, lines)
            are_finite = finish_block(site, epilogue, channel) and are_finite
    _ = plan^
    _ = buffer^
    return are_finite


def finish_block[dtype: DType, //](site: Site[dtype, False], epilogue: Epilogue, channel: Int) -> Bool:
    """Adds the bias to a block's outputs, which lie in the cache, and applies the activation.

    Parameters:
        dtype: Element type of the outputs.

    Args:
        site: The block.
        epilogue: Bias and activation.
        channel: Which channel.

    Returns:
        Whether all outputs were finite before.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime WIDTH = simd_width_of[ACC]()
    var finite = SIMD[DType.bool, WIDTH](fill=True)
    var at = site.first
    while at + WIDTH <= site.last:
        var sums = site.y.unsafe_load[width=WIDTH](at).cast[ACC]()
        finite &= isfinite(sums)
        site.y.unsafe_store(at, epilogue.apply(channel, sums).cast[dtype]())
        at += WIDTH
    var are_all = finite.reduce_and()
    while at < site.last:
        var sum = site.y[unsafe_offset=at].cast[ACC]()
        are_all = are_all and isfinite(sum)
        site.y[unsafe_offset=at] = epilogue.apply(channel, sum).cast[dtype]()
        at += 1
    return are_all


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
