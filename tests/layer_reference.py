"""What a layer is: sums in float64, or in extended precision where float64 is tested, written as the formulas read."""

from __future__ import annotations

import numpy as np
import scipy.special

ACTIVATIONS = {
    "relu": lambda v: np.maximum(v, 0),
    "gelu": lambda v: v * (1 + scipy.special.erf(v.astype(np.float64) / np.sqrt(2))) / 2,
    "silu": lambda v: v / (1 + np.exp(-v)),
}


def widen(array: np.ndarray) -> np.ndarray:
    """Return an array in the type that its sums are defined in."""
    return array.astype(np.longdouble if array.dtype == np.float64 else np.float64)


def conv1d(x, w, bias=None, stride=1, padding=(0, 0), dilation=1, groups=1) -> np.ndarray:
    """Compute PyTorch's conv1d of (N, C, L) tap by tap; `padding` is (left, right)."""
    x, w = widen(x), widen(w)
    padded = np.pad(x, ((0, 0), (0, 0), padding))
    outputs = (padded.shape[-1] - dilation * (w.shape[-1] - 1) - 1) // stride + 1
    in_groups = padded.reshape(x.shape[0], groups, w.shape[1], padded.shape[-1])
    filters = w.reshape(groups, w.shape[0] // groups, *w.shape[1:])
    y = np.zeros((x.shape[0], groups, filters.shape[1], outputs), x.dtype)
    for j in range(w.shape[-1]):
        met = in_groups[..., j * dilation :][..., : (outputs - 1) * stride + 1 : stride]
        y += np.einsum("ngcl,goc->ngol", met, filters[..., j])
    y = y.reshape(x.shape[0], w.shape[0], outputs)
    return y if bias is None else y + widen(bias)[:, np.newaxis]


def conv_transpose1d(x, w, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1) -> np.ndarray:
    """Compute PyTorch's conv_transpose1d of (N, C, L) tap by tap."""
    x, w = widen(x), widen(w)
    length = x.shape[-1]
    whole = (length - 1) * stride + dilation * (w.shape[-1] - 1) + 1
    in_groups = x.reshape(x.shape[0], groups, w.shape[0] // groups, length)
    filters = w.reshape(groups, w.shape[0] // groups, *w.shape[1:])
    y = np.zeros((x.shape[0], groups, w.shape[1], whole + output_padding), x.dtype)
    for j in range(w.shape[-1]):
        reached = y[..., j * dilation :][..., : (length - 1) * stride + 1 : stride]
        reached += np.einsum("ngcl,gco->ngol", in_groups, filters[..., j])
    outputs = whole + output_padding - 2 * padding
    y = y[..., padding : padding + outputs].reshape(x.shape[0], groups * w.shape[1], outputs)
    return y if bias is None else y + widen(bias)[:, np.newaxis]


def weight_gradient(x, gradient, taps, stride=1, padding=(0, 0), dilation=1, groups=1) -> np.ndarray:
    """Compute the gradient of `conv1d` with respect to its weights, from that of its outputs, tap by tap."""
    x, gradient = widen(x), widen(gradient)
    batch, channels, length = x.shape
    padded = np.pad(x, ((0, 0), (0, 0), padding)).reshape(batch, groups, channels // groups, length + sum(padding))
    out = gradient.reshape(batch, groups, gradient.shape[1] // groups, gradient.shape[-1])
    columns = []
    for j in range(taps):
        met = padded[..., j * dilation :][..., : (gradient.shape[-1] - 1) * stride + 1 : stride]
        columns.append(np.einsum("ngcl,ngol->goc", met, out))
    return np.stack(columns, axis=-1).reshape(gradient.shape[1], channels // groups, taps)


def causal_conv1d(x, w, bias=None, initial_state=None, seq_idx=None) -> np.ndarray:
    """Compute the sums of Dao-AILab's causal_conv1d of (N, C, L), no activation, output by output."""
    taps, length = w.shape[1], x.shape[-1]
    before = np.zeros((*x.shape[:-1], taps - 1)) if initial_state is None else initial_state
    extended = np.concatenate([widen(before), widen(x)], axis=-1)
    y = np.zeros(x.shape, extended.dtype)
    for n in range(x.shape[0]):
        for i in range(length):
            if seq_idx is not None and seq_idx[n, i] < 0:
                continue
            if bias is not None:
                y[n, :, i] = widen(bias)
            for j in range(taps):
                sample = i + j - (taps - 1)
                if seq_idx is not None and (sample < 0 or seq_idx[n, sample] != seq_idx[n, i]):
                    continue
                y[n, :, i] += extended[n, :, i + j] * widen(w)[:, j]
    return y
