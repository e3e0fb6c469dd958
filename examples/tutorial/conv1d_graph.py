"""The op of the tutorial in MAX graphs, compiled into a file; conv1d.py runs it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from max.dtype import DType
from max.engine import InferenceSession
from max.graph import DeviceRef, Graph, KernelLibrary, Module, TensorType, ops

if TYPE_CHECKING:
    from max.driver import Device

OPS = Path(__file__).with_name("ops")
TAPS = 4


# --8<-- [start:graph]
def describe(name: str, length: int | str, place: DeviceRef, library: KernelLibrary, module: Module) -> None:
    """Add a graph of one op to a module; its input is `length` elements long, or any number if that is a name."""
    signal = TensorType(DType.float32, (length,), place)
    taps = TensorType(DType.float32, (TAPS,), place)
    with Graph(name, input_types=[signal, taps], kernel_library=library, module=module) as graph:
        (result,) = ops.custom(
            name="tutorial_conv1d",  # as in @extensibility.register
            device=place,
            values=graph.inputs,
            out_types=[signal],  # as long as the signal
            parameters={"dtype": DType.float32, "conv_size": TAPS},  # compile-time parameters of `execute`
        )
        graph.output(result)


# --8<-- [end:graph]


# --8<-- [start:compile]
def compile_to(path: Path, device: Device) -> None:
    """Compile both graphs at once, which costs what one costs, and keep the result in a file."""
    library, module = KernelLibrary(), Module()
    library.load_paths([OPS])  # the folder, or a .mojoc made of it
    place = DeviceRef.from_device(device)
    describe("fifteen", 15, place, library, module)
    describe("any_length", "n", place, library, module)
    session = InferenceSession(devices=[device])
    session.compile(module, custom_extensions=library.library_paths()).export_mef(str(path))


# --8<-- [end:compile]
