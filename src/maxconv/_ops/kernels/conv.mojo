"""The sums of layers on whatever target a caller is compiled for: one place that knows which kernels there are."""

from max.gpu.host import DeviceContext

from ..shared.accumulate import accum_dtype
from ..shared.epilogue import Epilogue
from ..shared.history import History
from ..shared.layer_geometry import LayerGeometry
from ..shared.tuning_gpu import has_tensor_cores
from .conv_cpu import conv_cpu
from .conv_gpu import conv_gpu
from .conv_mma_gpu import conv_mma_gpu
from .depthwise_cpu import depthwise_cpu
from .depthwise_gpu import depthwise_gpu, is_mirrored_depthwise, mirrored, roll_state_gpu

comptime FILTERS_OF_A_PRODUCT = 4
"""Filters per channel from which conv_cpu serves depthwise layers better, as in _engine/layers.py."""


def conv[
    dtype: DType, //, target: StaticString, transposed: Bool, is_fast: Bool = False
](
    result: Pointer[Scalar[dtype], MutAnyOrigin],
    source: Pointer[Scalar[dtype], MutAnyOrigin],
    w: Pointer[Scalar[dtype], MutAnyOrigin],
    epilogue: Epilogue[dtype],
    geometry: LayerGeometry,
    ctx: DeviceContext,
) raises:
    """Computes y from x, or x from y, or enqueues its computation.

    Parameters:
        dtype: Element type of result, source and weights.
        target: Where the arrays are: "cpu" or "gpu".
        transposed: False: the result is y. True: the result is x.
        is_fast: Whether a causal layer may add its terms in any order; others may.

    Args:
        result: The array y, or x; every element is written.
        source: The array x, or y.
        w: Weights, shape (O, C/G, K).
        epilogue: Bias and activation of the result.
        geometry: Sizes and shifts.
        ctx: The device; not used on "cpu".

    Raises:
        `Unsupported target: <target>` where there is no kernel.
    """
    comptime if not transposed:
        if (
            geometry.groups == geometry.in_channels
            and geometry.out_channels < FILTERS_OF_A_PRODUCT * geometry.in_channels
        ):
            var is_ordered = geometry.is_causal() and not is_fast
            depthwise[target](result, source, w, epilogue, geometry, no_history(source), ctx, is_ordered)
            return
    comptime if transposed and target == "gpu":
        if is_mirrored_depthwise(geometry):
            depthwise_gpu(result, source, w, epilogue, mirrored(geometry), no_history(source), ctx, True)
            return
    comptime if target == "cpu":
        conv_cpu[transposed](result, source, w, epilogue, geometry, max_workers=0)
    elif target == "gpu" and has_tensor_cores[dtype]():
        conv_mma_gpu[transposed](result, source, w, epilogue, geometry, ctx)
    elif target == "gpu":
        conv_gpu[transposed](result, source, w, epilogue, geometry, ctx)
    else:
        raise Error("Unsupported target: ", target)


def depthwise[
    dtype: DType, weight_dtype: DType, //, target: StaticString
](
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    w: Pointer[Scalar[weight_dtype], MutAnyOrigin],
    epilogue: Epilogue[weight_dtype],
    geometry: LayerGeometry,
    history: History[dtype],
    ctx: DeviceContext,
    is_ordered: Bool,
) raises:
    """Computes y of a layer with one input channel a group, or enqueues its computation.

    Parameters:
        dtype: Element type of x and y.
        weight_dtype: Element type of w.
        target: Where the arrays are: "cpu" or "gpu".

    Args:
        y: Outputs, shape (N, O, L_out); every one is written.
        x: Signals, shape (N, C, L).
        w: Weights, shape (O, K).
        epilogue: Bias and activation.
        geometry: Sizes and shifts.
        history: State and sequence numbers.
        ctx: The device; not used on "cpu".
        is_ordered: As for `depthwise_gpu`; on "cpu" they all are.

    Raises:
        `Unsupported target: <target>` where there is no kernel.
    """
    comptime if target == "cpu":
        comptime ACC = accum_dtype[dtype]()
        comptime if weight_dtype == ACC:
            var weights = rebind[Pointer[Scalar[ACC], MutAnyOrigin]](w)
            depthwise_cpu[dtype](y, x, weights, epilogue, geometry, history, max_workers=0)
        else:
            var wide = List[Scalar[ACC]](capacity=geometry.out_channels * geometry.taps)
            for i in range(geometry.out_channels * geometry.taps):
                wide.append(w[unsafe_offset=i].cast[ACC]())
            var weights = Pointer[Scalar[ACC], MutAnyOrigin](unsafe_from_address=Int(wide.unsafe_ptr()))
            depthwise_cpu[dtype](y, x, weights, epilogue, geometry, history, max_workers=0)
            _ = wide^
    elif target == "gpu":
        depthwise_gpu(y, x, w, epilogue, geometry, history, ctx, is_ordered=is_ordered)
    else:
        raise Error("Unsupported target: ", target)


def roll_state[
    dtype: DType, //, target: StaticString
](
    last: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    history: History[dtype],
    geometry: LayerGeometry,
    ctx: DeviceContext,
) raises:
    """Takes the last samples of a state and the signals behind it, or enqueues that.

    Parameters:
        dtype: Element type of signals and states.
        target: Where the arrays are: "cpu" or "gpu".

    Args:
        last: Receives (N, C, K - 1).
        x: Signals, shape (N, C, L).
        history: The state, shape (N, C, K - 1); zeros if there is none.
        geometry: Sizes of the layer that the state belongs to.
        ctx: The device; not used on "cpu".

    Raises:
        `Unsupported target: <target>` where there is no kernel.
    """
    comptime if target == "cpu":
        var before = geometry.taps - 1
        for channel in range(geometry.batch * geometry.in_channels):
            for j in range(before):
                var sample = history.sample(x, geometry, channel, geometry.length - before + j)
                last[unsafe_offset=channel * before + j] = sample
    elif target == "gpu":
        roll_state_gpu(last, x, history, geometry, ctx)
    else:
        raise Error("Unsupported target: ", target)


def no_history[dtype: DType](x: Pointer[Scalar[dtype], MutAnyOrigin]) -> History[dtype]:
    """Makes the history of signals that have none.

    Parameters:
        dtype: Element type of the signals.

    Args:
        x: Any address, which nothing is read from.

    Returns:
        No state and no sequence numbers.
    """
    return History[dtype](
        state=Pointer[Scalar[dtype], MutUntrackedOrigin](unsafe_from_address=Int(x)),
        has_state=False,
        numbers=Pointer[Int32, MutUntrackedOrigin](unsafe_from_address=Int(x)),
        has_numbers=False,
    )
