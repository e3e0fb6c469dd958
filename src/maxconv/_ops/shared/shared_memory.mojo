"""Shared memory of a GPU's blocks beyond what every device grants unasked."""

from std.collections import OptionalReg
from std.sys.info import size_of
from max.gpu.host import DeviceAttribute, DeviceContext, FuncAttribute
from max.gpu.memory import async_copy, async_copy_commit_group, async_copy_wait_all, async_copy_wait_group

from .tuning_gpu import has_async_copies

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


@always_inline
def begin_copy[
    dtype: DType, //, width: Int
](target: Pointer[mut=True, Scalar[dtype], _, address_space=AddressSpace.SHARED], source: Pointer[Scalar[dtype], _]):
    """Begins to copy a vector from device to shared memory; copies it where the target cannot go on meanwhile.

    Parameters:
        dtype: Element type.
        width: Elements of the vector, 4, 8 or 16 bytes; both places are aligned to them.

    Args:
        target: Where to.
        source: Where from.
    """
    comptime BYTES = width * size_of[dtype]()
    comptime if has_async_copies() and BYTES >= 4:
        async_copy[BYTES](source.unsafe_address_space_cast[AddressSpace.GLOBAL](), target)
    else:
        target.unsafe_store[alignment=BYTES](0, source.unsafe_load[width=width, alignment=BYTES](0))


@always_inline
def await_copies():
    """Waits until the copies that this thread has begun are there, for itself."""
    comptime if has_async_copies():
        async_copy_wait_all()


@always_inline
def end_copy_group():
    """Ends a group of copies: all that this thread has begun since it ended the last one."""
    comptime if has_async_copies():
        async_copy_commit_group()


@always_inline
def await_copy_groups[pending: Int]():
    """Waits until the groups of copies that this thread has ended are there, for itself, but for the latest.

    Parameters:
        pending: How many of the latest may still be under way.
    """
    comptime if has_async_copies():
        async_copy_wait_group(Int32(pending))
