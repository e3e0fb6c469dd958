"""The native way: Mojo-built CPython extensions that run the kernels on raw addresses; MAX is not loaded.

One extension per kind of device: `cpu`, built for this machine's CPU level, and `gpu`, built as PTX that every NVIDIA
GPU from a family on compiles for itself on loading. The kernels of neural layers are in two more, `cpu_layers` and
`gpu_layers`. Each is built on first use and cached.

Measured (2026-11-22, AMD EPYC with AVX-512): loading from the cache 0.15 s; a call of 1000 x 16 float32 1.0 us, against
24 us for `numpy.convolve`.
"""

from __future__ import annotations

import ctypes
import math
import os
import sys
import sysconfig
import threading
from functools import lru_cache
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_loader
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _ops_path
from .._errors import CompileError
from .._problem import BORDERS, KERNEL_DTYPES, kernel_dtype
from . import cache as disk
from . import devices, toolchain

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import ModuleType

    from .._layer import LayerProblem
    from .._problem import Problem

#: The extensions, and the seconds that two cores of an AMD EPYC take to build them (`maxconv compile`, 2026-11-23).
KINDS = {"cpu": 25, "cpu_layers": 17, "gpu": 35, "gpu_fft": 35, "gpu_layers": 28}

#: The NVIDIA families, by compute capability, that each extension is built for, the newest first: a GPU takes the first
#: that is not newer than itself. From Ampere on resampling copies asynchronously, and layers multiply with its tensor
#: cores; builds of the FFTs for later families differ in nothing but name.
GPU_FAMILIES = {"gpu": (80, 75), "gpu_fft": (80, 75), "gpu_layers": (80,)}

_DIRECT = {name: f"direct_{name}" for name in set(KERNEL_DTYPES.values())}
"""Names of the direct kernels: making one takes 0.1 us."""

_RUNTIME_LIBRARIES = ("libKGENCompilerRTShared", "libAsyncRTMojoBindings")

_LARGEST_KEPT_FILTER = 1 << 20
"""Bytes of taps up to which their spectrum is kept: 16 of them then hold 100 MB at most."""


class _Functions(dict[str, Any]):
    """The functions of an extension by name; the first one that is asked for loads it."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self._kind = kind

    def __missing__(self, name: str) -> Any:
        found = _find_functions(self._kind)
        self.update(found)
        return found[name]


_loading = threading.Lock()
_extensions: dict[str, ModuleType] = {}
_cpu_functions = _Functions("cpu")
_layer_functions = _Functions("cpu_layers")
_gpu_layer_functions = _Functions("gpu_layers")

workers = 0
"""Threads of a kernel at most. 0: as many as the work is worth; 1 in a process forked from one that had loaded a CPU
extension: the threads of its pool are not here."""


def loaded_vector_kernels() -> dict[np.dtype, Any]:
    """Return the kernels of vectors by NumPy's own element types; none as long as the extension is not loaded."""
    names = {name: f"vectors_{kernel}" for name, kernel in KERNEL_DTYPES.items() if name != "bfloat16"}
    return {np.dtype(name): _cpu_functions[kernel] for name, kernel in names.items() if _cpu_functions}


def run_on_cpu(problem: Problem, dtype: str, y: np.ndarray, x: np.ndarray, k: np.ndarray) -> None:
    """Fill `y`. All three are contiguous, aligned, of rank 1 or (rows, length), of types the `dtype` kernels take."""
    if problem.border == "omit":
        kernel = _cpu_functions[_DIRECT[dtype]]
        kernel(y, x, k, problem.pad_left, problem.flip, workers)
        return
    sizes = problem.pad_left, problem.flip, *_border(problem)
    _cpu_functions[f"direct_with_border_{dtype}"](y, x, k, sizes, workers)


def columns_on_cpu(problem: Problem, dtype: str, y: np.ndarray, x: np.ndarray, k: np.ndarray, inner: int) -> None:
    """Fill `y` (outer, L_out, inner) by sums down columns. All three are contiguous, aligned, of any rank."""
    _cpu_functions[f"columns_{dtype}"](y, x, k, _column_sizes(problem, inner, k), _border(problem), workers)


def _column_sizes(problem: Problem, inner: int, k: Any) -> tuple[int, ...]:
    """Return (N, K, L_out, pad_left, flip, outer, inner, per_column), as the column kernels take them."""
    sizes = problem.samples, problem.taps, problem.outputs, problem.pad_left, int(problem.flip), problem.rows, inner
    return (*sizes, int(math.prod(k.shape) > problem.taps))


def overlap_save_on_cpu(problem: Problem, y: np.ndarray, x: np.ndarray, k: np.ndarray, nfft: int) -> None:
    """Fill `y` by overlap-save with blocks of `nfft`; all three are contiguous and float32, or all float64."""
    dtype = kernel_dtype(x.dtype)
    if k.nbytes <= _LARGEST_KEPT_FILTER:
        plan = _plan(k.tobytes(), k.shape, dtype, problem.flip, nfft)
    else:
        plan = _prepared(k, problem.flip, nfft)
    sizes = problem.taps, problem.tap_rows, problem.pad_left, nfft, *_border(problem)
    _cpu_functions[f"overlap_save_{dtype}"](y, x, plan, sizes, workers)


@lru_cache(maxsize=16)
def _plan(content: bytes, shape: tuple[int, ...], dtype: str, flip: bool, nfft: int) -> np.ndarray:
    """Return twiddles and spectra of taps, kept for filters that come again."""
    return _prepared(np.frombuffer(content, dtype).reshape(shape), flip, nfft)


def _prepared(k: np.ndarray, flip: bool, nfft: int) -> np.ndarray:
    """Return twiddles and spectra of taps (K) or (tap_rows, K)."""
    dtype, rows = kernel_dtype(k.dtype), k.shape[0] if k.ndim > 1 else 1
    plan = np.empty(rows * _cpu_functions[f"plan_length_{dtype}"](nfft), dtype)
    _cpu_functions[f"prepare_{dtype}"](plan, k, int(flip), nfft, workers)
    return plan


def resample_on_cpu(
    y: np.ndarray, x: np.ndarray, h: np.ndarray, rates: tuple[int, int], start: int, beyond: tuple[int, float]
) -> None:
    """Fill `y` (rows, outputs) from `x` (rows, N) and taps `h` (K), contiguous and of one type, float32 or float64.

    `rates` are (up, down), `beyond` is (mode, value) of `_ops/shared/extension.mojo`.
    """
    _cpu_functions[f"polyphase_{x.dtype.name}"](y, x, h, rates, start, beyond, workers)


def _border(problem: Problem) -> tuple[int, float]:
    """Return a border as the extensions read it: the number of its mode, and the constant."""
    return BORDERS.index(problem.border), problem.cval


def run_layer_on_cpu(function: str, arrays: tuple[Any, ...], problem: LayerProblem, *options: int) -> None:
    """Fill the first of the arrays, or addresses, by a function of cpu_layers.mojo; what each expects stands there."""
    _layer_functions[function](arrays, problem, *options, workers)


def layer_kernel_on_gpu(function: str) -> Callable[[Any, tuple[int, ...], Any], None]:
    """Return a function of gpu_layers.mojo, which enqueues (queue, addresses, layer) and fills the first address."""
    kernel: Callable[[Any, tuple[int, ...], Any], None] = _gpu_layer_functions[function]
    return kernel


@lru_cache(maxsize=256)
def queue_on_gpu(context: int, stream: int = 0) -> Any:
    """Return what layers are enqueued on: a device's context pointer and the handle of a stream, 0 for MAX's own."""
    return _gpu_layer_functions["open_queue"](context, stream)


@lru_cache(maxsize=1024)
def layer_on_gpu(problem: LayerProblem, activation: int = 0, is_ordered: int = 0) -> Any:
    """Return a layer as gpu_layers.mojo takes it; `is_ordered`: 1 where pieces must have the bits of the whole."""
    return _gpu_layer_functions["open_layer"](problem, activation, is_ordered)


@lru_cache(maxsize=1024)
def gradient_workspace(function: str, problem: LayerProblem) -> int:
    """Count the bytes of the last array that a weight gradient of gpu_layers.mojo takes."""
    size: int = _gpu_layer_functions[f"workspace_of_{function}"](layer_on_gpu(problem))
    return size


def run_on_gpu(problem: Problem, dtype: str, context: int, y: int, x: int, k: int) -> None:
    """Enqueue the computation of `y`; arrays are device addresses, `context` is the device's context pointer."""
    kernel, words = prepared_on_gpu(problem, dtype)
    kernel(context, y, x, k, words.ctypes.data)


@lru_cache(maxsize=1024)
def prepared_on_gpu(problem: Problem, dtype: str) -> tuple[Callable[..., None], np.ndarray]:
    """Return what computes a problem from (context, addresses of y, x and k, address of words), and the words."""
    mode, cval = _border(problem)
    sizes = problem.samples, problem.taps, problem.outputs, problem.pad_left, problem.flip, problem.rows
    words = np.array([*sizes, problem.tap_rows, mode, 0])
    words[-1:] = np.array([cval], np.int64 if "int" in dtype else np.float64).view(np.int64)
    return getattr(_extension("gpu"), f"direct_{dtype}"), words


def copy_columns_on_gpu(itemsize: int, context: int, addresses: tuple[int, int], sizes: tuple[int, ...]) -> None:
    """Enqueue a copy; `addresses` are (y, x), `sizes` (rows, count, row stride of y, row stride of x) in elements."""
    getattr(_extension("gpu"), f"copy_columns_{itemsize}")(context, addresses, sizes)


def upload(context: int, there: int, here: int, size: int) -> None:
    """Enqueue the copy of `size` bytes to a device."""
    _extension("gpu").upload(context, there, here, size)


def download(context: int, here: int, there: int, size: int) -> None:
    """Enqueue the copy of `size` bytes from a device."""
    _extension("gpu").download(context, here, there, size)


def wait(context: int) -> None:
    """Wait for everything that was enqueued."""
    _extension("gpu").wait(context)


def gpu_fft_plan_length(nfft: int, tap_rows: int) -> int:
    """Count the elements of a plan for `tap_rows` filters: float64 for float64 arrays, else float32."""
    length: int = _extension("gpu_fft").plan_length(nfft, tap_rows)
    return length


def prepare_fft_on_gpu(dtype: str, context: int, arrays: tuple[int, ...], sizes: tuple[int, ...]) -> None:
    """Enqueue the computation of a plan; `arrays` are (plan, workspace, k), `sizes` (K, tap_rows, flip, nfft)."""
    getattr(_extension("gpu_fft"), f"prepare_{dtype}")(context, arrays, sizes)


def overlap_save_on_gpu(
    problem: Problem, dtype: str, context: int, arrays: tuple[int, ...], nfft: int, matrices: int
) -> None:
    """Enqueue overlap-save; `arrays` are (y, x, plan, workspace), the last of `matrices` matrices."""
    sizes = problem.samples, problem.taps, problem.outputs, problem.pad_left, problem.rows, problem.tap_rows
    kernel = getattr(_extension("gpu_fft"), f"overlap_save_{dtype}")
    kernel(context, arrays, (*sizes, nfft, matrices), _border(problem))


def overlap_save_rows_on_gpu(
    problem: Problem, dtype: str, context: int, arrays: tuple[int, ...], *, is_fast: bool
) -> None:
    """Enqueue the FFTs of whole rows; `arrays` are (y, x, k, bias or 0, workspace)."""
    sizes = *_row_sizes(problem), int(is_fast)
    getattr(_extension("gpu_fft"), f"overlap_save_rows_{dtype}")(context, arrays, sizes)


def rows_workspace_on_gpu(problem: Problem, dtype: str) -> int:
    """Count the elements of the workspace that whole rows need: float64 for float64 arrays, else float32."""
    length: int = getattr(_extension("gpu_fft"), f"rows_workspace_{dtype}")(_row_sizes(problem))
    return length


def _row_sizes(problem: Problem) -> tuple[int, ...]:
    sizes = problem.samples, problem.taps, problem.outputs, problem.pad_left, problem.rows, problem.tap_rows
    return *sizes, int(problem.flip)


def resample_on_gpu(
    dtype: str, context: int, addresses: tuple[int, int, int], sizes: tuple[int, ...], beyond: tuple[int, float]
) -> None:
    """Enqueue the resampling of rows.

    `addresses` are those of y, x and h, `sizes` are (N, K, up, down, start, L_out, rows); `dtype` is float32 or
    float64, `beyond` as for `resample_on_cpu`.
    """
    getattr(_extension("gpu"), f"polyphase_{dtype}")(context, addresses, sizes, beyond)


def cast_on_gpu(source: str, target: str, context: int, addresses: tuple[int, int], count: int) -> None:
    """Enqueue the conversion of `count` elements; `addresses` are those of y and x, `target` float32 or float64."""
    getattr(_extension("gpu"), f"cast_{target}")(context, addresses, count, source)


def columns_on_gpu(problem: Problem, dtype: str, context: int, arrays: tuple[Any, Any, Any], inner: int) -> None:
    """Enqueue the computation of `y` (outer, L_out, inner); (y, x, k) are contiguous arrays on the device."""
    addresses = tuple(array._data_ptr() for array in arrays)  # noqa: SLF001  # MAX has no public name for addresses
    sizes = _column_sizes(problem, inner, arrays[2])
    getattr(_extension("gpu"), f"columns_{dtype}")(context, addresses, sizes, _border(problem))


def build(kind: str, target: Path, *, cpu_level: str | None = None, gpu: str | None = None) -> None:
    """Compile the extension `kind`, one of `KINDS`, to the file `target`."""
    accelerator = ["--target-accelerator", gpu or f"sm_{family(kind)}"] if kind in GPU_FAMILIES else []
    toolchain.run_mojo(
        "build",
        "--emit",
        "shared-lib",
        "--target-cpu",
        cpu_level or host_level(kind),
        *accelerator,
        "-I",
        str(_ops_path.kernels_path().parent),
        str(_ops_path.native_path() / f"{kind}.mojo"),
        "-o",
        str(target),
    )


def family(kind: str, capability: int | None = None) -> int:
    """Return which of its `GPU_FAMILIES` an extension is taken for, by default for the GPUs that are here."""
    families = GPU_FAMILIES[kind]
    here = devices.compute_capability() if capability is None else capability
    return next((number for number in families if number <= here), families[-1])


def entry_name(kind: str, level: str | None = None, capability: int | None = None) -> str:
    """Name the cache entry of an extension by everything its content depends on, by default for what is here.

    Python's version is not part of it: an extension finds Python's functions by name when it is loaded.
    """
    target = (level or host_level(kind)) + (f"-sm_{family(kind, capability)}" if kind in GPU_FAMILIES else "")
    mojo = toolchain.versions()["mojo"]
    return f"native-{kind}-{target}-{sysconfig.get_platform()}-mojo{mojo}-{_ops_path.source_hash()}.so"


def host_level(kind: str) -> str:
    """Name the processors that an extension is built for here; those for GPUs only start kernels: AVX2 will do."""
    level = toolchain.cpu_level()
    return "x86-64-v3" if kind in GPU_FAMILIES and level == "x86-64-v4" else level


def _extension(kind: str) -> ModuleType:
    """Return an extension, loading it on first use."""
    with _loading:
        if kind not in _extensions:
            _extensions[kind] = _load(kind)
        return _extensions[kind]


def built(kind: str, level: str | None = None, capability: int | None = None) -> Path:
    """Return the file of an extension, building it first if neither the package nor the cache has it.

    Parameters
    ----------
    kind
        One of `KINDS`.
    level
        Of processor, by default this one's.
    capability
        That the GPU has, by default the least of those that are here.
    """
    level = level or host_level(kind)
    gpu = f"sm_{family(kind, capability)}" if kind in GPU_FAMILIES else None
    note = f"building the native {kind} kernels for {gpu or level}, once, about {KINDS[kind]} s"
    return disk.entry(
        entry_name(kind, level, capability), lambda target: build(kind, target, cpu_level=level, gpu=gpu), note
    )


def _load(kind: str) -> ModuleType:
    path = built(kind)
    # The entry may have been built by another environment, whose libraries its run path names: those of this one
    # are loaded first, and the loader takes what is already there.
    os.putenv("MOJO_PYTHON_LIBRARY", _python_library())  # else Mojo asks the first python3 on the path, if there is one
    suffix = ".dylib" if sys.platform == "darwin" else ".so"
    for library in _RUNTIME_LIBRARIES:
        ctypes.CDLL(str(toolchain.library_folder() / (library + suffix)), mode=ctypes.RTLD_GLOBAL)
    name = f"{_ops_path.__package__}._native.{kind}"  # the loader enters it in sys.modules: not over a user's `cpu`
    loader = ExtensionFileLoader(name, str(path))
    spec = spec_from_loader(name, loader)
    assert spec is not None  # noqa: S101  # None only for loaders without `create_module`
    extension = module_from_spec(spec)
    loader.exec_module(extension)
    _restore_environment()
    return extension


def _python_library() -> str:
    """Return the file that holds this interpreter: its shared library, or itself where it has none."""
    folder, name = sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("LDLIBRARY")
    library = os.path.join(folder or "", name or "")  # noqa: PTH118  # `pathlib` takes longer, and a start counts
    return library if library.endswith((".so", ".dylib")) and os.path.isfile(library) else sys.executable  # noqa: PTH113


def _restore_environment() -> None:
    """Undo what Mojo's Python support does to the C environment, behind the back of `os.environ`.

    It sets PYTHONPATH and PYTHONEXECUTABLE for an interpreter of its own; every child process would inherit them and
    look for its modules in the wrong place.
    """
    for name in ("MOJO_PYTHON_LIBRARY", "PYTHONEXECUTABLE", "PYTHONHOME", "PYTHONPATH"):
        if (value := os.environ.get(name)) is None:
            os.unsetenv(name)
        else:
            os.putenv(name, value)


def _find_functions(kind: str) -> dict[str, Any]:
    """Load an extension, check that one for the CPU reads arrays right, and list its functions."""
    extension = _extension(kind)
    if kind.startswith("cpu"):
        probe = np.zeros((2, 3), dtype=np.uint8)
        located = extension.locate(probe)
        _restore_environment()  # the first call sets it, too
        if located != (probe.ctypes.data, 2, 3, probe.flags.num):
            message = f"NumPy {np.__version__} lays out its arrays in a way that the native extension does not know"
            raise CompileError(message)
    return {name: getattr(extension, name) for name in dir(extension) if not name.startswith("_")}


def _note_fork() -> None:
    global workers  # noqa: PLW0603  # a property of the process, which is what fork changes
    workers = 1 if _cpu_functions or _layer_functions else 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)
