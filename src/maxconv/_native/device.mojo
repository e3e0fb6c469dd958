"""What comes over from Python to launch a kernel: addresses on a device, and the device itself."""

from std.python import PythonObject
from max.gpu.host import DeviceContext
from max.gpu.host._nvidia_cuda import CUDA


def device_context(address: PythonObject) raises -> DeviceContext:
    """Makes a device context of its address.

    Args:
        address: `max.driver.Device._device_context_ptr()`.

    Returns:
        The context.

    Raises:
        If `address` is not an integer.
    """
    return DeviceContext(Pointer[NoneType, MutUntrackedOrigin](unsafe_from_address=Int(py=address)))


def device_pointer[dtype: DType](address: PythonObject) raises -> Pointer[Scalar[dtype], MutAnyOrigin]:
    """Makes a pointer of an address.

    Parameters:
        dtype: Element type.

    Args:
        address: A device address as a Python integer.

    Returns:
        The pointer.

    Raises:
        If `address` is not an integer.
    """
    return Pointer[Scalar[dtype], MutAnyOrigin](unsafe_from_address=Int(py=address))


def context_of_stream(context: PythonObject, stream: PythonObject) raises -> PythonObject:
    """Makes a context that launches on another library's CUDA stream. It lives as long as the process.

    Args:
        context: As for `device_context`.
        stream: The stream's CUDA handle, not 0.

    Returns:
        The address of the new context.

    Raises:
        If MAX does not give out a context of that stream.
    """
    var device = device_context(context)
    var wanted = Int(py=stream)
    _ = device.create_external_stream(Pointer[NoneType, MutUntrackedOrigin](unsafe_from_address=wanted))
    for id in range(device.num_streams()):
        var selected = device.select_stream(id)
        var handle = CUDA(selected.stream())
        if handle and Int(handle.value()) == wanted:
            selected._retain()  # for ever: PyTorch's streams come from a pool and go on to the end of the process
            return PythonObject(Int(selected._handle.value()))
    raise Error("context_of_stream: MAX has no context of the stream ", wanted)
