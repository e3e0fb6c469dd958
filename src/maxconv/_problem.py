"""What is asked: one convolution or correlation as sizes and shifts, and every check that needs no device.

Everything below the doors speaks of signal `x` (N samples), taps `k` (K) and output `y` (L_out); with `j` running
over the taps, `y[i] = sum_j x[i + j - pad_left] * k[K-1-j if flip else j]`; outside `x` its border decides.
"""

from __future__ import annotations

import math
import operator
from typing import Any, NamedTuple

import numpy as np

from ._errors import ArgumentError, DtypeError, ShapeError

MODES = ("full", "same", "valid")

#: How a signal goes on beyond its ends, by the numbers that the kernels know (`_ops/shared/border.mojo`).
BORDERS = ("omit", "constant", "nearest", "reflect", "mirror", "wrap")

#: Element type of an array -> name of the kernels that serve it. Unsigned integers share the signed kernels: sums
#: modulo 2^bits are the same bits.
KERNEL_DTYPES = {
    "float16": "float16",
    "bfloat16": "bfloat16",
    "float32": "float32",
    "float64": "float64",
    "int8": "int8",
    "int16": "int16",
    "int32": "int32",
    "int64": "int64",
    "uint8": "int8",
    "uint16": "int16",
    "uint32": "int32",
    "uint64": "int64",
}

#: Types that the public functions compute with several calls of those kernels.
COMPOSED_DTYPES = ("bool", "complex64", "complex128")

_served: dict[Any, str] = {}
"""`KERNEL_DTYPES` by the dtype itself: `numpy.dtype.name` takes 1.5 us, longer than a small convolution."""


class Problem(NamedTuple):
    """A batch of convolutions or correlations along the last axis, in elements."""

    samples: int
    """N, the length of the signal."""
    taps: int
    """K, the number of taps."""
    outputs: int
    """L_out, the length of the output."""
    pad_left: int
    """How many positions before `x[0]` the first window starts."""
    flip: bool
    """True: convolution. False: correlation."""
    batch: tuple[int, ...] = ()
    """The shape before the last axis, that of the output; () for vectors."""
    tap_rows: int = 1
    """1: one filter for all rows of the batch; else one each. On the CPU `run_fft` takes any divisor of the rows."""
    border: str = "omit"
    """One of `BORDERS`: what stands beyond the ends of a signal; "omit": nothing, those terms are left out."""
    cval: float = 0
    """What "constant" puts there: a number that the kernels' type holds."""

    @property
    def rows(self) -> int:
        """How many signals the batch has."""
        return math.prod(self.batch)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the output."""
        return (*self.batch, self.outputs)

    @property
    def pad_right(self) -> int:
        """How many positions behind `x[N-1]` the last window ends; negative if it ends before."""
        return self.outputs + self.taps - 1 - self.samples - self.pad_left

    @property
    def multiply_adds(self) -> int:
        """The work of the call: rows * L_out * K, terms at the edges included."""
        return self.rows * self.outputs * self.taps


def part_of_full(samples: int, taps: int, mode: str, flip: bool) -> Problem:
    """Translate one of SciPy's modes: which part of the full result, N + K - 1 values, is wanted.

    ``"full"``: all of it. ``"same"``: its centre, N values. ``"valid"``: the values that the shorter operand reaches
    with all its elements. N and K are at least 1.
    """
    start, outputs = start_and_outputs(samples, taps, mode)
    return Problem(samples, taps, outputs, taps - 1 - start, flip)


def start_and_outputs(samples: int, taps: int, mode: str) -> tuple[int, int]:
    """Return where the wanted part of the full result begins, and its length."""
    if mode == "full":
        return 0, samples + taps - 1
    if mode == "same":
        return (taps - 1) // 2, samples
    return min(samples, taps) - 1, abs(samples - taps) + 1


def swapped(problem: Problem) -> Problem:
    """Exchange signal and taps of a convolution, which is commutative: the result is the same."""
    start = problem.taps - 1 - problem.pad_left
    return problem._replace(samples=problem.taps, taps=problem.samples, pad_left=problem.samples - 1 - start)


def check_choice(function: str, argument: str, value: object, choices: tuple[str, ...]) -> None:
    """Refuse a string argument that is not one of `choices`."""
    if value not in choices:
        listed = ", ".join(repr(choice) for choice in choices)
        message = f"{function}: {argument} must be one of {listed}, got {value!r}"
        raise ArgumentError(message)


def integer(function: str, argument: str, value: Any, least: int) -> int:
    """Return an integer argument as Python's own; refuse smaller ones, and True and False, which count nothing."""
    try:
        number = least - 1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = least - 1
    if number < least:
        message = f"{function}: {argument} must be an integer >= {least}, got {value!r}"
        raise ArgumentError(message)
    return number


def check_array(function: str, argument: str, array: Any) -> None:
    """Refuse an array (anything with `shape` and `dtype`) that has no elements, or elements no kernel takes."""
    if 0 in array.shape:
        message = f"{function}: {argument} has shape {tuple(array.shape)}, but at least one element is expected"
        raise ShapeError(message)
    check_dtype(function, argument, array.dtype)


def check_dtype(function: str, argument: str, dtype: Any) -> None:
    """Refuse an element type that no kernel takes."""
    if dtype not in _served and dtype.name not in KERNEL_DTYPES and dtype.name not in COMPOSED_DTYPES:
        served = ", ".join((*KERNEL_DTYPES, *COMPOSED_DTYPES))
        message = f"{function}: {argument} has elements of type {dtype.name}; expected one of {served}"
        raise DtypeError(message)


def check_batch_shapes(function: str, shape1: tuple[int, ...], shape2: tuple[int, ...]) -> None:
    """Refuse shapes that do not broadcast before the last axis."""
    try:
        np.broadcast_shapes(shape1[:-1], shape2[:-1])
    except ValueError:
        message = (
            f"{function}: in1 and in2 have shapes {shape1} and {shape2} with the convolved axis moved to the end; "
            "before it they must be equal or 1"
        )
        raise ShapeError(message) from None


def normalized_axis(function: str, axis: int, rank: int) -> int:
    """Count an axis from the front; refuse one that is not there."""
    try:
        position = operator.index(axis)
    except TypeError:
        position = rank
    if not -rank <= position < rank:
        message = (
            f"{function}: axis must be an integer from {-rank} to {rank - 1} for arrays of rank {rank}, got {axis!r}"
        )
        raise ArgumentError(message)
    return position % rank


def kernel_dtype(dtype: Any) -> str:
    """Name the kernels that serve an element type: one that `check_array` let pass, of NumPy or of MAX."""
    name = _served.get(dtype)
    if name is None:
        name = _served[dtype] = KERNEL_DTYPES[dtype.name]
    return name
