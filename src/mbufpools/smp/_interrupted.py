"""The scenarios of one CPU: an interrupt comes between the steps of a process."""

from __future__ import annotations

from ._model import Scenario
from ._setups import CLUSTER, IDLE, LARGE, MBUF, ONE_LEAVES, SMALL, get, shapes, two_leave

__all__ = ["ONE_CPU"]

ONE_CPU = (
    Scenario(
        "half-page-1",
        "an interrupt puts one of the three clusters of a full page; P7 sleeps for one",
        LARGE,
        shapes(1, 3),
        (*get("P1", "P6", "P8", "P7", pool=CLUSTER),),
        ((("put", CLUSTER),),),
        cpus=1,
    ),
    Scenario(
        "put-get-1",
        "an interrupt puts a cluster while the CPU's process asks for one; the budget is used up",
        LARGE,
        shapes(1, 2),
        (*get("P1", "P8", pool=CLUSTER),),
        ((("put", CLUSTER),), (("get", CLUSTER),)),
        cpus=1,
    ),
    Scenario(
        "put-frees-get-1",
        "an interrupt's put frees a cluster page while the CPU's process asks for an mbuf",
        2 * LARGE,
        shapes(1, 2),
        ONE_LEAVES,
        ((("put", CLUSTER),), (("get", MBUF),)),
        cpus=1,
    ),
    Scenario(
        "puts-1",
        "an interrupt's two puts free two mbuf pages while the CPU's process asks for a cluster "
        "that needs both",
        LARGE + SMALL,
        shapes(3, 1),
        two_leave("P1", "P1")[:-1],
        ((("put", MBUF), ("put", MBUF)), (("get", CLUSTER),)),
        cpus=1,
    ),
    Scenario(
        "try-get-1",
        "an interrupt tries to get an mbuf, for which there is room, while the CPU's process asks "
        "for a cluster, for which there is none",
        LARGE + SMALL,
        shapes(1, 1),
        (*get("P8", pool=CLUSTER),),
        ((("try", MBUF),), (("get", CLUSTER),)),
        cpus=1,
    ),
    Scenario(
        "gc-get-1",
        "the gc frees the only page, a cluster page, after the CPU's process has asked for an "
        "mbuf; an interrupt tries to get a cluster",
        LARGE,
        shapes(1, 1),
        IDLE,
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
        (*get("P1", "P1", "P1", "P8", pool=CLUSTER),),
        ((("put", CLUSTER),) * 3, (("get", CLUSTER),)),
        cpus=1,
    ),
)
"""One CPU: the first program is an interrupt's, which can come between any two steps in which the
process is in no mutex."""
