"""How `scipy.signal.upfirdn` goes on beyond the ends of a signal: the rules of border.mojo and four that compute.

As there, a b c d | . . . shows what follows four samples a b c d; the left end is the same, seen in a mirror.
"""

from .border import Border, OMIT, WRAP

comptime SMOOTH = 6
"""The slope of the last two samples: a b c d | d+(d-c) d+2(d-c) . . ."""

comptime LINE = 7
"""The slope from the first to the last sample, s = (d-a)/3: a b c d | d+s d+2s . . ."""

comptime ANTISYMMETRIC = 8
"""REFLECT with the sign changed at each turn: a b c d | -d -c -b -a a b . . ."""

comptime ANTIREFLECT = 9
"""Turned about the last sample: a b c d | 2d-c 2d-b 2d-a . . ."""


@fieldwise_init
struct Extension[dtype: DType](TrivialRegisterPassable):
    """What stands beyond the ends of a signal.

    A signal of one sample goes on as that sample where a slope would be needed.

    Parameters:
        dtype: Element type of the signal.
    """

    var mode: Int
    """A constant of border.mojo or of this file."""
    var value: Scalar[Self.dtype]
    """What CONSTANT puts there; 0 for OMIT, so that a staged sample which is left out is 0."""

    @always_inline
    def omits(self) -> Bool:
        """Tells whether terms beyond the ends are left out.

        Returns:
            True if no sample exists there.
        """
        return self.mode == OMIT

    @always_inline
    def sample(self, x: Pointer[Scalar[Self.dtype], MutAnyOrigin], position: Int, samples: Int) -> Scalar[Self.dtype]:
        """Reads one sample of the extended signal.

        Args:
            x: The signal, on the device that calls.
            position: Any integer; 0 is the first sample.
            samples: N, at least 1.

        Returns:
            The sample, or `value` where there is none.
        """
        if self.mode <= WRAP:
            return Border(self.mode, self.value).sample(x, position, samples)
        if 0 <= position and position < samples:
            return x[unsafe_offset=position]
        var last = samples - 1
        if self.mode == ANTISYMMETRIC:
            var turned = position % (2 * samples)
            return x[unsafe_offset=turned] if turned < samples else -x[unsafe_offset=2 * samples - 1 - turned]
        var is_left = position < 0
        var end = x[unsafe_offset=0 if is_left else last]
        if last == 0:
            return end
        var beyond = position if is_left else position - last
        if self.mode == SMOOTH:
            var before_end = x[unsafe_offset=1 if is_left else last - 1]
            return end + Scalar[Self.dtype](abs(beyond)) * (end - before_end)
        var rise = x[unsafe_offset=last] - x[unsafe_offset=0]
        if self.mode == LINE:
            return end + Scalar[Self.dtype](beyond) * (rise / Scalar[Self.dtype](last))
        if abs(beyond) <= last:  # one turn about the end, without the other: it may be infinite
            return end + (end - x[unsafe_offset=-beyond if is_left else last - beyond])
        # Every 2*last positions the signal has risen twice from end to end.
        var turns = position // (2 * last)
        var turned = position - turns * 2 * last
        var risen = x[unsafe_offset=0] + Scalar[Self.dtype](2 * turns) * rise
        if turned <= last:
            return risen + (x[unsafe_offset=turned] - x[unsafe_offset=0])
        return risen + rise + (x[unsafe_offset=last] - x[unsafe_offset=2 * last - turned])
