"""Layers of PyTorch on maxconv's kernels: drop-ins that train, compile and export.

On a GPU they work in the order of PyTorch's current stream, as its own do.
"""

from ._functional import causal_conv1d as causal_conv1d
from ._functional import conv1d as conv1d
from ._functional import conv_transpose1d as conv_transpose1d
from ._modules import CausalConv1d as CausalConv1d
from ._modules import Conv1d as Conv1d
from ._modules import ConvTranspose1d as ConvTranspose1d
from ._replace import Replacement as Replacement
from ._replace import replace_conv1d as replace_conv1d

__all__ = [
    "CausalConv1d",
    "Conv1d",
    "ConvTranspose1d",
    "Replacement",
    "causal_conv1d",
    "conv1d",
    "conv_transpose1d",
    "replace_conv1d",
]
