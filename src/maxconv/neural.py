"""Neural networks with PyTorch's semantics: `conv1d` and its kin on (N, C, L) and (C, L)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from . import _layer, _plan
from ._engine import arrays, devices, is_native, joined, layers, tail, upload
from ._errors import DeviceError, DtypeError, ShapeError
from ._problem import Problem

if TYPE_CHECKING:
    from collections.abc import Callable


def conv1d(
    input: Any,  # noqa: A002  # PyTorch's name
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    *,
    device: str | None = None,
    precision: Literal["fast"] | None = None,
) -> Any:
    """Apply a convolutional layer: ``y[n, o, i] = sum_{c, j} x[n, c, i*stride + j*dilation - padding] * w[o, c, j]``.

    Parameters
    ----------
    input : array_like
        Signals, shape (N, C, L) or (C, L), of float16, bfloat16, float32 or float64.
    weight : array_like
        Filters, shape (O, C/groups, K), of the same dtype.
    bias : array_like, optional
        Added to each output channel, shape (O), of the same dtype.
    stride : int or tuple of one int
        From the window of one output to the next, at least 1.
    padding : int, tuple of one int, (left, right), "same" or "valid"
        How many absent samples, which count as zero, the windows may reach beyond each end. ``"valid"``: 0.
        ``"same"``: as many as keep the length, the odd one on the right; for stride 1.
    dilation : int or tuple of one int
        From one tap of a window to the next, at least 1: ``dilation=2`` is as if zeros stood between the taps.
    groups : int
        Channels are cut into so many groups that do not see one another: the same as ``groups`` layers side by side,
        each with its share of the channels of input and output.
    device : str, optional
        Where host arrays are computed: "cpu", "gpu", "gpu:<id>", or "auto", which is the CPU here; by default what
        `set_default_device` says. Arrays on an NVIDIA GPU, all operands on the same, are computed there.
    precision : {None, "fast"}
        "fast" lets layers of float16 and bfloat16 with one filter a channel be faster at a cost: see Notes.

    Returns
    -------
    array
        Of the library and on the device of `input`, shape (N, O, L_out) or (O, L_out) with
        ``L_out = (L + left + right - dilation*(K - 1) - 1) // stride + 1``.

    Raises
    ------
    ShapeError
        (a ValueError) If ranks, channels or lengths do not fit together.
    ArgumentError
        (a ValueError) If `stride`, `padding`, `dilation`, `groups` or `precision` is none of the above.
    DtypeError
        (a TypeError) If the elements are of another type, or not all of one.
    DeviceError
        (a RuntimeError) If the device is not there or no NVIDIA GPU, or the operands are on different ones.

    Notes
    -----
    Follows `torch.nn.functional.conv1d`. Cost: ``2*N*O*L_out*C/groups*K`` flop. Sums are kept in float64 or float32
    with fused multiply-adds and rounded once: ``|error| <= (C/groups*K + 1) * eps * (sum|x||w| + |bias|)``. Absent
    samples are skipped, not multiplied: an infinite weight has no effect where PyTorch makes NaN of zero times
    infinity. One long filter a channel goes through FFTs where that promises to be faster, with an error of at most
    ``10 * eps * log2(nfft) * ||x|| ||w||``; on a GPU NaN and infinity then spread over its blocks. On a GPU float16 and
    bfloat16 are multiplied by tensor cores, which add in float32 in an order of their own; causal layers of one filter
    a channel, ``padding=(K - 1, 0)``, are left to sums in the order of `causal_conv1d`, or FFTs.

    ``precision="fast"`` lets tensor cores multiply such layers of 17 to 130 taps, too, and, where FFTs serve, transform
    rows of 2049 to 8192 samples, as FlashFFTConv does: values are rounded to float16 between passes, and the bound has
    the elements' own `eps`. Where it would be no faster, and always in float32, in float64 and on the CPU, it changes
    nothing. The same call gives the same bits.

    Examples
    --------
    >>> import numpy as np
    >>> import maxconv
    >>> x = np.array([[[1.0, 2.0, 3.0, 4.0]]])
    >>> maxconv.conv1d(x, [[[1.0, 1.0]], [[0.0, 1.0]]], padding="same")
    array([[[3., 5., 7., 4.],
            [2., 3., 4., 0.]]])
    >>> maxconv.conv1d(x, [[[1.0, 1.0]]], [0.5], stride=2)
    array([[[3.5, 7.5]]])
    """
    (x, w, b), place, came = _operands("conv1d", device, input=input, weight=weight, bias=bias)
    _layer.check_dtypes("conv1d", {"input": x, "weight": w} | ({} if b is None else {"bias": b}))
    bias_shape = None if b is None else b.shape
    problem = _layer.known_convolution("conv1d", x.shape, w.shape, bias_shape, stride, padding, dilation, groups)
    is_fast = _layer.is_fast("conv1d", precision)
    y = None if place == "cpu" else _by_fft(problem, x, w, b, place, is_fast=is_fast)
    if y is None:
        y = layers.forward(problem, x, w, b, device=place, is_fast=is_fast)
    return _hand_over(y, x, came["input"].restore)


def conv_transpose1d(
    input: Any,  # noqa: A002  # PyTorch's name
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
    *,
    device: str | None = None,
) -> Any:
    """Apply a transposed convolutional layer: the gradient of `conv1d` with respect to its input, as a layer.

    Each sample adds its multiple of the filter to the output: ``y[n, o, i*stride + j*dilation - padding] += x[n, c, i]
    * w[c, o, j]`` for all c, i and j.

    Parameters
    ----------
    input : array_like
        Signals, shape (N, C, L) or (C, L), of float16, bfloat16, float32 or float64.
    weight : array_like
        Filters, shape (C, O/groups, K), of the same dtype.
    bias : array_like, optional
        Added to each output channel, shape (O), of the same dtype.
    stride : int or tuple of one int
        Outputs per sample, at least 1.
    padding : int or tuple of one int
        Outputs that are cut off at each end.
    output_padding : int or tuple of one int
        Outputs more on the right, fewer than `stride` or `dilation`.
    groups : int
        As for `conv1d`.
    dilation : int or tuple of one int
        From one tap of a filter to the next, at least 1.
    device : str, optional
        As for `conv1d`.

    Returns
    -------
    array
        Of the library and on the device of `input`, shape (N, O, L_out) or (O, L_out) with
        ``L_out = (L - 1)*stride - 2*padding + dilation*(K - 1) + output_padding + 1``.

    Raises
    ------
    ShapeError, ArgumentError, DtypeError, DeviceError
        As for `conv1d`.

    Notes
    -----
    Follows `torch.nn.functional.conv_transpose1d`. Cost: ``2*N*C*L*O/groups*K`` flop: no inserted zero is multiplied.

    Examples
    --------
    >>> import numpy as np
    >>> import maxconv
    >>> maxconv.conv_transpose1d(np.array([[1.0, 2.0, 3.0]]), [[[1.0, 0.5]]], stride=2)
    array([[1. , 0.5, 2. , 1. , 3. , 1.5]])
    """
    (x, w, b), place, came = _operands("conv_transpose1d", device, input=input, weight=weight, bias=bias)
    _layer.check_dtypes("conv_transpose1d", {"input": x, "weight": w} | ({} if b is None else {"bias": b}))
    bias_shape = None if b is None else b.shape
    problem = _layer.transposed_convolution(
        "conv_transpose1d", x.shape, w.shape, bias_shape, stride, padding, output_padding, groups, dilation
    )
    return _hand_over(layers.transposed(problem, x, w, b, device=place), x, came["input"].restore)


def causal_conv1d(
    x: Any,
    weight: Any,
    bias: Any = None,
    *,
    activation: str | None = None,
    initial_state: Any = None,
    return_final_state: bool = False,
    seq_idx: Any = None,
    device: str | None = None,
    precision: Literal["fast"] | None = None,
) -> Any:
    """Apply one filter to each channel, so that no output depends on a later sample.

    ``y[n, c, i] = activation(bias[c] + sum_j x[n, c, i + j - (K - 1)] * w[c, j])``

    Parameters
    ----------
    x : array_like
        Signals, shape (N, C, L) or (C, L), of float16, bfloat16, float32 or float64.
    weight : array_like
        Filters, shape (C, K), of the dtype of `x`, or float32 where `x` is of half precision.
    bias : array_like, optional
        Added to each channel, shape (C), of the dtype of `weight`.
    activation : {None, "silu", "swish", "relu", "gelu"}
        Applied to the sums before they are rounded; "swish" is another name of "silu".
    initial_state : array_like, optional
        The samples before `x`, shape (N, C, K - 1) or (C, K - 1), of the dtype of `x`; without it none are.
    return_final_state : bool
        Whether the last K - 1 samples are wanted, too, as `initial_state` of what follows.
    seq_idx : array_like of int, optional
        The sequence that each sample belongs to, shape (N, L) or (L): samples of other sequences are absent from an
        output's sum. Where it is negative there is padding, whose outputs are 0. On an accelerator, int32.
    device : str, optional
        As for `conv1d`.
    precision : {None, "fast"}
        "fast" lets layers of float16 and bfloat16 be faster at a cost: see Notes.

    Returns
    -------
    array, or a pair of arrays
        Of the library and the shape of `x`; with `return_final_state` also the state, of the shape of `initial_state`.

    Raises
    ------
    ShapeError, ArgumentError, DtypeError, DeviceError
        As for `conv1d`; ArgumentError also if `seq_idx` comes together with a state.

    Notes
    -----
    Follows Dao-AILab's `causal_conv1d_fn`, for any number of taps. However a signal is cut, the pieces with their
    states give the same bits as the whole.

    ``precision="fast"`` gives that up for layers of half precision, filters included, with neither `initial_state` nor
    `seq_idx`, on a GPU. Those of 17 to 130 taps then go through tensor cores, with sums in float32 as before. Longer
    filters without an activation go through FFTs, as in `conv1d` and with its bound and its NaN. Where it would be no
    faster, and always in float32, in float64 and on the CPU, it changes nothing. The same call gives the same bits.

    Examples
    --------
    >>> import numpy as np
    >>> import maxconv
    >>> maxconv.causal_conv1d(np.array([[1.0, 2.0, 3.0]]), [[0.5, 1.0]])
    array([[1. , 2.5, 4. ]])
    >>> maxconv.causal_conv1d(np.array([[1.0, 2.0, 3.0]]), [[0.5, 1.0]], seq_idx=[0, 0, 1])
    array([[1. , 2.5, 3. ]])
    """
    operands = {"x": x, "weight": weight, "bias": bias, "initial_state": initial_state, "seq_idx": seq_idx}
    taken, place, came = _operands("causal_conv1d", device, arrays.ingest_lazily, **operands)
    restore = came["x"].restore
    signals, w, b, state, numbers = taken
    _check_causal_dtypes("causal_conv1d", signals, w, b)
    problem = _layer.causal_convolution("causal_conv1d", signals.shape, w.shape, None if b is None else b.shape)
    code = _layer.activation_code("causal_conv1d", activation)
    is_fast = _layer.is_fast("causal_conv1d", precision)
    if numbers is not None:
        _layer.check_no_state("causal_conv1d", initial_state, return_final_state)
        numbers = _sequence_numbers(signals.shape, numbers, place)
    if state is not None:
        _check_state("causal_conv1d", "initial_state", state, signals)
        _layer.check_shape("causal_conv1d", "initial_state", state.shape, (*signals.shape[:-1], problem.taps - 1))
    if arrays.is_lazy(*taken):
        from . import _blocks  # loads Dask, as the array's owner did

        parameters = w if b is None else np.concatenate([w, b[:, None]], axis=1)
        compute = partial(_causal_block, problem.taps, code, is_fast)
        lazily = _blocks.causal(problem, signals, parameters, state, numbers, compute, place)
        return (lazily, _blocks.last_samples(state, signals, problem.taps - 1)) if return_final_state else lazily
    is_plain = place != "cpu" and state is numbers is None and not code
    y = _by_fft(problem, signals, w, b, place, is_fast=True) if is_fast and is_plain and _are_half(signals, w) else None
    if y is None:
        y = layers.causal(problem, signals, w, b, code, state, numbers, place, is_fast=is_fast)
    result = _hand_over(y, signals, restore)
    if not return_final_state:
        return result
    if state is None:
        state = _zeros((*signals.shape[:-1], problem.taps - 1), signals, place)
    final = _rolled(state, signals, place)
    return result, final if restore is None else restore(final)


def causal_conv1d_update(
    x: Any, state: Any, weight: Any, bias: Any = None, activation: str | None = None, *, device: str | None = None
) -> Any:
    """Take the next samples of signals through `causal_conv1d`: one step of a model that generates them.

    Parameters
    ----------
    x : array_like
        The next sample of each channel, shape (N, C), or the next L, shape (N, C, L); as `state` without N: (C) or
        (C, L).
    state : array_like
        The samples before, shape (N, C, S) or (C, S) with S >= K - 1, of the dtype of `x`. It is not changed.
    weight, bias, activation, device
        As for `causal_conv1d`.

    Returns
    -------
    out, new_state : pair of arrays
        Of the libraries and shapes of `x` and `state`; `new_state` ends with `x`.

    Raises
    ------
    ShapeError, ArgumentError, DtypeError, DeviceError
        As for `causal_conv1d`.

    Notes
    -----
    Follows Dao-AILab's `causal_conv1d_update`, but changes nothing in place. The same bits as `causal_conv1d` of the
    whole signal.

    Examples
    --------
    >>> import numpy as np
    >>> import maxconv
    >>> state = np.array([[2.0]])
    >>> maxconv.causal_conv1d_update(np.array([3.0]), state, [[0.5, 1.0]])
    (array([4.]), array([[3.]]))
    """
    function = "causal_conv1d_update"
    operands = {"x": x, "state": state, "weight": weight, "bias": bias}
    (signals, before, w, b), place, came = _operands(function, device, **operands)
    restore, restore_state = came["x"].restore, came["state"].restore
    _check_causal_dtypes(function, signals, w, b)
    code = _layer.activation_code(function, activation)
    _check_state(function, "state", before, signals)
    is_step = len(signals.shape) == len(before.shape) - 1
    if len(before.shape) not in {2, 3} or not (is_step or len(signals.shape) == len(before.shape)):
        message = (
            f"{function}: x and state have shapes {signals.shape} and {before.shape}; expected (N, C) or (N, C, L) "
            "and (N, C, S), or the same without N"
        )
        raise ShapeError(message)
    samples = _reshaped(signals, (*signals.shape, 1)) if is_step else signals
    problem = _layer.causal_convolution(function, samples.shape, w.shape, None if b is None else b.shape)
    if before.shape[:-1] != samples.shape[:-1] or before.shape[-1] < problem.taps - 1:
        wanted = ", ".join(map(str, samples.shape[:-1]))
        message = (
            f"{function}: state has shape {before.shape}, but ({wanted}, at least {problem.taps - 1}) is expected "
            f"for x of shape {signals.shape} and weight of shape {w.shape}"
        )
        raise ShapeError(message)
    last = _last(before, problem.taps - 1, place)
    y = _reshaped(layers.causal(problem, samples, w, b, code, last, device=place), signals.shape)
    new_state = _rolled(before, samples, place)
    return (
        y if restore is None else restore(y),
        new_state if restore_state is None else restore_state(new_state),
    )


def _causal_block(
    taps: int,
    activation: int,
    is_fast: bool,
    block: Problem,
    x: np.ndarray,
    parameters: np.ndarray,
    *numbers: np.ndarray,
    device: str,
) -> np.ndarray:
    """Apply a causal layer to a block of a longer signal, which begins with the samples before its first output."""
    _check_is_native("causal_conv1d", device)
    batch, channels, length = (1, *x.shape)[-3:]
    w, b = np.split(parameters.reshape(channels, -1), [taps], axis=1)
    # Sequence numbers belong to samples, so the outputs of all samples are computed beside them, also of the halo.
    outputs, pad_left = (length, taps - 1) if numbers else (block.outputs, block.pad_left)
    layer = _layer.causal_problem(x.shape, taps)._replace(outputs=outputs, pad_left=pad_left)
    of_samples = numbers[0].reshape(batch, length) if numbers else None
    bias = b.ravel() if b.size else None
    y: np.ndarray = layers.causal(layer, x, w, bias, activation, None, of_samples, device, is_fast=is_fast)
    return y[..., outputs - block.outputs :].reshape(*x.shape[:-1], block.outputs)


def _operands(
    function: str, device: str | None, take: Callable[..., Any] = arrays.ingest, **values: Any
) -> tuple[list[Any], str, dict[str, Any]]:
    """Take the arrays of a call; return them, None for None, where they are computed, and the operands by name."""
    taken = {name: None if value is None else take(function, name, value) for name, value in values.items()}
    places = {operand.device for operand in taken.values() if operand is not None}
    if len(places) > 1:
        _layer.check_one_device(function, {name: each.device for name, each in taken.items() if each is not None})
    operands = [None if operand is None else operand.data for operand in taken.values()]
    place = devices.place(function, device, places.pop(), next(iter(taken)), *operands)
    place = "cpu" if place == "auto" else place
    if not arrays.is_lazy(*operands):
        _check_is_native(function, place)
    return operands, place, taken


def _check_is_native(function: str, place: str) -> None:
    if not is_native(place):
        message = f"{function}: layers are served by CPUs and NVIDIA GPUs, but {place} is neither"
        raise DeviceError(message)


def _hand_over(y: Any, x: Any, restore: Any) -> Any:
    """Give a result the rank and the library of the input."""
    result = y if len(x.shape) == len(y.shape) else _reshaped(y, y.shape[-len(x.shape) :])
    return result if restore is None else restore(result)


def _reshaped(array: Any, shape: tuple[int, ...]) -> Any:
    return array.reshape(shape) if isinstance(array, np.ndarray) else array.view(array.dtype, shape)


def _by_fft(problem: _layer.LayerProblem, x: Any, w: Any, bias: Any, place: str, *, is_fast: bool) -> Any:
    """Compute a layer of one long filter a channel on a GPU by overlap-save, if that promises to be faster."""
    if not _plan.takes_ffts(problem):
        return None
    channels = problem.in_channels
    rows = Problem(problem.length, problem.taps, problem.outputs, problem.pad_left, flip=False)
    rows = rows._replace(batch=(channels,), tap_rows=channels)
    itemsize = x.dtype.itemsize if isinstance(x, np.ndarray) else x.dtype.size_in_bytes
    if _plan.takes_products(problem, itemsize, is_fast=is_fast):
        return None
    choice = _plan.choose_on_gpu(rows, itemsize)
    if choice.method != "fft":
        return None
    together = rows._replace(batch=(problem.batch, channels))
    if block := _plan.row_block_on_gpu(together, itemsize, choice.nfft):
        signals = _reshaped(x, problem.input_shape)
        y = layers.by_rows(together, signals, w, bias, block, place, is_fast=is_fast)
        if y is not None:
            return y
    if bias is not None and itemsize == 2:  # noqa: PLR2004  # half precision, which would be rounded twice
        return None
    return layers.by_fft(problem, rows, _reshaped(x, problem.input_shape), w, bias, choice.nfft, place)


def _are_half(*operands: Any) -> bool:
    """Tell whether operands are all of one type of half precision."""
    return {operand.dtype.name for operand in operands} in ({"float16"}, {"bfloat16"})


def _check_causal_dtypes(function: str, x: Any, w: Any, b: Any) -> None:
    """Check the parameters of a causal layer, whose dtype may be that of the sums."""
    _layer.check_dtypes(function, {"x": x})
    _layer.check_dtypes(function, {"weight": w} | ({} if b is None else {"bias": b}))
    _layer.check_causal_types(function, _layer.dtype_name(w.dtype), _layer.dtype_name(x.dtype))


def _check_state(function: str, argument: str, state: Any, x: Any) -> None:
    if state.dtype.name != x.dtype.name:
        message = f"{function}: {argument} is {state.dtype.name}, but x is {x.dtype.name}; both must have one dtype"
        raise DtypeError(message)


def _sequence_numbers(shape: tuple[int, ...], numbers: Any, place: str) -> Any:
    """Check the sequence numbers of the samples; the kernels take int32."""
    on_host = isinstance(numbers, np.ndarray) or arrays.is_lazy(numbers)
    if numbers.dtype.kind not in "iu" if on_host else numbers.dtype.name != "int32":
        message = f"causal_conv1d: seq_idx has elements of type {numbers.dtype.name}; expected "
        message += "integers" if on_host else f"int32 on {place}"
        raise DtypeError(message)
    _layer.check_shape("causal_conv1d", "seq_idx", numbers.shape, (*shape[:-2], shape[-1]))
    return numbers.astype(np.int32, copy=False) if on_host else numbers


def _rolled(state: Any, x: Any, place: str) -> Any:
    """Return the last samples of state and x, as many as the state has."""
    if not isinstance(x, np.ndarray):
        return _last(joined(state, x, place), state.shape[-1], place)
    whole = np.concatenate([state, x], axis=-1)
    return np.ascontiguousarray(_last(whole, state.shape[-1], place))


def _last(samples: Any, count: int, place: str) -> Any:
    """Return the last samples of each channel."""
    if isinstance(samples, np.ndarray):
        return samples[..., samples.shape[-1] - count :]
    return tail(samples, count, place)


def _zeros(shape: tuple[int, ...], like: Any, place: str) -> Any:
    """Make zeros of the type of an array, where it is."""
    if isinstance(like, np.ndarray):
        return np.zeros(shape, like.dtype)
    return upload(np.zeros(shape, f"u{like.dtype.size_in_bytes}"), place).view(like.dtype)
