"""The ops themselves, called through `ops.custom` in graphs of our own: what a MAX user does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import ml_dtypes
import numpy as np
from max.driver import CPU, Accelerator, Buffer
from max.dtype import DType
from max.engine import InferenceSession
from max.graph import DeviceRef, Graph, KernelLibrary, Module, TensorType, TensorValue, ops
from max.nn import Module as Layers

import maxconv
import maxconv.graph
import maxconv.nn
from maxconv._engine import toolchain

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

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


#: Inputs of graph "layers": dtype, shape.
LAYER_INPUTS = {
    "x": ("float32", ("n", 6, "l")),
    "w": ("float32", (8, 3, 5)),
    "b": ("float32", (8,)),
    "transposed_w": ("float32", (6, 2, "k")),
    "causal_w": ("float32", (6, 4)),
    "state": ("float32", ("n", 6, 3)),
    "seq_idx": ("int32", ("n", "l")),
    "symbolic_x": ("bfloat16", ("m", "c", "i")),
    "symbolic_w": ("bfloat16", ("o", "g", "j")),
    "rows": ("float32", (5, "r")),
    "row_w": ("float32", (10, 1, "q")),
    "token": ("bfloat16", (6, "t")),
    "before": ("bfloat16", (6, 3)),
    "long_w": ("bfloat16", (6, 40)),
    "fast_w": ("bfloat16", (6, 1, 40)),
    "static_x": ("float32", (2, 7, 50)),
    "static_w": ("float32", (4, 7, 9)),
    "static_y": ("float32", (4, 6)),
}


def apply_layers(library: Any, **arrays: Any) -> dict[str, Any]:
    """Apply `maxconv.graph` to values, or `maxconv` to arrays: the layers of graph "layers", activations apart."""
    x, w, b, state, causal_w = (arrays[name] for name in ("x", "w", "b", "state", "causal_w"))
    causal, causal_state = library.causal_conv1d(
        x, causal_w, activation="silu", initial_state=state, return_final_state=True
    )
    first, first_state = library.causal_conv1d(arrays["token"], causal_w, return_final_state=True)
    token, token_state = library.causal_conv1d(
        arrays["token"], causal_w, initial_state=arrays["before"], return_final_state=True
    )
    return {
        "conv": library.conv1d(x, w, b, 3, (4, 1), 2, 2),
        "symbolic": library.conv1d(arrays["symbolic_x"], arrays["symbolic_w"], None, 1, "same", 3, 2),
        "rows": library.conv1d(arrays["rows"], arrays["row_w"], padding="same", groups=5),
        "static": library.conv1d(arrays["static_x"], arrays["static_w"], stride=4, padding=2),
        "transposed": library.conv_transpose1d(x, arrays["transposed_w"], None, 3, 1, 2, 2),
        "static_transposed": library.conv_transpose1d(arrays["static_y"], arrays["static_w"], stride=3, dilation=2),
        "causal": causal,
        "causal_state": causal_state,
        "packed": library.causal_conv1d(x, causal_w, activation="gelu", seq_idx=arrays["seq_idx"]),
        "first": first,
        "first_state": first_state,
        "token": token,
        "token_state": token_state,
        "fast": library.conv1d(arrays["token"], arrays["fast_w"], padding=(39, 0), groups=6, precision="fast"),
        "fast_causal": library.causal_conv1d(arrays["token"], arrays["long_w"], activation="relu", precision="fast"),
    }


class Net(Layers):
    """One module of each kind."""

    def __init__(self, place: DeviceRef) -> None:
        """Make the layers; their weights come from a state dict."""
        super().__init__()
        self.stem = maxconv.nn.Conv1d(6, 8, (5,), stride=2, padding=3, groups=2, device=place, activation="relu")
        self.up = maxconv.nn.ConvTranspose1d(8, 4, 4, 2, 1, 1, 2, bias=False, device=place)
        self.mix = maxconv.nn.CausalConv1d(4, 4, device=place, activation="silu")

    def __call__(self, x: TensorValue) -> TensorValue:
        """Apply one after the other."""
        return self.mix(self.up(self.stem(x)))


#: The state dict of `Net` in PyTorch's layout.
NET_SHAPES = {
    "stem.weight": (8, 3, 5),
    "stem.bias": (8,),
    "up.weight": (8, 2, 4),
    "mix.weight": (4, 1, 4),
    "mix.bias": (4,),
}


class Ops(NamedTuple):
    """Compiled graphs, and how to run one on NumPy arrays."""

    models: dict[str, Any]
    device: Any
    net_state: dict[str, np.ndarray]

    def run(self, name: str, *vectors: np.ndarray) -> np.ndarray:
        """Copy to the device, execute, copy back."""
        (result,) = self.run_all(name, *vectors)
        return result

    def run_all(self, name: str, *arrays: np.ndarray) -> list[np.ndarray]:
        """Do the same with a graph of several outputs, of any types."""
        inputs = [
            Buffer.from_numpy(array.view(f"u{array.itemsize}")).view(DType[array.dtype.name]).to(self.device)
            for array in arrays
        ]
        return [_to_numpy(result) for result in self.models[name].execute(*inputs)]


def _to_numpy(result: Buffer) -> np.ndarray:
    name = result.dtype.name
    dtype = np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)
    return result.to(CPU()).view(DType[f"uint{8 * dtype.itemsize}"]).to_numpy().view(dtype)


def _add_layers(
    library: KernelLibrary, module: Module, place: DeviceRef, state: dict[str, np.ndarray]
) -> dict[str, Any]:
    """Add graph "layers"; fill `state` with random weights of its modules and return them under the graph's names."""
    net, rng = Net(place), np.random.default_rng()
    state.update({name: rng.standard_normal(shape).astype(np.float32) for name, shape in NET_SHAPES.items()})
    net.load_state_dict(state)
    types = [TensorType(DType[dtype], shape, place) for dtype, shape in LAYER_INPUTS.values()]
    with Graph("layers", input_types=types, kernel_library=library, module=module) as graph:
        values = dict(zip(LAYER_INPUTS, graph.inputs, strict=True))
        graph.output(*apply_layers(maxconv.graph, **values).values(), net(values["x"]))
    return net.state_dict()


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

    state: dict[str, np.ndarray] = {}
    weights = _add_layers(library, module, place, state)

    handle = CPU() if device == "cpu" else Accelerator()
    session = InferenceSession(devices=[handle])
    compiled = session.compile(module, custom_extensions=library.library_paths())
    return Ops(session.init_all(compiled, weights_registry=weights), handle, state)
