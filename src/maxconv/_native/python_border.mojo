"""A `Border` of Python's numbers."""

from std.python import PythonObject

from _ops.shared.border import Border


def border_of[dtype: DType](mode: PythonObject, value: PythonObject) raises -> Border[dtype]:
    """Reads how signals go on beyond their ends.

    Parameters:
        dtype: Element type of the signals.

    Args:
        mode: A constant of `_ops/shared/border.mojo`, which `maxconv._problem.BORDERS` lists in this order.
        value: What CONSTANT puts there; a number that `dtype` holds.

    Returns:
        The border.

    Raises:
        If an argument is not a number.
    """
    comptime if dtype.is_floating_point():
        return Border[dtype](Int(py=mode), Float64(py=value).cast[dtype]())
    else:
        return Border[dtype](Int(py=mode), Scalar[dtype](Int(py=value)))
