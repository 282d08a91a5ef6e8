"""The parameters of the workloads: the default of each, its unit, and what it means.

`PARAMETERS` has the defaults, which a cell or ``mbufpools compare --set`` replaces.
``mbufpools compare --list`` prints all three.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["PARAMETERS", "RATES", "DESCRIBED", "Parameter"]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a workload."""

    default: Any
    unit: str
    """What the number counts, or what kind of value it is."""
    meaning: str


LIMIT = "clusters of 2 KiB"
S = "seconds"

INCIDENT = {
    "nmbclust": Parameter(8192, LIMIT, "the limit of all pools together"),
    "rings": Parameter(4, "rings", "receive rings"),
    "ring_items": Parameter(512, "clusters", "clusters of 2050 bytes that a ring holds"),
    "packets": Parameter(15, "packets", "the most that a ring hands up at once"),
    "rx_period": Parameter(0.004, S, "from one ring that hands packets up to the next ring"),
    "rx_hold": Parameter(0.005, S, "mean time for which a received cluster is held"),
    "senders": Parameter(64, "processes", "processes that send again and again"),
    "think": Parameter(0.060, S, "mean time between two requests of a sender or an NFS client"),
    "send_hold": Parameter(0.030, S, "mean time until the peer has read what was sent"),
    "hogs": Parameter(200, "processes", "senders of 64 KiB to peers that do not read"),
    "nfs": Parameter(8, "processes", "NFS clients, which hold an mbuf and wait for a 2k cluster"),
    "nfs_hold": Parameter(0.005, S, "mean time for which an NFS client holds what it has got"),
    "small": Parameter(50, "processes", "small senders, which begin when the peers read again"),
    "stop": Parameter(0.5, S, "when the peers of the hogs stop reading"),
    "resume": Parameter(10.5, S, "when they read again; from then on 9k clusters are asked for"),
    "end": Parameter(24.5, S, "when the run ends"),
}
"""Those of the incident.

So that a run takes seconds, the phases are shorter than in the measurements of the kernel's own
code that the documents cite (20, 40 and 100 s), the rings receive at an eighth of the rate (there
each of them each 2 ms), and a sender thinks for 60 ms instead of 20. The stop, and the time after
it, are longer than the nine seconds after which the gc frees a page."""

DESCRIBED: dict[str, dict[str, Parameter]] = {
    "hidden": {
        "pool": Parameter("mcl2k", "a pool", "the pool whose items are all out"),
        "pages": Parameter(256, "pages", "the pages that it has"),
        "order": Parameter("random", "random, first or last", "which item is put next"),
        "sleepers": Parameter(1, "processes", "processes that sleep for an item of it"),
    },
    "cold": {
        "nmbclust": Parameter(514, LIMIT, "the limit; receive clusters fill it"),
        "request": Parameter("bpf", "bpf, nfs or 64k", "a 9k, a 2k or a 64k cluster is asked for"),
        "load": Parameter(0, "percent", "the receive clusters that are in use again and again"),
        "hold": Parameter(1.0, S, "mean time for which one of these is held"),
        "think": Parameter(1.0, S, "mean time from its put to the next M_DONTWAIT get"),
        "horizon": Parameter(45.0, S, "when the run ends; the get comes at 1 s"),
    },
    "grab": {
        "nmbclust": Parameter(640, LIMIT, "the limit; idle receive clusters fill it"),
        "sleepers": Parameter(320, "processes", "processes that sleep for a 4k cluster"),
        "rate": Parameter(
            200.0, "gets a second", "M_DONTWAIT gets, half for a 4k cluster, half for an mbuf"
        ),
        "delay": Parameter(0.0, S, "other work on systqmp before the wakeup, for each freed page"),
        "end": Parameter(30.5, S, "when the run ends"),
    },
    "backlog": {
        "nmbclust": Parameter(136, LIMIT, "the limit of all pools together"),
        "processes": Parameter(60, "processes", "processes that hold an mbuf and want a cluster"),
        "keep": Parameter(8, "pages", "the idle pages that a pool may keep before a put frees one"),
        "block": Parameter(0.0, S, "other work on systqmp, which holds up the gc and the wakeup"),
        "once": Parameter(False, "true or false", "one block; else one second after each the next"),
        "end": Parameter(60.0, S, "when the run ends"),
    },
    "storm": {
        "nmbclust": Parameter(2048, LIMIT, "the limit; idle pages of mbufs fill it"),
        "sleepers": Parameter(20, "processes", "processes that sleep for a 64k cluster"),
        "rate": Parameter(2000.0, "puts a second", "puts, each of which frees an idle page"),
    },
    "load": INCIDENT
    | {
        "end": Parameter(12.0, S, "when the run ends"),
        "hogs": Parameter(0, "processes", "none, so no peer stops reading"),
        "think": Parameter(0.040, S, INCIDENT["think"].meaning),
    },
    "idle": {
        "nmbclust": Parameter(65536, LIMIT, "the limit, which is never reached"),
        "pool": Parameter("mbufpl", "a pool", "the pool that has grown"),
        "items": Parameter(4096, "items", "the items that are taken and put back"),
        "shuffled": Parameter(False, "true or false", "put back in random order"),
        "trim": Parameter(0.0, S, "pool_reclaim of all pools again and again after it; 0: never"),
        "horizon": Parameter(400.0, S, "when the run ends"),
    },
    "incident": INCIDENT,
}
"""The parameters of each workload."""

PARAMETERS: dict[str, dict[str, Any]] = {
    workload: {name: parameter.default for name, parameter in parameters.items()}
    for workload, parameters in DESCRIBED.items()
}
"""The defaults. Times are in seconds."""
RATES = PARAMETERS["incident"]
"""Those of the incident."""
