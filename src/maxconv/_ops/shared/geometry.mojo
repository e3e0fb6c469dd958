"""The index arithmetic of a batch of convolutions, in one place.

Letters: N samples in a row of x, K taps in k, L_out outputs in a row of y. With `j` running over the taps,

    y[i] = sum_j x[input_index(i, j)] * k[tap_index(j)],    terms whose sample lies outside x are left out.

Convolution (`flip`) and correlation differ in `tap_index` alone; the modes full, same, valid and the seed's
zeros past the end differ in `pad_left` and `outputs` alone.
"""


@fieldwise_init
struct Geometry(TrivialRegisterPassable):
    """Sizes and shifts of one call, in elements."""

    var samples: Int
    """N, the length of the signal x."""
    var taps: Int
    """K, the number of taps."""
    var outputs: Int
    """L_out, the length of the output y."""
    var pad_left: Int
    """How many positions before x[0] the first window starts."""
    var flip: Bool
    """True: convolution, taps read from the end. False: correlation."""
    var rows: Int
    """How many signals there are, one behind the other: x (rows, N), y (rows, L_out)."""
    var tap_rows: Int
    """How many filters: 1 for one that serves every row, or `rows` for one each: k (tap_rows, K). FFTs on the
    CPU and those of one kernel on the GPU take any divisor of `rows`, whose filters rows then take in turn."""

    @always_inline
    def input_index(self, i: Int, j: Int) -> Int:
        """Finds the sample that tap `j` of output `i` meets.

        Args:
            i: Output index.
            j: Position in the window, 0 <= j < K.

        Returns:
            Index into x; outside [0, N) the term does not exist.
        """
        return i + j - self.pad_left

    @always_inline
    def tap_index(self, j: Int) -> Int:
        """Finds the tap at position `j` of the window.

        Args:
            j: Position in the window, 0 <= j < K.

        Returns:
            Index into k.
        """
        return self.taps - 1 - j if self.flip else j

    @always_inline
    def first_tap(self, i: Int) -> Int:
        """Finds the first position in the window of output `i` that meets a sample.

        Args:
            i: Output index.

        Returns:
            The `j` that meets x[0]; negative if the window starts behind it.
        """
        return self.pad_left - i

    @always_inline
    def end_tap(self, i: Int) -> Int:
        """Finds the end of the positions in the window of output `i` that meet a sample.

        Args:
            i: Output index.

        Returns:
            One past the `j` that meets x[N-1]; more than K if the window ends before it.
        """
        return self.samples + self.pad_left - i

    @always_inline
    def is_interior(self, first: Int, count: Int) -> Bool:
        """Tells whether every tap of some neighbouring outputs meets a sample.

        Args:
            first: Index of the first output.
            count: How many outputs.

        Returns:
            True if no term of outputs [first, first + count) lies outside x.
        """
        return self.input_index(first, 0) >= 0 and self.input_index(first + count - 1, self.taps - 1) < self.samples

    @always_inline
    def multiply_adds(self) -> Int:
        """Counts the work of the call.

        Returns:
            The product rows * L_out * K, terms at the edges included.
        """
        return self.rows * self.outputs * self.taps

    @always_inline
    def taps_offset(self, row: Int) -> Int:
        """Finds the filter of a row.

        Args:
            row: Index of the signal.

        Returns:
            Index into k of its first tap.
        """
        return row * self.taps if self.tap_rows > 1 else 0
