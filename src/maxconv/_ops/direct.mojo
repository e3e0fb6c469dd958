"""Op "maxconv_direct": convolution or correlation by direct summation, every size a run-time value."""

import extensibility
from extensibility import InputTensor, OutputTensor, Tensor, TileTensorable
from layout import coord_to_index_list
from max.gpu.host import DeviceContext
from std.utils.index import IndexList

from .kernels.direct import direct
from .shared.border import Border
from .shared.geometry import Geometry


@extensibility.register("maxconv_direct")
struct Direct:
    """`y[r, i] = sum_j x[r, i + j - left] * k[r, j]`, or `k[r, K-1-j]` with `flip`; outside x as the border says."""

    @staticmethod
    def execute[
        target: StaticString, dtype: DType
    ](
        y: OutputTensor[dtype=dtype, rank=2, ...],
        x: InputTensor[dtype=dtype, rank=2, ...],
        k: InputTensor[dtype=dtype, rank=2, ...],
        padding: InputTensor[dtype=DType.int64, rank=1, ...],
        flip: Int64,
        border: Int64,
        value: Scalar[dtype],
        ctx: DeviceContext,
    ) raises:
        """Runs the op; MAX calls this.

        Parameters:
            target: "cpu" or "gpu", supplied by MAX.
            dtype: Element type of the arrays.

        Args:
            y: Outputs, shape (rows, L_out) with L_out = N + left + right - K + 1.
            x: Signals, shape (rows, N).
            k: Taps, shape (1, K) for all rows, or (rows, K).
            padding: (left, right), shape (2), on the host: how far windows may reach beyond either end of x.
            flip: 1 for convolution, 0 for correlation.
            border: How signals go on beyond their ends, a constant of shared/border.mojo; 0 to leave those terms out.
            value: What stands there if that constant is CONSTANT.
            ctx: The device.

        Raises:
            If the lengths do not fit together, or the target is neither "cpu" nor "gpu".
        """
        var rows = x.dim_size(0)
        if k.dim_size(0) != 1 and k.dim_size(0) != rows:
            raise Error(
                "maxconv_direct: k has ", k.dim_size(0), " rows, but x has ", rows, "; 1 or as many are expected"
            )
        var outputs = output_length(x.dim_size(1), k.dim_size(1), Int(padding[0]), Int(padding[1]))
        if y.dim_size(0) != rows or y.dim_size(1) != outputs:
            raise Error("maxconv_direct: y has another shape than the (", rows, ", ", outputs, ") that are computed")
        var geometry = Geometry(
            samples=x.dim_size(1),
            taps=k.dim_size(1),
            outputs=outputs,
            pad_left=Int(padding[0]),
            flip=flip != 0,
            rows=rows,
            tap_rows=k.dim_size(0),
        )
        direct[target](y.unsafe_ptr(), x.unsafe_ptr(), k.unsafe_ptr(), geometry, ctx, Border[dtype](Int(border), value))


@extensibility.register_shape_function("maxconv_direct")
def direct_shape[
    dtype: DType
](
    x: Some[Tensor], k: Some[Tensor], padding: Some[TileTensorable], flip: Int64, border: Int64, value: Scalar[dtype]
) raises -> IndexList[2]:
    """Gives the output shape when the graph cannot: padding known at run time only.

    Parameters:
        dtype: Element type of the arrays.

    Args:
        x: Signals.
        k: Taps.
        padding: (left, right).
        flip: Not used.
        border: Not used.
        value: Not used.

    Returns:
        (rows, L_out).

    Raises:
        If the taps are longer than the padded signal.
    """
    var ends = padding.to_tile_tensor()
    var signals = coord_to_index_list(x.shape().tuple())
    var taps = coord_to_index_list(k.shape().tuple())[1]
    return IndexList[2](signals[0], output_length(signals[1], taps, Int(ends[0]), Int(ends[1])))


def output_length(samples: Int, taps: Int, left: Int, right: Int) raises -> Int:
    """Counts the windows of K taps that fit on the padded signal.

    Args:
        samples: N.
        taps: K.
        left: Padding before the signal.
        right: Padding after it.

    Returns:
        L_out.

    Raises:
        If there are no taps, or more than fit once.
    """
    var outputs = samples + left + right - taps + 1
    if taps < 1 or outputs < 0:
        raise Error(
            "maxconv_direct: ", taps, " taps do not fit on ", samples, " samples padded by ", left, " and ", right
        )
    return outputs
