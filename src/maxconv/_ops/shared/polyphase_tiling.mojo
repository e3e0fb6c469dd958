"""How the outputs of a polyphase call are cut into blocks and panels on a GPU: see polyphase_gpu.mojo."""

from std.math import ceildiv
from std.sys.info import size_of

from .accumulate import accum_dtype
from .aligned_row import vector_width
from .polyphase_geometry import PolyphaseGeometry
from .tuning_gpu import (
    POLYPHASE_GROUP as GROUP,
    POLYPHASE_GROUPS as GROUPS,
    POLYPHASE_MAX_PANELS as MAX_PANELS,
    POLYPHASE_PERIODS as PERIODS,
    WARP,
)

comptime PANEL = GROUPS * GROUP
"""Neighbouring outputs of a warp: as many as it stores side by side."""

comptime SETS = WARP // GROUPS
"""Threads of a warp that take the same outputs, of different periods."""

comptime TILE_PERIODS = SETS * PERIODS
"""Periods of a block."""


@fieldwise_init
struct Tiling(TrivialRegisterPassable):
    """How a call is cut into blocks; one value for all blocks."""

    var period: Int
    """Neighbouring outputs of which each has a phase of its own; a multiple of `up`."""
    var panels: Int
    """Panels of a block."""
    var positions: Int
    """Samples that a group meets, those of all its outputs together."""
    var chunk: Int
    """How many of them are staged at a time; as many as fit, perhaps 0."""
    var spread: Int
    """Samples from the newest of a block's first output to the newest of its last in the same period."""

    def blocks_per_period(self) -> Int:
        """Counts the blocks that share the outputs of a period.

        Returns:
            How many, the last of them perhaps with fewer outputs.
        """
        return ceildiv(self.period, self.panels * PANEL)

    def is_busy(self) -> Bool:
        """Tells whether nearly all threads have outputs.

        Returns:
            False if more than one in 16 has none.
        """
        return self.period * 16 >= self.blocks_per_period() * self.panels * PANEL * 15

    def is_busier(self, other: Self) -> Bool:
        """Tells whether more of the threads have outputs than in another tiling.

        Args:
            other: The other.

        Returns:
            False if as many, or fewer.
        """
        var places = self.blocks_per_period() * self.panels * PANEL
        return self.period * other.blocks_per_period() * other.panels * PANEL > other.period * places

    def shared_bytes[dtype: DType](self) -> Int:
        """Counts the shared memory of a block.

        Parameters:
            dtype: Element type of the arrays.

        Returns:
            Taps, and samples or outputs, in bytes.
        """
        var taps = self.panels * PANEL * self.chunk * size_of[accum_dtype[dtype]()]()
        var samples = (self.spread + self.chunk) * sample_pitch[dtype]()
        return taps + max(samples, self.panels * TILE_PERIODS * output_pitch[dtype]()) * size_of[dtype]()


def sample_pitch[dtype: DType]() -> Int:
    """Chooses how far apart the samples of one position are from those of the next.

    Parameters:
        dtype: Element type.

    Returns:
        A vector more than there are periods, so that neighbouring positions do not meet in one bank.
    """
    return TILE_PERIODS + vector_width[dtype]()


def output_pitch[dtype: DType]() -> Int:
    """Chooses how far apart the outputs of one period are from those of another.

    Parameters:
        dtype: Element type.

    Returns:
        A vector more than a panel has outputs.
    """
    return PANEL + vector_width[dtype]()


def choose_tiling[dtype: DType](geometry: PolyphaseGeometry, most_bytes: Int) -> Tiling:
    """Chooses how to cut a call into blocks.

    Parameters:
        dtype: Element type of the arrays.

    Args:
        geometry: Sizes, rates and shifts.
        most_bytes: Shared memory that a block may have.

    Returns:
        The tiling with the most panels of which all taps fit and most threads are busy, or with the most of which all
        taps fit, or one panel with as many taps as do.
    """
    var positions = geometry.longest_phase() + ceildiv((GROUP - 1) * geometry.down, geometry.up)
    var best = Tiling(geometry.up, 1, positions, 0, 0)
    for panels in range(MAX_PANELS, 0, -1):
        var width = panels * PANEL
        var tiling = Tiling(
            geometry.up,
            panels,
            positions,
            positions,
            ceildiv((width - 1) * geometry.down, geometry.up),
        )
        for period in range(geometry.up, 4 * width + 1, geometry.up):
            var other = tiling
            other.period = period
            if not tiling.is_busy() and other.is_busier(tiling):
                tiling = other
        if tiling.shared_bytes[dtype]() <= most_bytes and (best.chunk == 0 or tiling.is_busier(best)):
            best = tiling
            if tiling.is_busy():
                break
        if panels == 1 and best.chunk == 0:
            best = tiling
            var row = sample_pitch[dtype]() * size_of[dtype]()
            var chunk = (most_bytes - tiling.spread * row) // (PANEL * size_of[accum_dtype[dtype]()]() + row)
            best.chunk = ceildiv(positions, ceildiv(positions, chunk)) if chunk > 0 else 0  # of one size
    return best
