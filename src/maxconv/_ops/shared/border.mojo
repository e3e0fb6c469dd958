"""What lies beyond the ends of a signal, in one place: five ways to extend it, or not at all.

The names are SciPy's (`scipy.ndimage`); d c b a | a b c d | d c b a and so on show four samples a b c d.
"""

comptime OMIT = 0
"""Nothing: terms that would need such a sample are left out of the sum (`scipy.signal`)."""

comptime CONSTANT = 1
"""A given value v: v v v v | a b c d | v v v v."""

comptime NEAREST = 2
"""The last sample again: a a a a | a b c d | d d d d."""

comptime REFLECT = 3
"""Mirrored about the edge of the last sample: d c b a | a b c d | d c b a."""

comptime MIRROR = 4
"""Mirrored about the centre of the last sample: . d c b | a b c d | c b a ."""

comptime WRAP = 5
"""The signal again: a b c d | a b c d | a b c d."""


@fieldwise_init
struct Border[dtype: DType](TrivialRegisterPassable):
    """How a signal goes on beyond its ends.

    Parameters:
        dtype: Element type of the signal.
    """

    var mode: Int
    """One of the constants of this file."""
    var value: Scalar[Self.dtype]
    """What CONSTANT puts there."""

    @always_inline
    def omits(self) -> Bool:
        """Tells whether terms beyond the ends are left out.

        Returns:
            True if no sample exists there.
        """
        return self.mode == OMIT

    @always_inline
    def index(self, position: Int, samples: Int) -> Int:
        """Finds the sample that stands at a position of the extended signal.

        Args:
            position: Any integer; 0 is the first sample.
            samples: N, at least 1.

        Returns:
            An index in [0, N), or -1 where `value` stands (CONSTANT) or nothing does (OMIT).
        """
        if 0 <= position and position < samples:
            return position
        if self.mode <= CONSTANT:
            return -1
        if self.mode == NEAREST:
            return 0 if position < 0 else samples - 1
        if self.mode == WRAP:
            return position % samples
        # Both mirrors repeat after there and back; MIRROR meets the two end samples once each, not twice.
        var period = 2 * samples if self.mode == REFLECT else max(1, 2 * samples - 2)
        var turned = position % period
        if turned < samples:
            return turned
        return period - turned - (1 if self.mode == REFLECT else 0)

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
        var at = self.index(position, samples)
        return self.value if at < 0 else x[unsafe_offset=at]
