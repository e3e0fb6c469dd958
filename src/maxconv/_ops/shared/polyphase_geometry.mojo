"""The index arithmetic of one polyphase call: which phase of the taps and which samples an output meets."""

from std.math import ceildiv, gcd


@fieldwise_init
struct PolyphaseGeometry(TrivialRegisterPassable):
    """Sizes, rates and shifts of one polyphase call, in elements.

    Outputs are counted on the output grid by `m` >= 0; y[0] of each row is m = `start`.
    """

    var samples: Int
    """N, the length of each signal."""
    var taps: Int
    """K, the number of taps."""
    var up: Int
    """Rate of the inserted zeros: each sample is followed by up - 1 of them."""
    var down: Int
    """Every down-th sum is an output."""
    var start: Int
    """Index on the output grid of the first output."""
    var outputs: Int
    """L_out, outputs per row; those past the end of the full result are 0."""
    var rows: Int
    """How many signals."""
    var x_stride: Int
    """From one signal to the next."""
    var y_stride: Int
    """From one row of outputs to the next."""

    @always_inline
    def phase(self, m: Int) -> Int:
        """Finds the phase of an output.

        Args:
            m: Index on the output grid.

        Returns:
            The first tap of its phase, less than `up`.
        """
        return m * self.down % self.up

    @always_inline
    def newest_sample(self, m: Int) -> Int:
        """Finds the sample that the first tap of an output's phase meets.

        Args:
            m: Index on the output grid.

        Returns:
            Index into x; outside [0, N) the term does not exist.
        """
        return m * self.down // self.up

    @always_inline
    def phase_taps(self, phase: Int) -> Int:
        """Counts the taps of a phase.

        Args:
            phase: 0 <= phase < up.

        Returns:
            How many q >= 0 have phase + q*up < K; one more in some phases than in others, 0 if K is below up.
        """
        return max(0, ceildiv(self.taps - phase, self.up))

    @always_inline
    def longest_phase(self) -> Int:
        """Counts the taps of phase 0, which has the most.

        Returns:
            The most taps that an output adds.
        """
        return self.phase_taps(0)

    @always_inline
    def multiply_adds(self) -> Int:
        """Counts the work of the call.

        Returns:
            The multiply-adds of all rows, terms at the edges included.
        """
        return self.rows * self.outputs * self.longest_phase()

    @always_inline
    def reduced(self) -> PolyphaseGeometry:
        """Divides the rates by their greatest common divisor: only phases that are multiples of it ever occur.

        Returns:
            The same outputs, of the taps h[0], h[g], h[2*g], ... with g = gcd(up, down).
        """
        var reduced = self
        var common = gcd(self.up, self.down)
        reduced.up //= common
        reduced.down //= common
        reduced.taps = ceildiv(self.taps, common)
        return reduced
