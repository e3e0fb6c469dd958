"""Op conv1d, the seed, through `ops.custom`: with and without its compile-time sizes."""

from __future__ import annotations

import arrays
import ml_dtypes  # noqa: F401  # makes NumPy know bfloat16
import numpy as np
import pytest
import raw_ops
import reference
import tolerances


def check_seed(actual: np.ndarray, x: np.ndarray, k: np.ndarray) -> None:
    """Compare with the float64 or exact result of the seed's definition."""
    exact = reference.seed(x, k)
    if x.dtype in arrays.INTEGERS:
        np.testing.assert_array_equal(reference.wrap(exact, x.dtype), actual)
    else:
        magnitude = reference.seed(np.abs(x), np.abs(k))
        tolerances.assert_within_bound(actual, exact, magnitude, len(k))


def test_the_puzzles_numbers_come_out(ops_on_device):
    """15 samples and 4 taps give the numbers that the puzzle prints."""
    result = ops_on_device.run("seed_default_dtype", np.arange(15, dtype=np.float32), np.arange(4, dtype=np.float32))
    np.testing.assert_array_equal([14, 20, 26, 32, 38, 44, 50, 56, 62, 68, 74, 80, 41, 14, 0], result)


def test_every_small_pair_of_lengths_is_right(ops_on_device, rng):
    """One model with symbolic lengths is right for every n in 1..200 and m in 1..64."""
    x_all = arrays.random_array(rng, 200, np.dtype(np.float32))
    k_all = arrays.random_array(rng, 64, np.dtype(np.float32))
    for n in range(1, 201):
        for m in range(1, 65):
            x, k = x_all[:n], k_all[:m]
            check_seed(ops_on_device.run("seed_float32", x, k), x, k)


@pytest.mark.parametrize("m", [1, 2, 3, 1023, 4097])
def test_a_million_samples_are_right(ops_on_device, rng, m):
    """The same model is right for a million samples, for few taps and for thousands."""
    x = arrays.random_array(rng, 10**6, np.dtype(np.float32))
    k = arrays.random_array(rng, m, np.dtype(np.float32))
    check_seed(ops_on_device.run("seed_float32", x, k), x, k)


@pytest.mark.parametrize("dtype", raw_ops.SEED_DTYPES)
@pytest.mark.parametrize(("n", "m"), [(1, 1), (15, 4), (3, 7), (130, 40), (4099, 70)])
def test_every_dtype_is_right(ops_on_device, rng, dtype, n, m):
    """Each element type is right, kernels longer than the input included; integers wrap as NumPy's do."""
    x, k = (arrays.random_array(rng, length, np.dtype(dtype)) for length in (n, m))
    check_seed(ops_on_device.run(f"seed_{dtype}", x, k), x, k)


@pytest.mark.parametrize("index", range(len(raw_ops.STATIC_SIZES)))
def test_compile_time_sizes_are_right(ops_on_device, rng, index):
    """The op compiled for one pair of sizes is right for that pair."""
    n, m = raw_ops.STATIC_SIZES[index]
    dtype = np.dtype(raw_ops.SEED_DTYPES[index % len(raw_ops.SEED_DTYPES)])
    x, k = arrays.random_array(rng, n, dtype), arrays.random_array(rng, m, dtype)
    check_seed(ops_on_device.run(f"seed_{n}_{m}", x, k), x, k)


def test_a_length_that_contradicts_its_parameter_is_refused(ops_on_device):
    """A tensor of another length than `input_size` raises an error that names both."""
    with pytest.raises(ValueError, match="conv1d: input has 16 elements, but 15 were expected"):
        ops_on_device.run("seed_wrong_size", np.ones(16, np.float32), np.ones(4, np.float32))


def test_the_cpu_path_never_returns_zeros_in_silence(ops_on_device, rng):
    """The flaw of the original puzzle stays cured: no output element of an all-positive input is zero."""
    for n, m in [(15, 4), (1, 1), (31, 5), (1000, 3)]:
        result = ops_on_device.run("seed_float32", *(rng.uniform(1, 2, length).astype(np.float32) for length in (n, m)))
        assert np.all(result >= 1)
