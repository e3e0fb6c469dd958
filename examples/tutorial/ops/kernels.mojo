"""The two kernels of the tutorial: `output[i] = sum_j input[i + j] * kernel[j]`, zeros past the end of the input."""

# --8<-- [start:gpu-imports]
from max.gpu import block_idx, thread_idx
from max.gpu.sync import barrier
from std.memory import unsafe_stack_allocation

# --8<-- [end:gpu-imports]
from std.sys.info import simd_width_of

# --8<-- [start:tile]
comptime TILE = 128
"""Outputs of a block: one a thread."""
# --8<-- [end:tile]


# --8<-- [start:gpu]
def conv1d_gpu[
    dtype: DType, conv_size: Int
](
    output: Pointer[Scalar[dtype], MutAnyOrigin],
    input: Pointer[Scalar[dtype], MutAnyOrigin],
    kernel: Pointer[Scalar[dtype], MutAnyOrigin],
    input_size: Int32,
):
    """Computes one tile of outputs; every block of the grid runs this.

    Parameters:
        dtype: Element type.
        conv_size: Number of taps.

    Args:
        output: Result, `input_size` elements.
        input: Signal, `input_size` elements.
        kernel: Taps, `conv_size` elements.
        input_size: Length of the signal.
    """
    comptime SPAN = TILE + conv_size - 1
    var tile = unsafe_stack_allocation[SPAN, Scalar[dtype], address_space=AddressSpace.SHARED]()
    var taps = unsafe_stack_allocation[conv_size, Scalar[dtype], address_space=AddressSpace.SHARED]()
    var thread = Int32(thread_idx.x)
    var first = Int32(block_idx.x) * TILE

    # The tile and its halo, which belongs to the next block: the first threads come round a second time.
    for i in range(thread, Int32(SPAN), Int32(TILE)):
        tile.unsafe_store(i, input.unsafe_load(first + i) if first + i < input_size else 0)
    for j in range(thread, Int32(conv_size), Int32(TILE)):
        taps.unsafe_store(j, kernel.unsafe_load(j))
    barrier()  # no thread reads what another may not have written yet

    if first + thread < input_size:
        var sum = Scalar[dtype](0)
        comptime for j in range(conv_size):
            sum = tile.unsafe_load(thread + Int32(j)).fma(taps.unsafe_load(j), sum)
        output.unsafe_store(first + thread, sum)


# --8<-- [end:gpu]


# --8<-- [start:cpu]
def conv1d_cpu[
    dtype: DType, conv_size: Int
](
    output: Pointer[Scalar[dtype], MutAnyOrigin],
    input: Pointer[Scalar[dtype], MutAnyOrigin],
    kernel: Pointer[Scalar[dtype], MutAnyOrigin],
    input_size: Int,
):
    """Computes all outputs: full vectors while their windows lie within the signal, then one by one.

    Parameters:
        dtype: Element type.
        conv_size: Number of taps.

    Args:
        output: Result, `input_size` elements.
        input: Signal, `input_size` elements.
        kernel: Taps, `conv_size` elements.
        input_size: Length of the signal.
    """
    comptime WIDTH = simd_width_of[dtype]()
    var i = 0
    while i + WIDTH + conv_size - 1 <= input_size:
        var sums = SIMD[dtype, WIDTH](0)
        comptime for j in range(conv_size):
            var tap = SIMD[dtype, WIDTH](kernel.unsafe_load(j))
            sums = input.unsafe_load[width=WIDTH](i + j).fma(tap, sums)
        output.unsafe_store(i, sums)
        i += WIDTH
    while i < input_size:
        var sum = Scalar[dtype](0)
        for j in range(min(conv_size, input_size - i)):
            sum = input.unsafe_load(i + j).fma(kernel.unsafe_load(j), sum)
        output.unsafe_store(i, sum)
        i += 1


# --8<-- [end:cpu]
