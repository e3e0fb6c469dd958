"""Sizes of polyphase calls: how long `upfirdn` is, and which part of it a resampled signal is.

Pure integer arithmetic. The kernels take the taps as they are: they sort them by phase themselves.
"""

from __future__ import annotations

from typing import NamedTuple


class ResampledPart(NamedTuple):
    """Which outputs of which taps a centred resampling consists of."""

    pad: int
    """Zeros to put before the first tap."""
    start: int
    """First output, on the output grid of the padded taps."""
    outputs: int
    """How many outputs."""


def output_length(samples: int, taps: int, up: int, down: int) -> int:
    """Count the outputs of `upfirdn`: ``ceil(((N - 1)*up + K) / down)``, and 0 if nothing meets.

    Examples
    --------
    >>> output_length(5, 3, up=2, down=1)  # 1 0 2 0 3 0 4 0 5, and 2 places more
    11
    >>> output_length(1000, 3201, up=160, down=147)
    1110
    """
    return max(0, -(-((samples - 1) * up + taps) // down))


def resampled_part(samples: int, taps: int, up: int, down: int) -> ResampledPart:
    """Find the outputs that a resampling by up/down keeps, so that a symmetric filter causes no delay.

    The middle tap, ``(K - 1)//2``, of the first output is to meet the first sample. It does so on the output grid if
    as many zeros as needed stand before the taps, as `scipy.signal.resample_poly` puts them. `up` and `down` have no
    common divisor.

    Examples
    --------
    >>> resampled_part(1000, 41, up=1, down=2)
    ResampledPart(pad=0, start=10, outputs=500)
    >>> resampled_part(1000, 61, up=3, down=7)
    ResampledPart(pad=5, start=5, outputs=429)
    """
    middle = (taps - 1) // 2
    pad = -middle % down
    return ResampledPart(pad, (middle + pad) // down, -(-samples * up // down))
