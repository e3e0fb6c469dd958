"""The MAX custom ops of maxconv.

| op | file | computes |
|---|---|---|
| `conv1d` | `conv1d.mojo` | the seed: correlation, zeros past the end, output as long as the input |
| `maxconv_direct` | `direct.mojo` | convolution or correlation with any padding, by direct summation |
| `maxconv_conv1d_layer` | `layers.mojo` | a neural network's grouped convolution, bias and activation |
| `maxconv_conv_transpose1d` | `layers.mojo` | its transposed convolution |
| `maxconv_causal_conv1d` | `layers.mojo` | its causal depthwise convolution, with a state or sequence numbers |
| `maxconv_causal_state` | `layers.mojo` | the state behind it |
"""

from .conv1d import Conv1D
from .direct import Direct, direct_shape
from .layers import CausalConv1d, CausalState, Conv1dLayer, ConvTranspose1d, conv1d_layer_shape, conv_transpose1d_shape
