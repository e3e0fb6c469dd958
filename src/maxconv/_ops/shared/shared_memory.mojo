"""Shared memory of a GPU's blocks beyond what every device grants unasked."""

from std.collections import OptionalReg
from max.gpu.host import DeviceAttribute, DeviceContext, FuncAttribute

comptime STATIC_SHARED_BYTES = 48 * 1024
"""Shared memory that every device grants without being asked."""


def shared_memory_request(bytes: Int) -> OptionalReg[FuncAttribute]:
    """Asks for more shared memory than devices grant unasked, only where it is needed: asking takes host time.

    Args:
        bytes: Shared memory of a block.

    Returns:
        The attribute for the launch, or none.
    """
    if bytes <= STATIC_SHARED_BYTES:
        return None
    return FuncAttribute.MAX_DYNAMIC_SHARED_SIZE_BYTES(UInt32(bytes))


def require_shared_memory(bytes: Int, ctx: DeviceContext) raises:
    """Refuses what a device cannot hold.

    Args:
        bytes: Shared memory of a block.
        ctx: The device.

    Raises:
        If it has less.
    """
    if bytes <= STATIC_SHARED_BYTES:
        return
    var most = Int(ctx.get_attribute(DeviceAttribute.MAX_SHARED_MEMORY_PER_BLOCK_OPTIN))
    if bytes > most:
        raise Error("a block needs ", bytes, " bytes of shared memory, but the device grants ", most)
