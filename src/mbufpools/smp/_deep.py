"""The scenarios of ``--deep``: more operations, and up to four CPUs."""

from __future__ import annotations

from ._model import Scenario
from ._setups import CLUSTER, IDLE, LARGE, MBUF, ONE_LEAVES, SMALL, get, shapes, two_leave

__all__ = ["DEEP"]

DEEP = (
    Scenario(
        "three-puts-gets",
        "CPU 1 puts three clusters while CPU 2 and CPU 3 ask for one each; the budget is used up",
        LARGE,
        shapes(1, 4),
        (*get("P1", "P1", "P1", "P8", pool=CLUSTER),),
        ((("put", CLUSTER),) * 3, (("get", CLUSTER),), (("get", CLUSTER),)),
        cpus=3,
    ),
    Scenario(
        "gc-gets-put",
        "like gc-gets, and CPU 1 puts its mbuf",
        LARGE,
        shapes(1, 1),
        IDLE,
        ((("get", MBUF), ("put", MBUF)), (("get", MBUF),)),
        cpus=3,
        gc=True,
    ),
    Scenario(
        "gc-both-put",
        "like gc-both, and both CPUs put what they got",
        LARGE,
        shapes(1, 1),
        IDLE,
        ((("get", MBUF), ("put", MBUF)), (("get", CLUSTER), ("put", CLUSTER))),
        cpus=3,
        gc=True,
    ),
    Scenario(
        "put-frees-gets",
        "a put on CPU 1 frees a cluster page while CPU 2 and CPU 3 ask for an mbuf each",
        2 * LARGE,
        shapes(2, 2),
        ONE_LEAVES,
        ((("put", CLUSTER),), (("get", MBUF),), (("get", MBUF),)),
        cpus=4,
    ),
    Scenario(
        "puts-get",
        "like puts, and CPU 3 asks for a cluster that no process holds",
        LARGE + SMALL,
        shapes(3, 2),
        two_leave("P1", "P2"),
        ((("put", MBUF),), (("put", MBUF),), (("get", CLUSTER),)),
        cpus=4,
    ),
    Scenario(
        "nmbclust-gets",
        "CPU 1 raises the limit while CPU 2 asks for an mbuf and CPU 3 for a cluster",
        SMALL,
        shapes(1, 1),
        (*get("P8", pool=MBUF),),
        ((("nmbclust", 2 * (LARGE + SMALL)),), (("get", MBUF),), (("get", CLUSTER),)),
        cpus=4,
    ),
    Scenario(
        "put-gets-put",
        "like put-gets, and CPU 3 also puts its cluster",
        LARGE,
        shapes(1, 2),
        (*get("P1", "P8", pool=CLUSTER),),
        (
            (("put", CLUSTER),),
            (("get", CLUSTER), ("put", CLUSTER)),
            (("get", CLUSTER), ("put", CLUSTER)),
        ),
        cpus=3,
    ),
)
