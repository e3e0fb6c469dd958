"""Every refusal names the argument, what was expected and what came, before anything is compiled or launched."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import maxconv
from maxconv import ArgumentError, DeviceError, DtypeError, MaxconvError, ShapeError
from maxconv._engine import devices, native

ONES = np.ones(5)

BAD_CALLS = [
    (
        (ONES, np.ones((2, 3))),
        {},
        ShapeError,
        ValueError,
        "in1 has rank 1, but in2 has rank 2; expected the same rank, or 1",
    ),
    ((ONES, 3.0), {}, ShapeError, ValueError, "in1 has rank 1, but in2 has rank 0"),
    ((3.0, ONES), {}, ShapeError, ValueError, "in1 has rank 0, but in2 has rank 1"),
    (
        (np.ones((2, 3)), np.ones((3, 3))),
        {},
        ShapeError,
        ValueError,
        r"shapes \(2, 3\) and \(3, 3\) with the convolved axis",
    ),
    (([], ONES), {}, ShapeError, ValueError, r"in1 has shape \(0,\), but at least one element is expected"),
    ((ONES, np.empty(0)), {}, ShapeError, ValueError, r"in2 has shape \(0,\), but at least one element is expected"),
    ((np.empty((0, 5)), ONES), {}, ShapeError, ValueError, r"in1 has shape \(0, 5\), but at least one element"),
    (([[1, 2], [3]], ONES), {}, ShapeError, ValueError, "in1 is not an array of numbers"),
    ((np.array(["a"]), ONES), {}, DtypeError, TypeError, "in1 has elements of type str.*expected one of float16"),
    ((ONES, np.array([None])), {}, DtypeError, TypeError, "in2 has elements of type object.*expected one of float16"),
    ((np.ones(3, "M8[s]"), ONES), {}, DtypeError, TypeError, r"in1 has elements of type datetime64"),
    ((np.ones(3, np.longdouble), ONES), {}, DtypeError, TypeError, "in1 has elements of type (longdouble|float128)"),
    ((ONES, ONES, "ful"), {}, ArgumentError, ValueError, "mode must be one of 'full', 'same', 'valid', got 'ful'"),
    ((ONES, ONES, 3), {}, ArgumentError, ValueError, "mode must be one of 'full', 'same', 'valid', got 3"),
    ((ONES, ONES, []), {}, ArgumentError, ValueError, r"mode must be one of 'full', 'same', 'valid', got \[\]"),
    ((ONES, ONES, "full", "magic"), {}, ArgumentError, ValueError, "method must be one of 'auto', .*got 'magic'"),
    ((ONES, ONES), {"axis": 1}, ArgumentError, ValueError, "axis must be an integer from -1 to 0 .*, got 1"),
    (
        (np.ones((2, 2)), ONES),
        {"axis": -3},
        ArgumentError,
        ValueError,
        "axis must be an integer from -2 to 1 .*, got -3",
    ),
    ((np.ones((2, 2)), ONES), {"axis": 0.5}, ArgumentError, ValueError, "axis must be an integer .*, got 0.5"),
    (
        (ONES, ONES),
        {"device": "tpu"},
        ArgumentError,
        ValueError,
        'device must be "cpu", "gpu", "gpu:<id>" or "auto", got',
    ),
    ((ONES, ONES), {"device": "gpu:x"}, ArgumentError, ValueError, "got 'gpu:x'"),
    ((ONES, ONES), {"device": 0}, ArgumentError, ValueError, "got 0"),
]


@pytest.mark.parametrize("function", ["convolve", "correlate"])
@pytest.mark.parametrize(("arguments", "options", "kind", "builtin", "text"), BAD_CALLS)
def test_bad_input_is_refused_in_words(monkeypatch, function, arguments, options, kind, builtin, text):
    """Each kind of bad input raises its own error, which is also Python's usual one; no kernel is looked for."""
    monkeypatch.setattr(native, "_extension", lambda _: pytest.fail("a kernel was loaded before validation"))
    with pytest.raises(kind, match=f"^{function}: .*{text}") as caught:
        getattr(maxconv, function)(*arguments, **options)
    assert isinstance(caught.value, builtin)
    assert isinstance(caught.value, MaxconvError)


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    """The error says what was asked for, what is there, and how to see it."""
    monkeypatch.setattr(devices, "accelerator_count", lambda: 0)
    with pytest.raises(DeviceError, match="gpu:0 was asked for, but MAX finds no accelerator; `maxconv info` shows"):
        maxconv.convolve(ONES, ONES, device="gpu")
    monkeypatch.setattr(devices, "accelerator_count", lambda: 2)
    with pytest.raises(DeviceError, match="gpu:7 was asked for, but MAX finds 2 accelerators"):
        maxconv.convolve(ONES, ONES, device="gpu:7")


@pytest.fixture
def default_device(monkeypatch):
    """Forget whatever default a test sets."""
    monkeypatch.setattr(devices, "default", None)


@pytest.mark.usefixtures("default_device")
def test_the_default_device_follows_function_then_environment(monkeypatch):
    """`set_default_device` wins over MAXCONV_DEVICE, which wins over the CPU; nonsense in either is refused."""
    monkeypatch.setenv("MAXCONV_DEVICE", "auto")
    assert maxconv.get_default_device() == "auto"
    np.testing.assert_array_equal([1, 2, 1], maxconv.convolve([1, 1], [1, 1]))
    maxconv.set_default_device("cpu")
    assert maxconv.get_default_device() == "cpu"
    monkeypatch.delenv("MAXCONV_DEVICE")
    maxconv.set_default_device(None)
    assert maxconv.get_default_device() == "cpu"
    with pytest.raises(ArgumentError, match="set_default_device: device must be"):
        maxconv.set_default_device("quantum")
    assert maxconv.get_default_device() == "cpu"


@pytest.mark.usefixtures("default_device")
def test_nonsense_in_the_environment_is_refused(monkeypatch):
    """A wrong MAXCONV_DEVICE is named as such by the first call that needs it."""
    monkeypatch.setenv("MAXCONV_DEVICE", "quantum")
    with pytest.raises(ArgumentError, match="MAXCONV_DEVICE must be"):
        maxconv.convolve(ONES, ONES)


def test_a_failed_call_leaves_inputs_and_later_calls_as_they_were(rng):
    """After an error the operands are unchanged and the next call is right."""
    x = rng.standard_normal(20)
    before = x.copy()
    with pytest.raises(ShapeError):
        maxconv.convolve(x, [])
    np.testing.assert_array_equal(before, x)
    np.testing.assert_array_equal(x, maxconv.convolve(x, [1.0]))


@pytest.mark.parametrize("kind", [ShapeError, ArgumentError, DtypeError, DeviceError, maxconv.CompileError])
def test_errors_survive_pickling(kind):
    """An error reaches the parent of a worker process with type and text intact."""
    copy = pickle.loads(pickle.dumps(kind("convolve: text")))  # noqa: S301  # our own bytes
    assert type(copy) is kind
    assert str(copy) == "convolve: text"


def test_device_memory_that_runs_out_is_a_memory_error(monkeypatch):
    """MAX's page of allocator text becomes a `MemoryError` that says how much was asked for."""
    from maxconv import _engine

    def refuse(*_):
        message = "Memory manager cannot satisfy allocation of many bytes, details follow ..."
        raise ValueError(message)

    class Handle:
        api = "cuda"

    monkeypatch.setattr(devices, "accelerator_count", lambda: 1)
    monkeypatch.setattr(devices, "handle", lambda _: Handle())
    monkeypatch.setattr(_engine, "upload", refuse)
    with pytest.raises(MemoryError, match="gpu:0 has not enough free memory for 19 elements of float64"):
        maxconv.convolve(ONES, ONES, device="gpu")


def test_types_without_a_common_type_are_refused():
    """Where NumPy has no promotion, both types and both arguments are named."""
    import ml_dtypes

    with pytest.raises(DtypeError, match=r"convolve: NumPy knows no common type of bfloat16 \(in1\) and int32 \(in2\)"):
        maxconv.convolve(np.ones(3, ml_dtypes.bfloat16), np.ones(2, np.int32))
