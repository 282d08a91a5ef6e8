"""How narrow the windows of the kernel's faults are, as measured on the kernel's own code.

The figures are data: nothing here computes them. The code was ``subr_pool.c`` 1.243,
``kern_task.c`` and the mbuf parts of ``uipc_mbuf.c``, compiled to run in user space: in random
schedules under a virtual clock, and with real threads on the machine of the recordings.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["RANDOM", "SOURCE", "WINDOWS", "Window"]

RANDOM = 20_000
"""The random schedules in which each fault was looked for."""
SOURCE = (
    "measured on the kernel's own code (subr_pool.c 1.243, kern_task.c, uipc_mbuf.c), compiled to "
    "run in user space on the machine of the recordings"
)


@dataclass(frozen=True, slots=True)
class Window:
    """One fault, as it was measured."""

    lost: tuple[int, int]
    """The fewest and the most of `RANDOM` schedules in which a sleeper was left asleep."""
    nanoseconds: tuple[int, int] | None = None
    """The shortest and the longest window, in nanoseconds; None if it was not measured."""

    def __str__(self) -> str:
        """The width of the window; it is not needed if most schedules fail."""
        if self.nanoseconds is not None:
            return "{} to {} ns".format(*self.nanoseconds)
        return "none needed" if self.lost[0] > RANDOM // 2 else "not measured"


WINDOWS = {
    # 2.2 % of the rounds of two real threads, whose put and get fell within 0.58 microseconds
    "unlocked-look": Window((273, 1_228), (12, 14)),
    "add-then-check": Window((635, 635)),
    "new-page": Window((660, 660)),
    "stale": Window((20_000, 20_000)),
    "caches": Window((19_919, 19_919)),
}
"""The faults by the names of their variants."""
