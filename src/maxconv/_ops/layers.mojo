"""Ops of neural layers: every size, stride and activation a run-time value, so that one compile serves all layers."""

import extensibility
from extensibility import InputTensor, OutputTensor, Tensor, TileTensorable
from layout import coord_to_index_list
from max.gpu.host import DeviceContext
from std.utils.index import IndexList

from .kernels.conv import conv, depthwise, roll_state
from .shared.epilogue import Epilogue
from .shared.history import History
from .shared.layer_geometry import LayerGeometry


@extensibility.register("maxconv_conv1d_layer")
struct Conv1dLayer:
    """`y[n, o, i] = sum_{c, j} x[n, c, i*stride + j*dilation - left] * w[o, c, j] + bias[o]`, then an activation."""

    @staticmethod
    def execute[
        target: StaticString, dtype: DType, is_fast: Bool = False
    ](
        y: OutputTensor[dtype=dtype, rank=3, ...],
        x: InputTensor[dtype=dtype, rank=3, ...],
        w: InputTensor[dtype=dtype, rank=3, ...],
        bias: InputTensor[dtype=dtype, rank=1, ...],
        padding: InputTensor[dtype=DType.int64, rank=1, ...],
        stride: Int64,
        dilation: Int64,
        groups: Int64,
        activation: Int64,
        ctx: DeviceContext,
    ) raises:
        """Runs the op; MAX calls this.

        Parameters:
            target: "cpu" or "gpu", supplied by MAX.
            dtype: Element type of the arrays.
            is_fast: Whether a causal layer of half precision may add its terms in any order; others may.

        Args:
            y: Outputs, shape (N, O, L_out).
            x: Signals, shape (N, C, L).
            w: Weights, shape (O, C/G, K).
            bias: One element per output channel, shape (O), or none.
            padding: (left, right), shape (2), on the host: how far windows may reach beyond either end of x.
            stride: From the window of one output to the next.
            dilation: From one tap of a window to the next.
            groups: G.
            activation: A constant of shared/epilogue.mojo.
            ctx: The device.

        Raises:
            If the shapes do not fit together, or no kernel serves the target.
        """
        var geometry = convolution_geometry(
            x.shape(), w.shape(), Int(padding[0]), Int(padding[1]), Int(stride), Int(dilation), Int(groups)
        )
        require_shape("maxconv_conv1d_layer", y.shape(), output_shape(geometry))
        var epilogue = make_epilogue("maxconv_conv1d_layer", bias, geometry.out_channels, activation)
        conv[target, False, is_fast](y.unsafe_ptr(), x.unsafe_ptr(), w.unsafe_ptr(), epilogue, geometry, ctx)


@extensibility.register_shape_function("maxconv_conv1d_layer")
def conv1d_layer_shape(
    x: Some[Tensor],
    w: Some[Tensor],
    bias: Some[Tensor],
    padding: Some[TileTensorable],
    stride: Int64,
    dilation: Int64,
    groups: Int64,
    activation: Int64,
) raises -> IndexList[3]:
    """Gives the output shape where the graph cannot.

    Args:
        x: Signals.
        w: Weights.
        bias: Not used.
        padding: (left, right).
        stride: From the window of one output to the next.
        dilation: From one tap of a window to the next.
        groups: G.
        activation: Not used.

    Returns:
        (N, O, L_out).

    Raises:
        If the shapes do not fit together.
    """
    var ends = padding.to_tile_tensor()
    return output_shape(
        convolution_geometry(
            rebind[IndexList[3]](coord_to_index_list(x.shape().tuple())),
            rebind[IndexList[3]](coord_to_index_list(w.shape().tuple())),
            Int(ends[0]),
            Int(ends[1]),
            Int(stride),
            Int(dilation),
            Int(groups),
        )
    )


@extensibility.register("maxconv_conv_transpose1d")
struct ConvTranspose1d:
    """`y[n, o, i*stride + j*dilation - padding] += x[n, c, i] * w[c, o, j]`, a bias, then an activation."""

    @staticmethod
    def execute[
        target: StaticString, dtype: DType
    ](
        y: OutputTensor[dtype=dtype, rank=3, ...],
        x: InputTensor[dtype=dtype, rank=3, ...],
        w: InputTensor[dtype=dtype, rank=3, ...],
        bias: InputTensor[dtype=dtype, rank=1, ...],
        stride: Int64,
        padding: Int64,
        output_padding: Int64,
        dilation: Int64,
        groups: Int64,
        activation: Int64,
        ctx: DeviceContext,
    ) raises:
        """Runs the op; MAX calls this.

        Parameters:
            target: "cpu" or "gpu", supplied by MAX.
            dtype: Element type of the arrays.

        Args:
            y: Outputs, shape (N, O, L_out).
            x: Signals, shape (N, C, L).
            w: Weights, shape (C, O/G, K).
            bias: One element per output channel, shape (O), or none.
            stride: Outputs per sample.
            padding: Outputs that are cut off at each end.
            output_padding: Outputs more on the right.
            dilation: From one tap of a filter to the next.
            groups: G.
            activation: A constant of shared/epilogue.mojo.
            ctx: The device.

        Raises:
            If the shapes do not fit together, or no kernel serves the target.
        """
        var geometry = transposed_geometry(
            x.shape(), w.shape(), Int(stride), Int(padding), Int(output_padding), Int(dilation), Int(groups)
        )
        require_shape("maxconv_conv_transpose1d", y.shape(), input_shape(geometry))
        var epilogue = make_epilogue("maxconv_conv_transpose1d", bias, geometry.in_channels, activation)
        conv[target, True](y.unsafe_ptr(), x.unsafe_ptr(), w.unsafe_ptr(), epilogue, geometry, ctx)


@extensibility.register_shape_function("maxconv_conv_transpose1d")
def conv_transpose1d_shape(
    x: Some[Tensor],
    w: Some[Tensor],
    bias: Some[Tensor],
    stride: Int64,
    padding: Int64,
    output_padding: Int64,
    dilation: Int64,
    groups: Int64,
    activation: Int64,
) raises -> IndexList[3]:
    """Gives the output shape where the graph cannot.

    Args:
        x: Signals.
        w: Weights.
        bias: Not used.
        stride: Outputs per sample.
        padding: Outputs that are cut off at each end.
        output_padding: Outputs more on the right.
        dilation: From one tap of a filter to the next.
        groups: G.
        activation: Not used.

    Returns:
        (N, O, L_out).

    Raises:
        If the shapes do not fit together.
    """
    return input_shape(
        transposed_geometry(
            rebind[IndexList[3]](coord_to_index_list(x.shape().tuple())),
            rebind[IndexList[3]](coord_to_index_list(w.shape().tuple())),
            Int(stride),
            Int(padding),
            Int(output_padding),
            Int(dilation),
            Int(groups),
        )
    )


@extensibility.register("maxconv_causal_conv1d")
struct CausalConv1d:
    """`y[n, c, i] = sum_j x[n, c, i + j - (K - 1)] * w[c, j] + bias[c]`, then an activation."""

    @staticmethod
    def execute[
        target: StaticString, dtype: DType, weight_dtype: DType, is_fast: Bool = False
    ](
        y: OutputTensor[dtype=dtype, rank=3, ...],
        x: InputTensor[dtype=dtype, rank=3, ...],
        w: InputTensor[dtype=weight_dtype, rank=2, ...],
        bias: InputTensor[dtype=weight_dtype, rank=1, ...],
        state: InputTensor[dtype=dtype, rank=3, ...],
        numbers: InputTensor[dtype=DType.int32, rank=2, ...],
        activation: Int64,
        ctx: DeviceContext,
    ) raises:
        """Runs the op; MAX calls this.

        Parameters:
            target: "cpu" or "gpu", supplied by MAX.
            dtype: Element type of signals, state and outputs.
            weight_dtype: Element type of weights and bias: `dtype`, or that of its sums.
            is_fast: Whether terms may be added in any order; else pieces of a signal have the bits of the whole.

        Args:
            y: Outputs, shape (N, C, L).
            x: Signals, shape (N, C, L).
            w: Weights, shape (C, K).
            bias: One element per channel, shape (C), or none.
            state: The samples before x, shape (N, C, K - 1), or none.
            numbers: The sequence of each sample, shape (N, L), or none.
            activation: A constant of shared/epilogue.mojo.
            ctx: The device.

        Raises:
            If the shapes do not fit together, or no kernel serves the target.
        """
        comptime OP: StaticString = "maxconv_causal_conv1d"
        var n = x.dim_size(0)
        var channels = x.dim_size(1)
        var length = x.dim_size(2)
        var taps = w.dim_size(1)
        if w.dim_size(0) != channels or taps < 1:
            raise Error(OP, ": w has shape ", w.shape(), ", but x has ", channels, " channels")
        require_shape(OP, y.shape(), IndexList[3](n, channels, length))
        if state.size() != 0:
            require_shape(OP, state.shape(), IndexList[3](n, channels, taps - 1))
        if numbers.size() != 0 and (numbers.dim_size(0) != n or numbers.dim_size(1) != length):
            raise Error(OP, ": numbers have shape ", numbers.shape(), ", but x has ", x.shape())
        var geometry = causal_geometry(x.shape(), taps)
        var history = History[dtype](
            state=Pointer[Scalar[dtype], MutUntrackedOrigin](unsafe_from_address=Int(state.unsafe_ptr())),
            has_state=state.size() != 0,
            numbers=Pointer[Int32, MutUntrackedOrigin](unsafe_from_address=Int(numbers.unsafe_ptr())),
            has_numbers=numbers.size() != 0,
        )
        var epilogue = make_epilogue(OP, bias, channels, activation)
        var signals = x.unsafe_ptr()
        depthwise[target](y.unsafe_ptr(), signals, w.unsafe_ptr(), epilogue, geometry, history, ctx, not is_fast)


@extensibility.register("maxconv_causal_state")
struct CausalState:
    """The state after `maxconv_causal_conv1d`: the last samples of `state` with `x` behind it."""

    @staticmethod
    def execute[
        target: StaticString, dtype: DType
    ](
        last: OutputTensor[dtype=dtype, rank=3, ...],
        x: InputTensor[dtype=dtype, rank=3, ...],
        state: InputTensor[dtype=dtype, rank=3, ...],
        ctx: DeviceContext,
    ) raises:
        """Runs the op; MAX calls this.

        Parameters:
            target: "cpu" or "gpu", supplied by MAX.
            dtype: Element type of signals and states.

        Args:
            last: The last samples, shape (N, C, K - 1).
            x: Signals, shape (N, C, L).
            state: The samples before x, shape (N, C, K - 1), or none for zeros.
            ctx: The device.

        Raises:
            If the shapes do not fit together, or no kernel serves the target.
        """
        var before = last.dim_size(2)
        require_shape("maxconv_causal_state", last.shape(), IndexList[3](x.dim_size(0), x.dim_size(1), before))
        if state.size() != 0:
            require_shape("maxconv_causal_state", state.shape(), last.shape())
        var history = History[dtype](
            state=Pointer[Scalar[dtype], MutUntrackedOrigin](unsafe_from_address=Int(state.unsafe_ptr())),
            has_state=state.size() != 0,
            numbers=Pointer[Int32, MutUntrackedOrigin](unsafe_from_address=Int(state.unsafe_ptr())),
            has_numbers=False,
        )
        var geometry = causal_geometry(x.shape(), before + 1)
        roll_state[target](last.unsafe_ptr(), x.unsafe_ptr(), history, geometry, ctx)


def convolution_geometry(
    x: IndexList[3], w: IndexList[3], left: Int, right: Int, stride: Int, dilation: Int, groups: Int
) raises -> LayerGeometry:
    """Ties the shapes of a convolution together.

    Args:
        x: The shape (N, C, L).
        w: The shape (O, C/G, K).
        left: Padding before the signals.
        right: Padding behind them.
        stride: From the window of one output to the next.
        dilation: From one tap of a window to the next.
        groups: G.

    Returns:
        The geometry.

    Raises:
        If channels and groups do not fit together, or no window fits into a signal.
    """
    if x[1] != groups * w[1] or w[0] % groups != 0:
        raise Error(
            "maxconv_conv1d_layer: w has shape ", w, ", which does not fit x of shape ", x, " and ", groups, " groups"
        )
    var room = x[2] + left + right - dilation * (w[2] - 1) - 1
    if w[2] < 1 or room < 0:
        raise Error(
            "maxconv_conv1d_layer: a window of ",
            dilation * (w[2] - 1) + 1,
            " samples does not fit into ",
            x[2],
            " samples padded by ",
            left,
            " and ",
            right,
        )
    return LayerGeometry(
        batch=x[0],
        in_channels=x[1],
        out_channels=w[0],
        groups=groups,
        length=x[2],
        outputs=room // stride + 1,
        taps=w[2],
        stride=stride,
        dilation=dilation,
        pad_left=left,
    )


def transposed_geometry(
    source: IndexList[3], w: IndexList[3], stride: Int, padding: Int, output_padding: Int, dilation: Int, groups: Int
) raises -> LayerGeometry:
    """Ties the shapes of a transposed convolution together: its source is y of the geometry, its result x.

    Args:
        source: The shape (N, C, L).
        w: The shape (C, O/G, K).
        stride: Results per element of the source.
        padding: Results that are cut off at each end.
        output_padding: Results more on the right.
        dilation: From one tap of a filter to the next.
        groups: G.

    Returns:
        The geometry.

    Raises:
        If channels and groups do not fit together, or the result would have a negative length.
    """
    if source[1] != w[0] or w[0] % groups != 0:
        raise Error(
            "maxconv_conv_transpose1d: w has shape ",
            w,
            ", which does not fit x of shape ",
            source,
            " and ",
            groups,
            " groups",
        )
    var length = (source[2] - 1) * stride - 2 * padding + dilation * (w[2] - 1) + output_padding + 1
    if w[2] < 1 or source[2] < 1 or length < 0:
        raise Error("maxconv_conv_transpose1d: ", source[2], " samples and ", w[2], " taps give ", length, " outputs")
    return LayerGeometry(
        batch=source[0],
        in_channels=w[1] * groups,
        out_channels=source[1],
        groups=groups,
        length=length,
        outputs=source[2],
        taps=w[2],
        stride=stride,
        dilation=dilation,
        pad_left=padding,
    )


def causal_geometry(x: IndexList[3], taps: Int) -> LayerGeometry:
    """Gives the geometry of a causal convolution, of one filter a channel.

    Args:
        x: The shape (N, C, L).
        taps: K.

    Returns:
        The geometry.
    """
    return LayerGeometry(
        batch=x[0],
        in_channels=x[1],
        out_channels=x[1],
        groups=x[1],
        length=x[2],
        outputs=x[2],
        taps=taps,
        stride=1,
        dilation=1,
        pad_left=taps - 1,
    )


def input_shape(geometry: LayerGeometry) -> IndexList[3]:
    """Gives the shape of x.

    Args:
        geometry: Sizes and shifts.

    Returns:
        (N, C, L).
    """
    return IndexList[3](geometry.batch, geometry.in_channels, geometry.length)


def output_shape(geometry: LayerGeometry) -> IndexList[3]:
    """Gives the shape of y.

    Args:
        geometry: Sizes and shifts.

    Returns:
        (N, O, L_out).
    """
    return IndexList[3](geometry.batch, geometry.out_channels, geometry.outputs)


def require_shape(op: StaticString, actual: IndexList[3], expected: IndexList[3]) raises:
    """Checks the shape of a tensor that the kernel will index by other tensors' sizes.

    Args:
        op: The op's name, for the message.
        actual: The tensor's shape.
        expected: The shape that follows from the others.

    Raises:
        If they differ.
    """
    if actual != expected:
        raise Error(op, ": a tensor has shape ", actual, ", but ", expected, " follows from the others")


def make_epilogue[
    dtype: DType
](op: StaticString, bias: InputTensor[dtype=dtype, rank=1, ...], channels: Int, activation: Int64) raises -> Epilogue[
    dtype
]:
    """Makes the epilogue of an op.

    Parameters:
        dtype: Element type of the bias.

    Args:
        op: The op's name, for the message.
        bias: One element per channel of the result, or none.
        channels: How many there are.
        activation: A constant of shared/epilogue.mojo.

    Returns:
        The epilogue, which points into `bias`.

    Raises:
        If there are some elements, but not as many.
    """
    var has_bias = bias.dim_size(0) != 0
    if has_bias and bias.dim_size(0) != channels:
        raise Error(op, ": bias has ", bias.dim_size(0), " elements, but ", channels, " are expected")
    var address = Pointer[Scalar[dtype], MutUntrackedOrigin](unsafe_from_address=Int(bias.unsafe_ptr()))
    return Epilogue[dtype](address, has_bias, Int(activation))
