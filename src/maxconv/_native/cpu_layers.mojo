"""CPython extension `cpu_layers`: the CPU kernels of neural layers on NumPy arrays or addresses, without MAX.

Apart from `cpu`, so that a first `convolve` does not wait for kernels that it does not need. One function per sum and
dtype; all checks are made in Python, before the call. Built by `maxconv._engine.native` as `cpu` is.
"""

from std.os import abort
from std.python import Python, PythonObject
from std.python._cpython import GILReleased
from std.python.bindings import PythonModuleBuilder

from _ops.kernels.conv_cpu import conv_cpu
from _ops.kernels.conv_weight_gradient_cpu import conv_weight_gradient_cpu
from _ops.kernels.depthwise_cpu import depthwise_cpu
from _ops.kernels.overlap_save_cpu import overlap_save_channels_cpu
from _ops.shared.accumulate import accum_dtype
from _ops.shared.epilogue import Epilogue
from _ops.shared.geometry import Geometry
from _ops.shared.history import History
from _ops.shared.layer_geometry import LayerGeometry
from numpy_array import data_of, flags_of, is_empty, length_of, rows_of


@export
def PyInit_cpu_layers() abi("C") -> PythonObject:
    """Creates the Python module.

    Returns:
        The module.
    """
    try:
        var module = PythonModuleBuilder("cpu_layers")
        module.def_function[locate]("locate", docstring="(data address, rows, length, flags) of an array.")
        module.def_function[convolve_into[DType.float16, False]]("conv_float16")
        module.def_function[convolve_into[DType.float16, True]]("conv_transpose_float16")
        module.def_function[depthwise_into[DType.float16]]("depthwise_float16")
        module.def_function[weight_gradient_into[DType.float16]]("weight_gradient_float16")
        module.def_function[convolve_into[DType.bfloat16, False]]("conv_bfloat16")
        module.def_function[convolve_into[DType.bfloat16, True]]("conv_transpose_bfloat16")
        module.def_function[depthwise_into[DType.bfloat16]]("depthwise_bfloat16")
        module.def_function[weight_gradient_into[DType.bfloat16]]("weight_gradient_bfloat16")
        module.def_function[convolve_into[DType.float32, False]]("conv_float32")
        module.def_function[convolve_into[DType.float32, True]]("conv_transpose_float32")
        module.def_function[depthwise_into[DType.float32]]("depthwise_float32")
        module.def_function[depthwise_fft_into[DType.float32]]("depthwise_fft_float32")
        module.def_function[weight_gradient_into[DType.float32]]("weight_gradient_float32")
        module.def_function[convolve_into[DType.float64, False]]("conv_float64")
        module.def_function[convolve_into[DType.float64, True]]("conv_transpose_float64")
        module.def_function[depthwise_into[DType.float64]]("depthwise_float64")
        module.def_function[depthwise_fft_into[DType.float64]]("depthwise_fft_float64")
        module.def_function[weight_gradient_into[DType.float64]]("weight_gradient_float64")
        return module.finalize()
    except e:
        abort(String("maxconv: the native CPU extension for layers could not be initialised: ", e))


def locate(array: PythonObject) raises -> PythonObject:
    """Tells what this extension takes for an array's address and shape: its self-test.

    Args:
        array: A contiguous NumPy array of rank 1 or 2.

    Returns:
        A tuple (address, rows, length, flags).

    Raises:
        If Python cannot make the tuple.
    """
    return Python.tuple(Int(data_of[DType.uint8](array)), rows_of(array), length_of(array), flags_of(array))


def read_geometry(sizes: PythonObject) raises -> LayerGeometry:
    """Reads the sizes and shifts of a layer.

    Args:
        sizes: A `LayerProblem`.

    Returns:
        The geometry.

    Raises:
        If an element is not an integer.
    """
    return LayerGeometry(
        batch=Int(py=sizes[0]),
        in_channels=Int(py=sizes[1]),
        out_channels=Int(py=sizes[2]),
        groups=Int(py=sizes[3]),
        length=Int(py=sizes[4]),
        outputs=Int(py=sizes[5]),
        taps=Int(py=sizes[6]),
        stride=Int(py=sizes[7]),
        dilation=Int(py=sizes[8]),
        pad_left=Int(py=sizes[9]),
    )


def read_epilogue[dtype: DType](bias: PythonObject, activation: PythonObject) raises -> Epilogue[dtype]:
    """Reads bias and activation of a layer.

    Parameters:
        dtype: Element type of the bias.

    Args:
        bias: A NumPy array, empty if there is no bias.
        activation: One of the constants of epilogue.mojo.

    Returns:
        The epilogue.

    Raises:
        If `activation` is not an integer.
    """
    return Epilogue[dtype](untracked(data_of[dtype](bias)), not is_empty(bias), Int(py=activation))


def untracked[
    dtype: DType
](address: Pointer[Scalar[dtype], MutAnyOrigin]) -> Pointer[Scalar[dtype], MutUntrackedOrigin]:
    """Makes a pointer that a struct may hold.

    Parameters:
        dtype: Element type.

    Args:
        address: Any address.

    Returns:
        The same address.
    """
    return Pointer[Scalar[dtype], MutUntrackedOrigin](unsafe_from_address=Int(address))


def convolve_into[
    dtype: DType, transposed: Bool
](
    arrays: PythonObject, sizes: PythonObject, activation: PythonObject, max_workers: PythonObject
) raises -> PythonObject:
    """Fills the result of a convolution or transposed convolution.

    Parameters:
        dtype: Element type of result, source and weights.
        transposed: False: the result is y. True: the result is x.

    Args:
        arrays: Contiguous NumPy arrays (result, source, w, bias), the bias in the accumulation type or empty.
        sizes: A `LayerProblem`.
        activation: One of the constants of epilogue.mojo.
        max_workers: Upper bound of threads; 0 for one per core.

    Returns:
        None.

    Raises:
        If one of the last three arguments does not hold integers.
    """
    var geometry = read_geometry(sizes)
    var result = data_of[dtype](arrays[0])
    var source = data_of[dtype](arrays[1])
    var weights = data_of[dtype](arrays[2])
    var epilogue = read_epilogue[accum_dtype[dtype]()](arrays[3], activation)
    var workers = Int(py=max_workers)
    with GILReleased(Python()):
        conv_cpu[transposed](result, source, weights, epilogue, geometry, workers)
    return PythonObject(None)


def depthwise_into[
    dtype: DType
](
    arrays: PythonObject, sizes: PythonObject, activation: PythonObject, max_workers: PythonObject
) raises -> PythonObject:
    """Fills the result of a depthwise convolution.

    Parameters:
        dtype: Element type of y, x and state.

    Args:
        arrays: Contiguous NumPy arrays (y, x, w, bias, state, numbers): w and bias in the accumulation type, numbers
            of int32; bias, state and numbers empty if there are none.
        sizes: A `LayerProblem`.
        activation: One of the constants of epilogue.mojo.
        max_workers: Upper bound of threads; 0 for one per core.

    Returns:
        None.

    Raises:
        If one of the last three arguments does not hold integers.
    """
    comptime ACC = accum_dtype[dtype]()
    var geometry = read_geometry(sizes)
    var outputs = data_of[dtype](arrays[0])
    var signals = data_of[dtype](arrays[1])
    var weights = data_of[ACC](arrays[2])
    var epilogue = read_epilogue[ACC](arrays[3], activation)
    var history = History[dtype](
        state=untracked(data_of[dtype](arrays[4])),
        has_state=not is_empty(arrays[4]),
        numbers=untracked(data_of[DType.int32](arrays[5])),
        has_numbers=not is_empty(arrays[5]),
    )
    var workers = Int(py=max_workers)
    with GILReleased(Python()):
        depthwise_cpu[dtype](outputs, signals, weights, epilogue, geometry, history, workers)
    return PythonObject(None)


def depthwise_fft_into[
    dtype: DType
](
    arrays: PythonObject, sizes: PythonObject, activation: PythonObject, nfft: PythonObject, max_workers: PythonObject
) raises -> PythonObject:
    """Fills the result of a depthwise convolution of one filter a channel by overlap-save.

    Where a sum is not finite, all are done again directly: an FFT spreads NaN and infinity over its blocks.

    Parameters:
        dtype: Element type of all arrays, float32 or float64.

    Args:
        arrays: Contiguous NumPy arrays (y, x, w, bias); bias empty if there is none.
        sizes: A `LayerProblem`; stride and dilation are 1.
        activation: One of the constants of epilogue.mojo.
        nfft: Block length, a power of two of at least K.
        max_workers: Upper bound of threads; 0 for one per core.

    Returns:
        None.

    Raises:
        If one of the last four arguments does not hold integers.
    """
    comptime ACC = accum_dtype[dtype]()
    var layer = read_geometry(sizes)
    var geometry = Geometry(
        samples=layer.length,
        taps=layer.taps,
        outputs=layer.outputs,
        pad_left=layer.pad_left,
        flip=False,
        rows=layer.batch * layer.in_channels,
        tap_rows=layer.in_channels,
    )
    var outputs = data_of[dtype](arrays[0])
    var signals = data_of[dtype](arrays[1])
    var weights = data_of[dtype](arrays[2])
    var wide = data_of[ACC](arrays[2])  # the same: these types are summed in themselves
    var epilogue = read_epilogue[ACC](arrays[3], activation)
    var nothing = History[dtype](untracked(signals), False, untracked(data_of[DType.int32](arrays[1])), False)
    var block = Int(py=nfft)
    var workers = Int(py=max_workers)
    with GILReleased(Python()):
        if not overlap_save_channels_cpu(outputs, signals, weights, epilogue, geometry, block, workers):
            depthwise_cpu[dtype](outputs, signals, wide, epilogue, layer, nothing, workers)
    return PythonObject(None)


def weight_gradient_into[
    dtype: DType
](arrays: PythonObject, sizes: PythonObject, max_workers: PythonObject) raises -> PythonObject:
    """Fills the weight gradient of a layer.

    Parameters:
        dtype: Element type of all arrays.

    Args:
        arrays: Contiguous NumPy arrays (w, x, y).
        sizes: A `LayerProblem`.
        max_workers: Upper bound of threads; 0 for one per core.

    Returns:
        None.

    Raises:
        If one of the last two arguments does not hold integers.
    """
    var geometry = read_geometry(sizes)
    var weights = data_of[dtype](arrays[0])
    var signals = data_of[dtype](arrays[1])
    var outputs = data_of[dtype](arrays[2])
    var workers = Int(py=max_workers)
    with GILReleased(Python()):
        conv_weight_gradient_cpu[dtype](weights, signals, outputs, geometry, workers)
    return PythonObject(None)
