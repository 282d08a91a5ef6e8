"""What a soak counts, and how it watches the memory of its process."""

from __future__ import annotations

import gc
import os
import sys
from collections import Counter
from pathlib import Path

__all__ = ["MemoryWatch", "Counters"]

MIB = 1 << 20
STATM = Path("/proc/self/statm")


class Counters:
    """The counts of a whole soak, to which every pool set adds.

    Args:
        goal: operations after which the soak ends.
    """

    def __init__(self, goal: int) -> None:
        self.goal = goal
        self.total = 0
        """Operations done."""
        self.operations: Counter[str] = Counter()
        """Operations by kind."""
        self.faults: list[str] = []
        """Broken invariants; the first ends the soak."""
        self.waits = 0
        self.grants = 0
        self.cancellations = 0
        self.handed_back = 0
        """Requests cancelled at the moment of their grant."""
        self.impossible = 0
        self.no_memory = 0
        """Requests that failed because the system gave no page."""
        self.closed_on = 0
        """Requests that waited when their set was closed."""
        self.passes = 0
        self.refused = 0
        """Charges that the budget refused."""
        self.peak_waiting = 0
        self.dropped = 0
        """Leases dropped without a release."""
        self.found = 0
        """Of these, reported by a `ResourceWarning`."""
        self.opened = 0
        self.closed = 0
        self.left_out = 0
        """Sets closed while something was out, as reported by a `ResourceWarning`."""
        self.reported: set[str] = set()
        """Their names, until they have been looked at."""

    @property
    def goes_on(self) -> bool:
        """True while there is something to do, and nothing broken."""
        return self.total < self.goal and not self.faults

    def did(self, operation: str) -> None:
        """Count an operation."""
        self.operations[operation] += 1
        self.total += 1

    def fault(self, what: str) -> None:
        """Note that an invariant is broken."""
        self.faults.append(f"operation {self.total}: {what}")


class MemoryWatch:
    """Whether the process needs more memory the longer it runs.

    The first tenth of a soak is its warm-up. What the process needs at the end is compared with the
    most that it needed in the warm-up.
    """

    def __init__(self) -> None:
        self._start: tuple[int, int] | None = None
        self._end = (0, 0)

    def look(self, counters: Counters) -> None:
        """Take a sample, when no pool set is open."""
        gc.collect()
        self._end = resident(), sys.getallocatedblocks()
        if self._start is None:
            self._start = self._end
        elif counters.total * 10 <= counters.goal:
            self._start = max(self._start[0], self._end[0]), max(self._start[1], self._end[1])

    @property
    def resident_known(self) -> bool:
        """Whether the system tells the resident size."""
        return self._end[0] > 0

    @property
    def resident_growth(self) -> float:
        """MiB by which the resident size has grown since the warm-up; 0 where it is not known."""
        return max(0, self._end[0] - (self._start or self._end)[0]) / MIB

    @property
    def block_growth(self) -> int:
        """By how many the blocks of Python's own allocator have grown since the warm-up."""
        return max(0, self._end[1] - (self._start or self._end)[1])


def resident() -> int:
    """Bytes of this process in memory; 0 where the system does not tell in `STATM`."""
    if not STATM.exists():
        return 0
    return int(STATM.read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
