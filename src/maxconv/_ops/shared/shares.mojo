"""Pieces of work that threads take one after another, so that one that is held up leaves the rest to others.

Start as many tasks as there are workers: `sync_parallelize` runs one on the calling thread and queues the others, and
with more tasks than cores the calling thread would compete with the pool for them.
"""

from std.atomic import Atomic


struct Shares:
    """Pieces that nobody has taken yet."""

    var taken: List[Int64]
    """How many calls of `take` there were, its one element: threads change it though all hold it immutably."""
    var count: Int
    """How many pieces there are."""

    def __init__(out self, count: Int):
        """Makes pieces.

        Args:
            count: How many.
        """
        self.taken = [Int64(0)]
        self.count = count

    def take(self) -> Optional[Int]:
        """Takes the next piece.

        Returns:
            Its index, or None if none is left.
        """
        var taken = Pointer[Int64, MutUntrackedOrigin](unsafe_from_address=Int(self.taken.unsafe_ptr()))
        var share = Int(Atomic[Int64].fetch_add(taken, 1))
        return share if share < self.count else Optional[Int](None)
