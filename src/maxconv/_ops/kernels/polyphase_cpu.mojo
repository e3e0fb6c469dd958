"""Polyphase FIR on CPU: upsample, filter and downsample without touching inserted zeros or discarded outputs.

Computes:   y[i] = sum_q x[newest_sample(m) - q] * h[phase(m) + q*up], m = start + i, i in [0, L_out), for every row;
            terms outside x are left out, or met by the samples of an Extension. up = 1 is strided FIR, down = 1
            interpolation.
Algorithm:  taps sorted by phase, flipped and padded to whole vectors, so that an output is a dot product of two
            contiguous runs. 8 outputs at a time keep 8 vectors of partial sums, which a tree of shuffles adds up
            together. Where down = 1, the outputs of a phase meet neighbouring samples: vectors of them instead,
            as in direct_cpu.mojo.
Cost:       2*L_out*ceil(K/up) flop a row; reads N and writes L_out elements once.
Layout:     x (rows, N), y (rows, L_out), rows `x_stride`, `y_stride` apart; h (K) in its natural order.
Accuracy:   sums in accumulate.accum_dtype on EVERY path. How an output adds its taps depends on up, down and K
            alone, not on tile, edge, thread, row or SIMD width (tests/mojo/test_polyphase.mojo).
Gate:       none: any N, L_out, rows, start >= 0, any K, up, down >= 1.
Tuning:     the constants below. Float32, 20 taps per phase, one core of an AMD EPYC with AVX-512: 3 to 4 ns an output
            at (3, 2) and (160, 147), 0.7 to 0.8 ns where down = 1 (SciPy: 14 ns), 2026-11-22.
Tried:      sample and phase of each output computed as it comes instead of read from `PhaseTable`, unaligned slots, and
            dot products where down = 1: slower, the first and the last by far.
Source:     phases as in Crochiere and Rabiner, Multirate Digital Signal Processing, 1983; taps transposed and flipped
            as `_pad_h` of scipy.signal.upfirdn does (BSD; idea only).
"""

from std.math import ceildiv, iota
from std.sys.info import simd_width_of, size_of
from std.sys.intrinsics import masked_load
from max.algorithm import sync_parallelize
from max.runtime.asyncrt import parallelism_level

from ..shared.accumulate import accum_dtype, multiply_add
from ..shared.border import OMIT
from ..shared.extension import Extension
from ..shared.polyphase_geometry import PolyphaseGeometry

comptime LANE_BYTES = 64
"""Bytes of partial sums per output: one AVX-512 vector. The same number on every CPU, so that narrower SIMD adds the
taps in the same order."""

comptime TILE = 8
"""Outputs taken together: 8 independent sums hide the 4-cycle latency of two FMA units, and fill AVX2's registers."""

comptime INTERPOLATION_VECTORS = 4
"""Vectors of one phase's outputs taken together where `down` is 1: one vector load per multiply-add is the bound."""

comptime MULTIPLY_ADDS_PER_WORKER = 1 << 20
"""Work below which a further thread does not pay, as in direct_cpu.mojo."""


def polyphase_cpu[
    dtype: DType
](
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    h: Pointer[Scalar[dtype], MutAnyOrigin],
    geometry: PolyphaseGeometry,
    max_workers: Int,
    extension: Extension[dtype] = Extension[dtype](OMIT, 0),
):
    """Computes all outputs, on as many threads as the work is worth.

    Parameters:
        dtype: Element type of all three arrays.

    Args:
        y: Outputs, `geometry.rows` times `geometry.outputs`; every one is written, nothing between the rows.
        x: Signals, `geometry.rows` times `geometry.samples`.
        h: Taps in their natural order, `geometry.taps` elements.
        geometry: Sizes, rates and shifts.
        max_workers: Upper bound of threads; 0 for one per core, 1 to stay on the calling thread.
        extension: What stands beyond the ends of each signal; nothing by default.
    """
    var reduced = geometry.reduced()
    var total = reduced.rows * reduced.outputs
    if total == 0:
        return
    var table = PhaseTable[dtype](h, reduced, geometry.up // reduced.up)
    var workers = min(reduced.multiply_adds() // MULTIPLY_ADDS_PER_WORKER, ceildiv(total, TILE))
    if workers > 1 and max_workers != 1:
        workers = min(workers, parallelism_level(None) if max_workers == 0 else max_workers)
    if workers <= 1 or max_workers == 1:
        compute_span(y, x, table, reduced, 0, total, extension)
    else:
        var span = ceildiv(ceildiv(total, workers), TILE) * TILE

        def compute_share(worker: Int) {imm}:
            compute_span(y, x, table, reduced, worker * span, min((worker + 1) * span, total), extension)

        sync_parallelize(compute_share, workers)


struct PhaseTable[dtype: DType](Movable):
    """The taps in the order in which one period of `up` outputs needs them, and where each output meets the signal.

    Entry r belongs to the outputs i = r, r + up, r + 2*up, ... of a row. `TILE` - 1 more entries go on behind the
    period, so that a tile may begin anywhere in it.

    Parameters:
        dtype: Element type of the taps.
    """

    comptime ACC = accum_dtype[Self.dtype]()
    """In which type taps are kept: converted once."""
    comptime LANES = LANE_BYTES // size_of[Self.ACC]()
    """Partial sums per output."""

    var slot: Int
    """Taps from one entry to the next: the longest phase, filled up with zeros to whole vectors."""
    var taps: List[Scalar[Self.ACC]]
    """Room for the slots and for their alignment."""
    var starts: List[Int]
    """The sample that each slot's first tap meets in the first period; never falls from one entry to the next."""
    var lengths: List[Int32]
    """The taps in each slot."""

    def __init__(out self, h: Pointer[Scalar[Self.dtype], MutAnyOrigin], geometry: PolyphaseGeometry, tap_step: Int):
        """Sorts the taps.

        Args:
            h: Taps in their natural order.
            geometry: Sizes, rates and shifts, already reduced.
            tap_step: Distance in `h` of the taps that occur.
        """
        var entries = min(geometry.up, geometry.outputs) + TILE - 1
        self.slot = ceildiv(geometry.longest_phase(), Self.LANES) * Self.LANES
        self.taps = List[Scalar[Self.ACC]](length=entries * self.slot + Self.LANES, fill=0)
        self.starts = List[Int](capacity=entries)
        self.lengths = List[Int32](capacity=entries)
        var phase = geometry.phase(geometry.start)
        var newest = geometry.newest_sample(geometry.start)
        var whole = geometry.down // geometry.up
        var rest = geometry.down % geometry.up
        # Phases [0, longest_count) have `longest` taps, the others one less.
        var longest = geometry.longest_phase()
        var longest_count = geometry.taps - (longest - 1) * geometry.up
        var sorted = self.slot_taps(0)
        for _ in range(entries):
            var length = longest - (0 if phase < longest_count else 1)
            var tap = tap_step * (phase + (length - 1) * geometry.up)
            for j in range(length):
                sorted[unsafe_offset=j] = h[unsafe_offset=tap].cast[Self.ACC]()
                tap -= tap_step * geometry.up
            sorted = sorted.unsafe_offset(self.slot)
            self.starts.append(newest - length + 1)
            self.lengths.append(Int32(length))
            newest += whole
            phase += rest
            if phase >= geometry.up:
                phase -= geometry.up
                newest += 1

    @always_inline
    def slot_taps(self, entry: Int) -> Pointer[Scalar[Self.ACC], MutAnyOrigin]:
        """Finds a slot: the taps of one output backwards, so that they meet rising samples.

        Slots are aligned to their vectors: no tap vector straddles two cache lines, which costs 5 to 15 %.

        Args:
            entry: Which output of the period.

        Returns:
            The slot's first tap.
        """
        var room = ceildiv(Int(self.taps.unsafe_ptr()), LANE_BYTES) * LANE_BYTES
        return Pointer[Scalar[Self.ACC], MutAnyOrigin](unsafe_from_address=room).unsafe_offset(entry * self.slot)


def compute_span[
    dtype: DType
](
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    table: PhaseTable[dtype],
    geometry: PolyphaseGeometry,
    begin: Int,
    end: Int,
    extension: Extension[dtype] = Extension[dtype](OMIT, 0),
):
    """Computes the outputs [begin, end) of all rows' outputs in a line, on the calling thread.

    Parameters:
        dtype: Element type of signals and outputs.

    Args:
        y: Outputs.
        x: Signals.
        table: The sorted taps.
        geometry: Sizes, rates and shifts, already reduced.
        begin: First output.
        end: One past the last output.
        extension: What stands beyond the ends of each signal; nothing by default.
    """
    var at = begin
    while at < end:
        var row = at // geometry.outputs
        var first = at % geometry.outputs
        var count = min(geometry.outputs - first, end - at)
        var y_row = y.unsafe_offset(row * geometry.y_stride)
        var x_row = x.unsafe_offset(row * geometry.x_stride)
        if geometry.down == 1:
            if geometry.up % 4 == 0:
                interpolate_outputs[phases=4](y_row, x_row, table, geometry, extension, first, count)
            elif geometry.up % 2 == 0:
                interpolate_outputs[phases=2](y_row, x_row, table, geometry, extension, first, count)
            else:
                interpolate_outputs[phases=1](y_row, x_row, table, geometry, extension, first, count)
        elif geometry.up == 1:
            compute_outputs[is_one_phase=True](y_row, x_row, table, geometry, extension, first, count)
        else:
            compute_outputs[is_one_phase=False](y_row, x_row, table, geometry, extension, first, count)
        at += count


@no_inline
def compute_outputs[
    dtype: DType, //, is_one_phase: Bool
](
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    table: PhaseTable[dtype],
    geometry: PolyphaseGeometry,
    extension: Extension[dtype],
    first: Int,
    count: Int,
):
    """Computes neighbouring outputs of one row.

    Parameters:
        dtype: Element type of signals and outputs.
        is_one_phase: Whether `up` is 1, so that all outputs share their taps.

    Args:
        y: The row's outputs.
        x: The row's signal.
        table: The sorted taps.
        geometry: Sizes, rates and shifts, already reduced.
        extension: What stands beyond the ends.
        first: The first of these outputs.
        count: How many outputs.
    """
    var starts = table.starts.unsafe_ptr()
    var lengths = table.lengths.unsafe_ptr()
    var taps = table.slot_taps(0)
    var slot = table.slot
    var entry = first % geometry.up
    var base = first // geometry.up * geometry.down
    for i in range(first, first + count, TILE):
        # Whole slots are read, so a tile is interior only if they, not just the taps, lie inside x.
        var is_interior = (
            base + starts[unsafe_offset=entry] >= 0
            and base + starts[unsafe_offset=entry + TILE - 1] + slot <= geometry.samples
        )
        if is_interior and i + TILE <= first + count:
            y.unsafe_store(
                i,
                compute_tile[is_one_phase](
                    x.unsafe_offset(base),
                    taps.unsafe_offset(entry * slot),
                    slot,
                    starts.unsafe_offset(entry),
                    lengths.unsafe_offset(entry),
                ),
            )
        else:
            for output in range(min(TILE, first + count - i)):
                y[unsafe_offset=i + output] = compute_edge_output(
                    x,
                    taps.unsafe_offset((entry + output) * slot),
                    geometry.samples,
                    base + starts[unsafe_offset=entry + output],
                    Int(lengths[unsafe_offset=entry + output]),
                    extension,
                )
        base += TILE // geometry.up * geometry.down
        entry += TILE % geometry.up
        if entry >= geometry.up:
            entry -= geometry.up
            base += geometry.down


@always_inline
def compute_tile[
    dtype: DType, //, is_one_phase: Bool
](
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    taps: Pointer[Scalar[accum_dtype[dtype]()], MutAnyOrigin],
    slot: Int,
    starts: Pointer[mut=False, Int, _],
    lengths: Pointer[mut=False, Int32, _],
) -> SIMD[dtype, TILE]:
    """Computes `TILE` outputs whose slots lie inside x.

    Parameters:
        dtype: Element type of signals and outputs.
        is_one_phase: Whether all outputs share their taps.

    Args:
        x: The signal from the current period on.
        taps: The first output's slot.
        slot: Length of a slot.
        starts: For each output, the sample that its slot's first tap meets.
        lengths: For each output, the taps in its slot.

    Returns:
        The outputs.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime LANES = LANE_BYTES // size_of[ACC]()
    var lanes = iota[DType.int32, LANES]()
    var sums = Array[SIMD[ACC, LANES], TILE](fill=0)
    var last = slot - LANES
    for j in range(0, last, LANES):
        var these = taps.unsafe_load[width=LANES](j)
        comptime for output in range(TILE):
            comptime if not is_one_phase:
                these = taps.unsafe_load[width=LANES](output * slot + j)
            var samples = x.unsafe_load[width=LANES](starts[unsafe_offset=output] + j).cast[ACC]()
            sums[output] = multiply_add(samples, these, sums[output])
    # Behind a slot's taps are zeros; the samples there, which may be infinite, are replaced by zeros too.
    var these = taps.unsafe_load[width=LANES](last)
    comptime for output in range(TILE):
        comptime if not is_one_phase:
            these = taps.unsafe_load[width=LANES](output * slot + last)
        var samples = x.unsafe_load[width=LANES](starts[unsafe_offset=output] + last).cast[ACC]()
        var exists = lanes.lt(lengths[unsafe_offset=output] - Int32(last))
        sums[output] = multiply_add(exists.select(samples, 0), these, sums[output])
    return add_lanes(sums).cast[dtype]()


@no_inline
def compute_edge_output[
    dtype: DType
](
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    slot_taps: Pointer[Scalar[accum_dtype[dtype]()], MutAnyOrigin],
    samples: Int,
    start: Int,
    length: Int,
    extension: Extension[dtype],
) -> Scalar[dtype]:
    """Computes one output, of which some terms may lie outside x: the sums of `compute_tile` in the same order.

    A term that is left out becomes zero times zero: an infinite tap must not turn it into NaN.

    Parameters:
        dtype: Element type of signals and outputs.

    Args:
        x: The row's signal.
        slot_taps: The output's slot.
        samples: N.
        start: The sample that the slot's first tap meets; may be negative.
        length: Taps in the slot.
        extension: What stands beyond the ends.

    Returns:
        The output.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime LANES = LANE_BYTES // size_of[ACC]()
    var lanes = iota[DType.int, LANES]()
    var sums = SIMD[ACC, LANES](0)
    # Only vectors with a sample: a signal shorter than the taps then costs N, not K, an output.
    var begin = max(0, -start) if extension.omits() else 0
    var end = min(length, samples - start) if extension.omits() else length
    for j in range(begin // LANES * LANES, end, LANES):
        var exists = lanes.ge(begin - j) & lanes.lt(end - j)
        var values = SIMD[dtype, LANES](0)
        if extension.omits():
            values = masked_load[LANES](x.unsafe_offset(start + j), exists, values)
        else:
            for lane in range(min(LANES, end - j)):
                values[lane] = extension.sample(x, start + j + lane, samples)
        var taps = exists.select(slot_taps.unsafe_load[width=LANES](j), 0)
        sums = multiply_add(values.cast[ACC](), taps, sums)
    return add_neighbours(sums).cast[dtype]()


@always_inline
def add_neighbours[dtype: DType, width: SIMDLength](sums: SIMD[dtype, width]) -> Scalar[dtype]:
    """Adds the lanes of one vector, each to its neighbour until one is left.

    Parameters:
        dtype: Accumulation type.
        width: Number of lanes, a power of two.

    Args:
        sums: Partial sums.

    Returns:
        Their sum.
    """
    comptime if width == 1:
        return sums[0]
    else:
        var halves = sums.deinterleave()
        return add_neighbours(halves[0] + halves[1])


@always_inline
def add_lanes[dtype: DType, width: Int](sums: Array[SIMD[dtype, width], TILE]) -> SIMD[dtype, TILE]:
    """Adds the lanes of `TILE` vectors together, each vector's in the order of `add_neighbours`.

    At every step two vectors become one, with half as many sums for each of twice as many outputs.

    Parameters:
        dtype: Accumulation type.
        width: Number of lanes, `TILE` or twice that.

    Args:
        sums: Partial sums of each output.

    Returns:
        The outputs.

    Constraints:
        The width is `TILE` or twice that.
    """
    comptime assert width == TILE or width == 2 * TILE
    var folded = sums.copy()
    comptime for level in range(3):
        comptime for at in range(TILE >> (level + 1)):
            var halves = folded[2 * at].join(folded[2 * at + 1]).deinterleave()
            folded[at] = rebind[SIMD[dtype, width]](halves[0] + halves[1])
    comptime if width == TILE:
        return rebind[SIMD[dtype, TILE]](folded[0])
    else:
        var halves = folded[0].deinterleave()
        return rebind[SIMD[dtype, TILE]](halves[0] + halves[1])


@no_inline
def interpolate_outputs[
    dtype: DType, //, phases: Int
](
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    table: PhaseTable[dtype],
    geometry: PolyphaseGeometry,
    extension: Extension[dtype],
    first: Int,
    count: Int,
):
    """Computes neighbouring outputs of one row where `down` is 1: the outputs of a phase meet neighbouring samples.

    Every output adds its slot's taps one by one, in a vector as outside of one.

    Parameters:
        dtype: Element type of signals and outputs.
        phases: Phases whose outputs are stored together, a divisor of `up`.

    Args:
        y: The row's outputs.
        x: The row's signal.
        table: The sorted taps.
        geometry: Sizes, rates and shifts, already reduced.
        extension: What stands beyond the ends.
        first: The first of these outputs.
        count: How many outputs.
    """
    comptime WIDTH = simd_width_of[accum_dtype[dtype]()]()
    var up = geometry.up
    var end = first + count
    # Periods of `up` outputs that are wanted whole and whose terms all lie inside x. A period is one sample long.
    var last = min(up, geometry.outputs) - 1
    var newest = table.starts[last] + Int(table.lengths[last]) - 1
    var period = max(ceildiv(first, up), -table.starts[0])
    var end_period = min(end // up, geometry.samples - newest)
    if end_period - period >= WIDTH:
        for i in range(first, period * up):
            y[unsafe_offset=i] = interpolate_one(x, table, geometry, extension, i)
        if end_period - period >= WIDTH * INTERPOLATION_VECTORS:
            interpolate_periods[phases, INTERPOLATION_VECTORS](y, x, table, up, period, end_period)
        else:
            interpolate_periods[phases, 1](y, x, table, up, period, end_period)
        for i in range(end_period * up, end):
            y[unsafe_offset=i] = interpolate_one(x, table, geometry, extension, i)
    else:
        for i in range(first, end):
            y[unsafe_offset=i] = interpolate_one(x, table, geometry, extension, i)


@always_inline
def interpolate_periods[
    dtype: DType, //, phases: Int, vectors: Int
](
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    table: PhaseTable[dtype],
    up: Int,
    begin: Int,
    end: Int,
):
    """Computes whole periods of `up` outputs whose terms all lie inside x.

    Parameters:
        dtype: Element type of signals and outputs.
        phases: Phases whose outputs are stored together, a divisor of `up`.
        vectors: Vectors of periods taken together.

    Args:
        y: The row's outputs.
        x: The row's signal.
        table: The sorted taps.
        up: Outputs of a period.
        begin: First period.
        end: One past the last, at least `vectors` vectors behind the first.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime WIDTH = simd_width_of[ACC]()
    comptime BLOCK = WIDTH * vectors
    for wanted in range(begin, end, BLOCK):
        var block = min(wanted, end - BLOCK)  # the last block computes some outputs again, to the same bits
        for entry in range(0, up, phases):
            var sums = Array[SIMD[ACC, WIDTH], phases * vectors](fill=0)
            comptime for phase in range(phases):
                var taps = table.slot_taps(entry + phase)
                var samples = x.unsafe_offset(block + table.starts.unsafe_ptr()[unsafe_offset=entry + phase])
                for j in range(Int(table.lengths.unsafe_ptr()[unsafe_offset=entry + phase])):
                    var tap = SIMD[ACC, WIDTH](rebind[Scalar[ACC]](taps[unsafe_offset=j]))
                    comptime for vector in range(vectors):
                        var there = samples.unsafe_load[width=WIDTH](j + vector * WIDTH).cast[ACC]()
                        sums[phase * vectors + vector] = multiply_add(there, tap, sums[phase * vectors + vector])
            comptime for vector in range(vectors):
                var place = (block + vector * WIDTH) * up + entry
                comptime if phases == 1:
                    store_spread[1](y.unsafe_offset(place), sums[vector].cast[dtype](), up)
                elif phases == 2:
                    var pairs = sums[vector].interleave(sums[vectors + vector])
                    store_spread[2](y.unsafe_offset(place), pairs.cast[dtype](), up)
                else:
                    var even = sums[vector].interleave(sums[2 * vectors + vector])
                    var odd = sums[vectors + vector].interleave(sums[3 * vectors + vector])
                    store_spread[4](y.unsafe_offset(place), even.interleave(odd).cast[dtype](), up)


@always_inline
def store_spread[
    dtype: DType, width: SIMDLength, //, run: Int
](y: Pointer[Scalar[dtype], MutAnyOrigin], values: SIMD[dtype, width], distance: Int):
    """Stores a vector in runs that lie apart.

    Parameters:
        dtype: Element type.
        width: Number of values.
        run: Values of a run.

    Args:
        y: Where the first run belongs.
        values: The runs, one behind the other.
        distance: From one run to the next.
    """
    if distance == run:
        y.unsafe_store(0, values)
        return
    comptime for at in range(Int(width) // run):
        y.unsafe_store(at * distance, values.slice[run, offset=at * run]())


def interpolate_one[
    dtype: DType
](
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    table: PhaseTable[dtype],
    geometry: PolyphaseGeometry,
    extension: Extension[dtype],
    i: Int,
) -> Scalar[dtype]:
    """Computes one output of which some terms may lie outside x.

    Parameters:
        dtype: Element type of signals and outputs.

    Args:
        x: The row's signal.
        table: The sorted taps.
        geometry: Sizes, rates and shifts, already reduced; `down` is 1.
        extension: What stands beyond the ends.
        i: Which output of the row.

    Returns:
        The output.
    """
    comptime ACC = accum_dtype[dtype]()
    var entry = i % geometry.up
    var start = i // geometry.up + table.starts[entry]
    var begin = 0
    var end = Int(table.lengths[entry])
    if extension.omits():
        begin = max(0, -start)
        end = min(end, geometry.samples - start)
    var sum = Scalar[ACC](0)
    for j in range(begin, end):
        var tap = rebind[Scalar[ACC]](table.slot_taps(entry)[unsafe_offset=j])
        sum = multiply_add(extension.sample(x, start + j, geometry.samples).cast[ACC](), tap, sum)
    return sum.cast[dtype]()
