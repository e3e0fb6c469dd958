"""In which type sums are kept, and how one product joins a sum.

The numerics contract lives here, so that no kernel can have its own:

- float32 and float64 accumulate in their own type, each step one fused multiply-add (one rounding);
- float16 and bfloat16 accumulate in float32 and are rounded once, when the sum is stored;
- integers are exact modulo 2^bits. Types narrower than 32 bits accumulate in 32 bits: truncating the sum
  afterwards gives the same residue, and CPUs have no 8-bit multiplier.
"""


def accum_dtype[dtype: DType]() -> DType:
    """Names the type in which sums of `dtype` products are kept.

    Parameters:
        dtype: The element type of signal, taps and output.

    Returns:
        `float32` for the half-precision types, `int32` for integers narrower than that, else `dtype`.
    """
    comptime if dtype == DType.float16 or dtype == DType.bfloat16:
        return DType.float32
    elif dtype == DType.int8 or dtype == DType.int16:
        return DType.int32
    return dtype


@always_inline
def multiply_add[
    dtype: DType, width: SIMDLength
](samples: SIMD[dtype, width], tap: SIMD[dtype, width], sum: SIMD[dtype, width]) -> SIMD[dtype, width]:
    """Adds one product to each lane of a running sum.

    Parameters:
        dtype: The accumulation type.
        width: Number of lanes.

    Args:
        samples: One sample per lane.
        tap: The tap, in every lane.
        sum: The running sums.

    Returns:
        `samples * tap + sum`, rounded once for floating-point types.
    """
    comptime if dtype.is_floating_point():
        return samples.fma(tap, sum)
    else:
        return samples * tap + sum


@always_inline
def has_nan[dtype: DType, width: SIMDLength](values: SIMD[dtype, width]) -> Bool:
    """Tells whether some lane is not a number: one comparison serves two lanes.

    Parameters:
        dtype: A floating-point type.
        width: Number of lanes, even.

    Args:
        values: The lanes.

    Returns:
        True if at least one is NaN.
    """
    var is_found = False
    comptime for each in range(0, Int(width), 2):
        is_found = is_found or not (values[each] <= values[each + 1] or values[each] > values[each + 1])
    return is_found
