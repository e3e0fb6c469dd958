"""Depthwise 1-D convolution of half-precision layers with many taps on the tensor cores of NVIDIA GPUs.

Computes:   what depthwise_gpu.mojo says, of stride and dilation 1, without history.
Algorithm:  a matrix product for each row: outputs 8*m + n of 128 neighbours are the element (m, n) of X*W, where
            X[m, k] = x[8*m + k - pad_left] are the samples themselves, read with overlap, and W[k, n] = w[k - n] is a
            band of taps that a warp keeps in registers. A block stages a tile of a row in shared memory, as it is.
Cost:       2*N*O*L_out*(K + 7) flop, rounded up to 16 terms, on tensor cores; reads N*C*L and writes N*O*L_out elements.
            Of 8 signals of 768 channels by 8192 samples, 128 taps, bfloat16: 201 MB and 14.5 Gflop, so 48 us at 4.2 TB/s.
            Measured on an H200 (2026-11-23, by benchmarks/mojo/bench_depthwise_gpu.mojo): 110 us, 2.2 times a copy,
            of centred windows; causal ones are not measured.
Layout:     as in depthwise_gpu.mojo; rows may begin anywhere.
Tile:       `tile` outputs, at most MOST_TILE, and 16*steps samples more; 10 KB of shared memory.
Accuracy:   products are exact, sums in float32, 16 terms at a time in an order of the hardware's; rounded once, after
            bias and activation. A sum that comes out as NaN is done again from the terms that exist.
Gate:       `is_long_depthwise`, `has_tensor_cores`; otherwise depthwise_gpu.mojo.
Tuning:     DEPTHWISE_MMA_* of shared/tuning_gpu.mojo.
Source:     fragments as in the PTX ISA, section on mma.m16n8k16.
"""

from std.math import ceildiv
from std.memory import unsafe_stack_allocation
from std.utils.numerics import isnan
from std.utils.static_tuple import StaticTuple
from max.gpu import MAX_THREADS_PER_BLOCK_METADATA, block_idx, thread_idx
from max.gpu.compute.mma import mma

from max.gpu.sync import barrier

from ..shared.aligned_row import LONGEST_ROW, VECTOR_BYTES, AlignedRow
from ..shared.epilogue import Epilogue, activate
from ..shared.history import History
from ..shared.layer_geometry import LayerGeometry
from ..shared.queue import Queue
from ..shared.tuning_gpu import (
    DEPTHWISE_MMA_FEW_STEPS as FEW_STEPS,
    DEPTHWISE_MMA_MOST_STEPS as MOST_STEPS,
    DEPTHWISE_MMA_MOST_TILE as MOST_TILE,
    DEPTHWISE_MMA_WARPS as WARPS,
    WARP,
)
from .depthwise_short_gpu import MOST_TAPS, compute_existing, load_piece

comptime THREADS = WARP * WARPS
"""Threads of a block."""

comptime DEPTH = 16
"""Terms of a step of the tensor cores."""

comptime WIDTH = 8
"""Elements of a vector, and columns of a product."""

comptime PRODUCT = DEPTH * WIDTH
"""Outputs of a product."""


def is_long_depthwise[dtype: DType](geometry: LayerGeometry, has_history: Bool, is_ordered: Bool) -> Bool:
    """Tells whether `depthwise_mma_gpu` serves a layer.

    Parameters:
        dtype: Element type of all arrays.

    Args:
        geometry: Sizes and shifts of a depthwise layer.
        has_history: Whether there is a state, or samples are numbered.
        is_ordered: As for `depthwise_gpu`.

    Returns:
        True for many taps in half precision, whose order does not matter.
    """
    var is_dense = geometry.stride == 1 and geometry.dilation == 1 and not has_history
    var is_countable = 2 * WIDTH <= geometry.length and max(geometry.length, geometry.outputs) <= LONGEST_ROW
    var has_steps = geometry.taps > MOST_TAPS and steps_of(geometry.taps) <= MOST_STEPS
    return dtype.is_half_float() and is_dense and is_countable and has_steps and not is_ordered


def steps_of(taps: Int) -> Int:
    """Counts the steps of a product.

    Args:
        taps: K.

    Returns:
        How many, wherever in a vector a window begins.
    """
    return ceildiv(taps + 2 * (WIDTH - 1), DEPTH)


def depthwise_mma_gpu[
    dtype: DType, //
](
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    w: Pointer[Scalar[dtype], MutAnyOrigin],
    epilogue: Epilogue[dtype],
    geometry: LayerGeometry,
    history: History[dtype],
    queue: Queue,
    is_mirrored: Bool = False,
) raises:
    """Enqueues the computation of all outputs; returns before they are there.

    Parameters:
        dtype: Element type of all arrays, float16 or bfloat16.

    Args:
        y: Outputs on the device, shape (N, O, L_out); every one is written.
        x: Signals on the device, shape (N, C, L).
        w: Weights on the device, shape (O, K).
        epilogue: Bias and activation.
        geometry: Sizes and shifts, of which `is_long_depthwise` is true; not empty.
        history: Neither state nor numbers.
        queue: Where to enqueue it.
        is_mirrored: Whether tap j of a filter is its element K - 1 - j.

    Raises:
        If the launch is refused.
    """
    var tile = MOST_TILE
    while tile > WARPS * PRODUCT and ceildiv(geometry.outputs, tile) * tile * 7 > geometry.outputs * 8:
        tile //= 2
    var tiles = ceildiv(geometry.outputs, tile)
    comptime for steps in [FEW_STEPS, MOST_STEPS]:
        if (steps_of(geometry.taps) <= FEW_STEPS) == (steps == FEW_STEPS):
            comptime kernel = compute_products[dtype, steps]
            queue.enqueue[kernel](
                y,
                x,
                w,
                epilogue,
                geometry,
                history,
                Int32(-1 if is_mirrored else 1),
                Int32(tile),
                UInt32(tiles),
                grid_dim=geometry.batch * geometry.out_channels * tiles,
                block_dim=THREADS,
            )


@__llvm_metadata(MAX_THREADS_PER_BLOCK_METADATA=StaticTuple[Int32, 1](Int32(THREADS)))
def compute_products[
    dtype: DType, steps: Int
](
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    w: Pointer[Scalar[dtype], MutAnyOrigin],
    epilogue: Epilogue[dtype],
    geometry: LayerGeometry,
    history: History[dtype],
    tap_step: Int32,
    tile: Int32,
    tiles: UInt32,
):
    """Kernel: one block computes one tile of a row.

    Parameters:
        dtype: As for `depthwise_mma_gpu`.
        steps: Steps of a product, at least `steps_of` K.

    Args:
        y: As for `depthwise_mma_gpu`.
        x: As for `depthwise_mma_gpu`.
        w: As for `depthwise_mma_gpu`.
        epilogue: As for `depthwise_mma_gpu`.
        geometry: As for `depthwise_mma_gpu`.
        history: As for `depthwise_mma_gpu`.
        tap_step: -1 where filters are mirrored, else 1.
        tile: Outputs of a block, a multiple of PRODUCT.
        tiles: Blocks of a row.
    """
    comptime BAND = DEPTH * steps
    comptime TURNS = ceildiv(MOST_TILE + BAND, THREADS * WIDTH)
    var window = unsafe_stack_allocation[
        MOST_TILE + BAND, Scalar[dtype], address_space=AddressSpace.SHARED, alignment=VECTOR_BYTES
    ]()
    var band = unsafe_stack_allocation[BAND + WIDTH, Scalar[dtype], address_space=AddressSpace.SHARED]()
    var thread = Int32(thread_idx.x)
    var row = UInt32(block_idx.x) // tiles
    var tile_begin = Int32(UInt32(block_idx.x) % tiles) * tile
    var o = Int(row % UInt32(geometry.out_channels))
    var channel = Int(row // (UInt32(geometry.out_channels) // UInt32(geometry.in_channels)))
    var signal = AlignedRow[dtype].of[True](x.unsafe_offset(channel * geometry.length), geometry.length)
    var result = AlignedRow[dtype].of[True](y.unsafe_offset(Int(row) * geometry.outputs), geometry.outputs)
    var lead = signal.before(tile_begin - Int32(geometry.pad_left))
    var begin = tile_begin - Int32(geometry.pad_left) - lead
    var count = min(tile, result.length - tile_begin)

    # All loads before the first store, which waits for its own; threads without a vector repeat the last.
    var last = ceildiv(count, Int32(PRODUCT)) * Int32(PRODUCT) + Int32(BAND - WIDTH)
    var vectors = Array[SIMD[dtype, WIDTH], TURNS](fill=0)
    comptime for turn in range(TURNS):
        var at = min((Int32(turn * THREADS) + thread) * Int32(WIDTH), last)
        vectors[turn] = rebind[SIMD[dtype, WIDTH]](signal.load(begin + at))
    comptime for turn in range(TURNS):
        var at = min((Int32(turn * THREADS) + thread) * Int32(WIDTH), last)
        if not signal.has(begin + at, Int32(WIDTH)):
            vectors[turn] = rebind[SIMD[dtype, WIDTH]](load_piece(signal, history.state, 0, begin + at))
        window.unsafe_store[alignment=VECTOR_BYTES](at, vectors[turn])
    # Tap j is at WIDTH + lead + j; zeros stand on either side.
    var weights = w.unsafe_offset(o * geometry.taps + (geometry.taps - 1 if tap_step < 0 else 0))
    var at = thread
    while at < Int32(BAND + WIDTH):
        var j = at - Int32(WIDTH) - lead
        var exists = j >= 0 and j < Int32(geometry.taps)
        band[unsafe_offset=at] = weights[unsafe_offset=Int(j * tap_step)] if exists else 0
        at += Int32(THREADS)
    barrier()

    # A lane has four neighbouring terms of a step, where the hardware's order has two and two: the same of both
    # operands, so that each is one access to shared memory.
    var lane = thread % Int32(WARP)
    var line = lane // 4
    var term = lane % 4 * 4
    var taps = Array[SIMD[dtype, 4], steps](fill=0)
    comptime for step in range(steps):
        comptime for each in range(4):
            taps[step][each] = band[unsafe_offset=term - line + Int32(WIDTH + step * DEPTH + each)]
    var product = thread // Int32(WARP)
    var is_paired = Int(result.samples) % (2 * VECTOR_BYTES // WIDTH) == 0
    while product * Int32(PRODUCT) < count:
        var sums = SIMD[DType.float32, 4](0)
        var samples = product * Int32(PRODUCT) + line * Int32(WIDTH) + term
        comptime for step in range(steps):
            var high = window.unsafe_load[width=4, alignment=8](samples + Int32(step * DEPTH))
            var low = window.unsafe_load[width=4, alignment=8](samples + Int32(step * DEPTH + PRODUCT // 2))
            var left = high.slice[2]().join(low.slice[2]())
            var right = high.slice[2, offset=2]().join(low.slice[2, offset=2]())
            mma(sums, left.join(right), taps[step], sums)
        comptime for half in range(2):
            var first = tile_begin + product * Int32(PRODUCT) + (line + Int32(8 * half)) * Int32(WIDTH) + lane % 4 * 2
            var two = sums.slice[2, offset=2 * half]()
            var values = activate(two + epilogue.offset[DType.float32](o), epilogue.activation).cast[dtype]()
            if is_paired and first + 2 <= result.length:
                result.samples.unsafe_store[alignment=4](Int(first), values)
            else:
                comptime for each in range(2):
                    if first + Int32(each) < result.length:
                        result.samples[unsafe_offset=Int(first) + each] = values[each]
            if isnan(two[0] + two[1]):
                compute_existing(result, x, weights, epilogue, geometry, history, tap_step, channel, o, first, 2)
        product += Int32(WARPS)
