"""Puts our layers in the place of PyTorch's within a model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.utils import parametrize

from .._engine.tensors import NAMES
from ._modules import Conv1d, ConvTranspose1d

if TYPE_CHECKING:
    from collections.abc import Callable

_OURS = {torch.nn.Conv1d: Conv1d, torch.nn.ConvTranspose1d: ConvTranspose1d}


@dataclass
class Replacement:
    """What `replace_conv1d` did; printed, a line a layer.

    Attributes
    ----------
    swapped : dict
        Name -> the layer that is ours now, in words.
    left : dict
        Name -> why a layer stayed as it was.
    """

    swapped: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """List every layer."""
        lines = [f"swapped {len(self.swapped)}, left {len(self.left)}"]
        lines += [f"  swapped  {name}: {layer}" for name, layer in self.swapped.items()]
        lines += [f"  left     {name}: {reason}" for name, reason in self.left.items()]
        return "\n".join(lines)


def replace_conv1d(
    model: torch.nn.Module,
    filter: Callable[[str, torch.nn.Module], bool] | None = None,  # noqa: A002  # the usual word
) -> Replacement:
    """Let our kernels compute the `Conv1d` and `ConvTranspose1d` layers of a model, in place.

    The modules themselves stay, with their parameters, hooks and parametrizations (weight normalisation, say): only
    their class becomes ours. So optimizers, state dicts and whatever else refers to them go on as before.

    Parameters
    ----------
    model : torch.nn.Module
        Any model; one that is a layer itself, too.
    filter : callable, optional
        Takes the name of a layer and the layer; it is left as it is where that returns False.

    Returns
    -------
    Replacement
        Which layers were swapped and which were left, and why.

    Notes
    -----
    A layer of a class of its own derived from PyTorch's is left: what it computes is its own affair. A model that does
    not call its layers but gives their weights to a function, as Mamba of transformers does, needs `causal_conv1d` in
    the place of that function.

    Examples
    --------
    >>> import torch
    >>> import maxconv.torch
    >>> model = torch.nn.Sequential(torch.nn.Conv1d(1, 8, 3), torch.nn.ReLU(), torch.nn.LazyConv1d(8, 3))
    >>> print(maxconv.torch.replace_conv1d(model))
    swapped 1, left 1
      swapped  0: Conv1d(1, 8, kernel_size=(3,), stride=(1,))
      left     2: its class LazyConv1d is derived from Conv1d
    """
    done = Replacement()
    for name, layer in model.named_modules():
        if not _is_convolution(layer):
            continue
        reason = _why_not(layer)
        if reason is None and filter is not None and not filter(name, layer):
            reason = "the filter refused it"
        if reason is not None:
            done.left[name] = reason
            continue
        layer.__class__ = _our_class(type(layer))
        done.swapped[name] = f"{type(layer).__name__}({layer.extra_repr()})"
    return done


def _is_convolution(layer: Any) -> bool:
    return isinstance(layer, tuple(_OURS))


def _why_not(layer: Any) -> str | None:
    """Say why a layer can't be swapped; None if it can."""
    if isinstance(layer, tuple(_OURS.values())):
        return "it is ours already"
    kind = type(layer)
    if kind not in _OURS and not (parametrize.is_parametrized(layer) and kind.__bases__[0] in _OURS):
        base = next(kind.__name__ for kind in _OURS if isinstance(layer, kind))
        return f"its class {kind.__name__} is derived from {base}"
    if layer.weight.dtype not in NAMES:
        return f"its weights are {layer.weight.dtype}"
    return None


def _our_class(kind: Any) -> Any:
    """Return our class in the place of PyTorch's, with the properties that parametrizations have put into it."""
    if kind in _OURS:
        return _OURS[kind]
    members = {name: member for name, member in vars(kind).items() if name not in {"__dict__", "__weakref__"}}
    return type(kind.__name__, (_OURS[kind.__bases__[0]],), members)
