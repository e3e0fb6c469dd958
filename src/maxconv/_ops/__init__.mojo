"""The MAX custom ops of maxconv.

| op | file | computes |
|---|---|---|
| `conv1d` | `conv1d.mojo` | the seed: correlation, zeros past the end, output as long as the input |
| `maxconv_direct` | `direct.mojo` | convolution or correlation with any padding, by direct summation |
"""

from .conv1d import Conv1D
from .direct import Direct, direct_shape
