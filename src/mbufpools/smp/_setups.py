"""How a scenario begins: the sizes, and the operations before the programs.

Pages have the kernel's sizes, but hold one to four items instead of 8 or 16. What matters is
whether a page is empty, partly used or full; more items only make the schedules longer.
"""

from __future__ import annotations

from ._kernel import Shape
from ._model import Operation

__all__ = [
    "CLUSTER",
    "IDLE",
    "LARGE",
    "MBUF",
    "ONE_LEAVES",
    "SMALL",
    "advance",
    "few_idle",
    "get",
    "put",
    "shapes",
    "two_leave",
]

MBUF, CLUSTER = "mbufpl", "mcl2k"
SMALL, LARGE = 4096, 16384
"""The sizes of their pages in bytes."""


def shapes(mbufs: int, clusters: int) -> tuple[Shape, ...]:
    """Both pools, with these numbers of items to a page."""
    return Shape(MBUF, SMALL, mbufs), Shape(CLUSTER, LARGE, clusters)


def get(*pids: str, pool: str) -> list[tuple[str, Operation]]:
    """Each of these processes gets an item."""
    return [(pid, ("get", pool)) for pid in pids]


def put(*pids: str, pool: str) -> list[tuple[str, Operation]]:
    """Each of these processes puts an item."""
    return [(pid, ("put", pool)) for pid in pids]


def advance(seconds: int) -> tuple[str, Operation]:
    """Time passes."""
    return "P9", ("advance", seconds)


def few_idle(pool: str) -> tuple[str, Operation]:
    """A put lets an idle page of the pool go once it has been idle for a second."""
    return ("P9", ("hiwat", pool, 0))


IDLE = (*get("P9", pool=CLUSTER), *put("P9", pool=CLUSTER))
"""The only page of the budget is idle, and about to leave."""

ONE_LEAVES = (
    few_idle(CLUSTER),
    *get("P1", "P8", "P9", pool=CLUSTER),
    *put("P9", pool=CLUSTER),
    advance(2),
)
"""P1 and P8 hold the two items of one page; another page is idle, and the next put frees it."""


def two_leave(*putters: str) -> tuple[tuple[str, Operation], ...]:
    """The putters and P8 hold the three items of one mbuf page. Two more mbuf pages are idle, and
    each put frees one of them. P7 sleeps for a cluster, whose page needs the room of both."""
    idle = ("P3", "P4", "P5", "P6")
    return (
        few_idle(MBUF),
        *get(*putters, "P8", *idle, pool=MBUF),
        *put(*idle, pool=MBUF),
        advance(2),
        *get("P7", pool=CLUSTER),
    )
