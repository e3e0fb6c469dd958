"""1-D convolution with a custom Mojo kernel, from NumPy to the device and back: every step in the open.

Run it with `uv run poe p15`. The kernels are maxconv's own: op "conv1d" in `maxconv.kernels_path()`.
"""

from __future__ import annotations

import sys

import numpy as np
from max.driver import CPU, Accelerator, Buffer, Device, accelerator_count
from max.dtype import DType
from max.engine import InferenceSession, Model
from max.graph import DeviceRef, Graph, TensorType, ops

from maxconv import kernels_path


def build_model(session: InferenceSession, device: Device) -> Model:
    """Describe the graph and compile it: two vectors in, one out, of lengths that are known when it runs."""
    place = DeviceRef.from_device(device)
    signal_type = TensorType(DType.float32, shape=("input_size",), device=place)
    kernel_type = TensorType(DType.float32, shape=("conv_size",), device=place)
    with Graph(
        "conv_1d_graph",
        input_types=[signal_type, kernel_type],
        custom_extensions=[kernels_path()],  # MAX compiles the Mojo sources in this folder
    ) as graph:
        signal, kernel = graph.inputs
        output = ops.custom(
            name="conv1d",  # the name under which the Mojo struct is registered
            device=place,
            values=[signal, kernel],
            out_types=[signal_type],  # as long as the signal: the op reads zeros past its end
            parameters={"dtype": DType.float32},  # a compile-time parameter of the Mojo struct
        )[0].tensor
        graph.output(output)
    print("Compiling 1D convolution graph...")
    return session.load(graph)


def convolve(model: Model, device: Device, signal: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Copy the arrays to the device, run the kernel there, copy the result back."""
    signal_there = Buffer.from_numpy(signal).to(device)
    kernel_there = Buffer.from_numpy(kernel).to(device)
    print("Executing 1D convolution...")
    (result,) = model.execute(signal_there, kernel_there)
    return np.from_dlpack(result.to(CPU()))


def expected_result(signal: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Compute the same sums with NumPy: out[i] = sum_j signal[i + j] * kernel[j], zeros past the end."""
    padded = np.concatenate([signal, np.zeros(len(kernel) - 1, signal.dtype)])
    return np.correlate(padded, kernel, mode="valid")


def main() -> int:
    """Run the job; the exit status says whether Mojo and NumPy agree."""
    device = Accelerator() if accelerator_count() else CPU()
    signal = np.arange(15, dtype=np.float32)
    kernel = np.arange(4, dtype=np.float32)
    expected = expected_result(signal, kernel)
    print(f"Input array: {signal}")
    print(f"Convolution kernel: {kernel}")
    print(f"Expected result (NumPy calculation): {expected}")
    model = build_model(InferenceSession(devices=[device]), device)
    result = convolve(model, device, signal, kernel)
    print(f"1D Convolution result (custom Mojo kernel): {result}")
    if not np.allclose(result, expected):
        print("Verification failed: Custom kernel results differ from NumPy calculation")
        return 1
    print("Verification passed: Custom kernel results match NumPy calculation")
    return 0


if __name__ == "__main__":
    sys.exit(main())
