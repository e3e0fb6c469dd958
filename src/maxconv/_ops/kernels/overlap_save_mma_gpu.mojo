"""FFT convolution of whole rows of half precision on GPU: as overlap_save_rows_gpu.mojo, on tensor cores.

Computes:   y[b, c, i] = bias[c] + sum_j x[b, c, i + j - pad_left] * k[c, tap_index(j)], i in [0, L_out); terms beyond
            the ends of x are left out.
Algorithm:  as overlap_save_rows_gpu.mojo, the transforms by products of matrices (shared/fft_products.mojo). A spectrum
            stays in registers. Rows and filters are multiplied by powers of two first, and their outputs by the inverse:
            the greatest sample comes to [1, 2), the sum of squares of a filter below 1. While a row's last pass goes on,
            the next one is loaded.
Cost:       per point, counted in SASS for sm_90a: 6 products of a warp with 16 times 8 results, 46 other instructions. 8
            by 768 rows of 8192 points are 88 us of issue (H200, 29.6e12 lanes/s), with 1.55e11 flop of products; two
            arrays of bfloat16 to move, 201 MB, are 48 us. A filter is half a row.
Layout:     as in overlap_save_rows_gpu.mojo. Workspace: what `fill_tables` computes.
Tile:       a row: 8 warps, 105 KB of shared memory for 8192 points, so two blocks on a multiprocessor.
Accuracy:   NOT that of float32: seven times on the way values are rounded to float16, of them those of a filter twice;
            products are added in float32, in the hardware's order. Of noise errors are at most 0.034 of float16's eps of
            ||x||*||k||, by check_overlap_save_gpu, emulated. Below 10*eps*log2(2*length) of ||x||*||k||, eps of the
            element type, checked by check_overlap_save_gpu. A NaN or Inf spoils its row, in a filter all rows.
Gate:       precision="fast"; float16 and bfloat16; rows of more than SHORTEST and at most LONGEST samples and outputs, any K
            and pad_left; tensor cores.
Tuning:     OVERLAP_SAVE_MMA_BLOCKS of shared/tuning_gpu.mojo.
Measured:   not yet.
Source:     B. Fu, H. Kumbong, E. Nguyen, C. Re, "FlashFFTConv" (ICLR 2024), for DFTs as chains of products on tensor cores.
"""

from std.math import ceildiv
from std.memory import bitcast
from std.sys._assembly import inlined_assembly
from std.utils import StaticTuple
import max.gpu.primitives.warp as warp_of
from max.gpu import MAX_THREADS_PER_BLOCK_METADATA, block_idx, grid_dim, thread_idx
from max.gpu.host import DeviceContext
from max.gpu.memory import external_memory
from max.gpu.sync import barrier

from ..shared.epilogue import Epilogue
from ..shared.fft_products import (
    CONSTANTS_LENGTH,
    DFT_SCALE,
    FULL,
    HALF,
    SPAN,
    WARPS,
    Constants,
    Shared,
    backward,
    fill_tables,
    first_pass,
    forward,
    halves,
    kept,
    last_pass,
    matrix_length,
    store_constants,
    store_matrix,
)
from ..shared.geometry import Geometry
from ..shared.shared_memory import require_shared_memory, shared_memory_request
from ..shared.tuning_gpu import IS_NVIDIA, MULTIPROCESSORS, OVERLAP_SAVE_MMA_BLOCKS as BLOCKS, WARP

comptime THREADS = WARP * WARPS
"""Threads of a block."""

comptime SHORTEST = 8 * SPAN
"""Rows that are no longer are left to overlap_save_rows_gpu.mojo: they would be half padding."""

comptime LONGEST = 32 * SPAN
"""The longest row: shared memory has no room for more."""


def serves_rows(geometry: Geometry) -> Bool:
    """Tells whether rows have a length for this kernel.

    Args:
        geometry: Sizes of the call.

    Returns:
        True for some thousands of points.
    """
    var needed = max(geometry.samples, geometry.outputs)
    return SHORTEST < needed and needed <= LONGEST


def shared_bytes(lines: Int) -> Int:
    """Counts the shared memory of a block.

    Args:
        lines: Lines of a row.

    Returns:
        Bytes: of weights, of a row, of the DFT of columns, and of little things.
    """
    return 4 * 2 * SPAN * lines + 2 * 2 * SPAN * lines + 2 * matrix_length(lines) + 4 * (CONSTANTS_LENGTH + 2 * WARPS)


@always_inline
def scales_of(most: Float32) -> Tuple[Float32, Float32]:
    """Finds the power of two that brings a magnitude to [1, 2).

    Args:
        most: The magnitude; zero, infinity and whatever is close to them are not brought so far.

    Returns:
        The power, between 2^-126 and 2^126, and its inverse.
    """
    comptime EXPONENT = Int32(0x7F800000)
    comptime TWICE_ONE = Int32(0x7F000000)
    comptime LEAST = Int32(0x00800000)
    var up = min(max(TWICE_ONE - (bitcast[DType.int32](most) & EXPONENT), LEAST), TWICE_ONE - LEAST)
    return bitcast[FULL](up), bitcast[FULL](TWICE_ONE - up)


@always_inline
def share_over_block[is_sum: Bool](value: Float32, scratch: Shared[FULL], thread: Int32):
    """Puts down a warp's sum or maximum, for `found_in_block` behind a barrier.

    Parameters:
        is_sum: True for the sum.

    Args:
        value: The thread's value.
        scratch: Room for WARPS elements.
        thread: Index of the thread.
    """
    var found = value
    comptime for step in range(5):
        var other = warp_of.shuffle_xor(found, UInt32(1 << step))
        found = found + other if is_sum else max(found, other)
    if thread % Int32(WARP) == 0:
        scratch[unsafe_offset=thread // Int32(WARP)] = found


@always_inline
def found_in_block[is_sum: Bool](scratch: Shared[FULL]) -> Float32:
    """Gives what `share_over_block` has put down, of all warps.

    Parameters:
        is_sum: True for the sum.

    Args:
        scratch: WARPS elements.

    Returns:
        The sum, or the maximum.
    """
    var found = scratch[unsafe_offset=Int32(0)]
    comptime for other in range(1, WARPS):
        var each = scratch[unsafe_offset=Int32(other)]
        found = found + each if is_sum else max(found, each)
    return found


@always_inline
def first_sample(thread: Int32) -> Int32:
    """Tells where a lane's samples begin: as a right factor, it has 4 neighbours of 4 lines in 16.

    Args:
        thread: Index of the thread.

    Returns:
        The first; see `sample_offset` for the others.
    """
    var lane = thread % Int32(WARP)
    return thread // Int32(WARP) * 32 + lane // 4 * 4 + lane % 4 * Int32(2 * SPAN)


def sample_offset(index: Int) -> Int:
    """Tells where the next four samples of a lane are.

    Args:
        index: Which four.

    Returns:
        How far behind the first.
    """
    return (index // 4 * 16 + index // 2 % 2 * 8 + index % 2) * SPAN


@always_inline
def unknown(value: Int32) -> Int32:
    """Hides from the compiler what a number is compared with: it would compare beforehand, and spill the results.

    Args:
        value: The number.

    Returns:
        The same.
    """
    comptime if IS_NVIDIA:
        return inlined_assembly["mov.b32 $0, $1;", Int32, constraints="=r,r", has_side_effect=True](value)
    return value


@always_inline
def load_samples[
    dtype: DType, count: Int, //
](mut samples: Array[SIMD[dtype, 4], count], row: Pointer[Scalar[dtype], MutAnyOrigin], length: Int32, thread: Int32,):
    """Reads a lane's samples of a row, zeros behind its end.

    Parameters:
        dtype: Element type.
        count: How many times 4.

    Args:
        samples: Where they go.
        row: The row.
        length: N.
        thread: Index of the thread.
    """
    var first = first_sample(thread)
    if Int(row) % 8 == 0 and length % 4 == 0:
        comptime for i in range(count):
            samples[i] = 0
            if first + Int32(sample_offset(i)) < length:
                samples[i] = row.unsafe_offset(first).unsafe_load[width=4, alignment=8, invariant=True](
                    sample_offset(i)
                )
        return
    var end = unknown(length)
    comptime for i in range(count):
        comptime for each in range(4):
            var n = first + Int32(sample_offset(i) + each)
            samples[i][each] = row[unsafe_offset=n] if n < end else 0


@always_inline
def load_taps[
    dtype: DType, count: Int, //, ahead_of: Int = 0
](
    mut taps: Array[SIMD[dtype, 4], count],
    k: Pointer[Scalar[dtype], MutAnyOrigin],
    length: Int32,
    pad_left: Int32,
    is_flipped: Bool,
    thread: Int32,
):
    """Reads a lane's taps of a filter: as in overlap_save_rows_gpu.mojo that which reaches n samples back is point n.

    Parameters:
        dtype: Element type.
        count: How many times 4.
        ahead_of: Length of the transform for the taps that reach ahead, of which that which reaches m samples is point
            `ahead_of` - m; else 0.

    Args:
        taps: Where they go.
        k: The filter.
        length: K.
        pad_left: As in `Geometry`.
        is_flipped: True for convolution, False for correlation.
        thread: Index of the thread.
    """
    var first = first_sample(thread)
    var origin = length - 1 - pad_left if is_flipped else pad_left - 3  # the least index of four taps, of point 0
    if ahead_of == 0 and Int(k) % 8 == 0 and origin % 4 == 0 and length % 4 == 0:
        comptime for i in range(count):
            var n = first + Int32(sample_offset(i))
            var index = origin + n if is_flipped else origin - n
            taps[i] = 0
            if UInt32(index) < UInt32(length):  # negative ones are large then
                var four = k.unsafe_load[width=4, alignment=8, invariant=True](Int(index))
                taps[i] = four if is_flipped else four.reversed()
        return
    var last = unknown(pad_left) + Int32(ahead_of)
    comptime for i in range(count):
        comptime for each in range(4):
            var n = first + Int32(sample_offset(i) + each)
            var j = last - n
            var exists = UInt32(j) < UInt32(length) and (ahead_of == 0 or n > 0)
            taps[i][each] = k[unsafe_offset=length - 1 - j if is_flipped else j] if exists else 0


@always_inline
def most_of[dtype: DType, count: Int, //](samples: Array[SIMD[dtype, 4], count]) -> Float32:
    """Finds the greatest magnitude.

    Parameters:
        dtype: Element type.
        count: How many times 4.

    Args:
        samples: Numbers; those that are none are left out.

    Returns:
        The magnitude.
    """
    var most = SIMD[dtype, 2](0)  # two at a time is what the hardware has
    comptime for i in range(count):
        var both = abs(samples[i])
        most = max(most, max(both.slice[2](), both.slice[2, offset=2]()))
    return max(most[0].cast[FULL](), most[1].cast[FULL]())


@always_inline
def factors_of[
    dtype: DType, count: Int, //
](samples: Array[SIMD[dtype, 4], count], scale: Float32) -> Array[SIMD[HALF, 4], count]:
    """Makes right factors for `first_pass`.

    Parameters:
        dtype: Element type.
        count: How many times 4.

    Args:
        samples: A lane's samples.
        scale: By which they are multiplied.

    Returns:
        The factors.
    """
    var factors = Array[SIMD[HALF, 4], count](fill=0)
    comptime for step in range(0, count, 4):
        comptime for product in range(4):
            var terms = SIMD[FULL, 4](0)
            comptime for each in range(4):
                terms[each] = samples[step + each][product].cast[FULL]() * scale
            factors[step + product] = terms.cast[HALF]()
    return factors^


@always_inline
def squares_of[count: Int, //](factors: Array[SIMD[HALF, 4], count]) -> Float32:
    """Adds squares.

    Parameters:
        count: How many times 4.

    Args:
        factors: Numbers.

    Returns:
        The sum.
    """
    var sums = SIMD[FULL, 4](0)
    comptime for i in range(count):
        var values = factors[i].cast[FULL]()
        sums = values.fma(values, sums)
    return sums.reduce_add()


@always_inline
def store_outputs[
    dtype: DType, count: Int, //
](
    row: Pointer[Scalar[dtype], MutAnyOrigin],
    outputs: Int32,
    sums: Array[SIMD[FULL, 8], count],
    scale: Float32,
    other: Float32,
    offset: Float32,
    thread: Int32,
):
    """Writes a lane's outputs.

    Parameters:
        dtype: Element type.
        count: How many times 8.

    Args:
        row: The row.
        outputs: L_out.
        sums: What `last_pass` gave.
        scale: A power of two by which they are multiplied.
        other: Another.
        offset: What is added.
        thread: Index of the thread.
    """
    var lane = thread % Int32(WARP)
    var first = thread // Int32(WARP) * 32 + lane % 4 * 8 + lane // 4 * Int32(SPAN)
    # The smaller one first: the product of both may be no number, or zero, where the output is neither.
    var low = min(scale, other)
    var high = max(scale, other)
    if Int(row) % 16 == 0 and outputs % 8 == 0:
        comptime for i in range(count):
            if first + Int32(8 * i * SPAN) < outputs:
                var values = (sums[i] * low * high + offset).cast[dtype]()
                row.unsafe_offset(first).unsafe_store[alignment=16](8 * i * SPAN, values)
        return
    var end = unknown(outputs)
    comptime for i in range(count):
        var values = (sums[i] * low * high + offset).cast[dtype]()
        comptime for each in range(8):
            var n = first + Int32(8 * i * SPAN + each)
            if n < end:
                row[unsafe_offset=n] = values[each]


@__llvm_metadata(
    MAX_THREADS_PER_BLOCK_METADATA=StaticTuple[Int32, 1](Int32(THREADS)), `nvvm.minctasm`=SIMDLength(BLOCKS)
)
def convolve_rows[
    dtype: DType, lines: Int
](
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    k: Pointer[Scalar[dtype], MutAnyOrigin],
    epilogue: Epilogue[dtype],
    tables: Pointer[Scalar[FULL], MutAnyOrigin],
    samples: Int32,
    taps: Int32,
    outputs: Int32,
    pad_left: Int32,
    flip: Int32,
    filters: UInt32,
    rows_per_filter: UInt32,
    turns: UInt32,
):
    """Kernel: a thread block takes filters, one after the other, and of each all of its rows, or some.

    Parameters:
        dtype: Element type of signal, taps and output.
        lines: Lines of a row.

    Args:
        y: Outputs.
        x: Signals.
        k: Taps.
        epilogue: Bias.
        tables: What `fill_tables` has computed.
        samples: N.
        taps: K.
        outputs: L_out.
        pad_left: As in `Geometry`.
        flip: 1 for convolution, 0 for correlation.
        filters: How many; row r is convolved with filter r modulo their number.
        rows_per_filter: Rows that each filter serves.
        turns: Thread blocks that share them.
    """
    comptime COUNT = lines // 4
    comptime OWN = lines // WARPS
    var thread = Int32(thread_idx.x)
    var lane = thread % Int32(WARP)
    var first_line = thread // Int32(WARP) * Int32(OWN)
    var weights = external_memory[Scalar[FULL], address_space=AddressSpace.SHARED, alignment=16]()
    var values = weights.unsafe_offset(Int32(2 * SPAN * lines)).unsafe_bitcast[Scalar[HALF]]()
    var matrix = values.unsafe_offset(Int32(2 * SPAN * lines))
    var constants = matrix.unsafe_offset(Int32(matrix_length(lines))).unsafe_bitcast[Scalar[FULL]]()
    var scratch = constants.unsafe_offset(Int32(CONSTANTS_LENGTH))
    comptime for turn in range(2 * SPAN * lines // (4 * THREADS)):
        var at = (Int32(turn * THREADS) + thread) * 4
        weights.unsafe_store[alignment=16](at, tables.unsafe_load[width=4, alignment=16](Int(at)))
    var roots = tables.unsafe_offset(2 * SPAN * lines)
    store_matrix[lines](matrix, roots, thread)
    if thread < Int32(WARP):
        store_constants(constants, roots, lane)
    var rows_per_turn = ceildiv(rows_per_filter, turns)
    var spectrum_re = Array[SIMD[HALF, 8], OWN](fill=0)
    var spectrum_im = Array[SIMD[HALF, 8], OWN](fill=0)
    var window = Array[SIMD[dtype, 4], COUNT](fill=0)
    var item = UInt32(block_idx.x)
    while item < filters * turns:
        var filter = item // turns
        var begin = (item - filter * turns) * rows_per_turn
        var end = min(begin + rows_per_turn, rows_per_filter)
        var offset = epilogue.offset[FULL](Int(filter))

        var k_row = k.unsafe_offset(Int(filter) * Int(taps))
        var ahead = Array[SIMD[dtype, 4], COUNT](fill=0)
        load_taps(window, k_row, taps, pad_left, flip != 0, thread)
        var has_ahead = pad_left < taps - 1
        if has_ahead:
            load_taps[ahead_of=lines * SPAN](ahead, k_row, taps, pad_left, flip != 0, thread)
        share_over_block[False](max(most_of(window), most_of(ahead)), scratch, thread)
        barrier()
        var up, down = scales_of(found_in_block[False](scratch))
        var terms = factors_of(window, up)
        var squares = squares_of(terms)
        if has_ahead:
            var others = factors_of(ahead, up)
            squares += squares_of(others)
            first_pass[lines, True](terms, others, matrix, weights, values, thread)
        else:
            first_pass[lines](terms, terms, matrix, weights, values, thread)
        share_over_block[True](squares, scratch.unsafe_offset(Int32(WARPS)), thread)
        if begin < end:
            load_samples(window, x.unsafe_offset(Int(begin * filters + filter) * Int(samples)), samples, thread)
        barrier()
        # 2^-e of the filter's norm, so that the sum of squares comes below 1; a transform is scaled by DFT_SCALE^3.
        var exponent = (bitcast[DType.int32](found_in_block[True](scratch.unsafe_offset(Int32(WARPS)))) >> 23) - 127
        var halving = min((exponent + 2) >> 1, 62)  # of a sum that is no number, too
        var by_norm = bitcast[FULL]((127 - halving) << 23)
        comptime GAIN = Float32(1 / DFT_SCALE**3)
        var c = Constants(constants, lane)
        comptime for i in range(OWN):
            var points = forward[lines](values, first_line + Int32(i), lane, c)
            comptime for n in range(2):
                points.re[n] *= by_norm * GAIN
                points.im[n] *= by_norm * GAIN
            spectrum_re[i] = halves(points.re)
            spectrum_im[i] = halves(points.im)
        var filter_scale = down / by_norm * Float32(GAIN * GAIN / Float32(lines * SPAN))

        for row in range(begin, end):
            share_over_block[False](most_of(window), scratch, thread)
            barrier()  # nobody reads values any more
            var row_up, row_down = scales_of(found_in_block[False](scratch))
            var factors = factors_of(window, row_up)
            first_pass[lines](factors, factors, matrix, weights, values, thread)
            barrier()
            var again = Constants(constants, lane)
            comptime for i in range(OWN):
                var points = forward[lines](values, first_line + Int32(i), lane, again)
                points.multiply(kept(spectrum_re[i]), kept(spectrum_im[i]))
                backward[lines](points, weights, values, first_line + Int32(i), lane, again)
            if row + 1 < end:
                load_samples(window, x.unsafe_offset(Int((row + 1) * filters + filter) * Int(samples)), samples, thread)
            barrier()
            var sums = last_pass[lines](matrix, values, thread)
            var y_row = y.unsafe_offset(Int(row * filters + filter) * Int(outputs))
            store_outputs(y_row, outputs, sums, row_down, filter_scale, offset, thread)
        item += UInt32(grid_dim.x)


def overlap_save_mma_gpu[
    dtype: DType
](
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    k: Pointer[Scalar[dtype], MutAnyOrigin],
    epilogue: Epilogue[dtype],
    workspace: Pointer[Scalar[FULL], MutAnyOrigin],
    geometry: Geometry,
    turns: Int,
    ctx: DeviceContext,
) raises:
    """Enqueues the computation of all outputs of all rows, in two launches; returns before they are there.

    Parameters:
        dtype: Element type of signal, taps and output, float16 or bfloat16.

    Args:
        y: Outputs on the device, shape (rows, L_out); every one is written. Must not overlap x.
        x: Signals on the device, shape (rows, N).
        k: Taps on the device, shape (tap_rows, K).
        epilogue: A bias for each filter, or none; its activation is not looked at.
        workspace: On the device, `tables_length` elements for the longest row, aligned to 16 bytes.
        geometry: Sizes and shifts, of which `serves_rows` is true; not empty.
        turns: Among how many thread blocks the rows of a filter are divided.
        ctx: The device and its queue.

    Raises:
        If the device's shared memory is too small for a row, or a launch is refused.
    """
    comptime for lines in [16, 32]:
        if (max(geometry.samples, geometry.outputs) <= 16 * SPAN) == (lines == 16):
            comptime bytes = shared_bytes(lines)
            require_shared_memory(bytes, ctx)
            comptime tables = fill_tables[lines]
            ctx.enqueue_function[tables](workspace, grid_dim=lines + 1, block_dim=SPAN)
            comptime kernel = convolve_rows[dtype, lines]
            ctx.enqueue_function[kernel](
                y,
                x,
                k,
                epilogue,
                workspace,
                Int32(geometry.samples),
                Int32(geometry.taps),
                Int32(geometry.outputs),
                Int32(geometry.pad_left),
                Int32(1 if geometry.flip else 0),
                UInt32(geometry.tap_rows),
                UInt32(geometry.rows // geometry.tap_rows),
                UInt32(turns),
                grid_dim=min(geometry.tap_rows * turns, MULTIPROCESSORS * BLOCKS),
                block_dim=THREADS,
                shared_mem_bytes=bytes,
                func_attribute=shared_memory_request(bytes),
            )
