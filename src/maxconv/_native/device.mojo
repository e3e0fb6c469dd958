"""What comes over from Python to launch a kernel: addresses on a device, and the device itself."""

from std.python import PythonObject
from max.gpu.host import DeviceContext


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
