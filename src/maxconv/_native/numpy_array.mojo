"""Where a NumPy array keeps its data, read without asking Python.

`array.ctypes.data` costs 1.7 us an array, more than a small convolution. Every `ndarray` begins with the public
struct `PyArrayObject_fields` (numpy/core/include/numpy/ndarraytypes.h), part of NumPy's stable binary interface:
behind CPython's object head of two words stand `data`, `nd` (an int) and `dimensions`. `maxconv._engine.native`
compares what is read here with `array.ctypes.data` once, when it loads an extension.

Memory that is no array's may be given by its address, a Python integer: PyTorch tells that of a tensor in 0.1 us, while
an array that views the tensor takes 1 us to make. An address of 0 stands for an empty array.
"""

from std.python import PythonObject

comptime TYPE_WORD = 1
"""Words before an object's type: the reference count."""

comptime DATA_WORD = 2
"""Words before the field `data`: reference count and type."""

comptime RANK_WORD = 3
"""Words before the field `nd`, whose int fills half a word."""

comptime DIMENSIONS_WORD = 4
"""Words before the field `dimensions`."""


comptime FLAGS_WORD = 8
"""Words before the field `flags`, whose int fills half a word; `strides`, `base` and `descr` stand between."""

comptime READY = 0x101
"""NPY_ARRAY_C_CONTIGUOUS and NPY_ARRAY_ALIGNED."""


def data_of[dtype: DType](array: PythonObject) raises -> Pointer[Scalar[dtype], MutAnyOrigin]:
    """Reads the address of an array's first element.

    Parameters:
        dtype: Element type; the caller vouches for it.

    Args:
        array: A `numpy.ndarray`, or an address.

    Returns:
        The address; valid while the caller holds the array.

    Raises:
        If an address is no machine word.
    """
    if is_address(array):
        return Pointer[Scalar[dtype], MutAnyOrigin](unsafe_from_address=Int(py=array))
    return Pointer[Scalar[dtype], MutAnyOrigin](unsafe_from_address=words_of(array)[unsafe_offset=DATA_WORD])


def is_address(array: PythonObject) -> Bool:
    """Tells an address from an array.

    Args:
        array: A `numpy.ndarray`, or a Python integer.

    Returns:
        True for an integer.
    """
    return words_of(array)[unsafe_offset=TYPE_WORD] == words_of(PythonObject(0))[unsafe_offset=TYPE_WORD]


def is_empty(array: PythonObject) raises -> Bool:
    """Tells whether an array has no elements.

    Args:
        array: A `numpy.ndarray`, or an address.

    Returns:
        True if its last dimension, or the address, is 0.

    Raises:
        If an address is no machine word.
    """
    return Int(py=array) == 0 if is_address(array) else length_of(array) == 0


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


def flags_of(array: PythonObject) -> Int:
    """Reads the flags of an array.

    Args:
        array: A `numpy.ndarray`.

    Returns:
        The number `array.flags.num`.
    """
    return words_of(array)[unsafe_offset=FLAGS_WORD] & 0xFFFFFFFF


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
