"""Whatever NumPy can view or speaks DLPack is taken; the result is of the same kind; inputs never change."""

from __future__ import annotations

import arrays
import numpy as np
import pytest
from max.driver import Accelerator, Buffer

import maxconv
from maxconv import ArgumentError, DeviceError


def views(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Make arrays of 50 numbers in every layout that a kernel must not be handed as it is."""
    base = rng.standard_normal((100, 100))
    misaligned = np.frombuffer(b"\0" + rng.standard_normal(50).tobytes(), dtype=np.uint8)[1:].view(np.float64)
    read_only = rng.standard_normal(50)
    read_only.setflags(write=False)
    return {
        "read-only": read_only,
        "every second element": base[0, ::2],
        "negative stride": base[0, 49::-1],
        "column": base[:50, 3],
        "row of a Fortran array": np.asfortranarray(base)[3, :50],
        "broadcast": np.broadcast_to(np.float64(1.5), 50),
        "misaligned": misaligned,
        "other byte order": base[0, :50].astype(">f8"),
        "subclass": base[0, :50].view(np.recarray),
    }


@pytest.mark.parametrize("layout", views(np.random.default_rng()))
@pytest.mark.parametrize("position", [0, 1])
def test_every_memory_layout_gives_the_same_values(device, rng, layout, position):
    """Strided, reversed, misaligned, read-only and foreign-endian arrays are read right, as either operand."""
    view = views(rng)[layout]
    before = view.copy()
    other = rng.standard_normal(7)
    operands = (view, other) if position == 0 else (other, view)
    plain = tuple(np.array(operand, dtype=np.float64) for operand in operands)
    actual = maxconv.convolve(*operands, device=device)
    assert actual.dtype == np.float64
    assert actual.dtype.isnative
    np.testing.assert_array_equal(maxconv.convolve(*plain, device=device), actual)
    np.testing.assert_allclose(np.convolve(*plain), actual, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(before, view)


def test_inputs_are_never_modified(device, rng):
    """Both operands hold the same bytes after a call as before it."""
    x, k = rng.standard_normal(1000), rng.standard_normal(20)
    before = x.tobytes(), k.tobytes()
    maxconv.convolve(x, k, device=device)
    maxconv.correlate(x, k, device=device)
    assert before == (x.tobytes(), k.tobytes())


def test_the_result_is_a_new_writeable_contiguous_array(device):
    """The result shares no memory with the inputs and may be written to."""
    x = np.ones(10)
    result = maxconv.convolve(x, np.ones(1), device=device)
    assert type(result) is np.ndarray
    assert result.flags.writeable
    assert result.flags.c_contiguous
    assert not np.shares_memory(result, x)


class ForeignArray:
    """The least that an array of another library has: the DLPack protocol."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def __dlpack__(self, **arguments):
        """Export the memory."""
        return self.values.__dlpack__(**arguments)

    def __dlpack_device__(self):
        """Say where the memory is."""
        return self.values.__dlpack_device__()

    @classmethod
    def from_dlpack(cls, array):
        """Import another library's memory."""
        return cls(np.from_dlpack(array))


def test_another_librarys_host_array_comes_back_as_its_kind(rng):
    """An array known only by DLPack is read in place and the result is of its type."""
    x, k = rng.standard_normal(30), rng.standard_normal(4)
    result = maxconv.convolve(ForeignArray(x), ForeignArray(k))
    assert type(result) is ForeignArray
    np.testing.assert_array_equal(maxconv.convolve(x, k), result.values)


def test_each_array_is_taken_once(monkeypatch, rng):
    """A step of `causal_conv1d_update` imports each operand once; output and state are of their libraries."""
    imported, take = [], np.from_dlpack
    monkeypatch.setattr(np, "from_dlpack", lambda array: imported.append(type(array)) or take(array))
    x, state, w = rng.standard_normal((2, 3)), rng.standard_normal((2, 3, 3)), rng.standard_normal((3, 4))
    y, new_state = maxconv.causal_conv1d_update(ForeignArray(x), ForeignArray(state), w)
    assert imported.count(ForeignArray) == 2
    assert [type(y), type(new_state)] == [ForeignArray] * 2
    expected = maxconv.causal_conv1d_update(x, state, w)
    np.testing.assert_array_equal(expected[0], y.values)
    np.testing.assert_array_equal(expected[1], new_state.values)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16", "complex64", "int32", "bool"])
@pytest.mark.parametrize("library", ["torch", "jax"])
def test_host_tensors_come_back_as_tensors(rng, library, dtype):
    """PyTorch's and JAX's host arrays give their own kind, of the type and values that NumPy's arrays give."""
    module = pytest.importorskip(library)
    x, k = (arrays.random_array(rng, shape, np.dtype(dtype)) for shape in ((3, 300), 9))
    tensors = [as_tensor(module, array) for array in (x, k)]
    result = maxconv.convolve(*tensors, axis=-1)
    assert type(result) is type(tensors[0])
    assert result.dtype == tensors[0].dtype
    assert dtype in str(result.dtype)
    np.testing.assert_array_equal(
        maxconv.convolve(x, k, axis=-1).astype(complex), np.array(result.tolist(), dtype=complex)
    )


def as_tensor(module, array: np.ndarray):
    """Make another library's array of the same type."""
    if module.__name__ == "torch":
        return module.tensor(array.tolist(), dtype=getattr(module, array.dtype.name))
    module.config.update("jax_enable_x64", True)  # else float64 would become float32
    return module.numpy.asarray(array)


def test_max_buffers_come_back_as_buffers(device, rng):
    """`max.driver.Buffer` operands give a Buffer on their own device."""
    x, k = rng.standard_normal(5000), rng.standard_normal(40)
    handle = None if device == "cpu" else Accelerator()
    operands = [Buffer.from_numpy(array) if handle is None else Buffer.from_numpy(array).to(handle) for array in (x, k)]
    result = maxconv.correlate(*operands, mode="same", method="direct")
    assert isinstance(result, Buffer)
    assert result.device == operands[0].device
    expected = maxconv.correlate(x, k, mode="same", method="direct", device=device)
    np.testing.assert_array_equal(expected, result.to_numpy())


@pytest.mark.gpu
def test_cuda_tensors_come_back_as_cuda_tensors(rng):
    """PyTorch tensors on the GPU are computed there, after the work that makes them, and stay there."""
    torch = pytest.importorskip("torch")
    x, k = rng.standard_normal(100_000).astype(np.float32), rng.standard_normal(33).astype(np.float32)
    for _ in range(20):
        signal = torch.from_numpy(x).cuda() * 2
        result = maxconv.convolve(signal, torch.from_numpy(k).cuda()) / 2
        assert result.is_cuda
        np.testing.assert_allclose(maxconv.convolve(x, k), result.cpu().numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.gpu
def test_a_tensor_is_read_after_the_slow_work_that_makes_it():
    """On a side stream, behind a matrix product of many milliseconds, the values read are those that it leaves."""
    torch = pytest.importorskip("torch")
    side = torch.cuda.Stream()
    matrix = torch.randn(8192, 8192, device="cuda")
    taps = torch.ones(3, device="cuda")
    signal = torch.zeros(100_000, device="cuda")
    torch.cuda.synchronize()
    for value in range(1, 6):
        with torch.cuda.stream(side):
            for _ in range(5):
                torch.mm(matrix, matrix)
            signal.fill_(value)
            result = maxconv.convolve(signal, taps, mode="valid")
            assert torch.all(result == 3 * value)


@pytest.mark.gpu
def test_strided_cuda_tensors_are_right_and_strided_buffers_refused(rng):
    """A strided tensor is made contiguous by its own library; a strided Buffer, which MAX cannot copy, is refused."""
    torch = pytest.importorskip("torch")
    x, k = rng.standard_normal(1000), rng.standard_normal(9)
    result = maxconv.convolve(torch.from_numpy(x).cuda()[::3], torch.from_numpy(k).cuda())
    np.testing.assert_array_equal(maxconv.convolve(x[::3], k, device="gpu"), result.cpu().numpy())
    there = Buffer.from_numpy(x).to(Accelerator())
    with pytest.raises(ArgumentError, match="in1 is strided memory of an accelerator; expected contiguous"):
        maxconv.convolve(there[::3], Buffer.from_numpy(k).to(Accelerator()))


@pytest.mark.gpu
def test_operands_on_two_devices_are_refused(rng):
    """A host array with a device array is refused with both places named."""
    there = Buffer.from_numpy(rng.standard_normal(9)).to(Accelerator())
    with pytest.raises(DeviceError, match="convolve: in1 is on gpu:0, but in2 is on cpu"):
        maxconv.convolve(there, np.ones(3))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])  # Buffers of bfloat16 cannot be made from NumPy
def test_misaligned_device_addresses_are_right(rng, dtype):
    """A device array that begins at an odd element, its output misaligned with it, is computed right."""
    x, k = arrays.random_array(rng, 5001, dtype), arrays.random_array(rng, 19, dtype)
    there = Buffer.from_numpy(x).to(Accelerator())
    result = maxconv.convolve(there[1:], Buffer.from_numpy(k).to(Accelerator())).to_numpy()
    np.testing.assert_array_equal(maxconv.convolve(x[1:], k, device="gpu"), result)
