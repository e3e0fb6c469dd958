"""Fourier transforms by the threads of a block on GPU: points in registers, exchanged through shared memory.

Computes:   the transform of nfft complex points, natural order in and bit-reversed order out, and its inverse the other
            way round, so that a convolution reorders nothing. Several transforms may lie side by side (`lanes`).
Algorithm:  a thread keeps its points in registers and does 3 to 5 radix-2 stages on them (one pass); between passes
            points change threads through shared memory, in place: one barrier an exchange, and only the first
            exchange each way leaves the warp. Every butterfly is a +- w*b: 4 multiply-adds, and 2a - (a + w*b).
            Folded (shared/block_pair.mojo), the same network begins at t^nfft - i: forward, other factors alone. A
            folded row (overlap_save_rows_gpu.mojo) has no imaginary part, neither before nor after.
Cost:       3*log2(nfft) instructions of the element type for each point and direction, and 2 exchanges: 32 bytes of
            float32 through the load and store units. Folded, 3 instructions more forward and 6 back; of a
            row 2 more forward and 4 back.
Layout:     points: fft_points.mojo. Roots of unity: one a thread for each pass and direction but the first
            (`fill_roots`).
Accuracy:   roots are computed in float64 and rounded once; their powers by squaring, at most 4 times.
Gate:       nfft in SIZES.
Tuning:     in fft_points.mojo.
Source:     the two orders of the radix-2 network: Van Loan, Computational Frameworks for the FFT, 1992. Six
            multiply-adds a butterfly: Goedecker, Fast radix 2, 3, 4 and 5 kernels for FFTs on computers with
            overlapping multiply-add instructions, 1997. Products modulo t^n - i: Crandall and Fagin, Discrete weighted
            transforms and large-integer arithmetic, Math. Comp. 62 (1994).
"""

from std.sys.info import size_of
from max.gpu import block_idx, thread_idx

from .fft_points import (
    exchange,
    first_point,
    log2_exact,
    log2_radix,
    passes,
    register_of,
    reversed_phase,
    span_of_pass,
    threads,
)

comptime TURN = 128
"""Angles known at compile time are counted in 1/TURN of a full turn: as fine as 5 folded stages on 32 points need."""

comptime TURN_BITS = 6
"""Bits of an index of which `reversed_phase` counts in that unit."""

comptime PI = 3.14159265358979323846
"""Half a turn, in radians."""


def root_slots(nfft: Int) -> Int:
    """Counts the roots of unity that each thread reads.

    Args:
        nfft: Length of the transform.

    Returns:
        One for each pass but the first of the forward and the last of the inverse transform, and one to unfold.
    """
    return 2 * (passes(nfft) - 1) + 1


def roots_length(nfft: Int) -> Int:
    """Gives the length of what `fill_roots` fills.

    Args:
        nfft: Length of the transform.

    Returns:
        Real numbers.
    """
    return 2 * threads(nfft) * root_slots(nfft)


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
        # Not divisions, which would be most of the time of `fill_roots`.
        comptime to_cosine = 1 / (n * (n - 1))
        comptime to_sine = 1 / (n * (n + 1))
        cosine = 1 - square * cosine * to_cosine
        sine = 1 - square * sine * to_sine
    sine *= angle
    var turned = quarters % 4
    if turned == 1:
        return SIMD[DType.float64, 2](-sine, cosine)
    if turned == 2:
        return SIMD[DType.float64, 2](-cosine, -sine)
    if turned == 3:
        return SIMD[DType.float64, 2](sine, -cosine)
    return SIMD[DType.float64, 2](cosine, sine)


@always_inline
def add_and_subtract[
    acc: DType, count: Int, //, low: Int, high: Int, angle: Int, is_plain: Bool, is_real: Bool = False
](mut re: Array[Scalar[acc], count], mut im: Array[Scalar[acc], count], root: SIMD[acc, 2]):
    """Does one butterfly: (a, b) becomes (a + w*b, a - w*b), w = root * exp(2*pi*i * angle / TURN).

    Parameters:
        acc: Accumulation type.
        count: Points of a thread.
        low: Register of a.
        high: Register of b.
        angle: The part of the angle known at compile time.
        is_plain: True: `root` is 1 and not looked at.
        is_real: True: so it is, and the imaginary parts of a and b are 0 and not looked at.

    Args:
        re: Real parts.
        im: Imaginary parts.
        root: The part of the factor known at run time.
    """
    comptime if is_real:
        comptime factor = root_of_unity(angle, TURN)
        im[low] = factor[1].cast[acc]() * re[high]
        im[high] = -im[low]
        var a = re[low]
        re[low] = factor[0].cast[acc]().fma(re[high], a)
        re[high] = (-factor[0].cast[acc]()).fma(re[high], a)
        return
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
    acc: DType,
    count: Int,
    //,
    nfft: Int,
    step: Int,
    folded: Bool,
    turned: Bool = False,
    held: Int = 0,
    is_real: Bool = False,
](mut re: Array[Scalar[acc], count], mut im: Array[Scalar[acc], count], root: SIMD[acc, 2]):
    """Does the stages of one pass of the forward transform on a thread's points.

    Stage s splits each of 2^s subtransforms of the span in two; their factors are root^(2^(stages-1-s)), turned by
    the reversed phase of the subtransform's index within the span. Folded, the first stage splits t^nfft - i, not
    t^nfft - 1: by the factor exp(2*pi*i / 8), the next ones by its square root and so on.

    Parameters:
        acc: Accumulation type.
        count: Points of a thread.
        nfft: Length of the transform.
        step: Which pass; the first has factors known at compile time only, unless it is turned.
        folded: As for `transform_forward`.
        turned: True: the first pass too has a root, of a network that begins at t^nfft - z for any z.
        held: As in fft_points.mojo.
        is_real: True: the points of the first pass are real; their imaginary parts are not looked at.

    Args:
        re: Real parts.
        im: Imaginary parts.
        root: The thread's root of unity, see `forward_root`.
    """
    comptime stages = log2_radix(nfft, step, held)
    comptime radix = 1 << stages
    comptime owns_spans = span_of_pass(nfft, step, held) < count
    comptime for stage in range(stages):
        comptime half = radix >> (stage + 1)
        var power = squared[stages - 1 - stage](root)
        comptime for group in range(count // radix):
            comptime for pair in range(radix // 2):
                comptime part = pair // half
                comptime digit = part * 2 * half + pair % half
                # The spans of one thread differ in the low bits of their index: a further turn.
                comptime own = (reversed_phase(group, TURN_BITS) >> stage) if owns_spans else 0
                comptime fold = (TURN // 8 >> stage) if folded and step == 0 else 0
                add_and_subtract[
                    low=register_of(nfft, step, group, digit, held),
                    high=register_of(nfft, step, group, digit + half, held),
                    angle=fold - reversed_phase(part, TURN_BITS) - own,
                    is_plain=step == 0 and not turned,
                    is_real=is_real and stage == 0,
                ](re, im, power)


@always_inline
def inverse_pass[
    acc: DType, count: Int, //, nfft: Int, step: Int, held: Int = 0, turned: Bool = False
](mut re: Array[Scalar[acc], count], mut im: Array[Scalar[acc], count], root: SIMD[acc, 2], turn: SIMD[acc, 2] = 0):
    """Does the stages of one pass of the inverse transform on a thread's points.

    Stage s joins subtransforms 2^s digits apart; the factor depends on the position within the subtransform.

    Parameters:
        acc: Accumulation type.
        count: Points of a thread.
        nfft: Length of the transform.
        step: Which pass, counted in the forward direction; the last has factors known at compile time only.
        held: As in fft_points.mojo.
        turned: True: all points are multiplied by `turn`, half of them with the factors of the first stage.

    Args:
        re: Real parts.
        im: Imaginary parts.
        root: The thread's root of unity, see `inverse_root`.
        turn: Any number.
    """
    comptime stages = log2_radix(nfft, step, held)
    comptime radix = 1 << stages
    comptime is_plain = step == passes(nfft, held) - 1
    comptime for stage in range(stages):
        comptime half = 1 << stage
        comptime times = stages - 1 - stage
        var power = squared[times](root)
        comptime if turned and stage == 0:
            power = multiply(power, turn)
            comptime for digit in range(0, count, 2):
                comptime low = register_of(nfft, step, digit // radix, digit % radix, held)
                var point = multiply(SIMD[acc, 2](re[low], im[low]), turn)
                re[low] = point[0]
                im[low] = point[1]
        comptime for group in range(count // radix):
            comptime for pair in range(radix // 2):
                comptime within = pair % half
                comptime digit = (pair // half) * 2 * half + within
                # Group g lies g/count of a span behind the thread's first point, which `root` is for.
                comptime own = 0 if is_plain else (TURN // count * group) << times
                add_and_subtract[
                    low=register_of(nfft, step, group, digit, held),
                    high=register_of(nfft, step, group, digit + half, held),
                    angle=TURN // 2 // half * within + own,
                    is_plain=is_plain,
                ](re, im, power)


@always_inline
def forward_root[nfft: Int, step: Int, folded: Bool](thread: Int) -> SIMD[DType.float64, 2]:
    """Computes the factor of a thread's last stage of a forward pass.

    Parameters:
        nfft: Length of the transform.
        step: Which pass.
        folded: As for `transform_forward`.

    Args:
        thread: Index of the thread.

    Returns:
        Root of unity.
    """
    comptime span = span_of_pass(nfft, step)
    comptime bits = log2_exact(nfft)
    var span_index = Int(first_point[nfft, step](Int32(thread))) // span
    var phase = reversed_phase(span_index << (log2_radix(nfft, step) - 1), bits)
    comptime stage = bits - log2_exact(span) + log2_radix(nfft, step) - 1
    comptime fold = 1 << (bits - stage) if folded else 0  # 1/8 of a turn, halved by every stage before
    return root_of_unity(fold - 4 * phase, 8 << bits)


@always_inline
def inverse_root[nfft: Int, step: Int, held: Int = 0](thread: Int) -> SIMD[DType.float64, 2]:
    """Computes the factor of a thread's last stage of an inverse pass.

    Parameters:
        nfft: Length of the transform.
        step: Which pass, counted in the forward direction.
        held: As in fft_points.mojo.

    Args:
        thread: Index of the thread.

    Returns:
        Root of unity.
    """
    comptime span = span_of_pass(nfft, step, held)
    return root_of_unity(Int(first_point[nfft, step, held](Int32(thread))) % span, span)


@always_inline
def load_root[
    acc: DType, //, nfft: Int, slot: Int
](roots: Pointer[Scalar[acc], MutAnyOrigin], thread: Int32) -> SIMD[acc, 2]:
    """Reads one of a thread's roots of unity.

    Parameters:
        acc: Accumulation type.
        nfft: Length of the transform.
        slot: Which: step - 1 of the forward passes, then passes - 1 + step of the inverse ones.

    Args:
        roots: What `fill_roots` filled.
        thread: Index of the thread.

    Returns:
        The root.
    """
    comptime begin = 2 * threads(nfft) * slot
    return roots.unsafe_offset(2 * thread).unsafe_load[width=2, alignment=2 * size_of[acc](), invariant=True](begin)


@always_inline
def transform_forward[
    acc: DType, count: Int, //, nfft: Int, lanes: Int = 1, folded: Bool = False, is_real: Bool = False
](
    mut re: Array[Scalar[acc], count],
    mut im: Array[Scalar[acc], count],
    shared: Pointer[Scalar[acc], MutUntrackedOrigin, address_space=AddressSpace.SHARED],
    roots: Pointer[Scalar[acc], MutAnyOrigin],
    thread: Int32,
):
    """Does all passes of the forward transform.

    Parameters:
        acc: Accumulation type.
        count: Points of a thread.
        nfft: Length of the transform.
        lanes: Transforms side by side in the block, their points interleaved in shared memory.
        folded: False: values at the roots of t^nfft = 1; True: of t^nfft = i, which are those turned by 1/4 / nfft.
        is_real: True: the points are real, and the imaginary parts on entry are not looked at.

    Args:
        re: Real parts; on entry of points thread + threads * e, on return of the spectrum's places of the last pass.
        im: Imaginary parts.
        shared: The block's exchange memory; with `lanes`, from the place of this transform's first point on.
        roots: What `fill_roots` filled.
        thread: Index of the thread within its transform.
    """
    forward_pass[nfft, 0, folded, is_real=is_real](re, im, 0)
    comptime for step in range(1, passes(nfft)):
        exchange[nfft, step - 1, step, lanes](re, im, shared, thread)
        forward_pass[nfft, step, folded](re, im, load_root[nfft, step - 1](roots, thread))


@always_inline
def transform_back[
    acc: DType, count: Int, //, nfft: Int, lanes: Int = 1, folded: Bool = False, is_real: Bool = False
](
    mut re: Array[Scalar[acc], count],
    mut im: Array[Scalar[acc], count],
    shared: Pointer[Scalar[acc], MutUntrackedOrigin, address_space=AddressSpace.SHARED],
    roots: Pointer[Scalar[acc], MutAnyOrigin],
    thread: Int32,
):
    """Does all passes of the inverse transform, without the factor 1/nfft.

    Parameters:
        acc: Accumulation type.
        count: Points of a thread.
        nfft: Length of the transform.
        lanes: Transforms side by side in the block, their points interleaved in shared memory.
        folded: As for `transform_forward`.
        is_real: True: folded, only the real parts of the points are wanted; the imaginary parts are left as they come.

    Args:
        re: Real parts, as `transform_forward` leaves them and takes them.
        im: Imaginary parts.
        shared: The block's exchange memory; with `lanes`, from the place of this transform's first point on.
        roots: What `fill_roots` filled.
        thread: Index of the thread within its transform.
    """
    comptime last = passes(nfft) - 1
    inverse_pass[nfft, last](re, im, 0)
    comptime for done in range(last):
        comptime step = last - 1 - done
        exchange[nfft, step + 1, step, lanes](re, im, shared, thread)
        var root = load_root[nfft, last + step](roots, thread)
        comptime if folded and step == 0:
            # Values at the turned roots are the transform of points turned as well: point n by n/4 / nfft, back here.
            inverse_pass[nfft, step, turned=True](re, im, root, load_root[nfft, 2 * last](roots, thread))
        else:
            inverse_pass[nfft, step](re, im, root)
    comptime if folded:
        comptime for e in range(count):  # the part of the turn that is no matter of the thread
            comptime back = root_of_unity(-e, 4 * count)
            var turned = multiply(SIMD[acc, 2](back[0].cast[acc](), back[1].cast[acc]()), SIMD[acc, 2](re[e], im[e]))
            re[e] = turned[0]
            comptime if not is_real:
                im[e] = turned[1]


def spectrum_place[acc: DType, nfft: Int, held: Int = 0](thread: Int32, e: Int) -> Int32:
    """Finds a point of the spectrum in the plan: vectors of 16 bytes, neighbouring threads side by side.

    Parameters:
        acc: Accumulation type.
        nfft: Length of the transform.
        held: As in fft_points.mojo.

    Args:
        thread: Index of the thread.
        e: Register of the point after the last forward pass.

    Returns:
        Index of its real part.
    """
    comptime width = 8 // size_of[acc]()  # complex numbers in 16 bytes
    return 2 * (Int32(e // width * width * threads(nfft, held) + e % width) + thread * Int32(width))


def fill_roots[acc: DType, nfft: Int, folded: Bool = False](roots: Pointer[Scalar[acc], MutAnyOrigin]):
    """Kernel: each of `root_slots` blocks computes one of every thread's roots of unity, in float64.

    Parameters:
        acc: Accumulation type.
        nfft: Length of the transform.
        folded: As for `transform_forward`.

    Args:
        roots: As many elements as `roots_length` says.
    """
    comptime last = passes(nfft) - 1
    var thread = Int(thread_idx.x)
    comptime for slot in range(root_slots(nfft)):
        if Int(block_idx.x) == slot:
            var root = root_of_unity(-thread, 4 * nfft)
            comptime if slot < last:
                root = forward_root[nfft, slot + 1, folded](thread)
            elif slot < 2 * last:
                root = inverse_root[nfft, slot - last](thread)
            comptime for part in range(2):
                roots[unsafe_offset=2 * (threads(nfft) * slot + thread) + part] = root[part].cast[acc]()


@always_inline
def store_spectrum[
    acc: DType, count: Int, //, nfft: Int, held: Int = 0
](
    spectrum: Pointer[Scalar[acc], MutAnyOrigin],
    re: Array[Scalar[acc], count],
    im: Array[Scalar[acc], count],
    thread: Int32,
):
    """Writes a thread's points of a spectrum, for `multiply_by_spectrum`.

    Parameters:
        acc: Accumulation type.
        count: Points of a thread.
        nfft: Length of the transform.
        held: As in fft_points.mojo.

    Args:
        spectrum: Room for nfft complex numbers, aligned to 16 bytes.
        re: Real parts, as `transform_forward` leaves them.
        im: Imaginary parts.
        thread: Index of the thread.
    """
    comptime WIDTH = 16 // size_of[acc]()
    comptime for vector in range(2 * count // WIDTH):
        var values = SIMD[acc, WIDTH]()
        comptime for part in range(WIDTH // 2):
            values[2 * part] = re[vector * WIDTH // 2 + part]
            values[2 * part + 1] = im[vector * WIDTH // 2 + part]
        spectrum.unsafe_store[alignment=16](spectrum_place[acc, nfft, held](thread, vector * WIDTH // 2), values)


@always_inline
def multiply_by_spectrum[
    acc: DType, count: Int, //, nfft: Int, held: Int = 0, is_constant: Bool = True
](
    mut re: Array[Scalar[acc], count],
    mut im: Array[Scalar[acc], count],
    spectrum: Pointer[Scalar[acc], MutAnyOrigin],
    thread: Int32,
):
    """Multiplies a thread's points of a spectrum by those of another.

    Parameters:
        acc: Accumulation type.
        count: Points of a thread.
        nfft: Length of the transform.
        held: As in fft_points.mojo.
        is_constant: False: this very kernel wrote the spectrum, so no cache of constants may serve.

    Args:
        re: Real parts, as `transform_forward` leaves them.
        im: Imaginary parts.
        spectrum: What `store_spectrum` wrote.
        thread: Index of the thread.
    """
    comptime WIDTH = 16 // size_of[acc]()
    comptime for vector in range(2 * count // WIDTH):
        var factors = spectrum.unsafe_load[width=WIDTH, alignment=16, invariant=is_constant](
            spectrum_place[acc, nfft, held](thread, vector * WIDTH // 2)
        )
        comptime for part in range(WIDTH // 2):
            comptime e = vector * WIDTH // 2 + part
            var product = multiply(SIMD[acc, 2](re[e], im[e]), SIMD[acc, 2](factors[2 * part], factors[2 * part + 1]))
            re[e] = product[0]
            im[e] = product[1]
