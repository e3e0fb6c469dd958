"""Prints what the kernels take from the family of GPUs that this is built for; needs none."""

from _ops.shared.tuning_gpu import (
    MULTIPROCESSORS,
    POLYPHASE_MOST_BLOCKS,
    DirectShort,
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
        DirectShort[DType.float32, 16].VECTORS,
        fft_registers(2048),
        POLYPHASE_MOST_BLOCKS[DType.float32],
    )
