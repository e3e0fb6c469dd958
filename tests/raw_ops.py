"""The ops themselves, called through `ops.custom` in graphs of our own: what a MAX user does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from max.driver import CPU, Accelerator, Buffer
from max.dtype import DType
from max.engine import InferenceSession
from max.graph import DeviceRef, Graph, KernelLibrary, Module, TensorType, TensorValue, ops

import maxconv
import maxconv.graph
from maxconv._engine import toolchain

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np

SEED_DTYPES = ("float16", "bfloat16", "float32", "float64", "int32", "int64")

#: (input_size, conv_size) pairs compiled into the op, kernels longer than the input among them.
STATIC_SIZES = [
    (15, 4),
    (1, 1),
    (31, 5),
    (200, 64),
    (3, 7),
    (1, 2),
    (16, 16),
    (128, 1),
    (129, 33),
    (2048, 3),
    (2049, 300),
    (5000, 257),
]

#: Paddings of `maxconv.graph.conv1d`: name of the graph -> argument.
PADDINGS = {"valid": "valid", "same": "same", "none": 0, "both": 3, "uneven": (5, 2)}


class Ops(NamedTuple):
    """Compiled graphs, and how to run one on NumPy arrays."""

    models: dict[str, Any]
    device: Any

    def run(self, name: str, *vectors: np.ndarray) -> np.ndarray:
        """Copy to the device, execute, copy back."""
        dtype = vectors[0].dtype
        inputs = [
            Buffer.from_numpy(vector.view(f"u{dtype.itemsize}")).view(DType[dtype.name]).to(self.device)
            for vector in vectors
        ]
        (result,) = self.models[name].execute(*inputs)
        return result.to(CPU()).view(DType[f"uint{8 * dtype.itemsize}"]).to_numpy().view(dtype)


def compile_all(device: str, folder: Path) -> Ops:
    """Compile every graph of this file in one module, from a package made by `mojo precompile`."""
    package = folder / "maxconv.mojoc"
    toolchain.run_mojo("precompile", str(maxconv.kernels_path()), "-o", str(package))
    library = KernelLibrary()
    library.load_paths([package])
    place = DeviceRef.CPU() if device == "cpu" else DeviceRef.GPU()
    module = Module()

    def add(name: str, dtype: str, shapes: list[str | int], body: Callable[..., TensorValue]) -> None:
        types = [TensorType(DType[dtype], (shape,), place) for shape in shapes]
        with Graph(name, input_types=types, kernel_library=library, module=module) as graph:
            graph.output(body(*graph.inputs))

    def seed(parameters: dict[str, Any]) -> Callable[..., TensorValue]:
        def body(signal: TensorValue, kernel: TensorValue) -> TensorValue:
            kind = TensorType(signal.dtype, signal.shape, place)
            return ops.custom("conv1d", place, [signal, kernel], [kind], parameters=parameters)[0].tensor

        return body

    add("seed_default_dtype", "float32", ["n", "m"], seed({}))
    for dtype in SEED_DTYPES:
        add(f"seed_{dtype}", dtype, ["n", "m"], seed({"dtype": DType[dtype]}))
    for index, (n, m) in enumerate(STATIC_SIZES):
        dtype = SEED_DTYPES[index % len(SEED_DTYPES)]
        sizes = {"input_size": n, "conv_size": m, "dtype": DType[dtype]}
        add(f"seed_{n}_{m}", dtype, [n, m], seed(sizes))
    add("seed_wrong_size", "float32", ["n", "m"], seed({"input_size": 15, "conv_size": 4}))
    for name, padding in PADDINGS.items():
        add(f"conv1d_{name}", "float32", ["n", "k"], lambda x, w, p=padding: maxconv.graph.conv1d(x, w, padding=p))
    add("conv1d_static", "float64", [20, 6], lambda x, w: maxconv.graph.conv1d(x, w, padding=(1, 4)))

    handle = CPU() if device == "cpu" else Accelerator()
    session = InferenceSession(devices=[handle])
    compiled = session.compile(module, custom_extensions=library.library_paths())
    return Ops(session.init_all(compiled), handle)
