"""The index arithmetic of a convolutional layer, in one place.

Letters: N batch, C in_channels, O out_channels, G groups, L length, L_out outputs, K taps. One geometry ties three
arrays together, x (N, C, L), w (O, C/G, K) and y (N, O, L_out), by the terms

    x[n, c, position(i, j)] * w[o, c % (C/G), j] -> y[n, o, i],    o and c of one group, positions outside x left out,

and each of a layer's sums runs over them:

- forward:   y from x and w; PyTorch's conv1d;
- transpose: x from y and w; PyTorch's conv_transpose1d, whose input is y and whose weight has the layout of w, and
             the input gradient of conv1d, from the gradient of y;
- weights:   w from x and y; the weight gradient of both, in float arithmetic of the accumulation type.

Kernels take pointers in the order result, operands, then the rest:

    conv_cpu[transposed: Bool](result, source, w, epilogue, geometry, max_workers)
    depthwise_cpu[dtype](y, x, w, epilogue, geometry, history, max_workers)     groups == C; w in accum_dtype
    conv_weight_gradient_cpu(w, x, y, geometry, max_workers)

with `epilogue`, an `Epilogue` (epilogue.mojo): bias and activation, both known at run time only. Everything but the
element type, `transposed` and the layout is a run-time number: one compile serves all layers. The layout is a
compile-time parameter of the index methods, `channels_last`: True for x (N, L, C) and y (N, L_out, O).
"""

from std.builtin.device_passable import DevicePassable, DeviceTypeEncoder


@fieldwise_init
struct LayerGeometry(DevicePassable, TrivialRegisterPassable):
    """Sizes and shifts of one layer, in elements."""

    var batch: Int
    """N, how many signals."""
    var in_channels: Int
    """C, the channels of x."""
    var out_channels: Int
    """O, the channels of y."""
    var groups: Int
    """G, a divisor of C and O: the channels of y in a group meet the channels of x in the same group alone."""
    var length: Int
    """L, the samples of a channel of x."""
    var outputs: Int
    """L_out, the samples of a channel of y."""
    var taps: Int
    """K, the taps of a filter."""
    var stride: Int
    """From the window of one output to the next."""
    var dilation: Int
    """From one tap of a window to the next."""
    var pad_left: Int
    """How many positions before x[0] the first window starts."""

    comptime device_type: AnyType = Self
    """What kernels on a GPU receive: the same."""

    def _to_device_type(self, mut encoder: Some[DeviceTypeEncoder], target: MutOpaquePointer[_]):
        encoder.encode(self, target)

    @staticmethod
    def get_type_name() -> String:
        """Names the type in errors of launches.

        Returns:
            The name.
        """
        return "LayerGeometry"

    @always_inline
    def group_in(self) -> Int:
        """Counts the channels of x in a group.

        Returns:
            The second dimension of w.
        """
        return self.in_channels // self.groups

    @always_inline
    def group_out(self) -> Int:
        """Counts the channels of y in a group.

        Returns:
            How many filters a group has.
        """
        return self.out_channels // self.groups

    @always_inline
    def position(self, i: Int, j: Int) -> Int:
        """Finds the sample that a tap of an output meets.

        Args:
            i: Output index.
            j: Tap index.

        Returns:
            Index into a channel of x; outside [0, L) the term does not exist.
        """
        return i * self.stride + j * self.dilation - self.pad_left

    @always_inline
    def is_causal(self) -> Bool:
        """Tells whether outputs are as many as samples, and each sees its own sample last.

        Returns:
            True for such layers of stride and dilation 1.
        """
        return self.pad_left == self.taps - 1 and self.outputs == self.length

    @always_inline
    def halo(self) -> Int:
        """Measures how far a window reaches beyond its first sample.

        Returns:
            The product (K - 1) * dilation.
        """
        return (self.taps - 1) * self.dilation

    @always_inline
    def is_interior(self, first: Int, count: Int) -> Bool:
        """Tells whether every tap of some neighbouring outputs meets a sample.

        Args:
            first: Index of the first output.
            count: How many outputs, at least 1.

        Returns:
            True if no term of outputs [first, first + count) lies outside x.
        """
        return self.position(first, 0) >= 0 and self.position(first + count - 1, self.taps - 1) < self.length

    @always_inline
    def first_tap(self, i: Int) -> Int:
        """Finds the first tap of an output that meets a sample.

        Args:
            i: Output index.

        Returns:
            The least `j` >= 0 whose position is not before x[0]; may be K or more.
        """
        var before = -self.position(i, 0)
        return 0 if before <= 0 else (before + self.dilation - 1) // self.dilation

    @always_inline
    def end_tap(self, i: Int) -> Int:
        """Finds the end of the taps of an output that meet a sample.

        Args:
            i: Output index.

        Returns:
            One past the last `j` < K whose position is not behind x[L-1]; may be 0.
        """
        var room = self.length - self.position(i, 0)
        return 0 if room <= 0 else min(self.taps, (room + self.dilation - 1) // self.dilation)

    @always_inline
    def multiply_adds(self) -> Int:
        """Counts the work of each of the layer's three sums.

        Returns:
            The product N * O * L_out * C/G * K, terms at the edges included.
        """
        return self.batch * self.out_channels * self.outputs * self.group_in() * self.taps

    @always_inline
    def input_offset[channels_last: Bool = False](self, n: Int, c: Int, position: Int) -> Int:
        """Finds an element of x.

        Parameters:
            channels_last: The layout: (N, L, C) or (N, C, L).

        Args:
            n: Which signal.
            c: Channel.
            position: Sample.

        Returns:
            Index into x.
        """
        comptime if channels_last:
            return (n * self.length + position) * self.in_channels + c
        return (n * self.in_channels + c) * self.length + position

    @always_inline
    def output_offset[channels_last: Bool = False](self, n: Int, o: Int, i: Int) -> Int:
        """Finds an element of y.

        Parameters:
            channels_last: The layout: (N, L_out, O) or (N, O, L_out).

        Args:
            n: Which signal.
            o: Channel.
            i: Output index.

        Returns:
            Index into y.
        """
        comptime if channels_last:
            return (n * self.outputs + i) * self.out_channels + o
        return (n * self.out_channels + o) * self.outputs + i

    @always_inline
    def weight_offset(self, o: Int, c: Int, j: Int) -> Int:
        """Finds an element of w, in either layout of x and y.

        Args:
            o: Output channel.
            c: Input channel within its group.
            j: Tap.

        Returns:
            Index into w.
        """
        return (o * self.group_in() + c) * self.taps + j
