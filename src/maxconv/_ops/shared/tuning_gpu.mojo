"""Numbers of the GPU kernels that were chosen for a device, and what a kernel may ask of the family it is built for.

| family | numbers | half-precision products of layers |
|---|---|---|
| `sm_90a` (H100, H200) | measured on an H200 | tensor cores |
| `sm_80`, `sm_89`, `sm_100` and other NVIDIA GPUs from `sm_80` on | those of `sm_90a`, not measured | tensor cores |
| `sm_75` | those of `sm_90a`, not measured | the plain way, in float32 |
| `gfx942` and all others | those of `sm_90a` for as many multiprocessors as they have, not measured | the plain way |

NVIDIA GPUs share one set of numbers: a build serves its family and all newer ones (GPU_FAMILIES of _engine/native.py),
and tiles and divisions of terms, which decide the order of a sum and so its bits, are to be the same in all builds. What
one family has otherwise is asked of TARGET, here: no other file asks for the target. Names say the kernel's file first.
What is no matter of speed, such as the widest access, stands in the kernels.
"""

from std.sys.info import size_of
from max.gpu.host import DeviceContext

comptime TARGET = DeviceContext.default_device_info
"""What MAX knows of the family that the program is built for."""

comptime WARP = 32
"""Threads that kernels take for a warp: NVIDIA's. The 64 of AMD's CDNA are two of them, which makes no difference to
barriers, to `syncwarp` and to sums among WARP lanes."""

comptime MULTIPROCESSORS = 132 if TARGET.api == "cuda" else TARGET.sm_count
"""What the blocks of a launch are dealt to: an H200's for NVIDIA GPUs, which PTX does not tell apart."""


def has_tensor_cores[dtype: DType]() -> Bool:
    """Tells whether the target has the products `mma.m16n8k16` of a type: half precision on NVIDIA GPUs from Ampere on.

    Parameters:
        dtype: Element type of the factors.

    Returns:
        False: kernels go the plain way.
    """
    return dtype.is_half_float() and TARGET.api == "cuda" and TARGET.compute >= 8.0


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

# conv_weight_gradient_gpu.mojo. With these numbers Whisper's second layer takes 38 us in bfloat16, 78 us in float32 (H200,
# 2026-11-22). Tiles are from counts of registers and shared reads; others were not measured.

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
