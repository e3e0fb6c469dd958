"""Overlap-save FFT convolution on GPU: load, transform, multiply, transform back and store in one kernel.

Computes:   y[r, i] = sum_j x[r, i + j - pad_left] * k[tap_index(j)], i in [0, L_out); x is zero outside [0, N).
Algorithm:  a thread block takes two neighbouring blocks of the signal as real and imaginary part of one complex
            transform; the taps are real, so both parts come out convolved. Forward: decimation with natural input and
            bit-reversed spectrum; the plan holds the spectrum of the taps in the same order, so nothing is reordered.
            A thread keeps its points in registers and does 3 to 5 radix-2 stages on them (one pass); between passes
            points change threads through shared memory, in place: one barrier an exchange, and only the first
            exchange each way leaves the warp. Every butterfly is a +- w*b: 4 multiply-adds, and 2a - (a + w*b).
Cost:       per complex point 6*log2(nfft) + 4 fp32 instructions and 19 others (counted in SASS for sm_90a), 86 bytes
            through load and store units; nfft/(2*hop) points an output. For K = 1024, nfft = 4096, 2^26 float32 on
            an H200 (29.6e12 lanes/s issue, 29.6 TB/s L1): 144 us of issue, 130 us of L1, 128 us of device memory.
Layout:     x (rows, N), y (rows, L_out), rows x_stride and y_stride elements apart; k (K); float32 or wider inside.
            Plan: spectrum (nfft points) / nfft, then per pass and direction one root of unity a thread.
Tile:       2*hop outputs, hop = nfft - K + 1, rounded down to a multiple of 32 where that costs little.
Accuracy:   computed in accumulate.accum_dtype on EVERY path of this file; error below 10*eps*log2(nfft) of
            ||x||*||k||, checked by check_overlap_save_gpu. A NaN or Inf spoils every thread block that loads it.
Gate:       1 <= K <= nfft, nfft in SIZES; above 48 KB of shared memory only where the device grants it.
Tuning:     REGISTERS, FEWEST_REGISTERS, `transform_cost`; log2_points and PASSES by the compiler's counts.
Measured:   2^26 float32, H200, 2026-11-22, in device copies: 1.18 at K = 64, 1.35 at 256, 1.55 at 1024, 2.5 at 4096.
            Not yet called from Python.
Length:     over the 400 lines of other files, for its documentation: each function is short, and none has other users.
Source:     overlap-save: Oppenheim and Schafer, Discrete-Time Signal Processing, section 8.7. The two orders of the
            radix-2 network: Van Loan, Computational Frameworks for the FFT, 1992, chapters 1 and 2. Six multiply-adds
            a butterfly: Goedecker, Fast radix 2, 3, 4 and 5 kernels for FFTs on computers with overlapping
            multiply-add instructions, 1997. Many points a thread: Volkov and Kazian, Fitting FFT onto G80, 2008.
"""

from std.collections import OptionalReg
from std.math import ceildiv
from std.sys.info import size_of
from std.utils import StaticTuple
from max.gpu import MAX_THREADS_PER_BLOCK_METADATA, block_idx, thread_idx
from max.gpu.host import DeviceAttribute, DeviceContext, FuncAttribute
from max.gpu.memory import external_memory
from max.gpu.sync import barrier, syncwarp

from ..shared.accumulate import accum_dtype
from ..shared.geometry import Geometry

comptime SIZES = [512, 1024, 2048, 4096, 8192]
"""Lengths of transform that are compiled."""

comptime SMALLEST_SIZE = 512
"""The first of SIZES."""

comptime LARGEST_SIZE = 8192
"""The last of SIZES."""

comptime PASSES = 3
"""Passes of one transform: two exchanges each way."""

comptime STATIC_SHARED_BYTES = 48 * 1024
"""Shared memory that every device grants without being asked."""

comptime TURN = 64
"""Angles known at compile time are counted in 1/TURN of a full turn: as fine as 5 stages on 32 points need."""

comptime WARP = 32
"""Threads that `syncwarp` brings together."""

comptime REGISTERS = 80
"""Registers a thread for 16 points of float32, up to nfft = 2048. It takes 104 if it may, which is 1 to 6 % slower; 64
are 4 to 8 % slower (H200, 2026-11-22)."""

comptime FEWEST_REGISTERS = 64
"""The same from nfft = 4096 on, and the fewest that the compiler does without spilling: more blocks load or store while
others compute, 1 to 3 % faster than 80 at 4096, 24 % at 8192."""

comptime REGISTER_FILE = 65536
"""Registers of a multiprocessor."""

comptime MAX_BLOCKS = 32
"""Most blocks that a multiprocessor takes."""

comptime STORE_ELEMENTS = 32
"""Hop is a multiple of it where possible: float32 blocks then begin on whole lines of 128 bytes."""

comptime PI = 3.14159265358979323846
"""Half a turn, in radians."""


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


def log2_points(nfft: Int) -> Int:
    """Chooses how many points a thread keeps in registers.

    Args:
        nfft: Length of the transform.

    Returns:
        Logarithm of the number: 16 points, 32 where three passes would not do otherwise.
    """
    return 5 if nfft >= 8192 else 4


def log2_radix(nfft: Int, step: Int) -> Int:
    """Chooses how many stages a pass does: 333, 433, 443, 444, 544 for the five sizes.

    Args:
        nfft: Length of the transform.
        step: Which pass.

    Returns:
        Stages.
    """
    return (log2_exact(nfft) + PASSES - 1 - step) // PASSES  # longer passes first


def points(nfft: Int) -> Int:
    """Gives the number of points a thread keeps.

    Args:
        nfft: Length of the transform.

    Returns:
        Points.
    """
    return 1 << log2_points(nfft)


def threads(nfft: Int) -> Int:
    """Gives the threads of a block.

    Args:
        nfft: Length of the transform.

    Returns:
        Threads.
    """
    return nfft // points(nfft)


def span_of_pass(nfft: Int, step: Int) -> Int:
    """Gives the length of the independent transforms that a pass begins (forward) or ends (inverse) with.

    Args:
        nfft: Length of the transform.
        step: Which pass, counted in the forward direction.

    Returns:
        Points.
    """
    var span = nfft
    for earlier in range(step):
        span >>= log2_radix(nfft, earlier)
    return span


def owners(nfft: Int, step: Int) -> Int:
    """Gives how many neighbouring threads share one span of a pass.

    Args:
        nfft: Length of the transform.
        step: Which pass.

    Returns:
        Threads, 1 if a thread owns several spans.
    """
    return max(1, span_of_pass(nfft, step) // points(nfft))


def blocks_per_multiprocessor(nfft: Int, bytes: Int) -> Int:
    """Asks the assembler to leave registers for so many blocks.

    Args:
        nfft: Length of the transform.
        bytes: Size of a real number.

    Returns:
        Blocks that fit if a thread takes so many registers for 16 points of float32, and in proportion for more.
    """
    var registers = (REGISTERS if nfft <= 2048 else FEWEST_REGISTERS) * points(nfft) // 16 * bytes // 4
    return max(1, min(MAX_BLOCKS, REGISTER_FILE // (min(255, registers) * threads(nfft))))


def shared_bytes(nfft: Int, bytes: Int) -> Int:
    """Gives the shared memory of a block.

    Args:
        nfft: Length of the transform.
        bytes: Size of a real number.

    Returns:
        Bytes, one point in `points` unused.
    """
    return 2 * bytes * (nfft + threads(nfft))


def spectrum_length(nfft: Int) -> Int:
    """Gives where the roots of unity begin in a plan.

    Args:
        nfft: Length of the transform.

    Returns:
        Real numbers of the spectrum.
    """
    return 2 * nfft


def plan_length_gpu(nfft: Int) -> Int:
    """Gives the length of a plan.

    Args:
        nfft: Length of the transform.

    Returns:
        Elements of the accumulation type.
    """
    return spectrum_length(nfft) + 2 * threads(nfft) * root_slots()


def root_slots() -> Int:
    """Counts the roots of unity that each thread reads.

    Returns:
        One for each pass but the first of the forward and the last of the inverse transform.
    """
    return 2 * (PASSES - 1)


def hop_length(nfft: Int, taps: Int) -> Int:
    """Gives the outputs of one real block.

    Args:
        nfft: Length of the transform.
        taps: K, at most `nfft`.

    Returns:
        At most nfft - K + 1.
    """
    var hop = nfft - taps + 1
    return hop // STORE_ELEMENTS * STORE_ELEMENTS if hop >= 8 * STORE_ELEMENTS else hop


def transform_cost(nfft: Int) -> Int:
    """Gives what a transform costs per element, in comparison to other lengths.

    Args:
        nfft: Length of the transform, one of SIZES.

    Returns:
        Microseconds for 2^26 float32 samples if hop were nfft, on an H200 (2026-11-22).
    """
    if nfft == 512:
        return 138
    elif nfft == 1024:
        return 145
    elif nfft == 2048:
        return 152
    elif nfft == 4096:
        return 168
    return 207


def best_nfft(taps: Int) -> Int:
    """Chooses the length of transform that costs least for each output.

    Args:
        taps: K, at most the largest of SIZES.

    Returns:
        One of SIZES.
    """
    var best = LARGEST_SIZE
    var nfft = SMALLEST_SIZE
    while nfft < LARGEST_SIZE:
        if taps <= nfft and (
            transform_cost(nfft) * nfft * hop_length(best, taps) < transform_cost(best) * best * hop_length(nfft, taps)
        ):
            best = nfft
        nfft *= 2
    return best


@always_inline
def root_of_unity(numerator: Int, denominator: Int) -> SIMD[DType.float64, 2]:
    """Computes exp(2*pi*i * numerator / denominator) to the last bits of float64, at compile time and on the device.

    The nearest quarter turn is taken off exactly; Taylor's series serve the rest, at most pi/4 (next terms < 1e-17).

    Args:
        numerator: Any integer.
        denominator: A positive integer.

    Returns:
        Real and imaginary part.
    """
    var quarters = (8 * numerator + denominator) // (2 * denominator)
    var angle = Float64(4 * numerator - quarters * denominator) / Float64(denominator) * (PI / 2)
    var square = angle * angle
    var cosine = Float64(1)
    var sine = Float64(1)
    comptime for term in range(9):
        comptime n = Float64(2 * (9 - term))
        cosine = 1 - square * cosine / (n * (n - 1))
        sine = 1 - square * sine / (n * (n + 1))
    sine *= angle
    var turned = quarters % 4
    if turned == 1:
        return SIMD[DType.float64, 2](-sine, cosine)
    if turned == 2:
        return SIMD[DType.float64, 2](-cosine, -sine)
    if turned == 3:
        return SIMD[DType.float64, 2](sine, -cosine)
    return SIMD[DType.float64, 2](cosine, sine)


def reversed_phase(index: Int, bits: Int) -> Int:
    """Finds the angle of the twiddle factor of a subtransform, in a network with bit-reversed output.

    Subtransform `index` of a stage has the factor exp(-2*pi*i * f), f = sum over its bits b_i of b_i / 2^(i+2),
    whatever the stage: Van Loan, section 1.9.

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
def first_point[nfft: Int, step: Int](thread: Int32) -> Int32:
    """Finds the first of a thread's points in one pass.

    Parameters:
        nfft: Length of the transform.
        step: Which pass.

    Args:
        thread: Index of the thread.

    Returns:
        Its position in the transform.
    """
    comptime span = span_of_pass(nfft, step)
    comptime sharing = owners(nfft, step)
    comptime if sharing == 1:
        return thread * Int32(points(nfft))
    elif span == nfft:
        return thread
    else:
        return (thread // Int32(sharing)) * Int32(span) + thread % Int32(sharing)


def register_of(nfft: Int, step: Int, group: Int, digit: Int) -> Int:
    """Finds the register of one input of a thread's butterflies of many points.

    Args:
        nfft: Length of the transform.
        step: Which pass.
        group: Which of the thread's butterflies.
        digit: Which input.

    Returns:
        Index e; register e holds the point `owners * e` behind the thread's first.
    """
    var radix = 1 << log2_radix(nfft, step)
    if span_of_pass(nfft, step) < points(nfft):
        return group * radix + digit  # several whole spans, one after the other
    return group + points(nfft) // radix * digit


def padded(nfft: Int, point: Int) -> Int:
    """Finds the place of a point in shared memory: one place in points(nfft) stays empty.

    Passes read with strides of a power of two; with the gaps they are odd, so that the 16 threads of one access of
    8 bytes meet 16 different pairs of banks. No carry: padded(a + b) = padded(a) + padded(b) for a thread's points.

    Args:
        nfft: Length of the transform.
        point: Position in the transform.

    Returns:
        Place, in complex numbers.
    """
    return point + point // points(nfft)


@always_inline
def write_points[
    acc: DType, count: Int, space: AddressSpace, //, nfft: Int, step: Int
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

    Args:
        re: Real parts.
        im: Imaginary parts.
        shared: The block's exchange memory.
        thread: Index of the thread.
    """
    var first = first_point[nfft, step](thread)
    var base = shared.unsafe_offset(2 * (first + first // Int32(count)))
    comptime for e in range(count):
        comptime place = 2 * padded(nfft, owners(nfft, step) * e)
        base.unsafe_store[alignment=2 * size_of[acc]()](place, SIMD[acc, 2](re[e], im[e]))


@always_inline
def read_points[
    acc: DType, count: Int, space: AddressSpace, //, nfft: Int, step: Int
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

    Args:
        re: Real parts.
        im: Imaginary parts.
        shared: The block's exchange memory.
        thread: Index of the thread.
    """
    var first = first_point[nfft, step](thread)
    var base = shared.unsafe_offset(2 * (first + first // Int32(count)))
    comptime for e in range(count):
        comptime place = 2 * padded(nfft, owners(nfft, step) * e)
        var point = base.unsafe_load[width=2, alignment=2 * size_of[acc]()](place)
        re[e] = point[0]
        im[e] = point[1]


@always_inline
def exchange[
    acc: DType, count: Int, //, nfft: Int, source: Int, target: Int
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

    Args:
        re: Real parts.
        im: Imaginary parts.
        shared: The block's exchange memory.
        thread: Index of the thread.
    """
    write_points[nfft, source](re, im, shared, thread)
    comptime if owners(nfft, min(source, target)) <= WARP:
        syncwarp()
    else:
        barrier()
    read_points[nfft, target](re, im, shared, thread)


@always_inline
def add_and_subtract[
    acc: DType, count: Int, //, low: Int, high: Int, angle: Int, is_plain: Bool
](mut re: Array[Scalar[acc], count], mut im: Array[Scalar[acc], count], root: SIMD[acc, 2]):
    """Does one butterfly: (a, b) becomes (a + w*b, a - w*b), w = root * exp(2*pi*i * angle / TURN).

    Parameters:
        acc: Accumulation type.
        count: Points of a thread.
        low: Register of a.
        high: Register of b.
        angle: The part of the angle known at compile time.
        is_plain: True: `root` is 1 and not looked at.

    Args:
        re: Real parts.
        im: Imaginary parts.
        root: The part of the factor known at run time.
    """
    comptime quarter = TURN // 4
    comptime turned = angle % TURN // quarter
    comptime rest = angle % quarter
    var a_re = re[low]
    var a_im = im[low]
    var b_re = re[high]
    var b_im = im[high]
    # Quarter turns cost nothing: they swap and negate what is multiplied.
    comptime if turned == 1:
        swap(b_re, b_im)
        b_re = -b_re
    elif turned == 2:
        b_re = -b_re
        b_im = -b_im
    elif turned == 3:
        swap(b_re, b_im)
        b_im = -b_im
    comptime if is_plain and rest == 0:
        re[low] = a_re + b_re
        im[low] = a_im + b_im
        re[high] = a_re - b_re
        im[high] = a_im - b_im
    else:
        comptime fixed = root_of_unity(rest, TURN)
        var w = SIMD[acc, 2](fixed[0].cast[acc](), fixed[1].cast[acc]())
        comptime if not is_plain:
            w = root if rest == 0 else multiply(root, w)
        var sum_re = (-w[1]).fma(b_im, w[0].fma(b_re, a_re))
        var sum_im = w[1].fma(b_re, w[0].fma(b_im, a_im))
        re[low] = sum_re
        im[low] = sum_im
        re[high] = Scalar[acc](2).fma(a_re, -sum_re)
        im[high] = Scalar[acc](2).fma(a_im, -sum_im)


@always_inline
def multiply[acc: DType](a: SIMD[acc, 2], b: SIMD[acc, 2]) -> SIMD[acc, 2]:
    """Multiplies two complex numbers.

    Parameters:
        acc: Accumulation type.

    Args:
        a: Real and imaginary part.
        b: Real and imaginary part.

    Returns:
        The product.
    """
    return SIMD[acc, 2]((-a[1]).fma(b[1], a[0] * b[0]), a[1].fma(b[0], a[0] * b[1]))


@always_inline
def squared[acc: DType, //, times: Int](root: SIMD[acc, 2]) -> SIMD[acc, 2]:
    """Squares a root of unity repeatedly: 3 instructions each, against a load for each power.

    Parameters:
        acc: Accumulation type.
        times: How often.

    Args:
        root: The root.

    Returns:
        The power 2 ** times; its error grows to as many roundings, 8 or 16.
    """
    var power = root
    comptime for _ in range(times):
        power = multiply(power, power)
    return power


@always_inline
def forward_pass[
    acc: DType, count: Int, //, nfft: Int, step: Int
](mut re: Array[Scalar[acc], count], mut im: Array[Scalar[acc], count], root: SIMD[acc, 2]):
    """Does the stages of one pass of the forward transform on a thread's points.

    Stage s splits each of 2^s subtransforms of the span in two; their factors are root^(2^(stages-1-s)), turned by
    the reversed phase of the subtransform's index within the span.

    Parameters:
        acc: Accumulation type.
        count: Points of a thread.
        nfft: Length of the transform.
        step: Which pass; the first has factors known at compile time only.

    Args:
        re: Real parts.
        im: Imaginary parts.
        root: The thread's root of unity, see `forward_root`.
    """
    comptime stages = log2_radix(nfft, step)
    comptime radix = 1 << stages
    comptime owns_spans = span_of_pass(nfft, step) < count
    comptime for stage in range(stages):
        comptime half = radix >> (stage + 1)
        var power = squared[stages - 1 - stage](root)
        comptime for group in range(count // radix):
            comptime for pair in range(radix // 2):
                comptime part = pair // half
                comptime digit = part * 2 * half + pair % half
                # The spans of one thread differ in the low bits of their index: a further turn.
                comptime own = (reversed_phase(group, 5) >> stage) if owns_spans else 0
                add_and_subtract[
                    low=register_of(nfft, step, group, digit),
                    high=register_of(nfft, step, group, digit + half),
                    angle=-(reversed_phase(part, 5) + own),
                    is_plain=step == 0,
                ](re, im, power)


@always_inline
def inverse_pass[
    acc: DType, count: Int, //, nfft: Int, step: Int
](mut re: Array[Scalar[acc], count], mut im: Array[Scalar[acc], count], root: SIMD[acc, 2]):
    """Does the stages of one pass of the inverse transform on a thread's points.

    Stage s joins subtransforms 2^s digits apart; the factor depends on the position within the subtransform.

    Parameters:
        acc: Accumulation type.
        count: Points of a thread.
        nfft: Length of the transform.
        step: Which pass, counted in the forward direction; the last has factors known at compile time only.

    Args:
        re: Real parts.
        im: Imaginary parts.
        root: The thread's root of unity, see `inverse_root`.
    """
    comptime stages = log2_radix(nfft, step)
    comptime radix = 1 << stages
    comptime is_plain = step == PASSES - 1
    comptime for stage in range(stages):
        comptime half = 1 << stage
        comptime times = stages - 1 - stage
        var power = squared[times](root)
        comptime for group in range(count // radix):
            comptime for pair in range(radix // 2):
                comptime within = pair % half
                comptime digit = (pair // half) * 2 * half + within
                # Group g lies g/count of a span behind the thread's first point, which `root` is for.
                comptime own = 0 if is_plain else (TURN // count * group) << times
                add_and_subtract[
                    low=register_of(nfft, step, group, digit),
                    high=register_of(nfft, step, group, digit + half),
                    angle=TURN // 2 // half * within + own,
                    is_plain=is_plain,
                ](re, im, power)


@always_inline
def forward_root[nfft: Int, step: Int](thread: Int) -> SIMD[DType.float64, 2]:
    """Computes the factor of a thread's last stage of a forward pass.

    Parameters:
        nfft: Length of the transform.
        step: Which pass.

    Args:
        thread: Index of the thread.

    Returns:
        Root of unity.
    """
    comptime span = span_of_pass(nfft, step)
    comptime bits = log2_exact(nfft)
    var span_index = Int(first_point[nfft, step](Int32(thread))) // span
    var phase = reversed_phase(span_index << (log2_radix(nfft, step) - 1), bits)
    return root_of_unity(-phase, 2 << bits)


@always_inline
def inverse_root[nfft: Int, step: Int](thread: Int) -> SIMD[DType.float64, 2]:
    """Computes the factor of a thread's last stage of an inverse pass.

    Parameters:
        nfft: Length of the transform.
        step: Which pass, counted in the forward direction.

    Args:
        thread: Index of the thread.

    Returns:
        Root of unity.
    """
    comptime span = span_of_pass(nfft, step)
    return root_of_unity(Int(first_point[nfft, step](Int32(thread))) % span, span)


@always_inline
def load_root[
    acc: DType, //, nfft: Int, slot: Int
](plan: Pointer[Scalar[acc], MutAnyOrigin], thread: Int32) -> SIMD[acc, 2]:
    """Reads one of a thread's roots of unity.

    Parameters:
        acc: Accumulation type.
        nfft: Length of the transform.
        slot: Which: step - 1 of the forward passes, then passes - 1 + step of the inverse ones.

    Args:
        plan: The plan.
        thread: Index of the thread.

    Returns:
        The root.
    """
    comptime begin = spectrum_length(nfft) + 2 * threads(nfft) * slot
    return plan.unsafe_offset(2 * thread).unsafe_load[width=2, alignment=2 * size_of[acc](), invariant=True](begin)


@always_inline
def transform_forward[
    acc: DType, count: Int, //, nfft: Int
](
    mut re: Array[Scalar[acc], count],
    mut im: Array[Scalar[acc], count],
    shared: Pointer[Scalar[acc], MutUntrackedOrigin, address_space=AddressSpace.SHARED],
    plan: Pointer[Scalar[acc], MutAnyOrigin],
    thread: Int32,
):
    """Does all passes of the forward transform.

    Parameters:
        acc: Accumulation type.
        count: Points of a thread.
        nfft: Length of the transform.

    Args:
        re: Real parts; on entry of points thread + threads * e, on return of the spectrum's places of the last pass.
        im: Imaginary parts.
        shared: The block's exchange memory.
        plan: The plan, its roots of unity filled in.
        thread: Index of the thread.
    """
    forward_pass[nfft, 0](re, im, 0)
    comptime for step in range(1, PASSES):
        exchange[nfft, step - 1, step](re, im, shared, thread)
        forward_pass[nfft, step](re, im, load_root[nfft, step - 1](plan, thread))


@always_inline
def transform_back[
    acc: DType, count: Int, //, nfft: Int
](
    mut re: Array[Scalar[acc], count],
    mut im: Array[Scalar[acc], count],
    shared: Pointer[Scalar[acc], MutUntrackedOrigin, address_space=AddressSpace.SHARED],
    plan: Pointer[Scalar[acc], MutAnyOrigin],
    thread: Int32,
):
    """Does all passes of the inverse transform, without the factor 1/nfft.

    Parameters:
        acc: Accumulation type.
        count: Points of a thread.
        nfft: Length of the transform.

    Args:
        re: Real parts, as `transform_forward` leaves them and takes them.
        im: Imaginary parts.
        shared: The block's exchange memory.
        plan: The plan.
        thread: Index of the thread.
    """
    comptime last = PASSES - 1
    inverse_pass[nfft, last](re, im, 0)
    comptime for done in range(last):
        comptime step = last - 1 - done
        exchange[nfft, step + 1, step](re, im, shared, thread)
        inverse_pass[nfft, step](re, im, load_root[nfft, last + step](plan, thread))


def spectrum_place[acc: DType, nfft: Int](thread: Int32, e: Int) -> Int32:
    """Finds a point of the spectrum in the plan: vectors of 16 bytes, neighbouring threads side by side.

    Parameters:
        acc: Accumulation type.
        nfft: Length of the transform.

    Args:
        thread: Index of the thread.
        e: Register of the point after the last forward pass.

    Returns:
        Index of its real part.
    """
    comptime width = 8 // size_of[acc]()  # complex numbers in 16 bytes
    return 2 * (Int32(e // width * width * threads(nfft) + e % width) + thread * Int32(width))


def fill_roots[acc: DType, nfft: Int](plan: Pointer[Scalar[acc], MutAnyOrigin]):
    """Kernel: one block computes the roots of unity of a plan, in float64.

    Parameters:
        acc: Accumulation type.
        nfft: Length of the transform.

    Args:
        plan: The plan.
    """
    comptime last = PASSES - 1
    var thread = Int(thread_idx.x)
    var mine = plan.unsafe_offset(spectrum_length(nfft) + 2 * thread)
    comptime for step in range(last):
        var ahead = forward_root[nfft, step + 1](thread)
        var back = inverse_root[nfft, step](thread)
        comptime for part in range(2):
            mine[unsafe_offset=2 * threads(nfft) * step + part] = ahead[part].cast[acc]()
            mine[unsafe_offset=2 * threads(nfft) * (last + step) + part] = back[part].cast[acc]()


@__llvm_metadata(MAX_THREADS_PER_BLOCK_METADATA=StaticTuple[Int32, 1](Int32(threads(nfft))))
def transform_taps[
    dtype: DType, nfft: Int
](
    plan: Pointer[Scalar[accum_dtype[dtype]()], MutAnyOrigin],
    k: Pointer[Scalar[dtype], MutAnyOrigin],
    taps: Int64,
    flip: Int64,
):
    """Kernel: one block computes the spectrum of the taps into the plan.

    The cyclic convolution with h gives z[i + j] * g[j] summed over j if h[-j mod nfft] = g[j] = k[tap_index(j)].

    Parameters:
        dtype: Element type of the taps.
        nfft: Length of the transform.

    Args:
        plan: The plan, its roots of unity filled in.
        k: Taps.
        taps: K.
        flip: 1 for convolution, 0 for correlation.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime COUNT = points(nfft)
    var geometry = Geometry(samples=0, taps=Int(taps), outputs=0, pad_left=0, flip=flip != 0, rows=1, tap_rows=1)
    var thread = Int32(thread_idx.x)
    var shared = external_memory[Scalar[ACC], address_space=AddressSpace.SHARED, alignment=16]()
    var re = Array[Scalar[ACC], COUNT](fill=0)
    var im = Array[Scalar[ACC], COUNT](fill=0)
    comptime for e in range(COUNT):
        var j = (nfft - (Int(thread) + threads(nfft) * e)) % nfft
        if j < geometry.taps:
            re[e] = k[unsafe_offset=geometry.tap_index(j)].cast[ACC]() * Scalar[ACC](1.0 / Float64(nfft))
    transform_forward[nfft](re, im, shared, plan, thread)
    comptime for e in range(COUNT):
        var place = spectrum_place[ACC, nfft](thread, e)
        plan[unsafe_offset=place] = re[e]
        plan[unsafe_offset=place + 1] = im[e]


@__llvm_metadata(
    MAX_THREADS_PER_BLOCK_METADATA=StaticTuple[Int32, 1](Int32(threads(nfft))),
    `nvvm.minctasm`=SIMDLength(blocks_per_multiprocessor(nfft, size_of[accum_dtype[dtype]()]())),
)
def convolve_two_blocks[
    dtype: DType, nfft: Int
](
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    plan: Pointer[Scalar[accum_dtype[dtype]()], MutAnyOrigin],
    samples: Int64,
    outputs: Int64,
    pad_left: Int64,
    x_stride: Int64,
    y_stride: Int64,
    hop: Int32,
    blocks_per_row: UInt32,
):
    """Kernel: one thread block computes two neighbouring blocks of outputs of one row.

    Parameters:
        dtype: Element type of signal and output.
        nfft: Length of the transform.

    Args:
        y: Output.
        x: Signal.
        plan: The plan.
        samples: N.
        outputs: L_out.
        pad_left: As in `Geometry`.
        x_stride: Elements from one row of x to the next.
        y_stride: Elements from one row of y to the next.
        hop: Outputs of one block.
        blocks_per_row: Thread blocks for each row.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime COUNT = points(nfft)
    var thread = Int32(thread_idx.x)
    var shared = external_memory[Scalar[ACC], address_space=AddressSpace.SHARED, alignment=16]()
    var re = Array[Scalar[ACC], COUNT](fill=0)
    var im = Array[Scalar[ACC], COUNT](fill=0)
    var row = UInt32(block_idx.x) // blocks_per_row
    var first_output = Int(UInt32(block_idx.x) - row * blocks_per_row) * 2 * Int(hop)
    var first_sample = first_output - Int(pad_left)
    var x_row = x.unsafe_offset(Int(row) * Int(x_stride))
    var y_row = y.unsafe_offset(Int(row) * Int(y_stride))

    if first_sample >= 0 and first_sample + Int(hop) + nfft <= Int(samples):
        var first = x_row.unsafe_offset(first_sample + Int(thread))
        var second = first.unsafe_offset(Int(hop))
        comptime for e in range(COUNT):
            re[e] = first.unsafe_load[invariant=True](threads(nfft) * e).cast[ACC]()
            im[e] = second.unsafe_load[invariant=True](threads(nfft) * e).cast[ACC]()
    else:
        comptime for e in range(COUNT):
            var index = first_sample + Int(thread) + threads(nfft) * e
            if 0 <= index and index < Int(samples):
                re[e] = x_row[unsafe_offset=index].cast[ACC]()
            index += Int(hop)
            if 0 <= index and index < Int(samples):
                im[e] = x_row[unsafe_offset=index].cast[ACC]()

    transform_forward[nfft](re, im, shared, plan, thread)
    comptime WIDTH = 16 // size_of[ACC]()
    comptime for vector in range(2 * COUNT // WIDTH):
        var spectrum = plan.unsafe_load[width=WIDTH, alignment=16, invariant=True](
            spectrum_place[ACC, nfft](thread, vector * WIDTH // 2)
        )
        comptime for part in range(WIDTH // 2):
            comptime e = vector * WIDTH // 2 + part
            var product = multiply(SIMD[ACC, 2](re[e], im[e]), SIMD[ACC, 2](spectrum[2 * part], spectrum[2 * part + 1]))
            re[e] = product[0]
            im[e] = product[1]
    transform_back[nfft](re, im, shared, plan, thread)

    var y_first = y_row.unsafe_offset(first_output + Int(thread))
    var y_second = y_first.unsafe_offset(Int(hop))
    var left = hop - thread  # of this thread's column, in outputs
    if first_output + 2 * Int(hop) <= Int(outputs):
        comptime for e in range(COUNT):
            if Int32(threads(nfft) * e) < left:
                y_first[unsafe_offset=threads(nfft) * e] = re[e].cast[dtype]()
                y_second[unsafe_offset=threads(nfft) * e] = im[e].cast[dtype]()
    else:
        var end = Int(outputs) - first_output - Int(thread)
        comptime for e in range(COUNT):
            if Int32(threads(nfft) * e) < left:
                if threads(nfft) * e < end:
                    y_first[unsafe_offset=threads(nfft) * e] = re[e].cast[dtype]()
                if threads(nfft) * e + Int(hop) < end:
                    y_second[unsafe_offset=threads(nfft) * e] = im[e].cast[dtype]()


def shared_memory_request(bytes: Int) -> OptionalReg[FuncAttribute]:
    """Asks for more shared memory than devices grant unasked, only where it is needed: asking takes host time.

    Args:
        bytes: Shared memory of a block.

    Returns:
        The attribute for the launch, or none.
    """
    if bytes <= STATIC_SHARED_BYTES:
        return None
    return FuncAttribute.MAX_DYNAMIC_SHARED_SIZE_BYTES(UInt32(bytes))


def require_size[dtype: DType](nfft: Int, taps: Int, ctx: DeviceContext) raises:
    """Refuses what this file cannot do.

    Parameters:
        dtype: Element type.

    Args:
        nfft: Length of the transform.
        taps: K.
        ctx: The device.

    Raises:
        If the transform is of no compiled length, too short for the taps, or too large for the device.
    """
    if nfft < SMALLEST_SIZE or nfft > LARGEST_SIZE or nfft & (nfft - 1) != 0:
        raise Error("overlap_save_gpu: no transform of length ", nfft, "; there are 512, 1024, 2048, 4096 and 8192")
    if taps < 1 or taps > nfft:
        raise Error("overlap_save_gpu: ", taps, " taps do not fit a transform of ", nfft, " points")
    var bytes = shared_bytes(nfft, size_of[accum_dtype[dtype]()]())
    if bytes > STATIC_SHARED_BYTES:
        var most = Int(ctx.get_attribute(DeviceAttribute.MAX_SHARED_MEMORY_PER_BLOCK_OPTIN))
        if bytes > most:
            raise Error(
                "overlap_save_gpu: ",
                nfft,
                " points of ",
                dtype,
                " need ",
                bytes,
                " bytes of shared memory, ",
                most,
                " are there: take a shorter transform",
            )


def prepare_plan_gpu[
    dtype: DType
](
    plan: Pointer[Scalar[accum_dtype[dtype]()], MutAnyOrigin],
    k: Pointer[Scalar[dtype], MutAnyOrigin],
    geometry: Geometry,
    nfft: Int,
    ctx: DeviceContext,
) raises:
    """Enqueues the computation of a plan: two small kernels; it serves any number of calls with the same taps.

    Parameters:
        dtype: Element type of the taps.

    Args:
        plan: On the device, plan_length_gpu(nfft) elements, aligned to 16 bytes; all are written.
        k: Taps on the device, `geometry.taps` elements.
        geometry: Number of taps and direction; the rest is not looked at.
        nfft: Length of the transform, one of SIZES.
        ctx: The device and its queue.

    Raises:
        If the size does not fit or a launch is refused.
    """
    comptime ACC = accum_dtype[dtype]()
    require_size[dtype](nfft, geometry.taps, ctx)
    comptime for size in materialize[SIZES]():
        if nfft == size:
            comptime bytes = shared_bytes(size, size_of[ACC]())
            comptime roots = fill_roots[ACC, size]
            ctx.enqueue_function[roots](plan, grid_dim=1, block_dim=threads(size))
            comptime kernel = transform_taps[dtype, size]
            ctx.enqueue_function[kernel](
                plan,
                k,
                Int64(geometry.taps),
                Int64(1 if geometry.flip else 0),
                grid_dim=1,
                block_dim=threads(size),
                shared_mem_bytes=bytes,
                func_attribute=shared_memory_request(bytes),
            )


def overlap_save_gpu[
    dtype: DType
](
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    plan: Pointer[Scalar[accum_dtype[dtype]()], MutAnyOrigin],
    geometry: Geometry,
    nfft: Int,
    rows: Int,
    x_stride: Int,
    y_stride: Int,
    ctx: DeviceContext,
) raises:
    """Enqueues the computation of all outputs of all rows, in one launch; returns before they are there.

    Parameters:
        dtype: Element type of signal and output, floating-point.

    Args:
        y: Output on the device; `geometry.outputs` elements of each row are written. Must not overlap x.
        x: Signal on the device, `geometry.samples` elements a row.
        plan: The plan that `prepare_plan_gpu` made of the taps for the same `nfft`.
        geometry: Sizes and shifts of each row.
        nfft: Length of the transform, one of SIZES, at least K.
        rows: Number of signals.
        x_stride: Elements from one row of x to the next.
        y_stride: Elements from one row of y to the next.
        ctx: The device and its queue.

    Raises:
        If the size does not fit or the launch is refused.
    """
    comptime ACC = accum_dtype[dtype]()
    require_size[dtype](nfft, geometry.taps, ctx)
    if rows == 0 or geometry.outputs == 0:
        return  # a grid of no blocks is an error
    var hop = hop_length(nfft, geometry.taps)
    var blocks_per_row = ceildiv(geometry.outputs, 2 * hop)
    if rows * blocks_per_row >= 1 << 31:
        raise Error("overlap_save_gpu: ", rows, " rows of ", blocks_per_row, " blocks exceed 2^31 - 1 blocks")
    comptime for size in materialize[SIZES]():
        if nfft == size:
            comptime bytes = shared_bytes(size, size_of[ACC]())
            comptime kernel = convolve_two_blocks[dtype, size]
            ctx.enqueue_function[kernel](
                y,
                x,
                plan,
                Int64(geometry.samples),
                Int64(geometry.outputs),
                Int64(geometry.pad_left),
                Int64(x_stride),
                Int64(y_stride),
                Int32(hop),
                UInt32(blocks_per_row),
                grid_dim=rows * blocks_per_row,
                block_dim=threads(size),
                shared_mem_bytes=bytes,
                func_attribute=shared_memory_request(bytes),
            )
