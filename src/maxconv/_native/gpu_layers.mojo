"""CPython extension `gpu_layers`: launches the GPU kernels of neural layers on device addresses, without a MAX graph.

One function per sum and dtype; all checks are made in Python, before the call. Built by `maxconv._engine.native` as
`gpu` is, apart from it, so that a first `convolve` does not wait for kernels that it does not need.
"""

from std.os import abort
from std.python import PythonObject
from std.python.bindings import PythonModuleBuilder
from std.sys.info import size_of

from _ops.kernels.conv_gpu import conv_gpu
from _ops.kernels.conv_mma_gpu import conv_mma_gpu
from _ops.kernels.depthwise_gpu import depthwise_gpu, is_mirrored_depthwise, mirrored
from _ops.kernels.depthwise_last_gpu import depthwise_last_gpu
from _ops.kernels.weight_gradient_gpu import weight_gradient_gpu, weight_gradient_workspace
from _ops.shared.accumulate import accum_dtype
from _ops.shared.epilogue import Epilogue
from _ops.shared.history import History
from _ops.shared.layer_geometry import LayerGeometry
from _ops.shared.queue import Queue
from device import device_context, device_pointer


@export
def PyInit_gpu_layers() abi("C") -> PythonObject:
    """Creates the Python module.

    Returns:
        The module.
    """
    try:
        var module = PythonModuleBuilder("gpu_layers")
        module.def_function[convolve_into[DType.float16, False]]("conv_float16")
        module.def_function[convolve_into[DType.float16, True]]("conv_transpose_float16")
        module.def_function[depthwise_into[DType.float16, DType.float16]]("depthwise_float16_float16")
        module.def_function[depthwise_last_into[DType.float16, DType.float16]]("depthwise_last_float16_float16")
        module.def_function[depthwise_into[DType.float16, DType.float32]]("depthwise_float16_float32")
        module.def_function[depthwise_last_into[DType.float16, DType.float32]]("depthwise_last_float16_float32")
        module.def_function[weight_gradient_into[DType.float16, False]]("weight_gradient_float16")
        module.def_function[weight_gradient_into[DType.float16, True]]("weight_gradient_last_float16")
        module.def_function[gradient_workspace_of[DType.float16, False]]("workspace_of_weight_gradient_float16")
        module.def_function[gradient_workspace_of[DType.float16, True]]("workspace_of_weight_gradient_last_float16")
        module.def_function[convolve_into[DType.bfloat16, False]]("conv_bfloat16")
        module.def_function[convolve_into[DType.bfloat16, True]]("conv_transpose_bfloat16")
        module.def_function[depthwise_into[DType.bfloat16, DType.bfloat16]]("depthwise_bfloat16_bfloat16")
        module.def_function[depthwise_last_into[DType.bfloat16, DType.bfloat16]]("depthwise_last_bfloat16_bfloat16")
        module.def_function[depthwise_into[DType.bfloat16, DType.float32]]("depthwise_bfloat16_float32")
        module.def_function[depthwise_last_into[DType.bfloat16, DType.float32]]("depthwise_last_bfloat16_float32")
        module.def_function[weight_gradient_into[DType.bfloat16, False]]("weight_gradient_bfloat16")
        module.def_function[weight_gradient_into[DType.bfloat16, True]]("weight_gradient_last_bfloat16")
        module.def_function[gradient_workspace_of[DType.bfloat16, False]]("workspace_of_weight_gradient_bfloat16")
        module.def_function[gradient_workspace_of[DType.bfloat16, True]]("workspace_of_weight_gradient_last_bfloat16")
        module.def_function[convolve_into[DType.float32, False]]("conv_float32")
        module.def_function[convolve_into[DType.float32, True]]("conv_transpose_float32")
        module.def_function[depthwise_into[DType.float32, DType.float32]]("depthwise_float32_float32")
        module.def_function[depthwise_last_into[DType.float32, DType.float32]]("depthwise_last_float32_float32")
        module.def_function[weight_gradient_into[DType.float32, False]]("weight_gradient_float32")
        module.def_function[weight_gradient_into[DType.float32, True]]("weight_gradient_last_float32")
        module.def_function[gradient_workspace_of[DType.float32, False]]("workspace_of_weight_gradient_float32")
        module.def_function[gradient_workspace_of[DType.float32, True]]("workspace_of_weight_gradient_last_float32")
        module.def_function[convolve_into[DType.float64, False]]("conv_float64")
        module.def_function[convolve_into[DType.float64, True]]("conv_transpose_float64")
        module.def_function[depthwise_into[DType.float64, DType.float64]]("depthwise_float64_float64")
        module.def_function[weight_gradient_into[DType.float64, False]]("weight_gradient_float64")
        module.def_function[gradient_workspace_of[DType.float64, False]]("workspace_of_weight_gradient_float64")
        return module.finalize()
    except e:
        abort(String("maxconv: the native GPU extension for layers could not be initialised: ", e))


def queue_of(context: PythonObject, stream: PythonObject) raises -> Queue:
    """Makes a queue of addresses.

    Args:
        context: Address of a device's context.
        stream: Handle of a stream of the device; 0 for MAX's own.

    Returns:
        The queue.

    Raises:
        If an argument is not an integer.
    """
    var handle = Int(py=stream)
    return Queue(device_context(context), handle) if handle != 0 else Queue(device_context(context))


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
        bias: Its device address; 0 if there is none.
        activation: One of the constants of epilogue.mojo.

    Returns:
        The epilogue.

    Raises:
        If an argument is not an integer.
    """
    return Epilogue[dtype](untracked[dtype](bias), Int(py=bias) != 0, Int(py=activation))


def untracked[dtype: DType](address: PythonObject) raises -> Pointer[Scalar[dtype], MutUntrackedOrigin]:
    """Makes a pointer that a struct may hold.

    Parameters:
        dtype: Element type.

    Args:
        address: A device address.

    Returns:
        The pointer.

    Raises:
        If `address` is not an integer.
    """
    return Pointer[Scalar[dtype], MutUntrackedOrigin](unsafe_from_address=Int(py=address))


def convolve_into[
    dtype: DType, transposed: Bool
](
    context: PythonObject,
    stream: PythonObject,
    arrays: PythonObject,
    sizes: PythonObject,
    activation: PythonObject,
) raises -> PythonObject:
    """Enqueues a convolution or transposed convolution; returns before it is computed.

    Parameters:
        dtype: Element type of all arrays.
        transposed: False: the result is y. True: the result is x.

    Args:
        context: Address of the device's context, `max.driver.Device._device_context_ptr()`.
        stream: Handle of the stream to launch on; 0 for MAX's own.
        arrays: Device addresses (result, source, w, bias), 0 for no bias.
        sizes: A `LayerProblem`.
        activation: One of the constants of epilogue.mojo.

    Returns:
        None.

    Raises:
        If the launch is refused.
    """
    var result = device_pointer[dtype](arrays[0])
    var source = device_pointer[dtype](arrays[1])
    var weights = device_pointer[dtype](arrays[2])
    var epilogue = read_epilogue[dtype](arrays[3], activation)
    var geometry = read_geometry(sizes)
    comptime if transposed:
        if is_mirrored_depthwise(geometry):
            var nothing = History[dtype](untracked[dtype](arrays[1]), False, untracked[DType.int32](arrays[1]), False)
            var layer = mirrored(geometry)
            depthwise_gpu(result, source, weights, epilogue, layer, nothing, queue_of(context, stream), True)
            return PythonObject(None)
    comptime if dtype.is_half_float():
        conv_mma_gpu[transposed](result, source, weights, epilogue, geometry, queue_of(context, stream))
    else:
        conv_gpu[transposed](result, source, weights, epilogue, geometry, queue_of(context, stream))
    return PythonObject(None)


def depthwise_into[
    dtype: DType, weight_dtype: DType
](
    context: PythonObject,
    stream: PythonObject,
    arrays: PythonObject,
    sizes: PythonObject,
    activation: PythonObject,
) raises -> PythonObject:
    """Enqueues a depthwise convolution; returns before it is computed.

    Parameters:
        dtype: Element type of y, x and state.
        weight_dtype: Element type of w and bias.

    Args:
        context: As for `convolve_into`.
        stream: As for `convolve_into`.
        arrays: Device addresses (y, x, w, bias, state, numbers), numbers of int32; 0 for what there is not.
        sizes: A `LayerProblem`.
        activation: One of the constants of epilogue.mojo.

    Returns:
        None.

    Raises:
        If the launch is refused.
    """
    var history = History[dtype](
        state=untracked[dtype](arrays[4]),
        has_state=Int(py=arrays[4]) != 0,
        numbers=untracked[DType.int32](arrays[5]),
        has_numbers=Int(py=arrays[5]) != 0,
    )
    depthwise_gpu(
        device_pointer[dtype](arrays[0]),
        device_pointer[dtype](arrays[1]),
        device_pointer[weight_dtype](arrays[2]),
        read_epilogue[weight_dtype](arrays[3], activation),
        read_geometry(sizes),
        history,
        queue_of(context, stream),
    )
    return PythonObject(None)


def depthwise_last_into[
    dtype: DType, weight_dtype: DType
](
    context: PythonObject,
    stream: PythonObject,
    arrays: PythonObject,
    sizes: PythonObject,
    activation: PythonObject,
) raises -> PythonObject:
    """Enqueues a depthwise convolution of channels-last signals; returns before it is computed.

    Parameters:
        dtype: Element type of y and x.
        weight_dtype: Element type of w and bias.

    Args:
        context: As for `convolve_into`.
        stream: As for `convolve_into`.
        arrays: Device addresses (y, x, w, bias), 0 for no bias.
        sizes: A `LayerProblem`.
        activation: One of the constants of epilogue.mojo.

    Returns:
        None.

    Raises:
        If the launch is refused.
    """
    depthwise_last_gpu(
        device_pointer[dtype](arrays[0]),
        device_pointer[dtype](arrays[1]),
        device_pointer[weight_dtype](arrays[2]),
        read_epilogue[weight_dtype](arrays[3], activation),
        read_geometry(sizes),
        queue_of(context, stream),
    )
    return PythonObject(None)


def weight_gradient_into[
    dtype: DType, channels_last: Bool
](context: PythonObject, stream: PythonObject, arrays: PythonObject, sizes: PythonObject) raises -> PythonObject:
    """Enqueues the weight gradient of a layer; returns before it is computed.

    Parameters:
        dtype: Element type of all arrays.
        channels_last: The layout of x and y.

    Args:
        context: As for `convolve_into`.
        stream: As for `convolve_into`.
        arrays: Device addresses (w, x, y, workspace), the last of a buffer of `gradient_workspace_of` bytes.
        sizes: A `LayerProblem`.

    Returns:
        None.

    Raises:
        If the launch is refused.
    """
    weight_gradient_gpu[dtype, channels_last](
        device_pointer[dtype](arrays[0]),
        device_pointer[accum_dtype[dtype]()](arrays[3]),
        device_pointer[dtype](arrays[1]),
        device_pointer[dtype](arrays[2]),
        read_geometry(sizes),
        queue_of(context, stream),
    )
    return PythonObject(None)


def gradient_workspace_of[dtype: DType, channels_last: Bool](sizes: PythonObject) raises -> PythonObject:
    """Counts the bytes that a weight gradient needs beside its arrays.

    Parameters:
        dtype: Element type of the arrays.
        channels_last: The layout of x and y.

    Args:
        sizes: A `LayerProblem`.

    Returns:
        How many.

    Raises:
        If an element is not an integer.
    """
    var elements = weight_gradient_workspace[dtype, channels_last](read_geometry(sizes))
    return PythonObject(elements * size_of[accum_dtype[dtype]()]())
