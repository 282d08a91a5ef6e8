"""What the steps of a wakeup cost in the kernel, in nanoseconds: measured, not simulated.

The figures come from OpenBSD's own ``subr_pool.c`` (1.243), ``kern_task.c`` and the mbuf parts of
``uipc_mbuf.c``, compiled for user space and timed on one machine on 2026-11-28. Each is a range
over the runs. A kernel on another machine has other figures; the counts by which they are
multiplied come from the simulation.
"""

from __future__ import annotations

__all__ = ["NANOSECONDS", "SOURCE", "microseconds_a_second"]

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
