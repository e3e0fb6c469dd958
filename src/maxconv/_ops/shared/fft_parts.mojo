"""A transform of PARTS times PART points as so many transforms of a warp each, and what splits and joins them, on GPU.

Computes:   with S = PARTS and L = PART, t^(S*L) - i is the product over r of t^L - w_r, w_r = exp(2*pi*i * (1 + 4*r) /
            (4*S)). Forward, part r begins with z[n] + w_r*z[n + L] + w_r^2*z[n + 2*L] + ...; back, point n + s*L is the
            sum over r of w_r^-(s + n/L) times point n of part r, divided by S.
Algorithm:  S points at a time in a thread: turned by powers of exp(2*pi*i / (4*S)), then a transform of S = 3 * 8
            points without factors between (prime factors). The parts lie one behind the other in shared memory.
Cost:       16 bytes of float32 a point and direction through load and store units, and a product of complex numbers to
            turn by, two to turn back.
Layout:     plan: SLOTS roots of unity for each thread of each part.
Accuracy:   roots are computed in float64 and rounded once.
Gate:       real numbers of 4 bytes: 24 parts of float64 fit no multiprocessor.
Tuning:     FFT_PARTS_* of tuning_gpu.mojo.
Source:     Good, The interaction algorithm and practical Fourier analysis, 1958.
"""

from std.sys.info import size_of
from max.gpu import block_idx, thread_idx

from .fft_points import first_point, log2_exact, log2_radix, padded, points, reversed_phase, span_of_pass
from .fft_threads import TURN_BITS, add_and_subtract, inverse_root, multiply, root_of_unity
from .tuning_gpu import FFT_PARTS_COUNT as PARTS, FFT_PARTS_HELD as HELD, FFT_PARTS_PART as PART, WARP

comptime POWER = PARTS // 3
"""The power of two in PARTS."""

comptime PITCH = 2 * (padded(PART, PART - 1, 1, HELD) + 1)
"""Real numbers from one part to the next in shared memory."""

comptime SLOTS = 5
"""Roots of unity of a thread: of two passes forward and one back, and two to turn back by."""

comptime PARTS_BLOCK = 2 * PARTS * PART
"""Samples of a folded block (block_pair.mojo): 49152."""


def part_roots_length() -> Int:
    """Gives the length of what `fill_part_roots` fills.

    Returns:
        Real numbers.
    """
    return 2 * WARP * PARTS * SLOTS


def fill_part_roots[acc: DType](roots: Pointer[Scalar[acc], MutAnyOrigin]):
    """Kernel: one block of a warp for each part computes its roots of unity, in float64.

    Parameters:
        acc: Accumulation type.

    Args:
        roots: As many elements as `part_roots_length` says.
    """
    comptime bits = log2_exact(PART)
    var part = Int(block_idx.x)
    var thread = Int(thread_idx.x)
    var turn = 1 + 4 * part  # w_r in units of 1 / (4*S)
    var slots = Array[SIMD[DType.float64, 2], SLOTS](fill=0)
    comptime for step in range(2):  # as `forward_root`
        comptime span = span_of_pass(PART, step, HELD)
        comptime stage = bits - log2_exact(span) + log2_radix(PART, step, HELD) - 1
        var index = Int(first_point[PART, step, HELD](Int32(thread))) // span
        var phase = reversed_phase(index << (log2_radix(PART, step, HELD) - 1), bits)
        slots[step] = root_of_unity((turn << (bits - stage)) - 4 * phase * PARTS, (8 * PARTS) << bits)
    slots[2] = inverse_root[PART, 0, HELD](thread)
    slots[3] = root_of_unity(-turn * thread, 4 * PARTS * PART)
    slots[4] = root_of_unity(-turn * thread, 4 * PARTS * points(PART, HELD))  # of register `thread` of every thread
    comptime for slot in range(SLOTS):
        comptime for i in range(2):
            var place = 2 * (WARP * (PARTS * slot + part) + thread) + i
            roots[unsafe_offset=place] = slots[slot][i].cast[acc]()


@always_inline
def load_part_root[
    acc: DType, //, slot: Int
](roots: Pointer[Scalar[acc], MutAnyOrigin], part: Int32, thread: Int32) -> SIMD[acc, 2]:
    """Reads one of a thread's roots of unity.

    Parameters:
        acc: Accumulation type.
        slot: Which, as in `fill_part_roots`.

    Args:
        roots: What `fill_part_roots` filled.
        part: Which part.
        thread: Index of the thread within the part.

    Returns:
        The root.
    """
    comptime begin = 2 * WARP * PARTS * slot
    var mine = roots.unsafe_offset(2 * (part * Int32(WARP) + thread))
    return mine.unsafe_load[width=2, alignment=2 * size_of[acc](), invariant=True](begin)


@always_inline
def turn_back[
    acc: DType, count: Int
](
    mut re: Array[Scalar[acc], count],
    mut im: Array[Scalar[acc], count],
    roots: Pointer[Scalar[acc], MutAnyOrigin],
    part: Int32,
    thread: Int32,
):
    """Multiplies point n of part r by w_r^-(n/L).

    Parameters:
        acc: Accumulation type.
        count: Points of a thread.

    Args:
        re: Real parts, of points thread + WARP * e.
        im: Imaginary parts.
        roots: What `fill_part_roots` filled.
        part: Which part: r.
        thread: Index of the thread within the part.
    """
    comptime begin = 2 * WARP * PARTS * 4
    var own = load_part_root[3](roots, part, thread)
    var of_registers = roots.unsafe_offset(2 * part * Int32(WARP))
    comptime for pair in range(count // 2):
        var fixed = of_registers.unsafe_load[width=4, alignment=16, invariant=True](begin + 4 * pair)
        comptime for i in range(2):
            comptime e = 2 * pair + i
            var turned = multiply(SIMD[acc, 2](re[e], im[e]), SIMD[acc, 2](fixed[2 * i], fixed[2 * i + 1]))
            turned = multiply(turned, own)
            re[e] = turned[0]
            im[e] = turned[1]


@always_inline
def split_points[acc: DType](mut re: Array[Scalar[acc], PARTS], mut im: Array[Scalar[acc], PARTS]):
    """Makes of points n, n + L, n + 2*L, ... point n of every part.

    Parameters:
        acc: Accumulation type.

    Args:
        re: Real parts.
        im: Imaginary parts.
    """
    turn_points[1](re, im)
    transform_points[1](re, im)


@always_inline
def join_points[acc: DType](mut re: Array[Scalar[acc], PARTS], mut im: Array[Scalar[acc], PARTS]):
    """Makes of point n of every part points n, n + L, n + 2*L, ..., times S.

    Parameters:
        acc: Accumulation type.

    Args:
        re: Real parts.
        im: Imaginary parts.
    """
    transform_points[-1](re, im)
    turn_points[-1](re, im)


@always_inline
def turn_points[acc: DType, //, sign: Int](mut re: Array[Scalar[acc], PARTS], mut im: Array[Scalar[acc], PARTS]):
    """Multiplies point s by exp(2*pi*i * sign * s / (4*S)).

    Parameters:
        acc: Accumulation type.
        sign: 1 or -1.

    Args:
        re: Real parts.
        im: Imaginary parts.
    """
    comptime for s in range(1, PARTS):
        comptime root = root_of_unity(sign * s, 4 * PARTS)
        var turned = multiply(SIMD[acc, 2](re[s], im[s]), SIMD[acc, 2](root[0].cast[acc](), root[1].cast[acc]()))
        re[s] = turned[0]
        im[s] = turned[1]


def result_register(r: Int) -> Int:
    """Finds where a result lies among registers that were never exchanged.

    With s = 8a + 3b modulo 24, and r = c modulo 3, r = d modulo 8, r*s/24 is a*c/3 + b*d/8 and whole numbers; c takes
    the place of a, and d, its bits reversed, that of b.

    Args:
        r: Index of the result.

    Returns:
        Register.
    """
    comptime bits = log2_exact(POWER)
    return (POWER * (r % 3) + 3 * (reversed_phase(r % POWER, bits))) % PARTS


@always_inline
def transform_points[acc: DType, //, sign: Int](mut re: Array[Scalar[acc], PARTS], mut im: Array[Scalar[acc], PARTS]):
    """Does a transform of S points, natural order in and out: sums of exp(2*pi*i * sign * r*s / S).

    Parameters:
        acc: Accumulation type.
        sign: 1 or -1.

    Args:
        re: Real parts.
        im: Imaginary parts.
    """
    comptime for b in range(POWER):
        comptime at = 3 * b % PARTS
        transform_three[at, (POWER + at) % PARTS, (2 * POWER + at) % PARTS, sign](re, im)
    comptime for c in range(3):
        comptime for stage in range(log2_exact(POWER)):
            comptime half = POWER >> (stage + 1)
            comptime for pair in range(POWER // 2):
                comptime digit = pair // half * 2 * half + pair % half
                add_and_subtract[
                    low=(POWER * c + 3 * digit) % PARTS,
                    high=(POWER * c + 3 * (digit + half)) % PARTS,
                    angle=sign * reversed_phase(pair // half, TURN_BITS),
                    is_plain=True,
                ](re, im, SIMD[acc, 2](0))
    var found_re = re.copy()
    var found_im = im.copy()
    comptime for r in range(PARTS):
        comptime at = result_register(r)
        re[r] = found_re[at]
        im[r] = found_im[at]


@always_inline
def transform_three[
    acc: DType, //, a: Int, b: Int, c: Int, sign: Int
](mut re: Array[Scalar[acc], PARTS], mut im: Array[Scalar[acc], PARTS]):
    """Does a transform of three points, in 12 instructions.

    Parameters:
        acc: Accumulation type.
        a: Register of the first.
        b: Register of the second.
        c: Register of the third.
        sign: 1 or -1.

    Args:
        re: Real parts.
        im: Imaginary parts.
    """
    comptime root = root_of_unity(sign, 3)
    comptime sine = root[1].cast[acc]()
    var sum_re = re[b] + re[c]
    var sum_im = im[b] + im[c]
    var difference_re = re[b] - re[c]
    var difference_im = im[b] - im[c]
    var middle_re = Scalar[acc](-0.5).fma(sum_re, re[a])
    var middle_im = Scalar[acc](-0.5).fma(sum_im, im[a])
    re[a] += sum_re
    im[a] += sum_im
    re[b] = Scalar[acc](-sine).fma(difference_im, middle_re)
    im[b] = Scalar[acc](sine).fma(difference_re, middle_im)
    re[c] = Scalar[acc](sine).fma(difference_im, middle_re)
    im[c] = Scalar[acc](-sine).fma(difference_re, middle_im)
