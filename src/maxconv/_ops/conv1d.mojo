"""Op "conv1d", the seed: correlation with zeros past the end, output as long as the input."""

import extensibility
from extensibility import InputTensor, OutputTensor
from max.gpu.host import DeviceContext

from .kernels.direct import direct
from .shared.geometry import Geometry

comptime RUN_TIME = -1
"""Value of a size parameter that was not given: the size is read from the tensor at run time."""


@extensibility.register("conv1d")
struct Conv1D:
    """`output[i] = sum_j input[i + j] * kernel[j]`, elements past the end counting as zero."""

    @staticmethod
    def execute[
        target: StaticString,
        input_size: Int = RUN_TIME,
        conv_size: Int = RUN_TIME,
        dtype: DType = .float32,
    ](
        output: OutputTensor[dtype=dtype, rank=1, ...],
        input: InputTensor[dtype=dtype, rank=1, ...],
        kernel: InputTensor[dtype=dtype, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        """Runs the op; MAX calls this.

        Parameters:
            target: "cpu" or "gpu", supplied by MAX.
            input_size: Length of input and output, if known when the graph is compiled.
            conv_size: Number of taps, if known when the graph is compiled.
            dtype: Element type of all three tensors.

        Args:
            output: Result, shape (input_size).
            input: Signal, shape (input_size).
            kernel: Taps, shape (conv_size).
            ctx: The device.

        Raises:
            If a tensor's length differs from its parameter, or the target is neither "cpu" nor "gpu".
        """
        require_length("input", input.dim_size(0), input_size)
        require_length("kernel", kernel.dim_size(0), conv_size)
        require_length("output", output.dim_size(0), input.dim_size(0))
        var geometry = Geometry(
            samples=input.dim_size(0) if input_size == RUN_TIME else input_size,
            taps=kernel.dim_size(0) if conv_size == RUN_TIME else conv_size,
            outputs=input.dim_size(0) if input_size == RUN_TIME else input_size,
            pad_left=0,
            flip=False,
            rows=1,
            tap_rows=1,
        )
        direct[target](output.unsafe_ptr(), input.unsafe_ptr(), kernel.unsafe_ptr(), geometry, ctx)


def require_length(tensor: StaticString, actual: Int, expected: Int) raises:
    """Checks a tensor's length against what the kernel will index by.

    Args:
        tensor: The tensor's name, for the message.
        actual: Its length.
        expected: The length it must have, or RUN_TIME for any.

    Raises:
        If they differ.
    """
    if expected != RUN_TIME and actual != expected:
        raise Error("conv1d: ", tensor, " has ", actual, " elements, but ", expected, " were expected")
