"""The level-2 cache of a GPU: what a kernel will read soon is fetched into it beforehand."""

from std.sys._assembly import inlined_assembly

from .tuning_gpu import IS_NVIDIA

comptime LINE_BYTES = 128
"""A line: what one call fetches."""

comptime SECTOR_BYTES = 32
"""A part of a line: what is read and written at once."""


@always_inline
def fetch_line[dtype: DType, //](address: Pointer[Scalar[dtype], MutAnyOrigin]):
    """Has the level-2 cache fetch a line of device memory, where the target has an instruction for it.

    Parameters:
        dtype: Element type.

    Args:
        address: Any element of the line, which must exist.
    """
    comptime if IS_NVIDIA:
        inlined_assembly[
            "prefetch.global.L2 [$0];",
            NoneType,
            constraints="l",
            has_side_effect=True,
        ](address.unsafe_address_space_cast[AddressSpace.GLOBAL]())
