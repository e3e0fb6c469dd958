"""Where the points of a transform lie: in which thread's register, and in which place of shared memory.

Computes:   for each pass of fft_threads.mojo, the points that a thread holds; moves them from one pass to the next.
Algorithm:  a pass wants `owners` points apart in one thread. In shared memory points lie in natural order with a gap now
            and then, so that neither the writes of one pass nor the reads of the next meet in a bank.
Cost:       an exchange takes 16 bytes of float32 for each point through the load and store units, and one barrier.
Layout:     register e of a thread holds a point that depends on the pass: `first_point`, `owners`, `register_of`.
Gate:       nfft in SIZES.
Tuning:     fft_* of tuning_gpu.mojo.
Source:     many points a thread: Volkov and Kazian, Fitting FFT onto G80, 2008.
"""

from std.math import ceildiv
from std.sys.info import size_of
from max.gpu.sync import barrier, syncwarp

from .tuning_gpu import MULTIPROCESSOR_BLOCKS, MULTIPROCESSOR_REGISTERS, WARP, fft_log2_points, fft_registers

comptime SIZES = [512, 1024, 2048, 4096, 8192]
"""Lengths of transform that are compiled."""

comptime SMALLEST_SIZE = 512
"""The first of SIZES."""

comptime LARGEST_SIZE = 8192
"""The last of SIZES."""


def log2_exact(value: Int) -> Int:
    """Takes the logarithm of a power of two.

    Args:
        value: A power of two.

    Returns:
        Its exponent.
    """
    var exponent = 0
    while (1 << exponent) < value:
        exponent += 1
    return exponent


def log2_points(nfft: Int, held: Int = 0) -> Int:
    """Chooses how many points a thread keeps in registers.

    Args:
        nfft: Length of the transform.
        held: What is chosen already; 0: nothing.

    Returns:
        Logarithm of the number.
    """
    return held if held > 0 else fft_log2_points(nfft)


def passes(nfft: Int, held: Int = 0) -> Int:
    """Counts the passes of one transform: one more than exchanges each way.

    Args:
        nfft: Length of the transform.
        held: Logarithm of the points that a thread keeps; 0: as `log2_points` chooses.

    Returns:
        2 or 3.
    """
    return ceildiv(log2_exact(nfft), log2_points(nfft, held))


def log2_radix(nfft: Int, step: Int, held: Int = 0) -> Int:
    """Chooses how many stages a pass does: 333, 433, 443, 444, 544 for the five sizes.

    Args:
        nfft: Length of the transform.
        step: Which pass.
        held: Logarithm of the points that a thread keeps; 0: as `log2_points` chooses.

    Returns:
        Stages.
    """
    var count = passes(nfft, held)
    return (log2_exact(nfft) + count - 1 - step) // count  # longer passes first


def points(nfft: Int, held: Int = 0) -> Int:
    """Gives the number of points a thread keeps.

    Args:
        nfft: Length of the transform.
        held: Logarithm of the points that a thread keeps; 0: as `log2_points` chooses.

    Returns:
        Points.
    """
    return 1 << log2_points(nfft, held)


def threads(nfft: Int, held: Int = 0) -> Int:
    """Gives the threads of a block.

    Args:
        nfft: Length of the transform.
        held: Logarithm of the points that a thread keeps; 0: as `log2_points` chooses.

    Returns:
        Threads.
    """
    return nfft // points(nfft, held)


def span_of_pass(nfft: Int, step: Int, held: Int = 0) -> Int:
    """Gives the length of the independent transforms that a pass begins (forward) or ends (inverse) with.

    Args:
        nfft: Length of the transform.
        step: Which pass, counted in the forward direction.
        held: Logarithm of the points that a thread keeps; 0: as `log2_points` chooses.

    Returns:
        Points.
    """
    var span = nfft
    for earlier in range(step):
        span >>= log2_radix(nfft, earlier, held)
    return span


def owners(nfft: Int, step: Int, held: Int = 0) -> Int:
    """Gives how many neighbouring threads share one span of a pass.

    Args:
        nfft: Length of the transform.
        step: Which pass.
        held: Logarithm of the points that a thread keeps; 0: as `log2_points` chooses.

    Returns:
        Threads, 1 if a thread owns several spans.
    """
    return max(1, span_of_pass(nfft, step, held) // points(nfft, held))


def blocks_per_multiprocessor(nfft: Int, bytes: Int, sparing: Int = 4096) -> Int:
    """Asks the assembler to leave registers for so many blocks.

    Args:
        nfft: Length of the transform.
        bytes: Size of a real number.
        sparing: As for `fft_registers`.

    Returns:
        Blocks that fit if a thread takes so many registers for 16 points of float32, and in proportion for more.
    """
    var registers = fft_registers(nfft, sparing) * points(nfft) // 16 * bytes // 4
    return max(1, min(MULTIPROCESSOR_BLOCKS, MULTIPROCESSOR_REGISTERS // (min(255, registers) * threads(nfft))))


def shared_bytes(nfft: Int, bytes: Int, lanes: Int = 1) -> Int:
    """Gives the shared memory of a block.

    Args:
        nfft: Length of the transform.
        bytes: Size of a real number.
        lanes: Transforms side by side.

    Returns:
        Bytes.
    """
    return 2 * bytes * lanes * (padded(nfft, nfft - 1, lanes) + 1)


def reversed_phase(index: Int, bits: Int) -> Int:
    """Finds the angle of the twiddle factor of a subtransform, in a network with bit-reversed output.

    Subtransform `index` of a stage has the factor exp(-2*pi*i * f), f = sum over its bits b_i of b_i / 2^(i+2),
    whatever the stage.

    Args:
        index: Index of the subtransform.
        bits: Bits that it may have.

    Returns:
        The angle f in units of 1 / 2^(bits+1) turn.
    """
    var phase = 0
    for bit in range(bits):
        phase += ((index >> bit) & 1) << (bits - 1 - bit)
    return phase


@always_inline
def first_point[nfft: Int, step: Int, held: Int = 0](thread: Int32) -> Int32:
    """Finds the first of a thread's points in one pass.

    Parameters:
        nfft: Length of the transform.
        step: Which pass.
        held: Logarithm of the points that a thread keeps; 0: as `log2_points` chooses.

    Args:
        thread: Index of the thread.

    Returns:
        Its position in the transform.
    """
    comptime span = span_of_pass(nfft, step, held)
    comptime sharing = owners(nfft, step, held)
    comptime if sharing == 1:
        return thread * Int32(points(nfft, held))
    elif span == nfft:
        return thread
    else:
        return (thread // Int32(sharing)) * Int32(span) + thread % Int32(sharing)


def register_of(nfft: Int, step: Int, group: Int, digit: Int, held: Int = 0) -> Int:
    """Finds the register of one input of a thread's butterflies of many points.

    Args:
        nfft: Length of the transform.
        step: Which pass.
        group: Which of the thread's butterflies.
        digit: Which input.
        held: Logarithm of the points that a thread keeps; 0: as `log2_points` chooses.

    Returns:
        Index e; register e holds the point `owners * e` behind the thread's first.
    """
    var radix = 1 << log2_radix(nfft, step, held)
    if span_of_pass(nfft, step, held) < points(nfft, held):
        return group * radix + digit  # several whole spans, one after the other
    return group + points(nfft, held) // radix * digit


def padded(nfft: Int, point: Int, lanes: Int, held: Int = 0) -> Int:
    """Finds the place of a point in shared memory: of a lone transform one place in points(nfft) stays empty.

    Passes read with strides of a power of two; with the gaps they are odd, so that the 16 threads of one access of
    8 bytes meet 16 different pairs of banks. No carry: padded(a + b) = padded(a) + padded(b) for a thread's points.
    Where transforms lie side by side, the same point of all of them fills the banks, and no gap is needed.

    Args:
        nfft: Length of the transform.
        point: Position in the transform.
        lanes: Transforms side by side.
        held: Logarithm of the points that a thread keeps; 0: as `log2_points` chooses.

    Returns:
        Place, in groups of `lanes` complex numbers.
    """
    return point + (point // points(nfft, held) if lanes == 1 else 0)


@always_inline
def padded_place[nfft: Int, lanes: Int, held: Int = 0](point: Int32) -> Int32:
    """Does what `padded` does, on the device.

    Parameters:
        nfft: Length of the transform.
        lanes: Transforms side by side.
        held: Logarithm of the points that a thread keeps; 0: as `log2_points` chooses.

    Args:
        point: Position in the transform.

    Returns:
        Place, in groups of `lanes` complex numbers.
    """
    comptime if lanes == 1:
        return point + point // Int32(points(nfft, held))
    return point


@always_inline
def write_points[
    acc: DType, count: Int, space: AddressSpace, //, nfft: Int, step: Int, lanes: Int, held: Int = 0
](
    re: Array[Scalar[acc], count],
    im: Array[Scalar[acc], count],
    shared: Pointer[Scalar[acc], MutUntrackedOrigin, address_space=space],
    thread: Int32,
):
    """Writes a thread's points of one pass to shared memory.

    Parameters:
        acc: Accumulation type.
        count: Points of a thread.
        space: Address space, so that a test can run this on a CPU.
        nfft: Length of the transform.
        step: Which pass.
        lanes: Transforms side by side.
        held: Logarithm of the points that a thread keeps; 0: as `log2_points` chooses.

    Args:
        re: Real parts.
        im: Imaginary parts.
        shared: The block's exchange memory.
        thread: Index of the thread.
    """
    var base = shared.unsafe_offset(
        2 * Int32(lanes) * padded_place[nfft, lanes, held](first_point[nfft, step, held](thread))
    )
    comptime for e in range(count):
        comptime place = 2 * lanes * padded(nfft, owners(nfft, step, held) * e, lanes, held)
        base.unsafe_store[alignment=2 * size_of[acc]()](place, SIMD[acc, 2](re[e], im[e]))


@always_inline
def read_points[
    acc: DType, count: Int, space: AddressSpace, //, nfft: Int, step: Int, lanes: Int, held: Int = 0
](
    mut re: Array[Scalar[acc], count],
    mut im: Array[Scalar[acc], count],
    shared: Pointer[Scalar[acc], MutUntrackedOrigin, address_space=space],
    thread: Int32,
):
    """Reads a thread's points of one pass from shared memory.

    Parameters:
        acc: Accumulation type.
        count: Points of a thread.
        space: Address space.
        nfft: Length of the transform.
        step: Which pass.
        lanes: Transforms side by side.
        held: Logarithm of the points that a thread keeps; 0: as `log2_points` chooses.

    Args:
        re: Real parts.
        im: Imaginary parts.
        shared: The block's exchange memory.
        thread: Index of the thread.
    """
    var base = shared.unsafe_offset(
        2 * Int32(lanes) * padded_place[nfft, lanes, held](first_point[nfft, step, held](thread))
    )
    comptime for e in range(count):
        comptime place = 2 * lanes * padded(nfft, owners(nfft, step, held) * e, lanes, held)
        var point = base.unsafe_load[width=2, alignment=2 * size_of[acc]()](place)
        re[e] = point[0]
        im[e] = point[1]


@always_inline
def exchange[
    acc: DType, count: Int, //, nfft: Int, source: Int, target: Int, lanes: Int, held: Int = 0
](
    mut re: Array[Scalar[acc], count],
    mut im: Array[Scalar[acc], count],
    shared: Pointer[Scalar[acc], MutUntrackedOrigin, address_space=AddressSpace.SHARED],
    thread: Int32,
):
    """Gives every thread the points of its next pass.

    A thread overwrites only places that it alone has read since the last synchronisation: no second one is needed.

    Parameters:
        acc: Accumulation type.
        count: Points of a thread.
        nfft: Length of the transform.
        source: The pass that is done.
        target: The pass that follows, one more or one less.
        lanes: Transforms side by side.
        held: Logarithm of the points that a thread keeps; 0: as `log2_points` chooses.

    Args:
        re: Real parts.
        im: Imaginary parts.
        shared: The block's exchange memory.
        thread: Index of the thread.
    """
    write_points[nfft, source, lanes, held](re, im, shared, thread)
    comptime if lanes == 1 and owners(nfft, min(source, target), held) <= WARP:
        syncwarp()
    else:
        barrier()
    read_points[nfft, target, lanes, held](re, im, shared, thread)
