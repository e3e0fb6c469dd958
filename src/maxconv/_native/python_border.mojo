"""How Python says what lies beyond the ends of a signal."""

from std.python import PythonObject

from _ops.shared.border import Border


def border_of[dtype: DType](border: PythonObject) raises -> Border[dtype]:
    """Reads a border.

    Parameters:
        dtype: Element type of the signal.

    Args:
        border: (mode, value): a constant of `_ops/shared/border.mojo`, and a number that `dtype` can hold.

    Returns:
        The border.

    Raises:
        If it does not hold numbers.
    """
    comptime if dtype.is_floating_point():
        return Border[dtype](Int(py=border[0]), Float64(py=border[1]).cast[dtype]())
    else:
        return Border[dtype](Int(py=border[0]), Scalar[dtype](Int(py=border[1])))
