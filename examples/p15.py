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


def build_model(device: Device) -> Model:
    """Describe the graph and compile it: two vectors in, one out, of lengths that are known when it runs."""
    place = DeviceRef.from_device(device)
    signal_type, kernel_type = (TensorType(DType.float32, (size,), place) for size in ("input_size", "conv_size"))
    # MAX compiles the Mojo sources in the folder of `custom_extensions`.
    with Graph("conv_1d_graph", input_types=[signal_type, kernel_type], custom_extensions=[kernels_path()]) as graph:
        (output,) = ops.custom(
            name="conv1d",  # the name under which the Mojo struct is registered
            device=place,
            values=graph.inputs,
            out_types=[signal_type],  # as long as the signal: the op reads zeros past its end
            parameters={"dtype": DType.float32},  # a compile-time parameter of the Mojo struct
        )
        graph.output(output)
    return InferenceSession(devices=[device]).load(graph)


def main() -> int:
    """Run the job; the exit status says whether Mojo and NumPy agree."""
    device = Accelerator() if accelerator_count() else CPU()
    signal, kernel = np.arange(15, dtype=np.float32), np.arange(4, dtype=np.float32)
    expected = np.convolve(signal, kernel[::-1])[3:]  # out[i] = sum_j signal[i + j] * kernel[j], zeros past the end
    print(f"Input array: {signal}")
    print(f"Convolution kernel: {kernel}")
    print(f"Expected result (NumPy calculation): {expected}")
    print("Compiling 1D convolution graph...")
    model = build_model(device)
    print("Executing 1D convolution...")
    (result_there,) = model.execute(*(Buffer.from_numpy(array).to(device) for array in (signal, kernel)))
    result = np.from_dlpack(result_there.to(CPU()))
    print(f"1D Convolution result (custom Mojo kernel): {result}")
    if not np.allclose(result, expected):
        print("Verification failed: Custom kernel results differ from NumPy calculation")
        return 1
    print("Verification passed: Custom kernel results match NumPy calculation")
    return 0


if __name__ == "__main__":
    sys.exit(main())
