"""Where a NumPy array keeps its data, read without asking Python.

`array.ctypes.data` costs 1.7 us an array, more than a small convolution. Every `ndarray` begins with the public
struct `PyArrayObject_fields` (numpy/core/include/numpy/ndarraytypes.h), part of NumPy's stable binary interface:
behind CPython's object head of two words stand `data`, `nd` (an int) and `dimensions`. `maxconv._engine.native`
compares what is read here with `array.ctypes.data` once, when it loads an extension.
"""

from std.python import PythonObject

comptime DATA_WORD = 2
"""Words before the field `data`: reference count and type."""

comptime RANK_WORD = 3
"""Words before the field `nd`, whose int fills half a word."""

comptime DIMENSIONS_WORD = 4
"""Words before the field `dimensions`."""


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
    """Reads the last dimension of an array.

    Args:
        array: A `numpy.ndarray` of rank 1 or 2.

    Returns:
        How many elements a row has.
    """
    return dimensions_of(array)[unsafe_offset=rank_of(array) - 1]


def rows_of(array: PythonObject) -> Int:
    """Counts the rows of an array.

    Args:
        array: A `numpy.ndarray` of rank 1 or 2.

    Returns:
        1 for rank 1, the first dimension for rank 2.
    """
    return dimensions_of(array)[] if rank_of(array) == 2 else 1


def rank_of(array: PythonObject) -> Int:
    """Reads the rank of an array.

    Args:
        array: A `numpy.ndarray`.

    Returns:
        The rank.
    """
    return words_of(array)[unsafe_offset=RANK_WORD] & 0xFFFFFFFF


def dimensions_of(array: PythonObject) -> Pointer[Int, MutAnyOrigin]:
    """Reads the address of an array's dimensions.

    Args:
        array: A `numpy.ndarray`.

    Returns:
        The address of the first dimension.
    """
    return Pointer[Int, MutAnyOrigin](unsafe_from_address=words_of(array)[unsafe_offset=DIMENSIONS_WORD])


def words_of(array: PythonObject) -> Pointer[Int, MutAnyOrigin]:
    """Views a Python object as machine words.

    Args:
        array: Any Python object.

    Returns:
        The address of its first word.
    """
    return Pointer[Int, MutAnyOrigin](unsafe_from_address=Int(array._obj_ptr._unsized_obj_ptr.value()))
