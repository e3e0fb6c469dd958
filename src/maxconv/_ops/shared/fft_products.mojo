"""Fourier transforms of whole rows as products of matrices, on the tensor cores of NVIDIA GPUs.

A row of 256 * lines points is a matrix, point n in line n // 256 and column n % 256. Forward, its columns are
transformed first, by one product with the DFT of `lines` points; what then is line k1 is multiplied by weights, and
transformed as 16 by 16 points, by two products with the DFT of 16 points and roots of unity between them. Back, the same
in reverse order. A row is folded (block_pair.mojo): its samples are real, and so are its results; the quarter of a turn
that folding asks for is in the DFT of the columns and in the weights. Frequency k1 + lines*(p + 16*q) comes out as element
(p, q) of line k1, and goes back from there.

What products leave is what the next product takes: a lane's sums of 16 by 16 points are its part of the next left factor,
or its part of the right factor of their transpose, so that a line never leaves the registers of its warp. Lines are
exchanged through shared memory, as float16, before and after.

Values are float16 between products, which add in float32. No value overflows if samples are below 2 in magnitude, and a
spectrum is scaled as in overlap_save_mma_gpu.mojo: each DFT is scaled by 1/4, so those of 16 points keep the sum of
squares, that of 32 doubles it. Samples have at most 4*256*lines of it, so no point of a transform exceeds 256; no point of
the spectrum exceeds 90; and what has a sum of squares below (256 * 90)^2 has no value above 23040.
"""

from std.memory import bitcast
from std.sys._assembly import inlined_assembly
from max.gpu import block_idx, thread_idx
from max.gpu.compute.mma import ld_matrix, mma
from max.gpu.sync import syncwarp

from .fft_threads import root_of_unity
from .tuning_gpu import IS_NVIDIA, WARP

comptime SPAN = 256
"""Points of a line."""

comptime WARPS = SPAN // 32
"""Warps of a block: each has 32 columns of the matrix, four products of 8, and an eighth of the lines."""

comptime DFT_SCALE = 0.25
"""By which every DFT is multiplied."""

comptime HALF = DType.float16
"""Type of values between products."""

comptime FULL = DType.float32
"""Type of sums."""

comptime Shared[dtype: DType] = Pointer[Scalar[dtype], MutUntrackedOrigin, address_space=AddressSpace.SHARED]
"""Shared memory of a block.

Parameters:
    dtype: Element type.
"""

comptime CONSTANTS_LENGTH = 8 * 4 * WARP
"""Elements of FULL that `store_constants` stores."""


def tables_length(lines: Int) -> Int:
    """Counts what `fill_tables` computes.

    Args:
        lines: Lines of a row.

    Returns:
        Elements of FULL.
    """
    return 2 * SPAN * (lines + 1)


def matrix_pitch(lines: Int) -> Int:
    """Tells how far apart the rows of the DFT of columns are in shared memory.

    Args:
        lines: Lines of a row.

    Returns:
        Elements of HALF: 16 bytes more than they have, so that 8 rows meet all banks.
    """
    return lines + 8


def matrix_length(lines: Int) -> Int:
    """Counts what `store_matrix` stores.

    Args:
        lines: Lines of a row.

    Returns:
        Elements of HALF: real parts, then imaginary ones.
    """
    return 2 * lines * matrix_pitch(lines)


@always_inline
def weight_chunk(line: Int32, chunk: Int32) -> Int32:
    """Tells where two neighbouring weights of a line are: neither `first_pass` nor `backward` meets a bank twice.

    Args:
        line: The line.
        chunk: Pair of columns.

    Returns:
        Its place in the line, in pairs.
    """
    return chunk ^ (chunk // 8 % 2 * 5) ^ (line % 2 * 2)


def fill_tables[lines: Int](tables: Pointer[Scalar[FULL], MutAnyOrigin]):
    """Kernel: a block of SPAN threads for each line computes its weights, one more the roots of unity of SPAN points.

    Parameters:
        lines: Lines of a row.

    Args:
        tables: `tables_length` elements.
    """
    var column = Int32(thread_idx.x)
    var line = Int32(block_idx.x)
    var root = root_of_unity(-Int(column), SPAN)
    var at = Int32(lines * SPAN) + column
    if line < Int32(lines):
        root = root_of_unity(-Int(column) * (4 * Int(line) - 1), 4 * lines * SPAN)
        at = line * Int32(SPAN) + weight_chunk(line, column // 2) * 2 + column % 2
    tables.unsafe_store[alignment=8](Int(at) * 2, root.cast[FULL]())


@always_inline
def store_matrix[lines: Int](matrix: Shared[HALF], roots: Pointer[Scalar[FULL], MutAnyOrigin], thread: Int32):
    """Puts down the DFT of columns, exp(-2*pi*i * c * (4*k1 - 1) / (4*lines)) in row k1 and column c.

    Parameters:
        lines: Lines of a row.

    Args:
        matrix: Room for `matrix_length` elements.
        roots: Roots of unity of SPAN points.
        thread: Index of the thread.
    """
    comptime STEP = SPAN // (4 * lines)
    comptime for turn in range(lines * lines // (WARP * WARPS)):
        var at = Int32(turn * WARP * WARPS) + thread
        var line = at // Int32(lines)
        var column = at % Int32(lines)
        var turned = column * (4 * line + Int32(SPAN - 1)) * Int32(STEP) % Int32(SPAN)
        var root = roots.unsafe_load[width=2, alignment=8](Int(turned) * 2) * DFT_SCALE
        comptime for part in range(2):
            matrix[unsafe_offset=(Int32(part * lines) + line) * Int32(matrix_pitch(lines)) + column] = root[part].cast[
                HALF
            ]()


@always_inline
def store_constants(constants: Shared[FULL], roots: Pointer[Scalar[FULL], MutAnyOrigin], lane: Int32):
    """Puts down what each lane of a warp loads as `Constants`; one warp does it.

    Args:
        constants: Room for CONSTANTS_LENGTH elements.
        roots: Roots of unity of SPAN points.
        lane: The thread's place in its warp.
    """
    comptime STEP = 4 * WARP
    var group = lane // 4
    var pair = lane % 4 * 2
    var own = constants.unsafe_offset(lane * 4)
    var re = SIMD[HALF, 8](0)
    var im = SIMD[HALF, 8](0)
    comptime for is_right in range(2):
        comptime for i in range(8):
            # As the PTX ISA has the fragments of mma.m16n8k16; two right factors of 8 columns.
            comptime near = i // 2 % 2 * 8
            comptime far = i // 4 * 8
            var outer = group + Int32(far if is_right else near)
            var inner = pair + Int32(i % 2 + (near if is_right else far))
            var root = roots.unsafe_load[width=2, alignment=8](Int(outer * inner % 16) * 32) * DFT_SCALE
            re[i] = root[0].cast[HALF]()
            im[i] = root[1].cast[HALF]()
        own.unsafe_store[alignment=16](Int32(2 * is_right * STEP), bitcast[FULL, 4](re))
        own.unsafe_store[alignment=16](Int32((2 * is_right + 1) * STEP), bitcast[FULL, 4](im))
    comptime for n in range(2):
        comptime for i in range(4):
            var at = (group + Int32(i // 2 * 8)) * (pair + Int32(i % 2 + 8 * n))
            comptime for part in range(2):
                own[unsafe_offset=Int32((4 + n + 2 * part) * STEP + i)] = roots[unsafe_offset=Int(at * 2) + part]


struct Constants(Copyable, Movable):
    """What a lane needs of the DFT of 16 points and of the roots between two of them; not held longer than a pass, as
    registers are few."""

    var left_re: SIMD[HALF, 8]
    """The DFT as left factor, real parts."""
    var left_im: SIMD[HALF, 8]
    """Imaginary parts."""
    var right_re: SIMD[HALF, 8]
    """The DFT as two right factors of 8 columns, real parts."""
    var right_im: SIMD[HALF, 8]
    """Imaginary parts."""
    var root_re: Array[SIMD[FULL, 4], 2]
    """Roots of unity of SPAN points, where `Points` has element (m, n) that with number m*n; real parts."""
    var root_im: Array[SIMD[FULL, 4], 2]
    """Imaginary parts."""

    @always_inline
    def __init__(out self, constants: Shared[FULL], lane: Int32):
        """Loads them.

        Args:
            constants: What `store_constants` has stored.
            lane: The thread's place in its warp.
        """
        comptime STEP = Int32(4 * WARP)
        var own = constants.unsafe_offset(lane * 4)
        self.left_re = bitcast[HALF, 8](own.unsafe_load[width=4, alignment=16](Int32(0)))
        self.left_im = bitcast[HALF, 8](own.unsafe_load[width=4, alignment=16](STEP))
        self.right_re = bitcast[HALF, 8](own.unsafe_load[width=4, alignment=16](2 * STEP))
        self.right_im = bitcast[HALF, 8](own.unsafe_load[width=4, alignment=16](3 * STEP))
        self.root_re = Array[SIMD[FULL, 4], 2](fill=0)
        self.root_im = Array[SIMD[FULL, 4], 2](fill=0)
        comptime for n in range(2):
            self.root_re[n] = own.unsafe_load[width=4, alignment=16](Int32(4 + n) * STEP)
            self.root_im[n] = own.unsafe_load[width=4, alignment=16](Int32(6 + n) * STEP)


struct Points(Copyable, Movable):
    """A lane's part of 16 by 16 points, as products leave them: two times 8 columns."""

    var re: Array[SIMD[FULL, 4], 2]
    """Real parts."""
    var im: Array[SIMD[FULL, 4], 2]
    """Imaginary parts."""

    @always_inline
    def __init__(out self):
        """Zeros."""
        self.re = Array[SIMD[FULL, 4], 2](fill=0)
        self.im = Array[SIMD[FULL, 4], 2](fill=0)

    @always_inline
    def rotate[sign: Int](mut self, c: Constants):
        """Multiplies by the roots between two DFTs.

        Parameters:
            sign: 1, or -1 for their conjugates.

        Args:
            c: The roots.
        """
        comptime for n in range(2):
            var root_im = c.root_im[n] if sign > 0 else -c.root_im[n]
            var re = self.re[n] * c.root_re[n] - self.im[n] * root_im
            self.im[n] = self.re[n] * root_im + self.im[n] * c.root_re[n]
            self.re[n] = re

    @always_inline
    def multiply(mut self, re: SIMD[HALF, 8], im: SIMD[HALF, 8]):
        """Multiplies by a spectrum.

        Args:
            re: Its real parts, as `halves` gives them.
            im: Imaginary parts.
        """
        comptime for n in range(2):
            var other_re = re.slice[4, offset=4 * n]().cast[FULL]()
            var other_im = im.slice[4, offset=4 * n]().cast[FULL]()
            var product = self.re[n] * other_re - self.im[n] * other_im
            self.im[n] = self.re[n] * other_im + self.im[n] * other_re
            self.re[n] = product

    @always_inline
    def times_dft(self, c: Constants) -> Points:
        """Multiplies by the DFT from the right: its terms are columns of these points, and rows stay.

        Args:
            c: The DFT.

        Returns:
            The product.
        """
        var left_re = halves(self.re)
        var left_im = halves(self.im)
        var product = Points()
        comptime for n in range(2):
            var right_re = c.right_re.slice[4, offset=4 * n]()
            var right_im = c.right_im.slice[4, offset=4 * n]()
            mma(product.re[n], left_re, right_re, product.re[n])
            mma(product.im[n], left_re, right_im, product.im[n])
            mma(product.re[n], left_im, -right_im, product.re[n])
            mma(product.im[n], left_im, right_re, product.im[n])
        return product^

    @always_inline
    def inverse_dft(self, c: Constants) -> Points:
        """Multiplies the inverse DFT by the transpose of these points: terms are their columns, columns their rows.

        Args:
            c: The DFT.

        Returns:
            The product.
        """
        var all_re = halves(self.re)
        var all_im = halves(self.im)
        var product = Points()
        comptime for n in range(2):
            var re = all_re.slice[2, offset=2 * n]().join(all_re.slice[2, offset=4 + 2 * n]())
            var im = all_im.slice[2, offset=2 * n]().join(all_im.slice[2, offset=4 + 2 * n]())
            mma(product.re[n], c.left_re, re, product.re[n])
            mma(product.im[n], c.left_re, im, product.im[n])
            mma(product.re[n], c.left_im, im, product.re[n])
            mma(product.im[n], -c.left_im, re, product.im[n])
        return product^


@always_inline
def halves(sums: Array[SIMD[FULL, 4], 2]) -> SIMD[HALF, 8]:
    """Rounds a lane's sums of 16 by 16 points, which makes a left factor of them.

    Args:
        sums: The sums.

    Returns:
        The factor.
    """
    return sums[0].cast[HALF]().join(sums[1].cast[HALF]())


@always_inline
def kept(value: SIMD[HALF, 8]) -> SIMD[HALF, 8]:
    """Has halves stay halves: the compiler would widen a spectrum before the loop over rows, and spill it.

    Args:
        value: Halves.

    Returns:
        The same.
    """
    var words = bitcast[DType.uint32, 4](value)
    comptime if IS_NVIDIA:
        comptime for i in range(4):
            words[i] = inlined_assembly["mov.b32 $0, $1;", UInt32, constraints="=r,r", has_side_effect=True](words[i])
    return bitcast[HALF, 8](words)


@always_inline
def first_pass[
    lines: Int, has_ahead: Bool = False
](
    terms: Array[SIMD[HALF, 4], lines // 4],
    ahead: Array[SIMD[HALF, 4], lines // 4],
    matrix: Shared[HALF],
    weights: Shared[FULL],
    values: Shared[HALF],
    thread: Int32,
):
    """Transforms a warp's columns and multiplies them by weights.

    A lane's 8 sums of a line are neighbours, since column 4*(8*j + n) + i of 32 is column n of product i.

    Parameters:
        lines: Lines of a row.
        has_ahead: Whether there is an imaginary part.

    Args:
        terms: The columns as right factors: element 4*s + i has 4 terms of lines 16*s... of product i.
        ahead: What times -i is the imaginary part, as `terms`; not looked at if there is none.
        matrix: What `store_matrix` has stored.
        weights: Weights, as `fill_tables` computes them.
        values: Where the lines go: real parts, then imaginary ones.
        thread: Index of the thread.
    """
    comptime PITCH = matrix_pitch(lines)
    var lane = thread % Int32(WARP)
    var warp = thread // Int32(WARP)
    var group = lane // 4
    var place = lane % 16 * Int32(PITCH) + lane // 16 * 8
    var octet = warp * 4 + lane % 4
    comptime for tile in range(lines // 16):
        var re = Array[SIMD[FULL, 4], 4](fill=0)
        var im = Array[SIMD[FULL, 4], 4](fill=0)
        comptime for step in range(lines // 16):
            var left_re = ld_matrix[8](matrix.unsafe_offset(place + Int32(16 * tile * PITCH + 16 * step)))
            var left_im = ld_matrix[8](matrix.unsafe_offset(place + Int32((lines + 16 * tile) * PITCH + 16 * step)))
            comptime for i in range(4):
                mma(re[i], left_re, terms[4 * step + i], re[i])
                mma(im[i], left_im, terms[4 * step + i], im[i])
                comptime if has_ahead:
                    mma(re[i], left_im, ahead[4 * step + i], re[i])
                    mma(im[i], -left_re, ahead[4 * step + i], im[i])
        comptime for half in range(2):
            var line = Int32(16 * tile + 8 * half) + group
            var out_re = SIMD[HALF, 8](0)
            var out_im = SIMD[HALF, 8](0)
            comptime for two in range(4):
                comptime sum = 2 * half + two // 2
                comptime i = two % 2 * 2
                var chunk = weight_chunk(group, octet * 4 + Int32(two))
                var weight = weights.unsafe_load[width=4, alignment=16](line * Int32(2 * SPAN) + chunk * 4)
                comptime for each in range(2):
                    var a = re[i + each][sum]
                    var b = im[i + each][sum]
                    out_re[2 * two + each] = (a * weight[2 * each] - b * weight[2 * each + 1]).cast[HALF]()
                    out_im[2 * two + each] = (a * weight[2 * each + 1] + b * weight[2 * each]).cast[HALF]()
            var at = line * Int32(SPAN) + (octet ^ (octet // 8 % 2) ^ (group % 2 * 4)) * 8
            values.unsafe_store[alignment=16](at, out_re)
            values.unsafe_store[alignment=16](at + Int32(lines * SPAN), out_im)


@always_inline
def forward[lines: Int](values: Shared[HALF], line: Int32, lane: Int32, c: Constants) -> Points:
    """Transforms a line.

    Parameters:
        lines: Lines of a row.

    Args:
        values: What `first_pass` has put down.
        line: The line.
        lane: The thread's place in its warp.
        c: Constants.

    Returns:
        Its frequencies, (p, q).
    """
    var octet = lane % 16 * 2 + lane // 16
    octet ^= (octet // 8 % 2) ^ (line % 2 * 4)
    var at = line * Int32(SPAN) + octet * 8
    var all_re = ld_matrix[8, transpose=True](values.unsafe_offset(at))
    var all_im = ld_matrix[8, transpose=True](values.unsafe_offset(at + Int32(lines * SPAN)))
    var points = Points()
    comptime for n in range(2):
        var re = all_re.slice[4, offset=4 * n]()
        var im = all_im.slice[4, offset=4 * n]()
        mma(points.re[n], c.left_re, re, points.re[n])
        mma(points.im[n], c.left_re, im, points.im[n])
        mma(points.re[n], -c.left_im, im, points.re[n])
        mma(points.im[n], c.left_im, re, points.im[n])
    points.rotate[1](c)
    return points.times_dft(c)


@always_inline
def backward[
    lines: Int
](points: Points, weights: Shared[FULL], values: Shared[HALF], line: Int32, lane: Int32, c: Constants):
    """Transforms a line back and multiplies it by the conjugates of weights.

    Columns 2*i + e of 32 + 8*j, i and j below 4, come to lie at 8*i + 2*j + e, so that 8 neighbours are one lane's in
    `last_pass`; and lines are turned against each other there, whose 8 rows would meet the same banks.

    Parameters:
        lines: Lines of a row.

    Args:
        points: Frequencies, (p, q).
        weights: Weights, as `fill_tables` computes them.
        values: Where the line goes, from which it came.
        line: The line.
        lane: The thread's place in its warp.
        c: Constants.
    """
    var group = lane // 4
    var quarter = lane % 4
    var turned = points.inverse_dft(c)
    turned.rotate[-1](c)
    var back = turned.inverse_dft(c)
    syncwarp()  # all lanes have read the line
    comptime for half in range(2):
        var row = group + Int32(8 * half)
        var out_re = SIMD[HALF, 4](0)
        var out_im = SIMD[HALF, 4](0)
        comptime for n in range(2):
            var chunk = weight_chunk(line, row * 8 + quarter + Int32(4 * n))
            var weight = weights.unsafe_load[width=4, alignment=16](line * Int32(2 * SPAN) + chunk * 4)
            comptime for each in range(2):
                var a = back.re[n][2 * half + each]
                var b = back.im[n][2 * half + each]
                out_re[2 * n + each] = (a * weight[2 * each] + b * weight[2 * each + 1]).cast[HALF]()
                out_im[2 * n + each] = (b * weight[2 * each] - a * weight[2 * each + 1]).cast[HALF]()
        var at = line * Int32(SPAN) + ((row // 2 * 4 + quarter) ^ (line % 8)) * 8 + row % 2 * 4
        values.unsafe_store[alignment=8](at, out_re)
        values.unsafe_store[alignment=8](at + Int32(lines * SPAN), out_im)


@always_inline
def last_pass[
    lines: Int
](matrix: Shared[HALF], values: Shared[HALF], thread: Int32) -> Array[SIMD[FULL, 8], 2 * (lines // 16)]:
    """Transforms a warp's columns back.

    Parameters:
        lines: Lines of a row.

    Args:
        matrix: What `store_matrix` has stored.
        values: What `backward` has put down.
        thread: Index of the thread.

    Returns:
        Real parts: 8 neighbouring columns, 32*warp + 8*(lane % 4)..., in lines lane // 4, 8 more, and so on.
    """
    comptime PITCH = matrix_pitch(lines)
    comptime TILES = lines // 16
    var lane = thread % Int32(WARP)
    var warp = thread // Int32(WARP)
    var sums = Array[SIMD[FULL, 4], 4 * TILES](fill=0)
    comptime for step in range(lines // 8):  # the last half of the lines are imaginary parts
        var terms = Array[SIMD[HALF, 4], 4](fill=0)
        var line = Int32(16 * step) + lane % 16
        comptime for two in range(2):
            var octet = (warp * 4 + Int32(2 * two) + lane // 16) ^ (line % 8)
            var both = ld_matrix[8, transpose=True](values.unsafe_offset(line * Int32(SPAN) + octet * 8))
            comptime for one in range(2):
                terms[2 * two + one] = both.slice[4, offset=4 * one]()
        var row = Int32(16 * step) + lane // 16 * 8 + lane % 8
        comptime for tile in range(TILES):
            var at = row * Int32(PITCH) + Int32(16 * tile) + lane // 8 % 2 * 8
            var left = ld_matrix[8, transpose=True](matrix.unsafe_offset(at))
            comptime for i in range(4):
                mma(sums[4 * tile + i], left, terms[i], sums[4 * tile + i])
    var result = Array[SIMD[FULL, 8], 2 * (lines // 16)](fill=0)
    comptime for tile in range(TILES):
        comptime for half in range(2):
            comptime for i in range(4):
                comptime for each in range(2):
                    result[2 * tile + half][2 * i + each] = sums[4 * tile + i][2 * half + each]
    return result^
