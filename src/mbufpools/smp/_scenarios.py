"""The scenarios: a few operations on a few CPUs, chosen so that a process must wait.

Pages have the kernel's sizes, but hold one to four items instead of 8 or 16. What matters is
whether a page is empty, partly used or full; more items only make the schedules longer.
"""

from __future__ import annotations

from ._kernel import Shape
from ._model import Operation, Scenario

__all__ = [
    "BY_NAME",
    "CLUSTER",
    "DEEP",
    "LARGE",
    "MBUF",
    "ONE_CPU",
    "SCENARIOS",
    "SMALL",
    "shapes",
]

MBUF, CLUSTER = "mbufpl", "mcl2k"
SMALL, LARGE = 4096, 16384
"""The sizes of their pages in bytes."""


def shapes(mbufs: int, clusters: int) -> tuple[Shape, ...]:
    """Both pools, with these numbers of items to a page."""
    return Shape(MBUF, SMALL, mbufs), Shape(CLUSTER, LARGE, clusters)


def _get(*pids: str, pool: str) -> list[tuple[str, Operation]]:
    return [(pid, ("get", pool)) for pid in pids]


def _put(*pids: str, pool: str) -> list[tuple[str, Operation]]:
    return [(pid, ("put", pool)) for pid in pids]


def _advance(seconds: int) -> tuple[str, Operation]:
    return "P9", ("advance", seconds)


def _few_idle(pool: str) -> tuple[str, Operation]:
    return ("P9", ("hiwat", pool, 0))


# The only page of the budget is idle, and about to leave.
_IDLE = (*_get("P9", pool=CLUSTER), *_put("P9", pool=CLUSTER))

# P1 and P8 hold the two items of one page; another page is idle, and the next put frees it.
_ONE_LEAVES = (
    _few_idle(CLUSTER),
    *_get("P1", "P8", "P9", pool=CLUSTER),
    *_put("P9", pool=CLUSTER),
    _advance(2),
)


def _two_leave(*putters: str) -> tuple[tuple[str, Operation], ...]:
    """The putters and P8 hold the three items of one mbuf page. Two more mbuf pages are idle, and
    each put frees one of them. P7 sleeps for a cluster, whose page needs the room of both."""
    idle = ("P3", "P4", "P5", "P6")
    return (
        _few_idle(MBUF),
        *_get(*putters, "P8", *idle, pool=MBUF),
        *_put(*idle, pool=MBUF),
        _advance(2),
        *_get("P7", pool=CLUSTER),
    )


SCENARIOS = (
    Scenario(
        "gc-get",
        "the gc frees the only page, a cluster page, while CPU 1 asks for an mbuf",
        LARGE,
        shapes(1, 1),
        _IDLE,
        ((("get", MBUF),),),
        cpus=2,
        gc=True,
    ),
    Scenario(
        "put-frees",
        "a put on CPU 1 frees a cluster page; P7 sleeps for an mbuf",
        2 * LARGE,
        shapes(1, 2),
        (*_ONE_LEAVES, *_get("P7", pool=MBUF)),
        ((("put", CLUSTER),),),
        cpus=2,
    ),
    Scenario(
        "two-puts",
        "two puts on CPU 1 free two mbuf pages; P7 sleeps for a cluster that needs both",
        LARGE + SMALL,
        shapes(3, 1),
        _two_leave("P1", "P1"),
        ((("put", MBUF), ("put", MBUF)),),
        cpus=2,
    ),
    Scenario(
        "put-get",
        "CPU 1 puts a cluster, CPU 2 asks for one; the budget is used up",
        LARGE,
        shapes(1, 2),
        (*_get("P1", "P8", pool=CLUSTER),),
        ((("put", CLUSTER),), (("get", CLUSTER),)),
        cpus=2,
    ),
    Scenario(
        "half-page",
        "CPU 1 puts one of the three clusters of a full page; P7 sleeps for one",
        LARGE,
        shapes(1, 3),
        (*_get("P1", "P6", "P8", "P7", pool=CLUSTER),),
        ((("put", CLUSTER),),),
        cpus=2,
    ),
    Scenario(
        "large-small",
        "CPU 1 asks for a cluster, for which there is no room; CPU 2 asks for an mbuf, for which "
        "there is room",
        LARGE + SMALL,
        shapes(1, 1),
        (*_get("P8", pool=CLUSTER),),
        ((("get", CLUSTER),), (("get", MBUF),)),
        cpus=2,
    ),
    Scenario(
        "new-page",
        "CPU 1 and CPU 2 ask for a cluster; there is room for one page, which holds two",
        LARGE,
        shapes(1, 2),
        (),
        ((("get", CLUSTER),), (("get", CLUSTER),)),
        cpus=2,
    ),
    Scenario(
        "nmbclust",
        "CPU 1 raises the limit; P7 sleeps for an mbuf, P6 for a cluster",
        SMALL,
        shapes(1, 1),
        (*_get("P8", "P7", pool=MBUF), *_get("P6", pool=CLUSTER)),
        ((("nmbclust", 2 * (LARGE + SMALL)),),),
        cpus=2,
    ),
    Scenario(
        "gc-two",
        "the gc frees two pages in one run, one of each pool, while CPU 1 asks for a cluster",
        LARGE + SMALL,
        shapes(1, 1),
        (*_get("P9", pool=MBUF), *_put("P9", pool=MBUF), *_IDLE),
        ((("get", CLUSTER),),),
        cpus=2,
        gc=True,
    ),
    Scenario(
        "gc-put",
        "the gc frees a cluster page while a put on CPU 1 frees an mbuf page",
        LARGE + 2 * SMALL,
        shapes(2, 1),
        (
            *_IDLE,
            _advance(5),
            _few_idle(MBUF),
            *_get("P1", "P8", "P9", pool=MBUF),
            *_put("P9", pool=MBUF),
        ),
        ((("put", MBUF),),),
        cpus=2,
        gc=True,
    ),
    Scenario(
        "three-puts",
        "CPU 1 puts three clusters while CPU 2 asks for one; the budget is used up",
        LARGE,
        shapes(1, 4),
        (*_get("P1", "P1", "P1", "P8", pool=CLUSTER),),
        ((("put", CLUSTER),) * 3, (("get", CLUSTER),)),
        cpus=2,
    ),
    Scenario(
        "short",
        "CPU 1 raises the limit while the system is short of memory, which ends at the next "
        "second; P7 sleeps for an mbuf",
        SMALL,
        shapes(1, 1),
        (*_get("P8", "P7", pool=MBUF),),
        ((("nmbclust", 2 * SMALL),),),
        cpus=2,
        short=True,
    ),
    # Three CPUs
    Scenario(
        "gc-gets",
        "the gc frees the only page, a cluster page, while CPU 1 and CPU 2 ask for an mbuf each",
        LARGE,
        shapes(1, 1),
        _IDLE,
        ((("get", MBUF),), (("get", MBUF),)),
        cpus=3,
        gc=True,
    ),
    Scenario(
        "gc-both",
        "the gc frees the only page, a cluster page, while CPU 1 asks for an mbuf; CPU 2 asks for "
        "a cluster and puts it",
        LARGE,
        shapes(1, 1),
        _IDLE,
        ((("get", MBUF),), (("get", CLUSTER), ("put", CLUSTER))),
        cpus=3,
        gc=True,
    ),
    Scenario(
        "put-frees-get",
        "a put on CPU 1 frees a cluster page while CPU 2 asks for an mbuf",
        2 * LARGE,
        shapes(1, 2),
        _ONE_LEAVES,
        ((("put", CLUSTER),), (("get", MBUF),)),
        cpus=3,
    ),
    Scenario(
        "puts",
        "puts on CPU 1 and CPU 2 free two mbuf pages; P7 sleeps for a cluster that needs both",
        LARGE + SMALL,
        shapes(3, 1),
        _two_leave("P1", "P2"),
        ((("put", MBUF),), (("put", MBUF),)),
        cpus=3,
    ),
    Scenario(
        "put-gets",
        "CPU 1 puts a cluster, CPU 2 asks for one and puts it, CPU 3 asks for one; the budget is "
        "used up",
        LARGE,
        shapes(1, 2),
        (*_get("P1", "P8", pool=CLUSTER),),
        ((("put", CLUSTER),), (("get", CLUSTER), ("put", CLUSTER)), (("get", CLUSTER),)),
        cpus=3,
    ),
    Scenario(
        "large-small-put",
        "CPU 1 asks for a cluster, for which there is no room until CPU 3 puts one; CPU 2 asks for "
        "an mbuf, for which there is room",
        LARGE + SMALL,
        shapes(1, 1),
        (*_get("P3", pool=CLUSTER),),
        ((("get", CLUSTER),), (("get", MBUF),), (("put", CLUSTER),)),
        cpus=3,
    ),
    Scenario(
        "new-page-3",
        "three CPUs ask for a cluster; there is room for one page, which holds three",
        LARGE,
        shapes(1, 3),
        (),
        ((("get", CLUSTER),), (("get", CLUSTER),), (("get", CLUSTER),)),
        cpus=3,
    ),
    Scenario(
        "three-puts-put",
        "CPU 1 puts three clusters while CPU 2 asks for one, and CPU 3 puts an mbuf",
        LARGE + SMALL,
        shapes(2, 4),
        (*_get("P1", "P1", "P1", "P8", pool=CLUSTER), *_get("P3", pool=MBUF)),
        ((("put", CLUSTER),) * 3, (("get", CLUSTER),), (("put", MBUF),)),
        cpus=3,
    ),
    Scenario(
        "nmbclust-get",
        "CPU 1 raises the limit while CPU 2 asks for an mbuf; P6 sleeps for a cluster",
        SMALL,
        shapes(1, 1),
        (*_get("P8", pool=MBUF), *_get("P6", pool=CLUSTER)),
        ((("nmbclust", 2 * (LARGE + SMALL)),), (("get", MBUF),)),
        cpus=3,
    ),
    Scenario(
        "short-try",
        "like short, while CPU 2 tries to get an mbuf",
        SMALL,
        shapes(1, 1),
        (*_get("P8", "P7", pool=MBUF),),
        ((("nmbclust", 3 * SMALL),), (("try", MBUF),)),
        cpus=3,
        short=True,
    ),
)

ONE_CPU = (
    Scenario(
        "half-page-1",
        "an interrupt puts one of the three clusters of a full page; P7 sleeps for one",
        LARGE,
        shapes(1, 3),
        (*_get("P1", "P6", "P8", "P7", pool=CLUSTER),),
        ((("put", CLUSTER),),),
        cpus=1,
    ),
    Scenario(
        "put-get-1",
        "an interrupt puts a cluster while the CPU's process asks for one; the budget is used up",
        LARGE,
        shapes(1, 2),
        (*_get("P1", "P8", pool=CLUSTER),),
        ((("put", CLUSTER),), (("get", CLUSTER),)),
        cpus=1,
    ),
    Scenario(
        "put-frees-get-1",
        "an interrupt's put frees a cluster page while the CPU's process asks for an mbuf",
        2 * LARGE,
        shapes(1, 2),
        _ONE_LEAVES,
        ((("put", CLUSTER),), (("get", MBUF),)),
        cpus=1,
    ),
    Scenario(
        "puts-1",
        "an interrupt's two puts free two mbuf pages while the CPU's process asks for a cluster "
        "that needs both",
        LARGE + SMALL,
        shapes(3, 1),
        _two_leave("P1", "P1")[:-1],
        ((("put", MBUF), ("put", MBUF)), (("get", CLUSTER),)),
        cpus=1,
    ),
    Scenario(
        "try-get-1",
        "an interrupt tries to get an mbuf, for which there is room, while the CPU's process asks "
        "for a cluster, for which there is none",
        LARGE + SMALL,
        shapes(1, 1),
        (*_get("P8", pool=CLUSTER),),
        ((("try", MBUF),), (("get", CLUSTER),)),
        cpus=1,
    ),
    Scenario(
        "gc-get-1",
        "the gc frees the only page, a cluster page, after the CPU's process has asked for an "
        "mbuf; an interrupt tries to get a cluster",
        LARGE,
        shapes(1, 1),
        _IDLE,
        ((("try", CLUSTER),), (("get", MBUF),)),
        cpus=1,
        gc=True,
    ),
    Scenario(
        "three-puts-1",
        "an interrupt puts three clusters while the CPU's process asks for one; the budget is "
        "used up",
        LARGE,
        shapes(1, 4),
        (*_get("P1", "P1", "P1", "P8", pool=CLUSTER),),
        ((("put", CLUSTER),) * 3, (("get", CLUSTER),)),
        cpus=1,
    ),
)
"""One CPU: the first program is an interrupt's, which can come between any two steps in which the
process is in no mutex."""

DEEP = (
    Scenario(
        "three-puts-gets",
        "CPU 1 puts three clusters while CPU 2 and CPU 3 ask for one each; the budget is used up",
        LARGE,
        shapes(1, 4),
        (*_get("P1", "P1", "P1", "P8", pool=CLUSTER),),
        ((("put", CLUSTER),) * 3, (("get", CLUSTER),), (("get", CLUSTER),)),
        cpus=3,
    ),
    Scenario(
        "gc-gets-put",
        "like gc-gets, and CPU 1 puts its mbuf",
        LARGE,
        shapes(1, 1),
        _IDLE,
        ((("get", MBUF), ("put", MBUF)), (("get", MBUF),)),
        cpus=3,
        gc=True,
    ),
    Scenario(
        "gc-both-put",
        "like gc-both, and both CPUs put what they got",
        LARGE,
        shapes(1, 1),
        _IDLE,
        ((("get", MBUF), ("put", MBUF)), (("get", CLUSTER), ("put", CLUSTER))),
        cpus=3,
        gc=True,
    ),
    Scenario(
        "put-frees-gets",
        "a put on CPU 1 frees a cluster page while CPU 2 and CPU 3 ask for an mbuf each",
        2 * LARGE,
        shapes(2, 2),
        _ONE_LEAVES,
        ((("put", CLUSTER),), (("get", MBUF),), (("get", MBUF),)),
        cpus=4,
    ),
    Scenario(
        "puts-get",
        "like puts, and CPU 3 asks for a cluster that no process holds",
        LARGE + SMALL,
        shapes(3, 2),
        _two_leave("P1", "P2"),
        ((("put", MBUF),), (("put", MBUF),), (("get", CLUSTER),)),
        cpus=4,
    ),
    Scenario(
        "nmbclust-gets",
        "CPU 1 raises the limit while CPU 2 asks for an mbuf and CPU 3 for a cluster",
        SMALL,
        shapes(1, 1),
        (*_get("P8", pool=MBUF),),
        ((("nmbclust", 2 * (LARGE + SMALL)),), (("get", MBUF),), (("get", CLUSTER),)),
        cpus=4,
    ),
    Scenario(
        "put-gets-put",
        "like put-gets, and CPU 3 also puts its cluster",
        LARGE,
        shapes(1, 2),
        (*_get("P1", "P8", pool=CLUSTER),),
        (
            (("put", CLUSTER),),
            (("get", CLUSTER), ("put", CLUSTER)),
            (("get", CLUSTER), ("put", CLUSTER)),
        ),
        cpus=3,
    ),
)

BY_NAME = {each.name: each for each in (*SCENARIOS, *ONE_CPU, *DEEP)}
