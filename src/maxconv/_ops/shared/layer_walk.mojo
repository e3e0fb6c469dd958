"""How source, weights and result of a layer's sum lie to one another on GPUs, for both directions at once.

Forward, y from x, and transposed, x from y, are the same sum over channels of a source and taps:

    result[n, row, m * phases + phase] = sum_{c, t} source[n, c, m * step + position + t * shift] * w(row, c, j(t)),

row and c of one group. Forward there is one phase, with all taps. Transposed there are `stride` phases: result p meets
the taps j for which stride divides p + pad_left - j*dilation, every `stride / gcd(stride, dilation)`-th, and no
inserted zero is multiplied.

Where every phase has as many taps (dilation 1, stride divides K: the upsamplers that people ship), all phases are one
product: with p + pad_left = m * stride + f, the results of every f meet the samples m - t by the taps f + t * stride.
Rows are then pairs (channel, f), and what lies side by side in w is read together.
"""

from std.math import ceildiv, gcd

from .accumulate import accum_dtype, multiply_add
from .layer_geometry import LayerGeometry


@fieldwise_init
struct PhaseTaps(TrivialRegisterPassable):
    """The taps of a phase and the samples that they meet."""

    var taps: Int
    """How many."""
    var first: Int
    """Which tap of the filter is the first; they ascend."""
    var every: Int
    """From one to the next in the filter."""
    var position: Int
    """The source sample that the first meets at the first result; may lie outside."""
    var shift: Int
    """From the sample of one to that of the next."""

    @always_inline
    def tap(self, t: Int) -> Int:
        """Finds a tap in its filter.

        Args:
            t: Which tap of the phase.

        Returns:
            Index into the filter.
        """
        return self.first + t * self.every


struct LayerWalk[transposed: Bool](TrivialRegisterPassable):
    """A layer's sum in the words of this file.

    Parameters:
        transposed: False: the result is y. True: the result is x.
    """

    var geometry: LayerGeometry
    """Sizes and shifts of the layer."""
    var merged: Int
    """How many phases are rows of one product: all, or 1."""

    @always_inline
    def __init__(out self, geometry: LayerGeometry):
        """Decides whether phases are merged.

        Args:
            geometry: Sizes and shifts of the layer.
        """
        self.geometry = geometry
        self.merged = 1
        comptime if Self.transposed:
            if geometry.dilation == 1 and geometry.taps % geometry.stride == 0:
                self.merged = geometry.stride

    @always_inline
    def source_channels(self) -> Int:
        """Counts the channels that a result is summed over.

        Returns:
            Those of a group.
        """
        comptime if Self.transposed:
            return self.geometry.group_out()
        return self.geometry.group_in()

    @always_inline
    def channels(self) -> Int:
        """Counts the result channels that share a source.

        Returns:
            Those of a group.
        """
        comptime if Self.transposed:
            return self.geometry.group_in()
        return self.geometry.group_out()

    @always_inline
    def channel(self, row: Int) -> Int:
        """Finds the result channel of a row.

        Args:
            row: Row of the product.

        Returns:
            Counted within the group.
        """
        comptime if Self.transposed:
            return Int(Int32(row) // Int32(self.merged))  # 64-bit divisions are slow on GPUs
        return row

    @always_inline
    def rows(self) -> Int:
        """Counts the rows of a product.

        Returns:
            The result channels of a group, each with its merged phases.
        """
        return self.channels() * self.merged

    @always_inline
    def source_length(self) -> Int:
        """Measures a source channel.

        Returns:
            Its samples.
        """
        comptime if Self.transposed:
            return self.geometry.outputs
        return self.geometry.length

    @always_inline
    def result_length(self) -> Int:
        """Measures a result channel.

        Returns:
            Its samples.
        """
        comptime if Self.transposed:
            return self.geometry.length
        return self.geometry.outputs

    @always_inline
    def phases(self) -> Int:
        """Counts the phases of a result that are products of their own.

        Returns:
            At least 1.
        """
        comptime if Self.transposed:
            return 1 if self.merged > 1 else self.geometry.stride
        return 1

    @always_inline
    def step(self) -> Int:
        """Measures how far the window moves from one result of a phase to the next.

        Returns:
            Samples of the source.
        """
        comptime if Self.transposed:
            return 1
        return self.geometry.stride

    @always_inline
    def results(self, phase: Int) -> Int:
        """Counts the results of a phase.

        Args:
            phase: Which phase; the first has the most.

        Returns:
            How many; may be 0.
        """
        if self.merged > 1:
            return ceildiv(self.result_length() + self.geometry.pad_left, self.geometry.stride)
        return ceildiv(max(0, self.result_length() - phase), self.phases())

    @always_inline
    def place(self, row: Int, m: Int, phase: Int) -> Int:
        """Finds where a result lies in its channel.

        Args:
            row: Row of the product.
            m: Which result of the phase.
            phase: Which phase.

        Returns:
            Index into the channel; merged phases have places outside it.
        """
        if self.merged > 1:
            return (m - self.channel(row)) * self.merged + row - self.geometry.pad_left
        return m * self.phases() + phase

    @always_inline
    def phase_taps(self, phase: Int) -> PhaseTaps:
        """Finds the taps of a phase.

        Args:
            phase: Which phase.

        Returns:
            The taps; there may be none.
        """
        comptime if Self.transposed:
            var stride = self.geometry.stride
            if self.merged > 1:
                return PhaseTaps(self.geometry.taps // stride, 0, stride, 0, -1)
            var dilation = self.geometry.dilation
            var reach = phase + self.geometry.pad_left
            var first = 0
            while first < self.geometry.taps and (reach - first * dilation) % stride != 0:
                first += 1
            var every = stride // gcd(stride, dilation)
            return PhaseTaps(
                taps=ceildiv(self.geometry.taps - first, every),
                first=first,
                every=every,
                position=(reach - first * dilation) // stride,
                shift=-(every * dilation // stride),
            )
        return PhaseTaps(self.geometry.taps, 0, 1, -self.geometry.pad_left, self.geometry.dilation)

    @always_inline
    def row_weights(self, row: Int) -> Int:
        """Finds the weights of a row.

        Args:
            row: Row of the product.

        Returns:
            Index into the weights of the group.
        """
        comptime if Self.transposed:
            return self.channel(row) * self.geometry.taps + row - self.channel(row) * self.merged
        return row * self.geometry.group_in() * self.geometry.taps

    @always_inline
    def channel_weights(self) -> Int:
        """Measures how far the weights of neighbouring source channels lie apart.

        Returns:
            Elements of w.
        """
        comptime if Self.transposed:
            return self.geometry.group_in() * self.geometry.taps
        return self.geometry.taps

    @always_inline
    def group_weights(self, group: Int) -> Int:
        """Finds the weights of a group.

        Args:
            group: Which group.

        Returns:
            Index into w.
        """
        return self.geometry.weight_offset(group * self.geometry.group_out(), 0, 0)


@always_inline
def sum_existing[
    dtype: DType, transposed: Bool
](
    source: Pointer[Scalar[dtype], MutAnyOrigin],
    weights: Pointer[Scalar[dtype], MutAnyOrigin],
    walk: LayerWalk[transposed],
    taps: PhaseTaps,
    m: Int,
) -> Scalar[accum_dtype[dtype]()]:
    """Does one sum term by term, without those whose sample lies outside the source.

    Tiles have zeros there, and an infinite weight times zero is NaN: such sums are done again by this function.

    Parameters:
        dtype: Element type.
        transposed: As for `LayerWalk`.

    Args:
        source: The source channels of the group.
        weights: The weights of the row.
        walk: How they lie to one another.
        taps: The taps of the phase.
        m: Which result of the phase.

    Returns:
        The sum.
    """
    comptime ACC = accum_dtype[dtype]()
    var sum = Scalar[ACC](0)
    for c in range(walk.source_channels()):
        for t in range(taps.taps):
            var at = m * walk.step() + taps.position + t * taps.shift
            if 0 <= at and at < walk.source_length():
                var sample = source[unsafe_offset=c * walk.source_length() + at]
                var weight = weights[unsafe_offset=c * walk.channel_weights() + taps.tap(t)]
                sum = multiply_add(sample.cast[ACC](), weight.cast[ACC](), sum)
    return sum
