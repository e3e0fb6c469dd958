"""A row of samples read by whole vectors, wherever in memory it begins.

Vectors begin where the hardware wants them, at multiples of VECTOR_BYTES; neighbouring samples are then moved to their
places in registers, so that a row of odd length, or a window that begins anywhere, costs no narrower access.
"""

from std.memory import bitcast
from std.sys.info import size_of

from .accumulate import accum_dtype

comptime VECTOR_BYTES = 16
"""The widest access of a thread."""

comptime LONGEST_ROW = 1 << 29
"""Samples, or outputs, of a row that 32 bits count."""

comptime WORD_BYTES = 4
"""Bytes of a register."""

comptime VECTOR_WORDS = VECTOR_BYTES // WORD_BYTES
"""Registers of a vector."""


def vector_width[dtype: DType]() -> Int:
    """Counts the elements of a vector.

    Parameters:
        dtype: Element type.

    Returns:
        A power of two.
    """
    return VECTOR_BYTES // size_of[dtype]()


@fieldwise_init
struct AlignedRow[dtype: DType](TrivialRegisterPassable):
    """Neighbouring samples, and where among them vectors begin.

    Parameters:
        dtype: Element type.
    """

    comptime WIDTH = vector_width[Self.dtype]()
    """Elements of a vector."""

    var samples: Pointer[Scalar[Self.dtype], MutUntrackedOrigin]
    """The first sample."""
    var length: Int32
    """How many samples, at least two vectors of them."""
    var skew: Int32
    """Elements between the last boundary of a vector and the first sample."""

    @staticmethod
    @always_inline
    def of[is_skewed: Bool](samples: Pointer[Scalar[Self.dtype], MutAnyOrigin], length: Int) -> Self:
        """Makes a row.

        Parameters:
            is_skewed: False: the row is known to begin at a multiple of VECTOR_BYTES.

        Args:
            samples: The first sample.
            length: How many samples, at least two vectors of them, at most LONGEST_ROW.

        Returns:
            The row.
        """
        var untracked = samples.unsafe_origin_cast[MutUntrackedOrigin]()
        comptime if is_skewed:
            var skew = Int32(Int(samples) & (VECTOR_BYTES - 1)) // Int32(size_of[Self.dtype]())
            return Self(untracked, Int32(length), skew)
        return Self(untracked, Int32(length), 0)

    @always_inline
    def before(self, position: Int32) -> Int32:
        """Measures how far behind the boundary of a vector a sample lies.

        Args:
            position: Any index.

        Returns:
            Elements, less than a vector has.
        """
        return (self.skew + position) & Int32(Self.WIDTH - 1)

    @always_inline
    def load(self, position: Int32) -> SIMD[Self.dtype, Self.WIDTH]:
        """Reads a vector without a test for threads to wait for.

        Args:
            position: Index of its first element, any for which `before` is 0.

        Returns:
            The vector; another one if not all of this one lies in the row.
        """
        return self.nearest(position).unsafe_load[width=Self.WIDTH, alignment=VECTOR_BYTES, invariant=True](0)

    @always_inline
    def nearest(self, position: Int32) -> Pointer[Scalar[Self.dtype], MutUntrackedOrigin]:
        """Finds a vector without a test for threads to wait for.

        Args:
            position: Index of its first element, any for which `before` is 0.

        Returns:
            Where it is; where another one is if not all of this one lies in the row.
        """
        var first = -self.skew & Int32(Self.WIDTH - 1)
        # Before the row is, without a sign, far behind it: one comparison finds both.
        var at = first + Int32(min(UInt32(position - first), UInt32(self.last() - first)))
        return self.samples.unsafe_offset(Int(at))

    @always_inline
    def last(self) -> Int32:
        """Finds the last vector of the row.

        Returns:
            Index of its first element.
        """
        return ((self.skew + self.length) & ~Int32(Self.WIDTH - 1)) - Int32(Self.WIDTH) - self.skew

    @always_inline
    def has(self, position: Int32, count: Int32) -> Bool:
        """Tells whether some neighbouring samples lie in the row.

        Args:
            position: Index of the first.
            count: How many.

        Returns:
            True if all do.
        """
        return UInt32(position) < UInt32(max(self.length - count + 1, 0))


@always_inline
def widen[
    dtype: DType, width: Int, vectors: Int, //, count: Int, known: Int = -1
](window: Array[SIMD[dtype, width], vectors], first: Int32) -> Array[Scalar[accum_dtype[dtype]()], count]:
    """Takes neighbouring elements out of a window of vectors, and converts them.

    By halves: all move by half a vector or none, then by a quarter: as many selections as bits of `first`.

    Parameters:
        dtype: Element type.
        width: Elements of a vector.
        vectors: Vectors of the window.
        count: How many elements to take.
        known: The first of them if it is known to the compiler, which then selects nothing; else -1.

    Args:
        window: The vectors.
        first: The first element to take, less than `width`.

    Returns:
        The elements in their accumulation type.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime SIZE = size_of[dtype]()
    var words = Array[UInt32, VECTOR_WORDS * vectors](fill=0)
    comptime for vector in range(vectors):
        var parts = bitcast[DType.uint32, VECTOR_WORDS](window[vector])
        comptime for word in range(VECTOR_WORDS):
            words[VECTOR_WORDS * vector + word] = parts[word]
    comptime if known < 0:
        comptime for step in [2, 1]:
            comptime if step * WORD_BYTES >= SIZE:
                var is_moved = first & Int32(step * WORD_BYTES // SIZE) != 0
                comptime for word in range(VECTOR_WORDS * vectors - step):
                    words[word] = words[word + step] if is_moved else words[word]
        comptime if SIZE < WORD_BYTES:
            var bits = UInt64(first & 1) * 16
            comptime for word in range(VECTOR_WORDS * vectors):
                var pair = words[word].cast[DType.uint64]()
                comptime if word + 1 < VECTOR_WORDS * vectors:
                    pair |= words[word + 1].cast[DType.uint64]() << 32
                words[word] = (pair >> bits).cast[DType.uint32]()
    var elements = Array[Scalar[ACC], count](fill=0)
    comptime for each in range(count):
        comptime at = max(known, 0) + each
        comptime if dtype == DType.bfloat16:
            # The upper half of a float32: one instruction, where a conversion of the half takes two.
            var upper = words[at // 2] & 0xFFFF0000 if at % 2 == 1 else words[at // 2] << 16
            elements[each] = rebind[Scalar[ACC]](bitcast[DType.float32, 1](upper))
        elif SIZE < WORD_BYTES:
            elements[each] = bitcast[dtype, 2](words[at // 2])[at % 2].cast[ACC]()
        elif SIZE == WORD_BYTES:
            elements[each] = rebind[Scalar[ACC]](bitcast[dtype, 1](words[at]))
        else:
            var pair = SIMD[DType.uint32, 2](words[2 * at], words[2 * at + 1])
            elements[each] = rebind[Scalar[ACC]](bitcast[dtype, 1](pair))
    return elements^
