"""Depthwise GPU kernels of few taps beside a copy of their bytes: for tuning, without Python and without MAX models.

    mojo build --target-accelerator sm_90a -I src/maxconv benchmarks/mojo/bench_depthwise_gpu.mojo -o bench_depthwise_gpu
"""

from std.sys.info import size_of
from max.gpu.host import DeviceContext

from _ops.kernels.depthwise_gpu import compute_outputs, launch_tiles
from _ops.kernels.depthwise_mma_gpu import depthwise_mma_gpu
from _ops.kernels.depthwise_short_gpu import FEW_TAPS, MOST_TAPS, is_aligned_depthwise, launch_vectors
from _ops.kernels.depthwise_short_weight_gradient_gpu import launch_sums
from _ops.kernels.depthwise_weight_gradient_gpu import Division, THREADS, depthwise_weight_gradient_parts, sum_rows
from _ops.shared.accumulate import accum_dtype
from _ops.shared.epilogue import Epilogue
from _ops.shared.history import History
from _ops.shared.layer_geometry import LayerGeometry

comptime CACHE_BYTES = 50 << 20
"""The level-2 cache of an H200: arrays take turns until none is left in it."""

comptime TURNS = 8
"""Times that all arrays take their turn."""


def measure[dtype: DType](ctx: DeviceContext, name: String, g: LayerGeometry, activation: Int, skew: Int) raises:
    var samples = g.batch * g.in_channels * g.length
    var values = g.batch * g.out_channels * g.outputs
    var arrays = max(1, 2 * CACHE_BYTES // ((samples + values) * size_of[dtype]()) + 1)
    var x = ctx.enqueue_create_buffer[dtype](arrays * samples + 8)
    var y = ctx.enqueue_create_buffer[dtype](arrays * values + 8)
    var w = ctx.enqueue_create_buffer[dtype](g.out_channels * g.taps)
    var most_parts = depthwise_weight_gradient_parts(g)
    var workspace = ctx.enqueue_create_buffer[accum_dtype[dtype]()](most_parts * g.out_channels * g.taps)
    ctx.enqueue_memset(x, Scalar[dtype](1.37))
    ctx.enqueue_memset(y, Scalar[dtype](0.73))
    ctx.enqueue_memset(w, Scalar[dtype](0.03))
    var wp = Pointer[Scalar[dtype], MutAnyOrigin](unsafe_from_address=Int(w.unsafe_ptr()))
    var parts = Pointer[Scalar[accum_dtype[dtype]()], MutAnyOrigin](unsafe_from_address=Int(workspace.unsafe_ptr()))
    var nothing = Pointer[Scalar[dtype], MutUntrackedOrigin](unsafe_from_address=Int(w.unsafe_ptr()))
    var numbers = Pointer[Int32, MutUntrackedOrigin](unsafe_from_address=Int(w.unsafe_ptr()))
    var epilogue = Epilogue[dtype](nothing, activation != 0, activation)
    var history = History[dtype](nothing, False, numbers, False)

    def x_of(turn: Int) {imm} -> Pointer[Scalar[dtype], MutAnyOrigin]:
        return Pointer[Scalar[dtype], MutAnyOrigin](
            unsafe_from_address=Int(x.unsafe_ptr().unsafe_offset(turn * samples + skew))
        )

    def y_of(turn: Int) {imm} -> Pointer[Scalar[dtype], MutAnyOrigin]:
        return Pointer[Scalar[dtype], MutAnyOrigin](
            unsafe_from_address=Int(y.unsafe_ptr().unsafe_offset(turn * values + skew))
        )

    def copy() raises {imm}:
        for turn in range(arrays):
            ctx.enqueue_copy(
                y.create_sub_buffer[dtype](turn * values, min(samples, values)),
                x.create_sub_buffer[dtype](turn * samples, min(samples, values)),
            )

    def tiles() raises {imm}:
        for turn in range(arrays):
            if g.outputs < 96:
                comptime kernel = compute_outputs[dtype, dtype]
                ctx.enqueue_function[kernel](
                    y_of(turn),
                    x_of(turn),
                    wp,
                    epilogue,
                    g,
                    history,
                    Int32(1),
                    grid_dim=(values + 127) // 128,
                    block_dim=128,
                )
            else:
                launch_tiles[4](y_of(turn), x_of(turn), wp, epilogue, g, history, ctx, False)

    var per = Float64(1000 * TURNS * arrays)
    _ = ctx.execution_time(copy, 2)
    var copying = Float64(ctx.execution_time(copy, TURNS)) / per
    _ = ctx.execution_time(tiles, 2)
    var old = Float64(ctx.execution_time(tiles, TURNS)) / per
    var is_aligned = is_aligned_depthwise(x_of(0), y_of(0), g)
    print(
        dtype, name, "aligned", is_aligned, "arrays", arrays, ": copy", copying, "us, tiles", old, "us", old / copying
    )
    comptime if dtype.is_half_float():
        if g.taps > MOST_TAPS:

            def products() raises {imm}:
                for turn in range(arrays):
                    depthwise_mma_gpu(y_of(turn), x_of(turn), wp, epilogue, g, history, ctx, False)

            _ = ctx.execution_time(products, 2)
            var new = Float64(ctx.execution_time(products, TURNS)) / per
            print("    products:", new, "us", new / copying)
            return
    comptime for taps in [FEW_TAPS, MOST_TAPS]:
        if (g.taps <= FEW_TAPS) == (taps == FEW_TAPS):
            comptime for is_skewed in [False, True]:
                if is_skewed or is_aligned:
                    comptime for code in [1280416, 1280424, 1280232, 1280816, 2560416, 2560424, 2560232]:
                        comptime threads = code // 10000
                        comptime vectors = code // 100 % 100
                        comptime warps = code % 100
                        comptime if (dtype == DType.bfloat16 and taps == FEW_TAPS) or (
                            threads == 128 and vectors < 8 and (vectors == 2 or warps == 16)
                        ):

                            def short() raises {imm}:
                                for turn in range(arrays):
                                    launch_vectors[taps, is_skewed, vectors, threads, warps * 32 // threads](
                                        y_of(turn), x_of(turn), wp, epilogue, g, history, ctx, False
                                    )

                            _ = ctx.execution_time(short, 2)
                            var new = Float64(ctx.execution_time(short, TURNS)) / per
                            print(
                                "    skewed",
                                is_skewed,
                                "threads",
                                threads,
                                "vectors",
                                vectors,
                                "warps",
                                warps,
                                ":",
                                new,
                                "us",
                                new / copying,
                            )
    if activation != 0:
        return

    def rows() raises {imm}:
        for turn in range(arrays):
            var division = Division.of_layer(g, is_aligned, size_of[dtype]())
            comptime kernel = sum_rows[dtype, True]
            ctx.enqueue_function[kernel](
                parts,
                x_of(turn),
                y_of(turn),
                g,
                grid_dim=g.out_channels * division.parts * division.tap_blocks,
                block_dim=THREADS,
            )

    _ = ctx.execution_time(rows, 2)
    old = Float64(ctx.execution_time(rows, TURNS)) / per
    print("  weights: rows", old, "us", old / copying)
    comptime for taps in [FEW_TAPS, MOST_TAPS]:
        if (g.taps <= FEW_TAPS) == (taps == FEW_TAPS):
            comptime for is_skewed in [False, True]:
                if is_skewed or is_aligned:
                    comptime for threads in [128, 256]:
                        comptime for vectors in [2, 4]:

                            def sums() raises {imm}:
                                for turn in range(arrays):
                                    _ = launch_sums[dtype, taps, is_skewed, vectors, threads](
                                        parts, x_of(turn), y_of(turn), g, most_parts, ctx
                                    )

                            _ = ctx.execution_time(sums, 2)
                            var new = Float64(ctx.execution_time(sums, TURNS)) / per
                            print(
                                "    weights: skewed",
                                is_skewed,
                                "threads",
                                threads,
                                "vectors",
                                vectors,
                                ":",
                                new,
                                "us",
                                new / copying,
                            )
    _ = x^
    _ = y^
    _ = w^
    _ = workspace^


def main() raises:
    var ctx = DeviceContext()
    print(ctx.name())
    comptime BF16 = DType.bfloat16
    measure[BF16](ctx, "C12288 L16384 K4", LayerGeometry(1, 12288, 12288, 12288, 16384, 16384, 4, 1, 1, 3), 0, 0)
    measure[BF16](ctx, "B8 C4096 L2048 K4", LayerGeometry(8, 4096, 4096, 4096, 2048, 2048, 4, 1, 1, 3), 0, 0)
    measure[BF16](
        ctx, "B8 C4096 L2048 K4 mirrored pad 0", LayerGeometry(8, 4096, 4096, 4096, 2048, 2048, 4, 1, 1, 0), 0, 0
    )
    measure[BF16](ctx, "B8 C4096 L2048 K4 silu", LayerGeometry(8, 4096, 4096, 4096, 2048, 2048, 4, 1, 1, 3), 3, 0)
    measure[BF16](ctx, "B8 C4096 L2047 K4", LayerGeometry(8, 4096, 4096, 4096, 2047, 2047, 4, 1, 1, 3), 0, 0)
    measure[BF16](ctx, "B8 C1536 L2048 K4", LayerGeometry(8, 1536, 1536, 1536, 2048, 2048, 4, 1, 1, 3), 0, 0)
    measure[BF16](ctx, "B8 C4096 L2048 K16", LayerGeometry(8, 4096, 4096, 4096, 2048, 2048, 16, 1, 1, 15), 0, 0)
    measure[BF16](ctx, "B8 C768 L8192 K128 same", LayerGeometry(8, 768, 768, 768, 8192, 8192, 128, 1, 1, 64), 0, 0)
    measure[BF16](ctx, "B8 C512 L1000 K31", LayerGeometry(8, 512, 512, 512, 1000, 1000, 31, 1, 1, 15), 0, 0)
    measure[DType.float16](
        ctx, "C12288 L16384 K4", LayerGeometry(1, 12288, 12288, 12288, 16384, 16384, 4, 1, 1, 3), 0, 0
    )
    measure[DType.float32](
        ctx, "C12288 L16384 K4", LayerGeometry(1, 12288, 12288, 12288, 16384, 16384, 4, 1, 1, 3), 0, 0
    )
    measure[DType.float32](
        ctx, "B8 C4096 L2048 K16", LayerGeometry(8, 4096, 4096, 4096, 2048, 2048, 16, 1, 1, 15), 0, 0
    )
    measure[BF16](ctx, "B128 C4096 L64 K4", LayerGeometry(128, 4096, 4096, 4096, 64, 64, 4, 1, 1, 3), 0, 0)
    measure[BF16](ctx, "B256 C4096 L33 K4", LayerGeometry(256, 4096, 4096, 4096, 33, 33, 4, 1, 1, 3), 0, 0)
    measure[BF16](ctx, "B512 C4096 L16 K4", LayerGeometry(512, 4096, 4096, 4096, 16, 16, 4, 1, 1, 3), 0, 0)
    measure[BF16](ctx, "B64 C4096 L96 K4", LayerGeometry(64, 4096, 4096, 4096, 96, 96, 4, 1, 1, 3), 0, 0)
    measure[BF16](ctx, "B64 C4096 L100 K3 same", LayerGeometry(64, 4096, 4096, 4096, 100, 100, 3, 1, 1, 1), 0, 0)
