"""1-D convolution for Python: Mojo kernels on MAX, called on NumPy arrays and DLPack tensors, on CPU and GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._engine.devices import get_default_device as get_default_device
from ._engine.devices import set_default_device as set_default_device
from ._errors import ArgumentError as ArgumentError
from ._errors import CompileError as CompileError
from ._errors import DeviceError as DeviceError
from ._errors import DtypeError as DtypeError
from ._errors import MaxconvError as MaxconvError
from ._errors import ShapeError as ShapeError
from ._ops_path import kernels_path as kernels_path
from .multirate import resample_poly as resample_poly
from .multirate import upfirdn as upfirdn
from .ndimage import convolve1d as convolve1d
from .ndimage import correlate1d as correlate1d
from .neural import causal_conv1d as causal_conv1d
from .neural import causal_conv1d_update as causal_conv1d_update
from .neural import conv1d as conv1d
from .neural import conv_transpose1d as conv_transpose1d
from .signal import choose_method as choose_method
from .signal import convolve as convolve
from .signal import correlate as correlate
from .streaming import FIRFilter as FIRFilter

if TYPE_CHECKING:
    from . import graph as graph
    from . import nn as nn

__all__ = [
    "ArgumentError",
    "CompileError",
    "DeviceError",
    "DtypeError",
    "FIRFilter",
    "MaxconvError",
    "ShapeError",
    "causal_conv1d",
    "causal_conv1d_update",
    "choose_method",
    "conv1d",
    "conv_transpose1d",
    "convolve",
    "convolve1d",
    "correlate",
    "correlate1d",
    "get_default_device",
    "graph",
    "kernels_path",
    "nn",
    "resample_poly",
    "set_default_device",
    "upfirdn",
]


def __getattr__(name: str) -> Any:
    """Load the doors that need a framework when they are first named."""
    if name in {"dask", "graph", "nn", "plot", "torch"}:
        from importlib import import_module

        return import_module(f".{name}", __name__)
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)
