"""What was measured on the kernel's own code, and is quoted beside the simulation.

The figures come from OpenBSD's own ``subr_pool.c`` (1.243), ``kern_task.c`` and the mbuf parts of
``uipc_mbuf.c``, compiled for user space and run on one machine on 2026-11-28. The nanoseconds are
a range over the runs. A kernel on another machine has other figures; the counts by which they are
multiplied come from the simulation. All of this is data: the harness that measured it is not in the
tree, so nothing here computes it again.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "CAP",
    "INCIDENT",
    "NANOSECONDS",
    "PUTS_TO_A_PAGE",
    "SOURCE",
    "WINDOW",
    "Incident",
    "microseconds_a_second",
]

NANOSECONDS: dict[str, tuple[float, float]] = {
    "m_pool_wakeup, nobody asleep": (76, 171),
    "m_pool_wakeup, eight pools refused": (1100, 1900),
    "task_add, queued already": (1, 2),
}
"""The least and the most nanoseconds of one call."""

SOURCE = (
    "nanoseconds a call: the kernel's own subr_pool.c 1.243 and kern_task.c, timed in user space "
    "on 2026-11-28; the most of each range is taken"
)


PUTS_TO_A_PAGE: dict[str, tuple[int, int]] = {
    "caches, light load": (1_500_000, 1_700_000),
    "no caches": (5_000, 55_000),
}
"""The least and the most puts to one page that was freed."""

CAP = 1_000_000
"""The runs of the patch's task after which the harness stopped it, while ``phpool`` was made to
refuse a header for each page. The direct wakeup ran once."""

WINDOW = "12 to 14 ns"
"""How long a wakeup can be lost because ``pool_wakeup`` looks without the lock."""


@dataclass(frozen=True, slots=True)
class Incident:
    """One run of the incident with its own rates and phases, counted over the minute after it."""

    done: int
    """Requests."""
    refused: float
    """The share of the M_DONTWAIT gets."""
    wait: int
    """Milliseconds, on average."""


INCIDENT = {
    "as it is": Incident(380_000, 0.598, 46),
    "patch": Incident(380_000, 0.598, 46),
    "curpage": Incident(497_000, 0.428, 3),
    "drained": Incident(498_000, 0.035, 80),
    "drained + patch": Incident(495_000, 0.014, 67),
    "drained + patch + curpage": Incident(499_000, 0.015, 42),
}
"""The incident with a budget of 16 MiB, 8 CPUs and caches, by kernel; one run of each. Under
the direct wakeup it was as with the patch. How the harness played the 8 CPUs was not noted; in the
recordings each operation names its CPU, and one runs after the other."""


def microseconds_a_second(idle: float, busy: float, coalesced: float, seconds: float) -> float:
    """Return what the wakeups cost at most, in microseconds of CPU time a second.

    Args:
        idle: runs that found nobody asleep.
        busy: runs that found somebody asleep; each is taken to be refused by eight pools.
        coalesced: adds of the task while it was queued.
        seconds: how long that took.
    """
    most = {name: ends[1] for name, ends in NANOSECONDS.items()}
    total = (
        idle * most["m_pool_wakeup, nobody asleep"]
        + busy * most["m_pool_wakeup, eight pools refused"]
        + coalesced * most["task_add, queued already"]
    )
    return total / 1000 / seconds
