"""Prints what the kernels take from the family of GPUs that this is built for; needs none."""

from _ops.shared.tuning_gpu import (
    DIRECT_SHORT_VECTORS,
    MULTIPROCESSORS,
    POLYPHASE_MOST_BLOCKS,
    POLYPHASE_WINDOW_STREAMS,
    fft_registers,
    has_async_copies,
    has_tensor_cores,
)


def main():
    """Prints it."""
    print(
        has_tensor_cores[DType.bfloat16](),
        has_tensor_cores[DType.float32](),
        has_async_copies(),
        MULTIPROCESSORS,
        DIRECT_SHORT_VECTORS[DType.float32, 16],
        fft_registers(2048),
        POLYPHASE_MOST_BLOCKS[DType.float32],
        POLYPHASE_WINDOW_STREAMS,
    )
