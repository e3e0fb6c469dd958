"""Fourier transforms for convolution on CPU: lines of SIMD vectors, no bit reversal, no shuffles between lines.

Computes:   products of polynomials modulo X^m - i with complex coefficients, m = R*W: R lines of W SIMD lanes,
            coefficient W*p + l in line p, lane l. The transform is the value of the polynomial at the m roots of
            X^m = i; where one overlap-save block is such a polynomial, see kernels/overlap_save_cpu.mojo.
Algorithm:  X^(2h) - z = (X^h - w)(X^h + w) with w^2 = z: one butterfly a +- w*b per pair of coefficients, again and
            again down a binary tree, and back up the same tree after the products. While h >= W whole lines are
            combined and w is one number; then tiles of W lines are transposed, so that lanes are different nodes of
            the tree and w a vector. Values come out in the order of the tree's leaves. Taps and signal take the same
            way, so nobody needs to know that order.
            Several levels of the tree make one pass over the lines (radix 2, 4 or 8). Subtrees whose lines fit the
            first-level cache are taken there and back at once: depth first above, pass by pass inside.
Cost:       5*m*log2(m) flop one way; 2*m elements are read and written per pass of PASS_LEVELS levels.
Layout:     line p: W real parts, then W imaginary parts, 64-byte aligned. Plan: fft_plan.mojo.
Accuracy:   the error grows with log2(m), like that of every FFT; intermediate values are up to m times the coefficients.
Gate:       m a power of two, m >= W*W, m >= 2*W.
Tuning:     PASS_LEVELS, RESIDENT_BYTES in fft_plan.mojo.
Tried:      radix 8 on AVX2's 16 registers: slower than radix 4. With AVX-512 a float32 line takes about 170 vector
            instructions at m = 1024, near the rate of the units: only fewer of them would be faster.
Source:     the tree of factors: Fiduccia 1972, Polynomial evaluation via the division algorithm; Bernstein 2008,
            Fast multiplication and its applications, sections 2 and 3. X^m - i for real data: right-angle
            convolution, Crandall and Fagin 1994, Discrete weighted transforms and large-integer arithmetic.
"""

from std.bit import log2_floor

from .fft_plan import Elements, PASS_LEVELS, Transform


@always_inline
def split[
    dtype: DType, width: SIMDLength, //, levels: Int, *, per_lane: Bool = False, depth: Int = 0, group: Int = 0
](
    mut re: Array[SIMD[dtype, width], 1 << levels],
    mut im: Array[SIMD[dtype, width], 1 << levels],
    twiddles: Elements[dtype],
):
    """Takes coefficients down some levels of the tree: pairs (a, b) become (a + w*b, a - w*b).

    Parameters:
        dtype: Accumulation type.
        width: Lanes.
        levels: How many levels.
        per_lane: True if every lane has twiddles of its own, False if one serves all.
        depth: Levels between the node whose twiddles are given and the node that is split here.
        group: Index of the latter among the nodes of its level.

    Args:
        re: Real parts.
        im: Imaginary parts.
        twiddles: Those of a node.
    """
    comptime for level in range(levels):
        comptime half = (1 << levels) >> (level + 1)
        comptime for below in range(1 << level):
            comptime node = (group << level) + below
            var w = load_twiddle[width, per_lane, depth + level, node](twiddles)
            comptime for j in range(half):
                comptime low = below * 2 * half + j
                comptime high = low + half
                var product_re = re[high].fma(w[0], -(im[high] * w[1]))
                var product_im = re[high].fma(w[1], im[high] * w[0])
                comptime if node % 2 == 0:
                    re[high] = re[low] - product_re
                    im[high] = im[low] - product_im
                    re[low] += product_re
                    im[low] += product_im
                else:
                    # The odd sister's twiddle is i times the even one's.
                    re[high] = re[low] + product_im
                    im[high] = im[low] - product_re
                    re[low] -= product_im
                    im[low] += product_re


@always_inline
def join[
    dtype: DType, width: SIMDLength, //, levels: Int, *, per_lane: Bool = False, depth: Int = 0, group: Int = 0
](
    mut re: Array[SIMD[dtype, width], 1 << levels],
    mut im: Array[SIMD[dtype, width], 1 << levels],
    twiddles: Elements[dtype],
):
    """Goes back up: undoes `split` but for a factor 2^levels.

    Parameters:
        dtype: Accumulation type.
        width: Lanes.
        levels: How many levels.
        per_lane: As for `split`.
        depth: As for `split`.
        group: As for `split`.

    Args:
        re: Real parts.
        im: Imaginary parts.
        twiddles: Those of a node.
    """
    comptime for up in range(levels):
        comptime level = levels - 1 - up
        comptime half = (1 << levels) >> (level + 1)
        comptime for below in range(1 << level):
            comptime node = (group << level) + below
            var w = load_twiddle[width, per_lane, depth + level, node](twiddles)
            comptime for j in range(half):
                comptime low = below * 2 * half + j
                comptime high = low + half
                var difference_re = re[low] - re[high]
                var difference_im = im[low] - im[high]
                re[low] += re[high]
                im[low] += im[high]
                var product_re = difference_re.fma(w[0], difference_im * w[1])
                var product_im = difference_im.fma(w[0], -(difference_re * w[1]))
                comptime if node % 2 == 0:
                    re[high] = product_re
                    im[high] = product_im
                else:
                    re[high] = product_im
                    im[high] = -product_re


@always_inline
def load_twiddle[
    dtype: DType, //, width: SIMDLength, per_lane: Bool, level: Int, node: Int
](twiddles: Elements[dtype]) -> Array[SIMD[dtype, width], 2]:
    """Loads the twiddle of a node, or of its even sister.

    Parameters:
        dtype: Accumulation type.
        width: Lanes.
        per_lane: True if every lane has its own.
        level: Depth of the node below the one that the twiddles belong to.
        node: Index of the node in its level.

    Args:
        twiddles: In the order of the slots of `Roots.twiddle`.

    Returns:
        Real and imaginary parts.
    """
    comptime slot = 0 if level == 0 else (1 << (level - 1)) + node // 2
    var twiddle = Array[SIMD[dtype, width], 2](fill=0)
    comptime if per_lane:
        twiddle[0] = twiddles.unsafe_load[width=width](2 * slot * Int(width))
        twiddle[1] = twiddles.unsafe_load[width=width]((2 * slot + 1) * Int(width))
    else:
        twiddle[0] = SIMD[dtype, width](twiddles[unsafe_offset=2 * slot])
        twiddle[1] = SIMD[dtype, width](twiddles[unsafe_offset=2 * slot + 1])
    return twiddle^


@always_inline
def split_lines[dtype: DType, //, levels: Int](lines: Elements[dtype], size: Int, twiddles: Elements[dtype]):
    """Takes one node down some levels, in place.

    Parameters:
        dtype: Accumulation type.
        levels: How many levels.

    Args:
        lines: First line of the node.
        size: Lines of the node.
        twiddles: Those of the node.
    """
    comptime WIDTH = Transform[dtype].WIDTH
    comptime LINE = Transform[dtype].LINE
    var stride = (size >> levels) * LINE
    for at in range(0, stride, LINE):
        var re = Array[SIMD[dtype, WIDTH], 1 << levels](fill=0)
        var im = Array[SIMD[dtype, WIDTH], 1 << levels](fill=0)
        comptime for j in range(1 << levels):
            re[j] = lines.unsafe_load[width=WIDTH](at + j * stride)
            im[j] = lines.unsafe_load[width=WIDTH](at + j * stride + WIDTH)
        split[levels](re, im, twiddles)
        comptime for j in range(1 << levels):
            lines.unsafe_store(at + j * stride, re[j])
            lines.unsafe_store(at + j * stride + WIDTH, im[j])


@always_inline
def join_lines[dtype: DType, //, levels: Int](lines: Elements[dtype], size: Int, twiddles: Elements[dtype]):
    """Takes one node back up, in place.

    Parameters:
        dtype: Accumulation type.
        levels: How many levels.

    Args:
        lines: First line of the node.
        size: Lines of the node.
        twiddles: Those of the node.
    """
    comptime WIDTH = Transform[dtype].WIDTH
    comptime LINE = Transform[dtype].LINE
    var stride = (size >> levels) * LINE
    for at in range(0, stride, LINE):
        var re = Array[SIMD[dtype, WIDTH], 1 << levels](fill=0)
        var im = Array[SIMD[dtype, WIDTH], 1 << levels](fill=0)
        comptime for j in range(1 << levels):
            re[j] = lines.unsafe_load[width=WIDTH](at + j * stride)
            im[j] = lines.unsafe_load[width=WIDTH](at + j * stride + WIDTH)
        join[levels](re, im, twiddles)
        comptime for j in range(1 << levels):
            lines.unsafe_store(at + j * stride, re[j])
            lines.unsafe_store(at + j * stride + WIDTH, im[j])


def visit_node[
    dtype: DType, //, multiply: Bool
](
    lines: Elements[dtype],
    size: Int,
    depth: Int,
    index: Int,
    table: Elements[dtype],
    lane_twiddles: Elements[dtype],
    spectrum: Elements[dtype],
):
    """Takes a node down to the leaves and, after the products, back up: depth first.

    Parameters:
        dtype: Accumulation type.
        multiply: True: multiply by the spectrum and come back; False: stop at the leaves.

    Args:
        lines: First line of the node.
        size: Lines of the node, a multiple of W.
        depth: Depth of the node.
        index: Index of the node among those of its depth.
        table: Twiddles of the nodes of this depth.
        lane_twiddles: Twiddles of the node's first tile.
        spectrum: Spectrum at the node's first line.
    """
    comptime LINE = Transform[dtype].LINE
    comptime WIDTH = Transform[dtype].WIDTH
    if size <= Transform[dtype].RESIDENT_LINES:
        visit_resident[multiply](lines, size, size, depth, index, table, lane_twiddles, spectrum)
        return
    var twiddles = table.unsafe_offset(index << PASS_LEVELS)
    split_lines[PASS_LEVELS](lines, size, twiddles)
    var child = size >> PASS_LEVELS
    for j in range(1 << PASS_LEVELS):
        visit_node[multiply](
            lines.unsafe_offset(j * child * LINE),
            child,
            depth + PASS_LEVELS,
            (index << PASS_LEVELS) + j,
            table.unsafe_offset(Transform[dtype].NODE << depth),
            lane_twiddles.unsafe_offset(j * child * WIDTH),
            spectrum.unsafe_offset(j * child * LINE),
        )
    comptime if multiply:
        join_lines[PASS_LEVELS](lines, size, twiddles)


def visit_resident[
    dtype: DType, //, multiply: Bool
](
    lines: Elements[dtype],
    total: Int,
    node_lines: Int,
    top: Int,
    index: Int,
    top_table: Elements[dtype],
    lane_twiddles: Elements[dtype],
    spectrum: Elements[dtype],
):
    """Does the same for some neighbouring nodes of one depth, pass by pass.

    Parameters:
        dtype: Accumulation type.
        multiply: As for `visit_node`.

    Args:
        lines: First line of the first node.
        total: Lines of all nodes, a multiple of W.
        node_lines: Lines of one node.
        top: Depth of the nodes.
        index: Index of the first node among those of its depth.
        top_table: Twiddles of the nodes of this depth.
        lane_twiddles: Twiddles of the first tile.
        spectrum: Spectrum at the first line.
    """
    comptime LINE = Transform[dtype].LINE
    comptime WIDTH = Transform[dtype].WIDTH
    comptime NODE = Transform[dtype].NODE
    var size = node_lines
    var depth = top
    var first = index
    var table = top_table
    while size > 1:
        for node in range(total // size):
            split_lines[PASS_LEVELS](
                lines.unsafe_offset(node * size * LINE), size, table.unsafe_offset((first + node) * NODE)
            )
        table = table.unsafe_offset(NODE << depth)
        depth += PASS_LEVELS
        first <<= PASS_LEVELS
        size >>= PASS_LEVELS
    for line in range(0, total, WIDTH):
        visit_tile[multiply](
            lines.unsafe_offset(line * LINE),
            lane_twiddles.unsafe_offset(line * WIDTH),
            spectrum.unsafe_offset(line * LINE),
        )
    comptime if multiply:
        while size < node_lines:
            size <<= PASS_LEVELS
            first >>= PASS_LEVELS
            depth -= PASS_LEVELS
            table = table.unsafe_offset(-(NODE << depth))
            for node in range(total // size):
                join_lines[PASS_LEVELS](
                    lines.unsafe_offset(node * size * LINE), size, table.unsafe_offset((first + node) * NODE)
                )


@always_inline
def transpose[dtype: DType, width: SIMDLength, //](mut lines: Array[SIMD[dtype, width], Int(width)]):
    """Transposes a square of lanes: each of log2(W) perfect shuffles turns the bits of (line, lane) by one place.

    Parameters:
        dtype: Accumulation type.
        width: Lanes and lines.

    Args:
        lines: The square.
    """
    comptime WIDTH = Int(width)
    comptime for _ in range(log2_floor(WIDTH)):
        var turned = lines.copy()
        comptime for j in range(WIDTH // 2):
            var pair = lines[j].interleave(lines[j + WIDTH // 2])
            turned[2 * j] = rebind[SIMD[dtype, width]](pair.slice[WIDTH, offset=0]())
            turned[2 * j + 1] = rebind[SIMD[dtype, width]](pair.slice[WIDTH, offset=WIDTH]())
        lines = turned^


@always_inline
def transpose_lines[dtype: DType, //](tile: Elements[dtype]):
    """Transposes the real parts or the imaginary parts of a tile in place.

    Parameters:
        dtype: Accumulation type.

    Args:
        tile: First element of the part.
    """
    comptime WIDTH = Transform[dtype].WIDTH
    var square = Array[SIMD[dtype, WIDTH], WIDTH](fill=0)
    comptime for j in range(WIDTH):
        square[j] = tile.unsafe_load[width=WIDTH](j * 2 * WIDTH)
    transpose(square)
    comptime for j in range(WIDTH):
        tile.unsafe_store(j * 2 * WIDTH, square[j])


@always_inline
def visit_tile[
    dtype: DType, //, multiply: Bool
](tile: Elements[dtype], twiddles: Elements[dtype], spectrum: Elements[dtype]):
    """Takes W lines down the levels inside a line, multiplies, and comes back.

    Parameters:
        dtype: Accumulation type.
        multiply: As for `visit_node`; if False the tile is left transposed, as the spectrum is kept.

    Args:
        tile: First of the W lines.
        twiddles: Those of the tile.
        spectrum: Spectrum at the tile.
    """
    comptime WIDTH = Transform[dtype].WIDTH
    comptime LINE = Transform[dtype].LINE
    comptime LEVELS = Transform[dtype].LANE_LEVELS
    # Two rounds where all W lines do not fit the registers.
    comptime OUTER = 0 if LEVELS <= PASS_LEVELS else LEVELS - 2
    comptime INNER = LEVELS - OUTER
    comptime GROUP = 1 << INNER
    transpose_lines(tile)
    transpose_lines(tile.unsafe_offset(WIDTH))

    comptime if OUTER > 0:
        comptime for j in range(GROUP):
            var re = Array[SIMD[dtype, WIDTH], 1 << OUTER](fill=0)
            var im = Array[SIMD[dtype, WIDTH], 1 << OUTER](fill=0)
            comptime for i in range(1 << OUTER):
                re[i] = tile.unsafe_load[width=WIDTH]((i * GROUP + j) * LINE)
                im[i] = tile.unsafe_load[width=WIDTH]((i * GROUP + j) * LINE + WIDTH)
            split[OUTER, per_lane=True](re, im, twiddles)
            comptime for i in range(1 << OUTER):
                tile.unsafe_store((i * GROUP + j) * LINE, re[i])
                tile.unsafe_store((i * GROUP + j) * LINE + WIDTH, im[i])

    comptime for i in range(1 << OUTER):
        var re = Array[SIMD[dtype, WIDTH], GROUP](fill=0)
        var im = Array[SIMD[dtype, WIDTH], GROUP](fill=0)
        comptime for j in range(GROUP):
            re[j] = tile.unsafe_load[width=WIDTH]((i * GROUP + j) * LINE)
            im[j] = tile.unsafe_load[width=WIDTH]((i * GROUP + j) * LINE + WIDTH)
        split[INNER, per_lane=True, depth=OUTER, group=i](re, im, twiddles)
        comptime if multiply:
            comptime for j in range(GROUP):
                var h_re = spectrum.unsafe_load[width=WIDTH]((i * GROUP + j) * LINE)
                var h_im = spectrum.unsafe_load[width=WIDTH]((i * GROUP + j) * LINE + WIDTH)
                var product_re = re[j].fma(h_re, -(im[j] * h_im))
                im[j] = re[j].fma(h_im, im[j] * h_re)
                re[j] = product_re
            join[INNER, per_lane=True, depth=OUTER, group=i](re, im, twiddles)
        comptime for j in range(GROUP):
            tile.unsafe_store((i * GROUP + j) * LINE, re[j])
            tile.unsafe_store((i * GROUP + j) * LINE + WIDTH, im[j])

    comptime if multiply:
        comptime if OUTER > 0:
            comptime for j in range(GROUP):
                var re = Array[SIMD[dtype, WIDTH], 1 << OUTER](fill=0)
                var im = Array[SIMD[dtype, WIDTH], 1 << OUTER](fill=0)
                comptime for i in range(1 << OUTER):
                    re[i] = tile.unsafe_load[width=WIDTH]((i * GROUP + j) * LINE)
                    im[i] = tile.unsafe_load[width=WIDTH]((i * GROUP + j) * LINE + WIDTH)
                join[OUTER, per_lane=True](re, im, twiddles)
                comptime for i in range(1 << OUTER):
                    tile.unsafe_store((i * GROUP + j) * LINE, re[i])
                    tile.unsafe_store((i * GROUP + j) * LINE + WIDTH, im[i])
        transpose_lines(tile)
        transpose_lines(tile.unsafe_offset(WIDTH))
