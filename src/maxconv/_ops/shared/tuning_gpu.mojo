"""Numbers of the GPU kernels that were chosen for a device, and what a kernel may ask of the family it is built for.

| family | numbers | half-precision products of layers |
|---|---|---|
| `sm_90a` (H100, H200) | chosen on an H200, by what is said of each | tensor cores |
| `sm_80`, `sm_89`, `sm_100` and other NVIDIA GPUs from `sm_80` on | the same, untried there | tensor cores |
| `sm_75` | the same, untried there | the plain way, in float32 |
| `gfx942` and all others | the same for as many multiprocessors as they have, untried there | the plain way |

NVIDIA GPUs share one set of numbers: a build serves its family and all newer ones (GPU_FAMILIES of _engine/native.py),
and tiles and divisions of terms, which decide the order of a sum and so its bits, are to be the same in all builds.
What one family has otherwise is asked of TARGET, here: no other file asks for the target. Names say the kernel's file
first. What is no matter of speed, such as the widest access, stands in the kernels; so do, as yet, the numbers of direct
sums, FFTs and resampling.
"""

from std.sys.info import size_of
from max.gpu.host import DeviceContext

comptime TARGET = DeviceContext.default_device_info
"""What MAX knows of the family that the program is built for."""

comptime IS_NVIDIA = TARGET.api == "cuda"
"""Whether the program is built as PTX."""

comptime WARP = 32
"""Threads that kernels take for a warp: NVIDIA's. The 64 of AMD's CDNA are two of them, which makes no difference to
barriers, to `syncwarp` and to sums among WARP lanes."""

comptime MULTIPROCESSORS = 132 if IS_NVIDIA else TARGET.sm_count
"""What the blocks of a launch are dealt to: an H200's for NVIDIA GPUs, which PTX does not tell apart."""


def has_tensor_cores[dtype: DType]() -> Bool:
    """Tells whether the target has the products `mma.m16n8k16` of a type: half precision on NVIDIA GPUs from Ampere on.

    Parameters:
        dtype: Element type of the factors.

    Returns:
        False: kernels go the plain way.
    """
    return dtype.is_half_float() and IS_NVIDIA and TARGET.compute >= 8.0


def has_async_copies() -> Bool:
    """Tells whether the target copies from device to shared memory while its threads go on: NVIDIA GPUs from Ampere on.

    Returns:
        False: threads load and store.
    """
    return IS_NVIDIA and TARGET.compute >= 8.0


@fieldwise_init
struct Tile(TrivialRegisterPassable):
    """How much of a matrix product a block and a thread compute, or on tensor cores a warp."""

    var rows: Int
    """Rows of a block."""
    var columns: Int
    """Columns of a block."""
    var thread_rows: Int
    """Rows of a thread."""
    var thread_columns: Int
    """Columns of a thread."""

    @always_inline
    def threads(self) -> Int:
        """Counts the threads of a block, or on tensor cores the warps.

        Returns:
            Whole warps.
        """
        return (self.rows // self.thread_rows) * (self.columns // self.thread_columns)


# cast_gpu.mojo and copy_columns_gpu.mojo move each element once. Not measured: a multiple of a warp.

comptime CAST_THREADS = 256
"""Threads of a block."""

comptime CAST_MAX_BLOCKS = 1 << 13
"""Blocks of a launch: some 8 times as many as an H200 holds."""

comptime COPY_COLUMNS_THREADS = 256
"""Threads of a block: streams come in small blocks, where the launch is what costs."""

# columns_gpu.mojo. Not measured: from the register count and the rates of the caches of an H100.

comptime COLUMNS_THREADS = 256
"""Threads of a block: with 32 lanes 8 runs, so that halos are read from level 2 by every 64th row."""

comptime COLUMNS_LANES = 32
"""The most vectors of columns of a block: a warp then reads whole lines."""

comptime COLUMNS_MAX_RUN_ROWS = 8
"""Output rows of a thread: each sample that is read serves as many taps, more than level 1 needs to keep the adders
busy (128 bytes a clock for 128 multiply-adds)."""

comptime COLUMNS_MAX_SUMS = 64
"""Bound of the registers that hold sums; half as many where as many taps are held."""

# conv_gpu.mojo. With these numbers float32 takes 12 TFLOP/s for 256 channels of 800 samples, K = 11, and 28 for a batch
# of 32, 512 channels, K = 3 (H200, 2026-11-22, benchmarks/mojo/bench_layers_gpu.mojo). Other tiles were not measured.


struct ConvTiles[dtype: DType]:
    """Tiles of conv_gpu.mojo; sums of float64 take twice the registers.

    Parameters:
        dtype: Element type of the arrays.
    """

    comptime IS_WIDE = size_of[Self.dtype]() == 8
    """Whether sums take two registers."""
    comptime LARGE = Tile(64, 64, 4, 4) if Self.IS_WIDE else Tile(128, 128, 8, 8)
    """For many blocks: a value that is read of shared memory serves as many products as registers allow."""
    comptime MEDIUM = Tile(32, 64, 4, 4) if Self.IS_WIDE else Tile(64, 64, 8, 4)
    """For most layers."""
    comptime FEW_ROWS = Tile(32, 64, 4, 4) if Self.IS_WIDE else Tile(32, 128, 4, 8)
    """For groups of few result channels."""
    comptime VERY_FEW_ROWS = Tile(8, 128, 4, 2) if Self.IS_WIDE else Tile(8, 256, 4, 4)
    """For groups of even fewer."""
    comptime SMALL = Tile(16, 32, 4, 2) if Self.IS_WIDE else Tile(32, 32, 4, 4)
    """For few blocks."""
    comptime SMALL_SPLITS = CONV_SPLITS // 2 if Self.IS_WIDE else CONV_SPLITS
    """Parts of a block of SMALL."""


comptime CONV_DEPTH = 16
"""Terms of a chunk: two chunks of the largest tile stay below 48 KB."""

comptime CONV_ENOUGH_BLOCKS = 2 * MULTIPROCESSORS
"""Blocks from which a larger tile pays, also on tensor cores."""

comptime CONV_FEW_BLOCKS = MULTIPROCESSORS
"""Blocks below which multiprocessors stay idle: the tile is then small, and its terms are split."""

comptime CONV_SPLITS = 4
"""Parts of a block that share the terms of a small tile: the chain of chunks, each a wait for memory, is as much
shorter."""

# conv_mma_gpu.mojo. With these numbers bfloat16 takes 20 and 56 TFLOP/s for the two layers above (H200, 2026-11-22). A
# warp takes `thread_rows` by `thread_columns`: 32 threads share what a thread of conv_gpu.mojo has.

comptime CONV_MMA_LARGE = Tile(128, 128, 64, 32)
"""For many blocks."""

comptime CONV_MMA_MEDIUM = Tile(64, 64, 32, 32)
"""For most layers, two parts of a block."""

comptime CONV_MMA_SMALL = Tile(32, 32, 16, 16)
"""For few blocks."""

comptime CONV_MMA_FEW_ROWS = Tile(16, 128, 16, 32)
"""For groups of few result channels."""

comptime CONV_MMA_DEPTH = 32
"""Terms of a chunk: two steps of the tensor cores."""

# conv_weight_gradient_gpu.mojo. With these numbers Whisper's second layer takes 38 us in bfloat16, 78 us in float32
# (H200, 2026-11-22). Tiles are from counts of registers and shared reads; others were not measured.

comptime CONV_WEIGHT_GRADIENT_THREADS = 256
"""Threads of a block: a square of 16 by 16, or eight warps."""

comptime CONV_WEIGHT_GRADIENT_DEPTH = 32
"""Outputs staged at a time: a warp reads neighbours."""

comptime CONV_WEIGHT_GRADIENT_LARGE = Tile(128, 128, 8, 8)
"""For long sums of many weights: half as many gathered elements for each product as MEDIUM."""

comptime CONV_WEIGHT_GRADIENT_MEDIUM = Tile(64, 64, 4, 4)
"""For most layers."""

comptime CONV_WEIGHT_GRADIENT_FEW_ROWS = Tile(32, 64, 2, 4)
"""For groups of few output channels."""

comptime CONV_WEIGHT_GRADIENT_ENOUGH_BLOCKS = 3 * MULTIPROCESSORS
"""Blocks from which terms are not divided further."""

comptime CONV_WEIGHT_GRADIENT_LEAST_CHUNKS = 8
"""Chunks below which a block is not worth its sums' way to memory."""

# weight_gradient_gpu.mojo, the last step of all gradients. Not measured: it reads few elements.

comptime WEIGHT_GRADIENT_THREADS = 128
"""Threads of a block, each of which adds the parts of one weight."""

comptime WEIGHT_GRADIENT_BATCH = 32
"""Parts that a thread has under way at a time: they come from far."""

# depthwise_gpu.mojo; more in direct_gpu.mojo. Not measured.

comptime DEPTHWISE_SHORT_ROW = 96
"""Outputs of a row below which most threads of a tile would have none."""

# depthwise_last_gpu.mojo. With these numbers 12288 channels by 16384 samples of bfloat16, 4 taps, take 196 us, 1.02
# copies, the weight gradient 208 us (H200, 2026-11-23).

comptime DEPTHWISE_LAST_WARPS = 4
"""Warps of a block: neighbours along the signal."""

comptime DEPTHWISE_LAST_SHORT_RUN = 12
"""Outputs of a thread that loads all its samples at once. 8 are 5 to 12 % slower in half precision; a loop that loads 4
of them ahead 5 to 9 %."""

comptime DEPTHWISE_LAST_SHORT_RUN_CHANNELS = 4
"""Channels of such a thread, at most. With twice as many, fewer threads have registers: 3 % slower at best."""

comptime DEPTHWISE_LAST_FORWARD_STEP = 4
"""Outputs that a thread computes from one batch of loads. Not measured: 64 bytes are under way, in 168 registers at
most."""

comptime DEPTHWISE_LAST_WEIGHTS_STEP = 4
"""The same, where two arrays are read: 128 bytes. Not measured."""

comptime DEPTHWISE_LAST_WEIGHTS_RUN = 32
"""Outputs that a warp adds to weights before it looks for the next: fewer share the work more evenly."""

comptime DEPTHWISE_LAST_WEIGHTS_BLOCKS = 4 * MULTIPROCESSORS
"""Blocks that add to weights, at most: as many as a multiprocessor holds at once. With twice as many of some layers the
last wait for places. 8 signals of 4096 channels by 2048: 79 us, before 92."""

comptime DEPTHWISE_LAST_LONGEST_RUN = 64
"""Outputs of a thread, at most: the samples before its first are then read twice, 1 in 20 of 4 taps."""

comptime DEPTHWISE_LAST_ENOUGH_BLOCKS = 12 * MULTIPROCESSORS
"""Blocks from which runs are not divided further. Not measured."""

# depthwise_mma_gpu.mojo. With these numbers 8 signals of 768 channels by 8192 samples of bfloat16, 128 taps, take 110
# us, 2.2 copies (H200, 2026-11-23, benchmarks/mojo/bench_depthwise_gpu.mojo). Others were not measured.

comptime DEPTHWISE_MMA_WARPS = 4
"""Warps of a block, which take turns with its products."""

comptime DEPTHWISE_MMA_MOST_TILE = 4096
"""Outputs of a block: five vectors for each thread to load at once."""

comptime DEPTHWISE_MMA_FEW_STEPS = 3
"""Steps for up to 34 taps."""

comptime DEPTHWISE_MMA_MOST_STEPS = 9
"""Steps for up to 130 taps: registers hold no wider band."""

# depthwise_short_gpu.mojo. With these numbers 12288 channels by 16384 samples of bfloat16, 4 taps, take 199 us, 1.04
# copies (H200, 2026-11-23, benchmarks/mojo/bench_depthwise_gpu.mojo). Others were not measured.

comptime DEPTHWISE_SHORT_THREADS = 128
"""Threads of a block."""

comptime DEPTHWISE_SHORT_VECTORS = 4
"""Vectors of a thread."""

comptime DEPTHWISE_SHORT_LEAST_TEAM = 4
"""Threads that have a row at least: their accesses fill a cache line."""

# depthwise_short_weight_gradient_gpu.mojo. With these numbers the gradient of that layer takes 188 us, where a copy
# takes 191 (there). Others were not measured.

comptime DEPTHWISE_SHORT_WEIGHT_GRADIENT_THREADS = 128
"""Threads of a block."""

comptime DEPTHWISE_SHORT_WEIGHT_GRADIENT_VECTORS = 2
"""Vectors of outputs that a thread loads at a time."""

# depthwise_weight_gradient_gpu.mojo. Not measured: registers for two blocks on a multiprocessor, 17 KB of shared memory
# each.

comptime DEPTHWISE_WEIGHT_GRADIENT_THREADS = 256
"""Threads of a block."""

comptime DEPTHWISE_WEIGHT_GRADIENT_RUN = 4
"""Neighbouring outputs of a thread: vectors of neighbouring threads then lie side by side in shared memory."""

comptime DEPTHWISE_WEIGHT_GRADIENT_TAPS = 8
"""Taps of a thread: 32 multiply-adds for four vectors that it reads."""

comptime DEPTHWISE_WEIGHT_GRADIENT_TILE = 2048
"""Outputs staged at a time: a vector or two for each thread to load."""

comptime DEPTHWISE_WEIGHT_GRADIENT_ENOUGH_BLOCKS = 16 * MULTIPROCESSORS
"""Blocks from which outputs are not divided further."""

# direct_short_gpu.mojo. With these numbers 2^26 samples of float32, 16 taps, take 130 to 131 us, 1.01 to 1.02 copies
# (H200, 2026-11-23, benchmarks/mojo/bench_direct_gpu.mojo). 4 stages and 4 tiles, or 2 tiles, are 1 % slower.

comptime DIRECT_SHORT_ENOUGH_BLOCKS = 16 * MULTIPROCESSORS
"""Blocks from which a block computes more than one tile: two for each that an H200 holds. Not measured."""


struct DirectShort[dtype: DType, places: Int]:
    """Numbers of direct_short_gpu.mojo: few bytes of a block lie side by side, unless sums take longer than memory.

    Parameters:
        dtype: Element type of the arrays.
        places: Places for taps.
    """

    comptime IS_LONG_HALF = size_of[Self.dtype]() == 2 and Self.places > 8
    """Whether many conversions and sums come with each vector."""
    comptime IS_LONG_DOUBLE = size_of[Self.dtype]() == 8 and Self.places > 8
    """Whether windows take twice the registers."""
    comptime THREADS = 128
    """Threads of a block."""
    comptime VECTORS = 3 if Self.IS_LONG_HALF else 2
    """Vectors of a thread in a tile."""
    comptime STAGES = 4 if Self.IS_LONG_DOUBLE else 3
    """Tiles that a block has in shared memory: one that is computed, the others under way."""
    comptime MOST_TILES = 8 if Self.IS_LONG_HALF else 4 if Self.IS_LONG_DOUBLE else 3
    """Tiles of a block where there are many."""
    comptime LEAST_BLOCKS = 6 if Self.IS_LONG_HALF else 5 if Self.IS_LONG_DOUBLE else 7
    """Blocks of a multiprocessor that registers must be enough for."""
