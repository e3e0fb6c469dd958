"""What people forget: light imports that run downwards, documented names, demos that print what they promise."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from mojo_jobs import PACKAGE, ROOT, Job, kernels_of

import maxconv
from maxconv import _plan
from maxconv._engine import spectra

if TYPE_CHECKING:
    from pathlib import Path

SEVEN_LINES = """\
Input array: [ 0.  1.  2.  3.  4.  5.  6.  7.  8.  9. 10. 11. 12. 13. 14.]
Convolution kernel: [0. 1. 2. 3.]
Expected result (NumPy calculation): [14. 20. 26. 32. 38. 44. 50. 56. 62. 68. 74. 80. 41. 14.  0.]
Compiling 1D convolution graph...
Executing 1D convolution...
1D Convolution result (custom Mojo kernel): [14. 20. 26. 32. 38. 44. 50. 56. 62. 68. 74. 80. 41. 14.  0.]
Verification passed: Custom kernel results match NumPy calculation
"""


def test_the_seed_job_prints_its_seven_lines():
    """`examples/p15.py` prints exactly the promised lines and exits with 0."""
    done = subprocess.run([sys.executable, ROOT / "examples/p15.py"], capture_output=True, text=True, check=False)
    assert done.stdout == SEVEN_LINES
    assert done.returncode == 0


def test_the_examples_are_short_texts():
    """Each script of examples/, the tutorial's included, stays under 60 lines."""
    for script in (ROOT / "examples").rglob("*.py"):
        assert len(script.read_text().splitlines()) < 60, script


def test_importing_maxconv_loads_nothing_heavy():
    """`import maxconv` and an eager call on the CPU load neither MAX nor any other array library."""
    heavy = {
        "max",
        "torch",
        "scipy",
        "dask",
        "distributed",
        "zarr",
        "typer",
        "rich",
        "soundfile",
        "ml_dtypes",
        "filelock",
        "matplotlib",
    }
    program = f"import sys, maxconv; maxconv.convolve([1.], [2.]); print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


#: module -> what it may import of the package, by first name; a door is a module without an underscore.
LAYERS = {
    "__init__": {
        "_engine",
        "_errors",
        "_ops_path",
        "graph",
        "multirate",
        "ndimage",
        "neural",
        "nn",
        "signal",
        "streaming",
    },
    "signal": {"_blocks", "_composed", "_engine", "_errors", "_methods", "_plan", "_problem", "_short"},
    "ndimage": {"_blocks", "_composed", "_engine", "_errors", "_methods", "_problem"},
    "multirate": {"_blocks", "_engine", "_errors", "_plan", "_polyphase", "_problem"},
    "neural": {"_blocks", "_engine", "_errors", "_layer", "_plan", "_problem"},
    "streaming": {"_composed", "_engine", "_errors", "_methods", "_problem"},
    "graph": {"_errors", "_layer", "_problem"},
    "nn": {"_errors", "_layer", "_problem", "graph"},
    "torch": {"_engine", "_errors", "_layer"},
    "dask": {"multirate", "ndimage", "neural", "signal"},
    "_blocks": {"_composed", "_engine", "_layer", "_methods", "_problem"},
    "plot": {"_bench", "_errors"},
    "cli": {
        "_bench",
        "_engine",
        "_errors",
        "_filtering",
        "_prebuild",
        "_raw",
        "_recording",
        "_zarr",
        "get_default_device",
        "plot",
    },
    "_bench": {"_engine", "_errors", "maxconv"},
    "_prebuild": {"_engine", "_errors"},
    "_raw": {"_errors", "_filtering", "_recording"},
    "_zarr": {"_errors", "_filtering", "_recording", "signal"},
    "_filtering": {"_engine", "_errors", "_methods", "_plan", "_problem", "_recording", "maxconv"},
    "_recording": {"_errors"},
    "_p15": {"kernels_path"},
    "_composed": set(),
    "_methods": {"_engine", "_errors", "_plan", "_problem"},
    "_short": {"_engine", "_methods", "_plan", "_problem"},
    "_polyphase": set(),
    "_plan": {"_layer", "_problem"},
    "_problem": {"_errors"},
    "_layer": {"_errors", "_problem"},
    "_ops_path": set(),
    "_errors": set(),
    "_engine": {"_errors", "_layer", "_ops_path", "_plan", "_problem", "graph"},
}


def imports_of(source: Path) -> set[str]:
    """List what a module imports of our own package, lazily or not."""
    found = set()
    package_depth = len(source.relative_to(PACKAGE).parts)
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == package_depth:
            found |= {node.module.partition(".")[0]} if node.module else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "maxconv"}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").split(".")[0] == "maxconv":
            parts = (node.module or "").split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
    return found


@pytest.mark.parametrize("source", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_run_downwards(source):
    """Each module imports only the rooms below it."""
    room = source.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert imports_of(source) <= LAYERS[room]


def test_only_the_engine_loads_max():
    """`max.engine` and `max.driver` are imported in the engine and in the teaching script alone."""
    users = {
        source.relative_to(PACKAGE).as_posix()
        for source in PACKAGE.rglob("*.py")
        if "max.engine" in source.read_text() or "max.driver" in source.read_text()
    }
    assert {name for name in users if not name.startswith("_engine/")} == {"_p15.py"}


def test_public_names_are_sorted_and_documented():
    """`__all__` is sorted, complete, and each name has a docstring."""
    assert maxconv.__all__ == sorted(maxconv.__all__)
    for name in maxconv.__all__:
        assert getattr(maxconv, name).__doc__, name
    public = {name for name in vars(maxconv) if not name.startswith("_")}
    doors = {"dask", "multirate", "ndimage", "neural", "plot", "signal", "streaming", "cli", "torch"}
    assert public - {"annotations", "Any", "TYPE_CHECKING"} - doors == set(maxconv.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'conv2d'"):
        _ = maxconv.conv2d


@pytest.mark.parametrize("name", ["convolve", "correlate"])
def test_docstrings_have_every_section(name):
    """Public functions state parameters, result, errors, cost, source and an example."""
    text = getattr(maxconv, name).__doc__
    for section in ("Parameters", "Returns", "Raises", "Notes", "Examples", "scipy.signal"):
        assert section in text


@pytest.mark.parametrize("job", [Job(source) for source in sorted(ROOT.glob("tests/mojo/test_*.mojo"))], ids=str)
def test_mojo_tests_pass(done, job):
    """The kernels called from Mojo keep the promises that the functions of these files state."""
    assert "PASS" in done(job)[0]


def test_types_of_extensions_have_a_module():
    """Python warns of a type without one, and an extension that makes it loads nowhere that warnings are errors."""
    sources = "".join(path.read_text() for path in (PACKAGE / "_native").glob("*.mojo"))
    names = re.findall(r'\.add_type\[.*\]\("(.*)"\)', sources)
    assert names
    assert all(name.startswith("maxconv.") for name in names)


@pytest.mark.parametrize("job", kernels_of(PACKAGE / "_native/gpu.mojo", ["sm_80"]), ids=str)
def test_gpu_kernels_compile_without_a_gpu(done, job):
    """Each type's kernels compile for Ampere, the build that newer GPUs take, with vector reads and no local memory."""
    kernels = done(job)
    for kernel in kernels:
        assert ".target sm_80" in kernel
        assert "__local_depot" not in kernel

    def of(algorithm: str) -> list[str]:
        return [kernel for kernel in kernels if re.search(rf"entry \w*_kernels_{algorithm}_gpu", kernel)]

    assert len(of("direct")) == 8  # one of each type
    assert all("ld.global.nc.v" in kernel and "bar.sync" in kernel for kernel in of("direct"))
    few_taps = of("direct_short")
    assert len(few_taps) == 4 * 3  # of floating-point types, with three numbers of places for taps
    assert all("cp.async.cg" in kernel and "st.global.v" in kernel for kernel in few_taps)
    # One filter, or for floating-point types one per column; in vectors or element by element.
    assert len(of("columns")) == 2 * (8 + 4)
    assert sum("ld.global.nc.v" in kernel and "st.global.v" in kernel for kernel in of("columns")) == 8 + 4
    panels = [kernel for kernel in of("polyphase") if "bar.sync" in kernel]
    assert len(panels) == 2  # of two types
    windows = [kernel for kernel in kernels if "entry _ops_kernels_polyphase_window" in kernel]
    assert len(windows) == 2 * 13 + 11  # of two types and each pair of rates, and what serves more taps than streams
    near = [kernel for kernel in kernels if "entry _ops_kernels_polyphase_near" in kernel]
    assert len(near) == 2 * 3  # upwards and downwards, of three kinds of periods
    assert all("ld.shared.v" in kernel for kernel in panels + windows + near)


@pytest.mark.parametrize("job", kernels_of(PACKAGE / "_native/gpu_fft.mojo", ["sm_80"]), ids=str)
def test_ffts_for_gpus_compile_without_one(done, job):
    """Kernels of each type and length compile for Ampere, the build that newer GPUs take, without local memory."""
    kernels = done(job)
    assert all(".target sm_80" in kernel and "__local_depot" not in kernel for kernel in kernels)
    products = [kernel for kernel in kernels if re.search(r"entry \w*_kernels_overlap_save_mma", kernel)]
    assert len(products) == 2 * 2  # of two types and two lengths
    assert all("mma.sync" in kernel and "ldmatrix" in kernel for kernel in products)
    for algorithm in ("overlap_save_gpu", "overlap_save_part", "overlap_save_rows", "overlap_save_long"):
        assert any(re.search(rf"entry \w*_kernels_{algorithm}", kernel) for kernel in kernels)


@pytest.mark.parametrize("job", kernels_of(PACKAGE / "_native/gpu_layers.mojo", ["sm_80"]), ids=str)
def test_layer_kernels_for_gpus_compile_without_one(done, job):
    """Each type's kernels compile for Ampere without local memory, half precision for its tensor cores."""
    kernels = done(job)
    assert not any("__local_depot" in kernel for kernel in kernels)

    def of(algorithm: str) -> list[str]:
        return [kernel for kernel in kernels if re.search(rf"entry \w*_{algorithm}_gpu", kernel)]

    products = of("conv_mma")
    assert len(products) == 2 * 2 * 4  # of two types, forward and transposed, with four tiles
    assert all("mma.sync" in kernel and "ldmatrix" in kernel for kernel in products)
    assert len(of("conv")) == 2 * (5 + 4)  # float32 has five tiles, float64 four
    assert all("ld.shared.v" in kernel for kernel in of("conv"))
    assert len(of("depthwise")) == 6 * 3  # an output a thread, short tiles, long tiles


#: Families that no build is made for: theirs is that of an older one, or a MAX model.
OTHERS = ["sm_89", "sm_100", "gfx942"]


@pytest.mark.parametrize("job", kernels_of(ROOT / "tests/mojo/every_kernel_gpu.mojo", OTHERS), ids=str)
def test_every_kernel_compiles_for_other_families(done, job):
    """Every kernel compiles for Ada, Blackwell and AMD's MI300; for tensor cores where they serve."""
    kernels = done(job)
    assert len(kernels) > 90
    assert all(re.search(rf"^\s*\.(amdgcn_)?target.*{job.family}", kernel, re.MULTILINE) for kernel in kernels)
    assert any("mma.sync" in kernel for kernel in kernels) == job.family.startswith("sm_")


#: Family -> tensor cores for bfloat16 and for float32, asynchronous copies, multiprocessors; vectors of a thread of few
#: taps, registers of one of transforms, blocks of resampling.
FAMILIES = {
    "sm_75": "False False False 132 2 80 396",
    "sm_80": "True False True 132 2 80 396",
    "sm_89": "True False True 132 2 80 396",
    "sm_90a": "True False True 132 2 80 396",
    "sm_100": "True False True 132 2 80 396",
    "gfx942": "False False False 304 2 80 912",
}


@pytest.mark.parametrize("job", [Job(ROOT / "tests/mojo/families_gpu.mojo", family) for family in FAMILIES], ids=str)
def test_families_have_the_numbers_that_are_stated(done, job):
    """What kernels take from the family of a GPU is as stated: sm_89, for one, gets the code of sm_80."""
    assert done(job)[0].splitlines()[-1] == FAMILIES[job.family]


def test_one_file_asks_for_the_family():
    """No kernel knows what it is compiled for but by `tuning_gpu.mojo`."""
    question = re.compile(r"\b(default_device_info|GPUInfo|WARP_SIZE|_accelerator_arch|(is|has)_\w*gpu)\b")
    asking = {path.name for path in PACKAGE.rglob("*.mojo") if question.search(path.read_text())}
    assert asking == {"tuning_gpu.mojo"}


#: Numbers of GPU kernels that are no matter of speed.
UNTUNED = {
    *("LINE_BYTES", "SECTOR_BYTES", "STATIC_SHARED_BYTES"),  # of the hardware
    *("DEPTH", "WIDTH"),  # of a product of its tensor cores
    *("SIZES", "SMALLEST_SIZE", "LARGEST_SIZE"),  # lengths of transform that are compiled
    *("SLOTS", "TURN", "TURN_BITS", "SPAN"),  # arithmetic of transforms
    *("MOST_TILES", "MAX_RATE", "MOST_TAPS", "MOST_BLOCKS", "FAR"),  # what 32 bits count
    "ANY_LEAD",  # stands for an unknown number
}


def test_one_file_has_the_numbers_of_gpu_kernels():
    """What was chosen for a device stands in `tuning_gpu.mojo`: no constant of a kernel, no bound of its registers."""
    constant = re.compile(r"^comptime (\w+) = [-([]?\d[-+*/<>()\[\], \d]*$", re.MULTILINE)
    bound = re.compile(r"minctasm`=SIMDLength\((.*\b\d.*)\)")
    kernels = [*(PACKAGE / "_ops/kernels").glob("*_gpu.mojo"), *(PACKAGE / "_ops/shared").glob("*.mojo")]
    found = set()
    for path in kernels:
        text = path.read_text()
        if path.name != "tuning_gpu.mojo" and ("max.gpu" in text or "tuning_gpu" in text):
            found |= {(path.name, each) for each in constant.findall(text) + bound.findall(text)}
    assert {name for _, name in found} == UNTUNED, found


def test_python_knows_the_numbers_that_it_repeats():
    """Lengths by which a call is planned are those of the kernels."""
    folder = PACKAGE / "_ops/shared"
    sources = "".join((folder / name).read_text() for name in ("tuning_gpu.mojo", "fft_points.mojo"))
    kernels = {name: int(value) for name, value in re.findall(r"^comptime (\w+) = (\d+)$", sources, re.MULTILINE)}
    assert 2 * kernels["FFT_PARTS_COUNT"] * kernels["FFT_PARTS_PART"] == spectra.PARTS_BLOCK
    assert kernels["FFT_COLUMNS_COLUMN"] * kernels["SMALLEST_SIZE"] == spectra.LONG_NFFT
    assert kernels["BLOCK_PAIR_LONGEST_PAIRED"] + 1 == _plan.FOLDED_GPU_BLOCKS.start
    assert (kernels["SMALLEST_SIZE"], kernels["LARGEST_SIZE"]) == (_plan.SHORTEST_GPU_ROW, _plan.LONGEST_GPU_ROW)
    assert kernels["DIRECT_SHORT_MOST_TAPS"] == _plan.FEW_GPU_TAPS
    assert 16 * kernels["DEPTHWISE_MMA_MOST_STEPS"] - 14 == _plan.MOST_PRODUCT_TAPS
