"""The polyphase CPU kernel called from Mojo: right sums, every output written, results independent of the split."""

from std.math import ceildiv
from std.testing import TestSuite, assert_almost_equal, assert_equal, assert_true

from _ops.kernels.polyphase_cpu import PhaseTable, compute_span, polyphase_cpu
from _ops.shared.border import OMIT
from _ops.shared.extension import ANTIREFLECT, ANTISYMMETRIC, Extension, LINE, SMOOTH
from _ops.shared.polyphase_geometry import PolyphaseGeometry


comptime POISON = 77
"""Stands in the outputs before a call; a test that adds up few small integers never reaches it."""


def address[dtype: DType](values: List[Scalar[dtype]]) -> Pointer[Scalar[dtype], MutAnyOrigin]:
    """Points to a list's elements.

    Parameters:
        dtype: Element type.

    Args:
        values: The list, which must outlive the pointer.

    Returns:
        The address of its first element.
    """
    return Pointer[Scalar[dtype], MutAnyOrigin](unsafe_from_address=Int(values.unsafe_ptr()))


def small_integers[dtype: DType](length: Int, mut state: UInt32) -> List[Scalar[dtype]]:
    """Makes random integers from -3 to 3, whose sums are exact.

    Parameters:
        dtype: Element type.

    Args:
        length: How many.
        state: State of the generator, a linear congruence (Numerical Recipes' constants).

    Returns:
        The numbers.
    """
    var values = List[Scalar[dtype]](capacity=length)
    for _ in range(length):
        state = state * 1664525 + 1013904223
        values.append(Scalar[dtype](Int(state >> 16) % 7 - 3))
    return values^


def plain_loop[
    dtype: DType
](x: List[Scalar[dtype]], h: List[Scalar[dtype]], up: Int, down: Int, row_begin: Int, samples: Int, m: Int) -> Int:
    """Computes one output from the definition: the upsampled signal is walked through, zeros included.

    Parameters:
        dtype: Element type.

    Args:
        x: Signals.
        h: Taps.
        up: Rate of the inserted zeros.
        down: Rate of the outputs.
        row_begin: Where the signal begins in x.
        samples: N.
        m: Index on the output grid.

    Returns:
        The exact sum.
    """
    var sum = 0
    for j in range(len(h)):
        var place = m * down - j
        if place >= 0 and place % up == 0 and place // up < samples:
            sum += Int(h[j]) * Int(x[row_begin + place // up])
    return sum


def output_length(samples: Int, taps: Int, up: Int, down: Int) -> Int:
    """Gives the length of the whole result.

    Args:
        samples: N, at least 1.
        taps: K.
        up: Rate of the inserted zeros.
        down: Rate of the outputs.

    Returns:
        Outputs that a tap and a sample may meet in.
    """
    return ceildiv((samples - 1) * up + taps, down)


def check_rows[
    dtype: DType
](samples: Int, taps: Int, up: Int, down: Int, start: Int, rows: Int, gap: Int, mut state: UInt32) raises:
    """Compares one call with the plain loop, and that the poison before, between and behind the rows stands.

    Parameters:
        dtype: Element type.

    Args:
        samples: N.
        taps: K.
        up: Rate of the inserted zeros.
        down: Rate of the outputs.
        start: First output on the output grid.
        rows: How many signals.
        gap: Places left free between the rows of x and y.
        state: State of the random numbers.

    Raises:
        If an output differs.
    """
    var outputs = max(0, output_length(samples, taps, up, down) - start)
    var x = small_integers[dtype](rows * (samples + gap), state)
    var h = small_integers[dtype](taps, state)
    var y = List[Scalar[dtype]](length=rows * (outputs + gap) + 2, fill=Scalar[dtype](POISON))
    var geometry = PolyphaseGeometry(
        samples=samples,
        taps=taps,
        up=up,
        down=down,
        start=start,
        outputs=outputs,
        rows=rows,
        x_stride=samples + gap,
        y_stride=outputs + gap,
    )
    polyphase_cpu(address(y).unsafe_offset(1), address(x), address(h), geometry, 0)
    for place in range(len(y)):
        var row = (place - 1) // (outputs + gap) if outputs + gap > 0 else 0
        var i = place - 1 - row * (outputs + gap)
        var expected = POISON
        if place >= 1 and row < rows and i < outputs:
            expected = plain_loop(x, h, up, down, row * (samples + gap), samples, start + i)
        # The comparison is bare because the message costs more than the call.
        if y[place] != Scalar[dtype](expected):
            raise Error(t"N={samples} K={taps} up={up} down={down} start={start} row={row} i={i}: ", y[place])


def test_all_small_rates_and_sizes() raises:
    """All up, down from 1 to 7, N from 1 to 40 and K from 1 to 25 give the sums of a plain loop.

    Raises:
        If they do not.
    """
    var state = UInt32(1)
    for up in range(1, 8):
        for down in range(1, 8):
            for samples in range(1, 41):
                for taps in range(1, 26):
                    check_rows[DType.float32](samples, taps, up, down, 0, 1, 0, state)


def test_all_types_rows_and_parts() raises:
    """Every type, several rows with free places between them and parts of the result, where tiles are full and not.

    Raises:
        If an output differs.
    """
    var state = UInt32(2)
    comptime for dtype in [
        DType.float16,
        DType.bfloat16,
        DType.float32,
        DType.float64,
        DType.int8,
        DType.int16,
        DType.int32,
        DType.int64,
    ]:
        for samples in [1, 9, 300]:
            for taps in [1, 7, 8, 9, 16, 17, 40]:
                for rate in [(1, 1), (1, 4), (4, 1), (3, 5), (6, 4), (50, 49)]:
                    for start in [0, 1, 13]:
                        check_rows[dtype](samples, taps, rate[0], rate[1], start, 3, start, state)


def test_outputs_past_the_end_are_zero() raises:
    """More outputs than the full result has are zeros, and no rows or outputs are no work.

    Raises:
        If it is not so.
    """
    var x = List[Float32](length=5, fill=1)
    var h = List[Float32](length=3, fill=1)
    var y = List[Float32](length=20, fill=Float32(POISON))
    polyphase_cpu(address(y), address(x), address(h), PolyphaseGeometry(5, 3, 2, 1, 0, 20, 1, 5, 20), 0)
    for i in range(output_length(5, 3, 2, 1), 20):
        assert_equal(y[i], 0)
    polyphase_cpu(address(y), address(x), address(h), PolyphaseGeometry(5, 3, 2, 1, 0, 0, 1, 5, 20), 0)
    polyphase_cpu(address(y), address(x), address(h), PolyphaseGeometry(5, 3, 2, 1, 0, 20, 0, 5, 20), 0)


def test_any_split_gives_the_same_bits() raises:
    """Inexact sums come out bit for bit the same, however the outputs are cut into spans, parts and threads.

    Raises:
        If it is not so.
    """
    comptime SAMPLES = 3000
    var x = List[Float32](capacity=2 * SAMPLES)
    for i in range(2 * SAMPLES):
        x.append(Float32(1) / Float32(1 + i % 1237))
    for mode in [OMIT, LINE]:
        check_splits(x, Extension[DType.float32](mode, 0))


def check_splits(x: List[Float32], extension: Extension[DType.float32]) raises:
    """Compares the outputs of two signals that are computed in pieces with those computed in one.

    Args:
        x: The signals, one behind the other.
        extension: What stands beyond their ends.

    Raises:
        If a bit differs.
    """
    var samples = len(x) // 2
    for taps in [1, 16, 33, 1000]:
        var h = List[Float32](capacity=taps)
        for j in range(taps):
            h.append(Float32(1) / Float32(3 + j))
        for rate in [(1, 1), (1, 3), (2, 1), (5, 1), (3, 2), (6, 4), (16, 15)]:
            var up = rate[0]
            var down = rate[1]
            var outputs = output_length(samples, taps, up, down)
            var geometry = PolyphaseGeometry(samples, taps, up, down, 0, outputs, 2, samples, outputs)
            var whole = List[Float32](length=2 * outputs, fill=Float32(POISON))
            polyphase_cpu(address(whole), address(x), address(h), geometry, 1, extension)
            var pieces = List[Float32](length=2 * outputs, fill=Float32(POISON))
            polyphase_cpu(address(pieces), address(x), address(h), geometry, 2, extension)
            assert_true(pieces == whole)
            var reduced = geometry.reduced()
            var table = PhaseTable(address(h), reduced, up // reduced.up)
            for cut in [1, 7, 500, outputs + 3]:
                pieces = List[Float32](length=2 * outputs, fill=Float32(POISON))
                compute_span(address(pieces), address(x), table, reduced, 0, cut, extension)
                compute_span(address(pieces), address(x), table, reduced, cut, 2 * outputs, extension)
                assert_true(pieces == whole)
            for start in [1, 2, 29]:
                var part = PolyphaseGeometry(samples, taps, up, down, start, outputs - start, 2, samples, outputs)
                polyphase_cpu(address(pieces).unsafe_offset(start), address(x), address(h), part, 1, extension)
                assert_true(pieces == whole)


def test_absent_terms_make_no_nan() raises:
    """An infinite tap meets no zero, inserted or from outside the signal; an infinite sample meets no padding.

    Raises:
        If it is not so.
    """
    var infinity = Float32(1) / Float32(0)
    for samples in [1, 8, 100]:
        for taps in [1, 5, 16, 40]:
            for rate in [(1, 1), (1, 3), (2, 1), (7, 1), (3, 2), (60, 7)]:
                var outputs = output_length(samples, taps, rate[0], rate[1]) + 9
                var x = List[Float32](length=samples, fill=infinity)
                var h = List[Float32](length=taps, fill=infinity)
                var y = List[Float32](length=outputs, fill=Float32(POISON))
                var geometry = PolyphaseGeometry(samples, taps, rate[0], rate[1], 0, outputs, 1, samples, outputs)
                polyphase_cpu(address(y), address(x), address(h), geometry, 0)
                for m in range(outputs):
                    var place = m * rate[1]
                    var first = max(0, ceildiv(place - taps + 1, rate[0]))
                    var meets = first <= min(samples - 1, place // rate[0])
                    assert_equal(y[m], infinity if meets else 0)


def check_extension(mode: Int, left: List[Float64], right: List[Float64]) raises:
    """Compares what stands beyond the ends of the samples 1 2 4 10 with what is expected there.

    Args:
        mode: As in `Extension`.
        left: The four samples before the first, in rising order.
        right: The four behind the last.

    Raises:
        If a sample differs.
    """
    var x: List[Float64] = [1, 2, 4, 10]
    var extension = Extension[DType.float64](mode, 0)
    for i in range(4):
        assert_equal(extension.sample(address(x), i - 4, 4), left[i])
        assert_equal(extension.sample(address(x), i, 4), x[i])
        assert_equal(extension.sample(address(x), i + 4, 4), right[i])


def test_computed_extensions_of_four_samples() raises:
    """Lines and turned copies go on as written out by hand, past the first turn too.

    Raises:
        If a sample differs.
    """
    check_extension(SMOOTH, [-3, -2, -1, 0], [16, 22, 28, 34])
    check_extension(LINE, [-11, -8, -5, -2], [13, 16, 19, 22])
    check_extension(ANTISYMMETRIC, [-10, -4, -2, -1], [-10, -4, -2, -1])
    check_extension(ANTIREFLECT, [-14, -8, -2, 0], [16, 18, 19, 20])


def test_extended_signals_meet_every_tap() raises:
    """With an extension an output is the sum over all taps of its phase, wherever the samples come from.

    Raises:
        If an output differs.
    """
    var state = UInt32(3)
    for mode in range(1, ANTIREFLECT + 1):
        var extension = Extension[DType.float64](mode, 2)
        for samples in [1, 2, 9, 300]:
            for taps in [1, 16, 41]:
                for rate in [(1, 1), (1, 4), (4, 1), (6, 1), (3, 5), (6, 4), (50, 49)]:
                    var up = rate[0]
                    var outputs = output_length(samples, taps, up, rate[1])
                    var x = small_integers[DType.float64](2 * samples, state)
                    var h = small_integers[DType.float64](taps, state)
                    var y = List[Float64](length=2 * outputs, fill=Float64(POISON))
                    var geometry = PolyphaseGeometry(samples, taps, up, rate[1], 0, outputs, 2, samples, outputs)
                    polyphase_cpu(address(y), address(x), address(h), geometry, 0, extension)
                    for place in range(2 * outputs):
                        var row = address(x).unsafe_offset(place // outputs * samples)
                        var upsampled = place % outputs * rate[1]
                        var expected = Float64(0)
                        for j in range(upsampled % up, taps, up):
                            expected += h[j] * extension.sample(row, upsampled // up - j // up, samples)
                        assert_almost_equal(y[place], expected, atol=1e-9)


def main() raises:
    """Runs every test of this file.

    Raises:
        If one fails.
    """
    TestSuite.discover_tests[__functions_in_module()]().run()
