"""The op of the tutorial: what MAX sees."""

import extensibility
from extensibility import InputTensor, OutputTensor
from max.gpu.host import DeviceContext
from std.math import ceildiv

from .kernels import TILE, conv1d_cpu, conv1d_gpu


# --8<-- [start:register]
@extensibility.register("tutorial_conv1d")
struct Conv1D:
    """Correlation with zeros past the end."""

    @staticmethod
    def execute[
        target: StaticString, dtype: DType, conv_size: Int
    ](
        output: OutputTensor[dtype=dtype, rank=1, ...],
        input: InputTensor[dtype=dtype, rank=1, ...],
        kernel: InputTensor[dtype=dtype, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        """Runs the op; MAX calls this.

        Parameters:
            target: "cpu" or "gpu", supplied by MAX.
            dtype: Element type of all three tensors.
            conv_size: Number of taps.

        Args:
            output: Result, as long as the input.
            input: Signal.
            kernel: Taps.
            ctx: The device and its queue.

        Raises:
            If a length is wrong, or the target is neither "cpu" nor "gpu".
        """
        var size = input.dim_size(0)
        if kernel.dim_size(0) != conv_size or output.dim_size(0) != size:
            raise Error("tutorial_conv1d: ", conv_size, " taps and an output of ", size, " elements are expected")
        var y, x, k = output.unsafe_ptr(), input.unsafe_ptr(), kernel.unsafe_ptr()
        comptime if target == "cpu":
            conv1d_cpu[dtype, conv_size](y, x, k, size)
        elif target == "gpu":
            comptime compute_tile = conv1d_gpu[dtype, conv_size]
            ctx.enqueue_function[compute_tile](
                y, x, k, Int32(size), grid_dim=max(1, ceildiv(size, TILE)), block_dim=TILE
            )
        else:
            raise Error("Unsupported target: ", target)


# --8<-- [end:register]
