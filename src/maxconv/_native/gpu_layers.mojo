"""CPython extension `gpu_layers`: launches the GPU kernels of neural layers on device addresses, without a MAX graph.

One function per sum and dtype; all checks are made in Python, before the call. Built by `maxconv._engine.native` as
`gpu` is, apart from it, so that a first `convolve` does not wait for kernels that it does not need.

Queues and layers are objects that Python keeps: wrapping a stream took 2.8 us of every launch (H200, 2026-11-23), and
reading 19 numbers out of tuples one by one 2.1 us, which six addresses and an object take 0.2 us of (2 cores of an AMD
EPYC, 2026-11-23).
"""

from std.os import abort
from std.python import Python, PythonObject
from std.python.bindings import PythonModuleBuilder
from std.sys.info import size_of

from _ops.kernels.conv_gpu import conv_gpu
from _ops.kernels.conv_mma_gpu import conv_mma_gpu
from _ops.kernels.depthwise_gpu import depthwise_gpu, is_mirrored_depthwise, mirrored
from _ops.kernels.depthwise_last_gpu import depthwise_last_gpu
from _ops.kernels.weight_gradient_gpu import depthwise_gradients_gpu, weight_gradient_gpu, weight_gradient_workspace
from _ops.shared.accumulate import accum_dtype
from _ops.shared.epilogue import Epilogue
from _ops.shared.history import History
from _ops.shared.layer_geometry import LayerGeometry
from _ops.shared.queue import Queue
from _ops.shared.tuning_gpu import has_tensor_cores
from device import device_context


@export
def PyInit_gpu_layers() abi("C") -> PythonObject:
    """Creates the Python module.

    Returns:
        The module.
    """
    try:
        var module = PythonModuleBuilder("gpu_layers")
        # With a module each: Python warns of types without, and where warnings are errors nothing could be loaded.
        _ = module.add_type[Kept[Queue]]("maxconv.Queue")
        _ = module.add_type[Kept[Layer]]("maxconv.Layer")
        module.def_function[open_queue]("open_queue")
        module.def_function[open_layer]("open_layer")
        module.def_function[convolve_into[DType.float16, False]]("conv_float16")
        module.def_function[convolve_into[DType.float16, True]]("conv_transpose_float16")
        module.def_function[depthwise_into[DType.float16, DType.float16]]("depthwise_float16_float16")
        module.def_function[depthwise_last_into[DType.float16, DType.float16]]("depthwise_last_float16_float16")
        module.def_function[depthwise_into[DType.float16, DType.float32]]("depthwise_float16_float32")
        module.def_function[depthwise_last_into[DType.float16, DType.float32]]("depthwise_last_float16_float32")
        module.def_function[gradients_into[DType.float16]]("gradients_float16")
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
        module.def_function[gradients_into[DType.bfloat16]]("gradients_bfloat16")
        module.def_function[weight_gradient_into[DType.bfloat16, False]]("weight_gradient_bfloat16")
        module.def_function[weight_gradient_into[DType.bfloat16, True]]("weight_gradient_last_bfloat16")
        module.def_function[gradient_workspace_of[DType.bfloat16, False]]("workspace_of_weight_gradient_bfloat16")
        module.def_function[gradient_workspace_of[DType.bfloat16, True]]("workspace_of_weight_gradient_last_bfloat16")
        module.def_function[convolve_into[DType.float32, False]]("conv_float32")
        module.def_function[convolve_into[DType.float32, True]]("conv_transpose_float32")
        module.def_function[depthwise_into[DType.float32, DType.float32]]("depthwise_float32_float32")
        module.def_function[depthwise_last_into[DType.float32, DType.float32]]("depthwise_last_float32_float32")
        module.def_function[gradients_into[DType.float32]]("gradients_float32")
        module.def_function[weight_gradient_into[DType.float32, False]]("weight_gradient_float32")
        module.def_function[weight_gradient_into[DType.float32, True]]("weight_gradient_last_float32")
        module.def_function[gradient_workspace_of[DType.float32, False]]("workspace_of_weight_gradient_float32")
        module.def_function[gradient_workspace_of[DType.float32, True]]("workspace_of_weight_gradient_last_float32")
        module.def_function[convolve_into[DType.float64, False]]("conv_float64")
        module.def_function[convolve_into[DType.float64, True]]("conv_transpose_float64")
        module.def_function[depthwise_into[DType.float64, DType.float64]]("depthwise_float64_float64")
        module.def_function[gradients_into[DType.float64]]("gradients_float64")
        module.def_function[weight_gradient_into[DType.float64, False]]("weight_gradient_float64")
        module.def_function[gradient_workspace_of[DType.float64, False]]("workspace_of_weight_gradient_float64")
        return module.finalize()
    except e:
        abort(String("maxconv: the native GPU extension for layers could not be initialised: ", e))


@fieldwise_init
struct Layer(ImplicitlyCopyable):
    """What does not change from one call of a layer to the next."""

    var geometry: LayerGeometry
    """Sizes and shifts."""
    var activation: Int
    """One of the constants of epilogue.mojo."""
    var is_ordered: Bool
    """Whether each output is to add its terms in ascending order: see `depthwise_gpu`."""


@fieldwise_init
struct Kept[T: ImplicitlyCopyable & Deinitable](Writable):
    """A value in an object of Python, which owns it.

    Parameters:
        T: Its type.
    """

    var value: Self.T
    """The value."""

    def write_to(self, mut writer: Some[Writer]):
        """Writes what Python shows of it.

        Args:
            writer: Where to.
        """
        writer.write("a value of maxconv's kernels")

    def write_repr_to(self, mut writer: Some[Writer]):
        """Writes the same.

        Args:
            writer: Where to.
        """
        self.write_to(writer)


def kept[T: ImplicitlyCopyable & Deinitable](object: PythonObject) -> T:
    """Takes a value out of an object of Python, unchecked: asking for its type costs as much as three addresses.

    Parameters:
        T: The type of the value.

    Args:
        object: A `Kept[T]`.

    Returns:
        The value.
    """
    return object.unchecked_downcast_value_ptr[Kept[T]]()[].value


def open_queue(context: PythonObject, stream: PythonObject) raises -> PythonObject:
    """Makes a queue.

    Args:
        context: Address of the device's context, `max.driver.Device._device_context_ptr()`.
        stream: Handle of the stream to launch on; 0 for MAX's own.

    Returns:
        A `Kept[Queue]`.

    Raises:
        If an argument is not an integer.
    """
    var handle = Int(py=stream)
    if handle == 0:
        return PythonObject(alloc=Kept(Queue(device_context(context))))
    return PythonObject(alloc=Kept(Queue(device_context(context), handle)))


def open_layer(sizes: PythonObject, activation: PythonObject, is_ordered: PythonObject) raises -> PythonObject:
    """Makes a layer.

    Args:
        sizes: A `LayerProblem`.
        activation: One of the constants of epilogue.mojo.
        is_ordered: 1 or 0, as for `Layer`.

    Returns:
        A `Kept[Layer]`.

    Raises:
        If an argument does not hold integers.
    """
    var geometry = LayerGeometry(
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
    return PythonObject(alloc=Kept(Layer(geometry, Int(py=activation), Int(py=is_ordered) != 0)))


def read_addresses[count: Int](arrays: PythonObject) -> Array[Int, count]:
    """Reads device addresses.

    Parameters:
        count: How many.

    Args:
        arrays: A tuple of at least `count` integers; the caller vouches for it.

    Returns:
        The addresses.
    """
    ref python = Python().cpython()
    var addresses = Array[Int, count](fill=0)
    for i in range(count):
        addresses[i] = Int(python.PyLong_AsSsize_t(python.PyTuple_GetItem(arrays._obj_ptr, i)))
    return addresses^


def pointer[dtype: DType](address: Int) -> Pointer[Scalar[dtype], MutAnyOrigin]:
    """Makes a pointer of an address.

    Parameters:
        dtype: Element type.

    Args:
        address: A device address.

    Returns:
        The pointer.
    """
    return Pointer[Scalar[dtype], MutAnyOrigin](unsafe_from_address=address)


def untracked[dtype: DType](address: Int) -> Pointer[Scalar[dtype], MutUntrackedOrigin]:
    """Makes a pointer that a struct may hold.

    Parameters:
        dtype: Element type.

    Args:
        address: A device address.

    Returns:
        The pointer.
    """
    return Pointer[Scalar[dtype], MutUntrackedOrigin](unsafe_from_address=address)


def convolve_into[
    dtype: DType, transposed: Bool
](queue: PythonObject, arrays: PythonObject, layer: PythonObject) raises -> PythonObject:
    """Enqueues a convolution or transposed convolution; returns before it is computed.

    Parameters:
        dtype: Element type of all arrays.
        transposed: False: the result is y. True: the result is x.

    Args:
        queue: What `open_queue` made.
        arrays: Device addresses (result, source, w, bias), 0 for no bias.
        layer: What `open_layer` made.

    Returns:
        None.

    Raises:
        If the launch is refused.
    """
    var addresses = read_addresses[4](arrays)
    var result = pointer[dtype](addresses[0])
    var source = pointer[dtype](addresses[1])
    var weights = pointer[dtype](addresses[2])
    var wanted = kept[Layer](layer)
    var epilogue = Epilogue[dtype](untracked[dtype](addresses[3]), addresses[3] != 0, wanted.activation)
    comptime if transposed:
        if is_mirrored_depthwise(wanted.geometry):
            var nothing = History[dtype](untracked[dtype](0), False, untracked[DType.int32](0), False)
            var other = mirrored(wanted.geometry)
            depthwise_gpu(result, source, weights, epilogue, other, nothing, kept[Queue](queue), True)
            return PythonObject(None)
    comptime if has_tensor_cores[dtype]():
        conv_mma_gpu[transposed](result, source, weights, epilogue, wanted.geometry, kept[Queue](queue))
    else:
        conv_gpu[transposed](result, source, weights, epilogue, wanted.geometry, kept[Queue](queue))
    return PythonObject(None)


def depthwise_into[
    dtype: DType, weight_dtype: DType
](queue: PythonObject, arrays: PythonObject, layer: PythonObject) raises -> PythonObject:
    """Enqueues a depthwise convolution; returns before it is computed.

    Parameters:
        dtype: Element type of y, x and state.
        weight_dtype: Element type of w and bias.

    Args:
        queue: As for `convolve_into`.
        arrays: Device addresses (y, x, w, bias, state, numbers), numbers of int32; 0 for what there is not.
        layer: As for `convolve_into`.

    Returns:
        None.

    Raises:
        If the launch is refused.
    """
    var addresses = read_addresses[6](arrays)
    var wanted = kept[Layer](layer)
    var history = History[dtype](
        state=untracked[dtype](addresses[4]),
        has_state=addresses[4] != 0,
        numbers=untracked[DType.int32](addresses[5]),
        has_numbers=addresses[5] != 0,
    )
    depthwise_gpu(
        pointer[dtype](addresses[0]),
        pointer[dtype](addresses[1]),
        pointer[weight_dtype](addresses[2]),
        Epilogue[weight_dtype](untracked[weight_dtype](addresses[3]), addresses[3] != 0, wanted.activation),
        wanted.geometry,
        history,
        kept[Queue](queue),
        is_ordered=wanted.is_ordered,
    )
    return PythonObject(None)


def depthwise_last_into[
    dtype: DType, weight_dtype: DType
](queue: PythonObject, arrays: PythonObject, layer: PythonObject) raises -> PythonObject:
    """Enqueues a depthwise convolution of channels-last signals; returns before it is computed.

    Parameters:
        dtype: Element type of y and x.
        weight_dtype: Element type of w and bias.

    Args:
        queue: As for `convolve_into`.
        arrays: Device addresses (y, x, w, bias), 0 for no bias.
        layer: As for `convolve_into`.

    Returns:
        None.

    Raises:
        If the launch is refused.
    """
    var addresses = read_addresses[4](arrays)
    var wanted = kept[Layer](layer)
    depthwise_last_gpu(
        pointer[dtype](addresses[0]),
        pointer[dtype](addresses[1]),
        pointer[weight_dtype](addresses[2]),
        Epilogue[weight_dtype](untracked[weight_dtype](addresses[3]), addresses[3] != 0, wanted.activation),
        wanted.geometry,
        kept[Queue](queue),
    )
    return PythonObject(None)


def weight_gradient_into[
    dtype: DType, channels_last: Bool
](queue: PythonObject, arrays: PythonObject, layer: PythonObject) raises -> PythonObject:
    """Enqueues the weight gradient of a layer; returns before it is computed.

    Parameters:
        dtype: Element type of all arrays.
        channels_last: The layout of x and y.

    Args:
        queue: As for `convolve_into`.
        arrays: Device addresses (w, x, y, workspace), the last of a buffer of `gradient_workspace_of` bytes.
        layer: As for `convolve_into`.

    Returns:
        None.

    Raises:
        If the launch is refused.
    """
    var addresses = read_addresses[4](arrays)
    weight_gradient_gpu[dtype, channels_last](
        pointer[dtype](addresses[0]),
        pointer[accum_dtype[dtype]()](addresses[3]),
        pointer[dtype](addresses[1]),
        pointer[dtype](addresses[2]),
        kept[Layer](layer).geometry,
        kept[Queue](queue),
    )
    return PythonObject(None)


def gradients_into[dtype: DType](queue: PythonObject, arrays: PythonObject, layer: PythonObject) raises -> PythonObject:
    """Enqueues both gradients of a layer of one filter a channel; returns before they are computed.

    Parameters:
        dtype: Element type of all arrays.

    Args:
        queue: As for `convolve_into`.
        arrays: Device addresses (dx, dw, x, y, w, workspace), the last as for `weight_gradient_into`.
        layer: As for `convolve_into`, of stride 1 and padding below its reach.

    Returns:
        None.

    Raises:
        If a launch is refused.
    """
    var addresses = read_addresses[6](arrays)
    depthwise_gradients_gpu[dtype](
        pointer[dtype](addresses[0]),
        pointer[dtype](addresses[1]),
        pointer[accum_dtype[dtype]()](addresses[5]),
        pointer[dtype](addresses[2]),
        pointer[dtype](addresses[3]),
        pointer[dtype](addresses[4]),
        kept[Layer](layer).geometry,
        kept[Queue](queue),
    )
    return PythonObject(None)


def gradient_workspace_of[dtype: DType, channels_last: Bool](layer: PythonObject) raises -> PythonObject:
    """Counts the bytes that a weight gradient needs beside its arrays.

    Parameters:
        dtype: Element type of the arrays.
        channels_last: The layout of x and y.

    Args:
        layer: As for `convolve_into`.

    Returns:
        How many.

    Raises:
        If Python cannot make the number.
    """
    var elements = weight_gradient_workspace[dtype, channels_last](kept[Layer](layer).geometry)
    return PythonObject(elements * size_of[accum_dtype[dtype]()]())
