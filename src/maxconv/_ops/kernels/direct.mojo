"""The direct algorithm on whatever target a caller is compiled for."""

from max.gpu.host import DeviceContext

from ..shared.border import OMIT, Border
from ..shared.geometry import Geometry
from .direct_cpu import direct_cpu
from .direct_gpu import direct_gpu


def direct[
    target: StaticString, dtype: DType
](
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    k: Pointer[Scalar[dtype], MutAnyOrigin],
    geometry: Geometry,
    ctx: DeviceContext,
    border: Border[dtype] = Border[dtype](OMIT, 0),
) raises:
    """Computes y, or enqueues its computation, by direct summation.

    Parameters:
        target: Where the arrays are: "cpu" or "gpu".
        dtype: Element type of all three arrays.

    Args:
        y: Output, `geometry.outputs` elements; every one is written.
        x: Signal, `geometry.samples` elements.
        k: Taps, `geometry.taps` elements.
        geometry: Sizes and shifts.
        ctx: The device; used on "gpu" only.
        border: How the signals go on beyond their ends.

    Raises:
        `Unsupported target: <target>` for any other target.
    """
    comptime if target == "cpu":
        direct_cpu(y, x, k, geometry, max_workers=0, border=border)
    elif target == "gpu":
        direct_gpu(y, x, k, geometry, ctx, border)
    else:
        raise Error("Unsupported target: ", target)
