"""What the transforms of fft_lanes.mojo need besides the data: the twiddles of every node of their tree.

Computes:   w = exp(2*pi*i * (1/4 + reverse(b)) / 2^(d+1)) for the even nodes b of every depth d, in the order in which
            the passes read them; an odd node's twiddle is i times its even sister's and not stored.
Algorithm:  each is the product of two entries of tables of 2.5*sqrt(m) powers together: no sine for each node.
Cost:       3*m elements and R/2 nodes of NODE more; 6 flop a twiddle in float64.
Layout:     twiddles of the passes over lines, NODE elements a node; those of the tiles, W*W elements a tile, lane by
            lane; then the spectrum of the taps, in the layout of lines (`plan_elements`).
Accuracy:   computed in float64 and rounded once.
Gate:       that of fft_lanes.mojo.
Tuning:     PASS_LEVELS, RESIDENT_BYTES.
Source:     as fft_lanes.mojo.
"""

from std.bit import bit_reverse, log2_floor
from std.math import cos, pi, sin
from std.sys.info import CompilationTarget, simd_width_of, size_of

comptime PASS_LEVELS = 3 if CompilationTarget.has_avx512f() or CompilationTarget.has_neon() else 2
"""Levels of the tree per pass: radix 8 keeps 16 vectors of data and 8 of twiddles, for 32 registers; else radix 4."""

comptime RESIDENT_BYTES = 1 << 15
"""Subtrees of at most this size are taken pass by pass, larger ones depth first. 2^14 to 2^18 measure the same."""

comptime Elements[dtype: DType] = Pointer[Scalar[dtype], MutUntrackedOrigin]
"""Where elements of a type lie; who allocated them keeps them alive."""


@fieldwise_init
struct Transform[dtype: DType](TrivialRegisterPassable):
    """Where a plan keeps what the transforms of one length need.

    Parameters:
        dtype: Accumulation type: float32 or float64.
    """

    comptime WIDTH = simd_width_of[Self.dtype]()
    """W, the lanes of a line."""
    comptime LANE_LEVELS = log2_floor(Self.WIDTH)
    """Levels of the tree inside a tile."""
    comptime LINE = 2 * Self.WIDTH
    """Elements from one line to the next."""
    comptime NODE = 1 << PASS_LEVELS
    """Elements that hold the twiddles of one node of a pass."""
    comptime RESIDENT_LINES = RESIDENT_BYTES // (Self.LINE * size_of[Self.dtype]())
    """Lines of a subtree that stays in the first-level cache."""

    var plan: Elements[Self.dtype]
    """Start of the plan."""
    var length: Int
    """Complex coefficients m."""

    @always_inline
    def lines(self) -> Int:
        """Counts the lines.

        Returns:
            R = m / W.
        """
        return self.length // Self.WIDTH

    @always_inline
    def first_levels(self) -> Int:
        """Counts the levels of the first pass, which takes what does not divide evenly.

        Returns:
            1 to PASS_LEVELS.
        """
        return (log2_floor(self.lines()) - 1) % PASS_LEVELS + 1

    @always_inline
    def lane_twiddles(self) -> Elements[Self.dtype]:
        """Finds the twiddles of the tiles, W*W elements a tile.

        Returns:
            The address of those of the first tile.
        """
        return self.plan.unsafe_offset(line_twiddle_elements[Self.dtype](self.length))

    @always_inline
    def spectrum(self) -> Elements[Self.dtype]:
        """Finds the spectrum of the taps, in the layout of lines.

        Returns:
            Its address.
        """
        return self.lane_twiddles().unsafe_offset(self.length)


def line_twiddle_elements[dtype: DType](length: Int) -> Int:
    """Counts the elements that hold the twiddles of the passes over lines.

    Parameters:
        dtype: Accumulation type.

    Args:
        length: Complex coefficients m.

    Returns:
        An upper bound, a multiple of 64 bytes. The passes have 1, 2^r, 2^(r+p), ... nodes, the last R/2^p, if a pass
        takes p levels and the first r: fewer than R/2 + 2 together.
    """
    return (length // simd_width_of[dtype]() // 2 + 16) * Transform[dtype].NODE


def plan_elements[dtype: DType](length: Int) -> Int:
    """Counts the elements of a plan: twiddles of lines, twiddles of tiles (m) and spectrum (2*m).

    Parameters:
        dtype: Accumulation type.

    Args:
        length: Complex coefficients m.

    Returns:
        The count.
    """
    return line_twiddle_elements[dtype](length) + 3 * length


def prepare_twiddles[dtype: DType](transform: Transform[dtype]):
    """Fills in the twiddles of all nodes.

    Parameters:
        dtype: Accumulation type.

    Args:
        transform: Whose plan to fill.
    """
    comptime WIDTH = Transform[dtype].WIDTH
    comptime NODE = Transform[dtype].NODE
    var lines = transform.lines()
    var roots = Roots(4 * transform.length)
    var table = transform.plan
    var depth = 0
    var levels = transform.first_levels()
    while (1 << depth) < lines:
        for node in range(1 << depth):
            var reversed = reverse_bits(node, depth)
            comptime for slot in range(NODE // 2):
                if slot < 1 << (levels - 1):
                    table.unsafe_store(node * NODE + 2 * slot, roots.twiddle[slot](depth, reversed).cast[dtype]())
        table = table.unsafe_offset(NODE << depth)
        depth += levels
        levels = PASS_LEVELS
    table = transform.lane_twiddles()
    for line in range(lines):
        var reversed = reverse_bits(line, depth)
        var lane = table.unsafe_offset(line // WIDTH * WIDTH * WIDTH + line % WIDTH)
        comptime for slot in range(WIDTH // 2):
            var twiddle = roots.twiddle[slot](depth, reversed).cast[dtype]()
            lane[unsafe_offset=2 * slot * WIDTH] = twiddle[0]
            lane[unsafe_offset=(2 * slot + 1) * WIDTH] = twiddle[1]


@always_inline
def reverse_bits(index: Int, bits: Int) -> Int:
    """Reverses the order of the lowest bits.

    Args:
        index: A number below 2^bits.
        bits: How many bits, 0 to 63.

    Returns:
        The number with those bits in the opposite order.
    """
    return Int((bit_reverse(UInt64(index)) >> UInt64(63 - bits)) >> 1)


struct Roots:
    """Powers of exp(2*pi*i/n) for n = 4*m, each the product of two table entries in float64."""

    var order_bits: Int
    """The binary logarithm of n."""
    var fine: List[SIMD[DType.float64, 2]]
    """Powers 0, 1, 2, ... below 2^fine_bits."""
    var coarse: List[SIMD[DType.float64, 2]]
    """Powers that are multiples of 2^fine_bits, first quadrant only."""
    var fine_bits: Int
    """Half of the exponent's bits."""

    def __init__(out self, order: Int):
        """Computes both tables.

        Args:
            order: A power of two n >= 4.
        """
        self.order_bits = log2_floor(order)
        self.fine_bits = self.order_bits // 2
        self.fine = List[SIMD[DType.float64, 2]](capacity=1 << self.fine_bits)
        self.coarse = List[SIMD[DType.float64, 2]](capacity=1 << (self.order_bits - self.fine_bits - 2))
        var unit = 2 * pi / Float64(order)
        for power in range(1 << self.fine_bits):
            self.fine.append({cos(unit * Float64(power)), sin(unit * Float64(power))})
        for power in range(0, order // 4, 1 << self.fine_bits):
            self.coarse.append({cos(unit * Float64(power)), sin(unit * Float64(power))})

    @always_inline
    def twiddle[slot: Int](self, depth: Int, reversed: Int) -> SIMD[DType.float64, 2]:
        """Computes a twiddle of the subtree below a node.

        Node b of depth d stands for X^h - z with z = exp(2*pi*i * (1/4 + reverse(b)) / 2^d), where `reverse` is that
        of d bits; its twiddle is the root of z with half the angle.

        Parameters:
            slot: 0 for the top itself, 1 for the left node below it, then 2, 3 for the even nodes of the next level,
                4 to 7 for those of the one after.

        Args:
            depth: Depth of the subtree's top.
            reversed: Its index among the nodes of that depth, with its bits reversed.

        Returns:
            Real and imaginary part.
        """
        comptime below = 0 if slot == 0 else log2_floor(slot) + 1
        comptime first = 0 if slot == 0 else 1 << (below - 1)
        comptime from_below = reverse_bits(2 * (slot - first), below)
        var quarter = 1 << (self.order_bits - 2)
        var power = (1 + 4 * (reversed + (from_below << depth))) << (self.order_bits - depth - below - 3)
        # Only a top (slot 0) can be an odd node, whose angle lies in the second quadrant.
        var turned = False
        comptime if slot == 0:
            turned = power >= quarter
            if turned:
                power -= quarter
        var a = self.coarse.unsafe_get(power >> self.fine_bits)
        var b = self.fine.unsafe_get(power & ((1 << self.fine_bits) - 1))
        var product = SIMD[DType.float64, 2](a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0])
        return SIMD[DType.float64, 2](-product[1], product[0]) if turned else product
