"""What happens to a finished sum before it is stored: a bias is added and an activation applied, without rounding.

In the accumulation type: half-precision outputs are rounded once, after the activation.
"""

from std.builtin.device_passable import DevicePassable, DeviceTypeEncoder
from std.math import erf, exp, round
from std.memory import bitcast
from std.utils.numerics import inf

comptime NONE = 0
"""No activation."""

comptime RELU = 1
"""The activation max(v, 0); NaN stays NaN."""

comptime GELU = 2
"""The activation v * (1 + erf(v / sqrt(2))) / 2, PyTorch's default form."""

comptime SILU = 3
"""The activation v / (1 + exp(-v)), also called swish."""

comptime INVERSE_SQRT_2 = 0.70710678118654752440
"""The factor in `gelu`."""


@fieldwise_init
struct Epilogue[dtype: DType](DevicePassable, TrivialRegisterPassable):
    """Bias and activation of a layer.

    Parameters:
        dtype: Element type of the bias.
    """

    var bias: Pointer[Scalar[Self.dtype], MutUntrackedOrigin]
    """One element per channel of the result; read only if `has_bias`."""
    var has_bias: Bool
    """Whether there is a bias."""
    var activation: Int
    """One of the constants of this file."""

    comptime device_type: AnyType = Self
    """What kernels on a GPU receive: the same."""

    def _to_device_type(self, mut encoder: Some[DeviceTypeEncoder], target: MutOpaquePointer[_]):
        encoder.encode(self, target)

    @staticmethod
    def get_type_name() -> String:
        """Names the type in errors of launches.

        Returns:
            The name.
        """
        return "Epilogue"

    @always_inline
    def offset[acc: DType](self, channel: Int) -> Scalar[acc]:
        """Reads what is added to the sums of a channel.

        Parameters:
            acc: Accumulation type.

        Args:
            channel: Channel of the result.

        Returns:
            The bias, or 0 if there is none.
        """
        return self.bias[unsafe_offset=channel].cast[acc]() if self.has_bias else 0

    @always_inline
    def apply[acc: DType, width: SIMDLength](self, channel: Int, sums: SIMD[acc, width]) -> SIMD[acc, width]:
        """Finishes neighbouring sums of one channel: `activate` of the sums and the `offset`.

        Parameters:
            acc: Accumulation type.
            width: Number of sums.

        Args:
            channel: Channel of the result.
            sums: The sums.

        Returns:
            What is to be rounded and stored.
        """
        return activate(sums + SIMD[acc, width](self.offset[acc](channel)), self.activation)


@always_inline
def activate[acc: DType, width: SIMDLength](values: SIMD[acc, width], activation: Int) -> SIMD[acc, width]:
    """Applies an activation.

    Parameters:
        acc: Accumulation type.
        width: Number of values.

    Args:
        values: The values.
        activation: One of the constants of this file.

    Returns:
        What becomes of them.
    """
    if activation == NONE:
        return values
    if activation == RELU:
        return values.lt(0).select(SIMD[acc, width](0), values)
    return silu(values) if activation == SILU else gelu(values)


@no_inline
def silu[acc: DType, width: SIMDLength](values: SIMD[acc, width]) -> SIMD[acc, width]:
    """Computes v / (1 + exp(-v)).

    Out of line, as `gelu` is: the compiler would turn the branches of `activate` into selections, and compute every
    activation for each sum.

    Parameters:
        acc: Accumulation type.
        width: Number of values.

    Args:
        values: The values.

    Returns:
        What becomes of them.

    Constraints:
        A floating-point type.
    """
    comptime assert acc.is_floating_point()
    return values / (1 + exponential(-values))


@no_inline
def gelu[acc: DType, width: SIMDLength](values: SIMD[acc, width]) -> SIMD[acc, width]:
    """Computes v * (1 + erf(v / sqrt(2))) / 2.

    Parameters:
        acc: Accumulation type.
        width: Number of values.

    Args:
        values: The values.

    Returns:
        What becomes of them.

    Constraints:
        A floating-point type.
    """
    comptime assert acc.is_floating_point()
    return 0.5 * values * (1 + erf(values * INVERSE_SQRT_2))


@always_inline
def exponential[acc: DType, width: SIMDLength](values: SIMD[acc, width]) -> SIMD[acc, width]:
    """Raises e to some powers.

    The standard library's `exp` has a relative error of 1e-12 in float64: there a Taylor series of degree 13 around
    the nearest multiple of log(2) takes its place, 3e-16.

    Parameters:
        acc: Accumulation type.
        width: Number of values.

    Args:
        values: The powers; in float64 those above 708 count as infinite, those below -708 as -708.

    Returns:
        The results.

    Constraints:
        A floating-point type.
    """
    comptime assert acc.is_floating_point()
    comptime if acc != DType.float64:
        return exp(values)
    else:
        comptime LARGEST = 708
        var high = values.gt(LARGEST).select(SIMD[acc, width](LARGEST), values)
        var power = high.lt(-LARGEST).select(SIMD[acc, width](-LARGEST), high)
        var twos = round(power * 1.4426950408889634)
        # log(2) in two parts, the first with zeros at its end: its product with `twos` is exact (fdlibm, e_exp.c).
        var rest = twos.fma(-6.93147180369123816490e-01, power)
        rest = twos.fma(-1.90821492927058770002e-10, rest)
        var sum = SIMD[acc, width](1)
        comptime for step in range(13):
            sum = (rest / Scalar[acc](13 - step)).fma(sum, 1)
        var scale = (twos.cast[DType.int64]() + 1023) << 52
        var result = sum * rebind[SIMD[acc, width]](bitcast[DType.float64, width](scale))
        return values.gt(LARGEST).select(SIMD[acc, width](inf[acc]()), result)
