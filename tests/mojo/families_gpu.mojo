"""Prints what the kernels take from the family of GPUs that this is built for; needs none."""

from _ops.shared.tuning_gpu import MULTIPROCESSORS, has_tensor_cores


def main():
    """Prints it."""
    print(has_tensor_cores[DType.bfloat16](), has_tensor_cores[DType.float32](), MULTIPROCESSORS)
