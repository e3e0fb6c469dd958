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
first. What is no matter of speed, such as the widest access, stands in the kernels.

A figure beside a number is of the day, the device and the program that stand above it. Another number is tried by
writing it here and running that program.
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

comptime MULTIPROCESSOR_REGISTERS = 65536
"""Registers that blocks share, an H200's."""

comptime MULTIPROCESSOR_BLOCKS = 32
"""Most blocks that a multiprocessor takes, an H200's."""

comptime MAX_GRID_ROWS = 65535
"""The most blocks that CUDA takes along y."""


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

comptime CONV_MMA_LEAST_BLOCKS[tile: Tile, transposed: Bool] = 1 if transposed or tile.rows > 64 else 2
"""Blocks of a multiprocessor that registers must be enough for. Not measured.

Parameters:
    tile: Tile of a block.
    transposed: Whether the sum is transposed.
"""

# conv_weight_gradient_gpu.mojo. With these numbers Whisper's second layer takes 38 us in bfloat16, 78 us in float32
# (H200, 2026-11-22). Tiles are from counts of registers and shared reads; others were not measured.

comptime CONV_WEIGHT_GRADIENT_SIDE = 16
"""Threads along either side of a block's tile; of a block 256, or eight warps."""

comptime CONV_WEIGHT_GRADIENT_WARP_ROWS = 2
"""Parts of a tile's rows, on the tensor cores."""

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

comptime CONV_WEIGHT_GRADIENT_LEAST_BLOCKS[dtype: DType, rows: Int] = 1 if rows > 64 or size_of[dtype]() == 8 else 2
"""Blocks of a multiprocessor that registers must be enough for. Not measured.

Parameters:
    dtype: Element type.
    rows: Rows of a block's tile.
"""

# weight_gradient_gpu.mojo, the last step of all gradients. Not measured: it reads few elements.

comptime WEIGHT_GRADIENT_THREADS = 128
"""Threads of a block, each of which adds the parts of one weight."""

comptime WEIGHT_GRADIENT_BATCH = 32
"""Parts that a thread has under way at a time: they come from far."""

# depthwise_gpu.mojo; more at direct_gpu.mojo. Not measured.

comptime DEPTHWISE_SHORT_ROW = 96
"""Outputs of a row below which most threads of a tile would have none."""

# depthwise_last_gpu.mojo. With these numbers 12288 channels by 16384 samples of bfloat16, 4 taps, take 196 us, 1.02
# copies, the weight gradient 208 us (H200, 2026-11-23).

comptime DEPTHWISE_LAST_FEW_TAPS = 4
"""Taps of most layers that are short: their kernel has no places more."""

comptime DEPTHWISE_LAST_MOST_TAPS = 16
"""Taps above which registers hold no more filters. Not measured."""

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

comptime DEPTHWISE_LAST_SHORT_RUN_LEAST_BLOCKS[dtype: DType] = 6 if size_of[dtype]() == 2 else 4
"""Blocks of a multiprocessor that the registers of short runs must be enough for. Not measured.

Parameters:
    dtype: Element type.
"""

comptime DEPTHWISE_LAST_LEAST_BLOCKS[dtype: DType, taps: Int] = 4 if taps <= 4 and size_of[dtype]() == 4 else 3
"""The same of long runs. Not measured.

Parameters:
    dtype: Element type.
    taps: Places for taps.
"""

comptime DEPTHWISE_LAST_WEIGHTS_LEAST_BLOCKS[taps: Int] = 4 if taps <= 4 else 3
"""The same of the weight gradient. Not measured.

Parameters:
    taps: Places for taps.
"""

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

comptime DEPTHWISE_SHORT_FEW_TAPS = 4
"""Taps of most layers that are short: their kernel has no places more."""

comptime DEPTHWISE_SHORT_MANY_TAPS = 8
"""Taps of most others."""

comptime DEPTHWISE_SHORT_MOST_TAPS = 16
"""Taps above which registers hold no more samples."""

comptime DEPTHWISE_SHORT_THREADS = 128
"""Threads of a block."""

comptime DEPTHWISE_SHORT_VECTORS = 4
"""Vectors of a thread."""

comptime DEPTHWISE_SHORT_SPARSE_VECTORS[dtype: DType, taps: Int] = 4 if taps * size_of[dtype]() <= 64 else 2
"""The same where places may be without a tap: more windows of 16 float64 samples do not fit into registers.

Parameters:
    dtype: Element type.
    taps: Places for taps.
"""

comptime DEPTHWISE_SHORT_LEAST_TEAM = 4
"""Threads that have a row at least: their accesses fill a cache line."""

comptime DEPTHWISE_SHORT_LEAST_BLOCKS[taps: Int] = 6 if taps <= 4 else 4
"""Blocks of a multiprocessor that registers must be enough for.

Parameters:
    taps: Places for taps.
"""

# depthwise_short_weight_gradient_gpu.mojo. With these numbers the gradient of that layer takes 188 us, where a copy
# takes 191 (there). Others were not measured.

comptime DEPTHWISE_SHORT_WEIGHT_GRADIENT_THREADS = 128
"""Threads of a block."""

comptime DEPTHWISE_SHORT_WEIGHT_GRADIENT_VECTORS = 2
"""Vectors of outputs that a thread loads at a time."""

# The same, with the gradient of the signals: of that layer in bfloat16 289 us with these numbers (H200, 2026-11-23,
# benchmarks/mojo/bench_depthwise_gpu.mojo).

comptime DEPTHWISE_SHORT_BOTH_GRADIENTS_THREADS = 256
"""Threads of a block. 128 take 298 us, 64 take 308."""

comptime DEPTHWISE_SHORT_BOTH_GRADIENTS_VECTORS = 1
"""Vectors that a thread loads at a time: 40 registers, so that a multiprocessor holds all threads that it can. Two take
341 us, three 368; of float32 as long."""

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

comptime DEPTHWISE_WEIGHT_GRADIENT_LEAST_BLOCKS = 2
"""Blocks of a multiprocessor that registers must be enough for."""

# direct_gpu.mojo, whose numbers depthwise_gpu.mojo has, too. Measured on 2^26 samples of float32 (H200, 2026-11-22,
# benchmarks/mojo/bench_direct_gpu.mojo).

comptime DIRECT_THREADS = 128
"""Threads of a block: several blocks fit a multiprocessor, so that some load while others add. 256 are 1 % slower."""

comptime DIRECT_VECTORS_PER_THREAD = 4
"""Runs of outputs per thread: independent loads in flight, and each tap that is read serves all of them. With half as
many, float32 is 3 % slower at K = 4 where windows begin at odd addresses, and 3 to 5 % at K = 16."""

comptime DIRECT_MAX_OUTPUTS_PER_THREAD = 16
"""Bound of the registers that hold sums and samples: more of the narrow types would spill."""

comptime DIRECT_CHUNK = 256
"""Taps staged at a time. Not measured: with the tile at most 13 KB of shared memory."""

# direct_short_gpu.mojo. With these numbers 2^26 samples of float32, 16 taps, take 130 to 131 us, 1.01 to 1.02 copies
# (H200, 2026-11-23, benchmarks/mojo/bench_direct_gpu.mojo). 4 stages and 4 tiles, or 2 tiles, are 1 % slower.

comptime DIRECT_SHORT_PLACES = [4, 8, 16]
"""Places for taps that are compiled. Not measured."""

comptime DIRECT_SHORT_MOST_TAPS = 16
"""The last of them: registers hold no more samples."""

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


# block_pair.mojo, the blocks of overlap_save_gpu.mojo. With the numbers of FFTs 2^26 samples of float32 take 1.16
# copies at K = 64, 1.32 at 256, 1.42 at 1024, 1.82 at 4096 (H200, 2026-11-23, poe bench gpu).

comptime BLOCK_PAIR_LONGEST_PAIRED = 4096
"""The longest block that shares a transform with its neighbour. Folding costs 9 instructions a point more, of 100; two
blocks of 8192 instead of a folded one of 16384 take 2.44 copies at K = 4096."""

comptime BLOCK_PAIR_LONGEST_BLOCK = 16384
"""The longest block: what fits into one multiprocessor twice, folded."""

# fft_points.mojo, the transforms of overlap_save_gpu.mojo (H200, 2026-11-22).


def fft_log2_points(nfft: Int) -> Int:
    """Chooses how many points a thread keeps in registers.

    Args:
        nfft: Length of the transform.

    Returns:
        Logarithm of the number: 16 points, 32 where three passes would not do otherwise. Not measured: the compiler's
        counts of registers.
    """
    return 5 if nfft >= 8192 else 4


def fft_registers(nfft: Int, sparing: Int = 4096) -> Int:
    """Chooses how many registers a thread has for 16 points of float32.

    Args:
        nfft: Length of the transform.
        sparing: Length from which it has the fewest.

    Returns:
        Below `sparing` 80: it takes 104 if it may, which is 1 to 6 % slower; 64 are 4 to 8 % slower. From there on 64,
        the fewest that the compiler does without spilling: more blocks load or store while others compute, 1 to 3 %
        faster than 80 at 4096, 24 % at 8192.
    """
    return 80 if nfft < sparing else 64


# overlap_save_rows_gpu.mojo. With this number 8 by 768 rows of 4096 samples of float32, 4096 taps, take 126 us (H200,
# 2026-11-23, benchmarks/mojo/bench_overlap_save_gpu.mojo, "layers").

comptime OVERLAP_SAVE_ROWS_SPARING[acc: DType] = 8192 if size_of[acc]() == 4 else 4096
"""Length of transform from which a thread has 64 registers for 16 points of float32, not 80: of 4096 points those take
149 us, and 128 registers 138. In float64 twice as many from 4096 on: with 160 there is one block on a multiprocessor, 179
us for 4 by 768 rows, with 128 there are two, 151 us.

Parameters:
    acc: Accumulation type.
"""

# overlap_save_mma_gpu.mojo. Not measured.

comptime OVERLAP_SAVE_MMA_BLOCKS = 2
"""Thread blocks that a multiprocessor is asked to hold: so many have room in shared memory, of 8192 points, and 128
registers for a thread, without spilling what a row needs."""

# fft_columns.mojo and overlap_save_long_gpu.mojo. Not measured.

comptime FFT_COLUMNS_COLUMN = 512
"""Points of a column: a longer one would leave room for fewer neighbours in shared memory."""

comptime OVERLAP_SAVE_LONG_LEAST_BLOCKS = 2
"""Blocks of columns that a multiprocessor should take at once, which bounds their registers to 64."""

# fft_parts.mojo and overlap_save_parts_gpu.mojo. With these numbers 2^26 samples of float32 take 2.79 device copies at
# K = 16384 (H200, 2026-11-23, poe bench gpu); others were not measured.

comptime FFT_PARTS_COUNT = 24
"""Parts, three times a power of two: what shared memory holds."""

comptime FFT_PARTS_PART = 1024
"""Points of a part: the longest transform that a warp does alone, without a barrier."""

comptime FFT_PARTS_HELD = 5
"""Logarithm of the points of a thread: two passes then do, with one exchange each way."""

comptime OVERLAP_SAVE_PARTS_WARPS = 12
"""Warps of a block: each takes two parts, with 168 registers a thread for 32 points."""

comptime OVERLAP_SAVE_PARTS_LEAST_BLOCKS = 1
"""Blocks of a multiprocessor that registers must be enough for: shared memory has no room for more."""

# polyphase_gpu.mojo with polyphase_tiling.mojo and polyphase_sums.mojo. With these numbers 2^26 samples of float32 take
# 1.56 device copies of their bytes at 160/147, 2.00 at 147/160; float64 1.55 and 1.78 (H200, 2026-11-23,
# benchmarks/mojo/bench_polyphase_gpu.mojo).

comptime POLYPHASE_GROUP = 8
"""Neighbouring outputs of a thread. 4 read half as many words again for a multiply-add; 16 waste half on zero taps."""

comptime POLYPHASE_GROUPS = 4
"""Neighbouring groups of a warp. Not measured: a warp stores 32 outputs side by side."""

comptime POLYPHASE_MAX_PANELS = 5
"""Panels, and warps, of a block, which share its samples: 160 outputs, a period of 160/147. Not measured."""

comptime POLYPHASE_PERIODS = 4
"""Neighbouring periods of a thread: a tap that is read serves all of them. 8 took 2.9 copies
where 4 took 2.1."""

comptime POLYPHASE_UNROLL = 4
"""Positions per iteration: their addresses differ by constants. Not measured."""

comptime POLYPHASE_LOADS = 8
"""Taps that a thread has under way while it stages. Not measured."""

comptime POLYPHASE_SHARED_BYTES = 96 << 10
"""Shared memory of a block, at most: two then fit a multiprocessor. Not measured."""

comptime POLYPHASE_SMALLEST_CHUNK = 16
"""Fewest positions worth staging at a time, unless they are all. Not measured."""

comptime POLYPHASE_LEAST_BLOCKS[dtype: DType] = 3 if size_of[dtype]() <= 4 else 2
"""Blocks of a multiprocessor that registers must be enough for. Not measured.

Parameters:
    dtype: Element type.
"""

comptime POLYPHASE_MOST_BLOCKS[dtype: DType] = (3 if size_of[dtype]() <= 4 else 4) * MULTIPROCESSORS
"""Blocks among which tiles are dealt, each of which stages its taps once: as many as an H200 holds, or of wider
elements twice as many. With half as many more the last ones take as long.

Parameters:
    dtype: Element type.
"""

# polyphase_outputs_gpu.mojo. With these numbers 1/100 with 2001 taps takes 6.5 copies of its bytes (H200, 2026-11-23,
# benchmarks/mojo/bench_polyphase_gpu.mojo). Others were not measured.

comptime POLYPHASE_OUTPUTS_WARPS = 4
"""Warps of a block, each at outputs of its own: several blocks fit a multiprocessor, so that some load while others
add."""

comptime POLYPHASE_OUTPUTS_MAX_BLOCKS = 1 << 13
"""Blocks over which tiles are dealt: some 8 times as many as an H200 holds, so that the last ones matter little."""

comptime POLYPHASE_OUTPUTS_OUTPUTS = 4
"""Neighbouring outputs of a warp, which share what they read."""

comptime POLYPHASE_OUTPUTS_TERMS = 8
"""Terms that a thread of a warp has under way at a time."""

comptime POLYPHASE_OUTPUTS_BATCH = 2
"""Terms of each of some outputs that a thread has under way."""

comptime POLYPHASE_OUTPUTS_WARP_TAPS = 128
"""Taps of a phase from which a warp adds them together, where the samples do not fit in shared memory."""

# polyphase_near_gpu.mojo, whose header has what it takes.

comptime POLYPHASE_NEAR_GROUP = 20
"""Neighbouring outputs of a thread, whole vectors."""

comptime POLYPHASE_NEAR_PERIODS = 2
"""Periods of a thread."""

comptime POLYPHASE_NEAR_WARPS = 8
"""Warps of a block, each with a group of its own: 160 outputs, a period of 160/147."""

comptime POLYPHASE_NEAR_BLOCKS = 2
"""Blocks of a multiprocessor."""

# polyphase_window_gpu.mojo, whose header has what each of the rates takes. In the course of tuning, in copies (float32,
# H200, 2026-11-23): 2/1 for 4 blocks 1.20, for 5 1.24, with 8 periods 1.25; 3/1 for 6 1.17, for 7 1.20; 4/1 in 4 parts
# for 6 1.23, for 5 1.25, in 2 parts 1.28; 8/1 for 6 1.30, for 5 1.31, with 8 periods 1.40; 1/2 with 16 periods 1.32,
# with 8 1.41; 1/3 for 5 1.38, for 4 1.43; 1/4 for 4 1.32, for 5 1.33; 1/8 in 8 parts 1.37, in 4 1.45; 3/2 for 5 1.20,
# for 4 1.22; 4/3 for 6 1.21, for 5 1.22. Other blocks of 2/3 and 3/4 were not measured. Of 256 MB, in 1, 2, 4 and 8
# waves: 1/2 1.35, 1.33, 1.31, 1.29; 1/4 1.24, 1.26, 1.32, 1.32; 2/1 1.16, 1.15, 1.16, 1.18; of others as the table has.

comptime POLYPHASE_WINDOW_THREADS = 128
"""Threads of a block. Not measured."""

comptime POLYPHASE_WINDOW_SHARED_BYTES = 56 << 10
"""Shared memory of a block, at most: four then fit a multiprocessor. With 48 KB 1/2 of 41 taps was not streamed: 1.45
copies for 1.28."""


@fieldwise_init
struct PolyphaseRate(TrivialRegisterPassable):
    """Rates that have a kernel of their own."""

    var up: Int
    """Rate of the inserted zeros."""
    var down: Int
    """Rate of the outputs."""
    var periods: Int
    """Periods of a thread: `periods` times either rate is a number of whole vectors, and of `parts`."""
    var blocks: Int
    """Blocks of a multiprocessor that registers must be enough for."""
    var parts: Int
    """Parts of a run, after each of which the taps may end: fewer zero taps."""
    var is_streamed: Bool
    """Whether each warp has a window of its own and goes on to the next tile, whose samples come while it adds."""

    var split: Int
    """Neighbouring threads that share outputs: each adds the terms of its part of every `down` samples."""
    var waves: Int
    """Blocks of a launch for each that the device holds at once, if tiles are streamed: with more blocks the last ones
    end more evenly, with fewer there are fewer waits for the first samples."""

    def team(self) -> Int:
        """Counts the threads that share a window.

        Returns:
            Those of a warp, or of a block.
        """
        return WARP if self.is_streamed else POLYPHASE_WINDOW_THREADS

    def once(self) -> Self:
        """Gives what serves more taps: a block has room for one tile, not for two of each warp.

        Returns:
            The same rates, not streamed.
        """
        var other = self
        other.is_streamed = False
        return other


comptime POLYPHASE_WINDOW_RATES = [
    (PolyphaseRate(1, 1, 16, 6, 2, False, 1, 1), PolyphaseRate(1, 1, 16, 3, 2, False, 1, 1)),
    (PolyphaseRate(1, 2, 16, 4, 2, True, 1, 8), PolyphaseRate(1, 2, 8, 3, 2, False, 1, 1)),
    (PolyphaseRate(1, 3, 8, 5, 2, True, 1, 8), PolyphaseRate(1, 3, 8, 2, 2, False, 1, 1)),
    (PolyphaseRate(1, 4, 8, 4, 8, True, 1, 1), PolyphaseRate(1, 4, 8, 3, 2, False, 1, 1)),
    (PolyphaseRate(1, 8, 8, 5, 8, False, 2, 1), PolyphaseRate(1, 8, 4, 2, 2, False, 1, 1)),
    (PolyphaseRate(2, 1, 16, 4, 2, True, 1, 2), PolyphaseRate(2, 1, 8, 3, 2, False, 1, 1)),
    (PolyphaseRate(2, 3, 8, 4, 2, True, 1, 8), PolyphaseRate(2, 3, 8, 2, 2, False, 1, 1)),
    (PolyphaseRate(3, 1, 8, 6, 2, True, 1, 2), PolyphaseRate(3, 1, 8, 2, 2, False, 1, 1)),
    (PolyphaseRate(3, 2, 8, 5, 2, True, 1, 4), PolyphaseRate(3, 2, 8, 2, 2, False, 1, 1)),
    (PolyphaseRate(3, 4, 4, 5, 2, True, 1, 8), PolyphaseRate(3, 4, 4, 2, 2, False, 1, 1)),
    (PolyphaseRate(4, 1, 8, 6, 4, True, 1, 2), PolyphaseRate(4, 1, 8, 2, 2, False, 1, 1)),
    (PolyphaseRate(4, 3, 4, 6, 2, True, 1, 4), PolyphaseRate(4, 3, 4, 2, 2, False, 1, 1)),
    (PolyphaseRate(8, 1, 4, 6, 2, True, 1, 2), PolyphaseRate(8, 1, 4, 3, 2, False, 1, 1)),
]
"""The rates of most calls, for elements of 4 bytes and of 8."""
