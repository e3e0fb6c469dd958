"""What a thread of polyphase_gpu.mojo adds: samples of its periods in shared memory times the taps of a group of outputs.

Each position is one sample of every period and one tap of every output; zeros stand for taps that an output has not.
"""

from std.sys.info import size_of

from .accumulate import multiply_add
from .aligned_row import VECTOR_BYTES
from .polyphase_tiling import PANEL, sample_pitch
from .tuning_gpu import POLYPHASE_GROUP as GROUP, POLYPHASE_PERIODS as PERIODS, POLYPHASE_UNROLL as UNROLL


@always_inline
def add_all_taps[
    dtype: DType, acc: DType
](
    mut sums: Array[SIMD[acc, PERIODS], GROUP],
    samples: Pointer[mut=True, Scalar[dtype], _, address_space=AddressSpace.SHARED],
    taps: Pointer[mut=True, Scalar[acc], _, address_space=AddressSpace.SHARED],
    count: Int32,
):
    """Adds all positions where each output begins 7/8 of a sample or more after the one before, leaving out zero taps.

    Parameters:
        dtype: Element type.
        acc: Accumulation type.

    Args:
        sums: For each output of the group, the sums of its periods.
        samples: The newest sample of the thread's first period.
        taps: The taps that it meets.
        count: How many positions, at least twice as many as are left out of the group's first output.
    """
    comptime ROW = sample_pitch[dtype]()
    comptime END = distance_of(GROUP - 1)
    comptime for position in range(END):  # newest samples: not yet for the first outputs
        comptime for output in range(GROUP):
            # The first of the outputs that begin at this position or before.
            comptime if distance_of(GROUP - 1 - output) == position and distance_of(GROUP - output) > position:
                add_outputs[output, GROUP](
                    sums, samples.unsafe_offset(-position * ROW), taps.unsafe_offset(position * PANEL)
                )
    add_taps(sums, samples.unsafe_offset(-END * ROW), taps.unsafe_offset(END * PANEL), count - Int32(2 * END))
    var oldest = samples.unsafe_offset((count - 1) * Int32(-ROW))
    var last = taps.unsafe_offset((count - 1) * Int32(PANEL))
    comptime for position in range(END - 1, -1, -1):  # oldest samples: no more for the last outputs
        comptime for output in range(GROUP):
            comptime if distance_of(output) == position and distance_of(output + 1) > position:
                add_outputs[0, output + 1](
                    sums, oldest.unsafe_offset(position * ROW), last.unsafe_offset(-position * PANEL)
                )


def distance_of[slope: Int = 28](outputs: Int) -> Int:
    """Counts the whole samples that so many outputs take at least.

    Parameters:
        slope: Samples from one output to the next, at least, in 1/32: 28 where rates are within 7/8 of each other.

    Args:
        outputs: How many.

    Returns:
        Samples.
    """
    return outputs * slope // 32


@always_inline
def add_taps[
    dtype: DType, acc: DType
](
    mut sums: Array[SIMD[acc, PERIODS], GROUP],
    samples: Pointer[mut=True, Scalar[dtype], _, address_space=AddressSpace.SHARED],
    taps: Pointer[mut=True, Scalar[acc], _, address_space=AddressSpace.SHARED],
    count: Int32,
):
    """Adds some positions to the sums of a thread, from the newest sample down.

    Parameters:
        dtype: Element type.
        acc: Accumulation type.

    Args:
        sums: For each output of the group, the sums of its periods.
        samples: The newest sample of the thread's first period.
        taps: The taps that it meets.
        count: How many positions.
    """
    comptime ROW = sample_pitch[dtype]()
    var newest = samples
    var these = taps
    var left = count
    while left >= Int32(UNROLL):
        comptime for position in range(UNROLL):
            add_outputs[0, GROUP](sums, newest.unsafe_offset(-position * ROW), these.unsafe_offset(position * PANEL))
        newest = newest.unsafe_offset(-UNROLL * ROW)
        these = these.unsafe_offset(UNROLL * PANEL)
        left -= Int32(UNROLL)
    while left > 0:
        add_outputs[0, GROUP](sums, newest, these)
        newest = newest.unsafe_offset(-ROW)
        these = these.unsafe_offset(PANEL)
        left -= 1


@always_inline
def add_outputs[
    dtype: DType, acc: DType, //, begin: Int, end: Int
](
    mut sums: Array[SIMD[acc, PERIODS], GROUP],
    samples: Pointer[mut=True, Scalar[dtype], _, address_space=AddressSpace.SHARED],
    taps: Pointer[mut=True, Scalar[acc], _, address_space=AddressSpace.SHARED],
):
    """Adds one sample of each period, times the taps of some of the group's outputs.

    Parameters:
        dtype: Element type.
        acc: Accumulation type.
        begin: The first of these outputs.
        end: The output behind the last.

    Args:
        sums: For each output of the group, the sums of its periods.
        samples: The sample of the thread's first period.
        taps: One tap for each output.
    """
    comptime ALIGNMENT = min(VECTOR_BYTES, PERIODS * size_of[dtype]())
    var some = samples.unsafe_load[width=PERIODS, alignment=ALIGNMENT](0).cast[acc]()
    var these = taps.unsafe_load[width=GROUP, alignment=VECTOR_BYTES](0)
    comptime for output in range(begin, end):
        sums[output] = multiply_add(some, SIMD[acc, PERIODS](these[output]), sums[output])
