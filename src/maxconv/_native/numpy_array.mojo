"""Where a NumPy array keeps its data, read without asking Python.

`array.ctypes.data` costs 1.7 us an array, more than a small convolution. Every `ndarray` begins with the public
struct `PyArrayObject_fields` (numpy/core/include/numpy/ndarraytypes.h), part of NumPy's stable binary interface:
behind CPython's object head of two words stand `data`, `nd` (an int) and `dimensions`. `maxconv._engine.native`
compares what is read here with `array.ctypes.data` once, when it loads an extension.
"""

from std.python import PythonObject

comptime DATA_WORD = 2
"""Words before the field `data`: reference count and type."""

comptime DIMENSIONS_WORD = 4
"""Words before the field `dimensions`: those two, `data`, and `nd` with its padding."""


def data_of[dtype: DType](array: PythonObject) -> Pointer[Scalar[dtype], MutAnyOrigin]:
    """Reads the address of an array's first element.

    Parameters:
        dtype: Element type; the caller vouches for it.

    Args:
        array: A `numpy.ndarray`.

    Returns:
        The address; valid while the caller holds the array.
    """
    return Pointer[Scalar[dtype], MutAnyOrigin](unsafe_from_address=words_of(array)[unsafe_offset=DATA_WORD])


def length_of(array: PythonObject) -> Int:
    """Reads the first dimension of an array.

    Args:
        array: A `numpy.ndarray` of rank 1 or more.

    Returns:
        Its length.
    """
    var dimensions = words_of(array)[unsafe_offset=DIMENSIONS_WORD]
    return Pointer[Int, MutAnyOrigin](unsafe_from_address=dimensions)[]


def words_of(array: PythonObject) -> Pointer[Int, MutAnyOrigin]:
    """Views a Python object as machine words.

    Args:
        array: Any Python object.

    Returns:
        The address of its first word.
    """
    return Pointer[Int, MutAnyOrigin](unsafe_from_address=Int(array._obj_ptr._unsized_obj_ptr.value()))
