"""What one would tell in a few lines: five findings.

Each sentence is made of the figures; where a finding can come out the other way, the sentence
says so.
"""

from __future__ import annotations

import math

from mbufpools.demokit import plural

from ._intervals import median, reach
from ._kernels import CPUS
from ._results import Cell, Results
from .questions._beyond import IDLE
from .questions._cure import COLD, cold_never
from .questions._grab import sleepers_share
from .questions._incidents import (
    changed,
    hanging,
    hung,
    incident_cell,
    kinds,
    less_and_more_slept,
    more_and_fewer,
    nine_share,
    slept_share,
    typical_wait,
    waits,
)
from .questions._question import as_percent, given, kernel, mean, seconds, typical
from .questions._wakeups import STORMS, price

__all__ = ["FINDING_CELLS", "cold_without_caches", "findings", "grabbed", "hidden", "storm"]

HIDDEN = {
    (name, order): Cell.of("hidden", kernel(name), pool="mcl2k", pages=256, **more)
    for name, order, more in (
        ("patch", "random", {}),
        ("patch", "first", {"order": "first"}),
        ("patch + curpage", "random", {}),
    )
}
BEFORE = incident_cell("as it is", 8)
PATCHED = incident_cell("patch", 8)
CURPAGE = incident_cell("curpage", 8)
DRAINED = incident_cell("drained", 8)
ALL_THREE = incident_cell("drained + patch + curpage", 8)
COLD_DRAINED = tuple(
    Cell.of("cold", kernel(name, 8), request="bpf", load=0)
    for name in ("drained", "drained + patch")
)
ALONE = (incident_cell("as it is", 0), incident_cell("patch", 0))
LATE = 0.01
"""Seconds by which the task of the patch is late."""
GRAB = {
    (name, delay): Cell.of("grab", kernel(name), delay=delay)
    for name in ("patch", "direct")
    for delay in (0.0, LATE)
}
FINDING_CELLS = (
    *(BEFORE, PATCHED, CURPAGE, DRAINED, ALL_THREE),
    *COLD_DRAINED,
    *ALONE,
    *HIDDEN.values(),
    *COLD,
    *STORMS,
    *GRAB.values(),
    *IDLE[:2],
)
"""The cells that the findings are made of."""


def hidden(results: Results) -> str:
    """What part of a pool must be put until its first sleeper is served."""
    random, first = (
        as_percent(mean(results, HIDDEN["patch", order], "share")) for order in ("random", "first")
    )
    puts = max(results.values(HIDDEN["patch + curpage", "random"], "put"))
    load = given(results, HIDDEN["patch", "random"])
    return (
        f"With the patch {random}% of a full 2k pool of {load['pages']} pages is put back before "
        f"its first sleeper is served, if the items come back in random order, and {first}% if "
        f"they come back in the order in which they were taken; with the curpage line it takes "
        f"{plural(puts, 'put')}."
    )


def cold_without_caches(results: Results) -> str:
    """What the patch cures if there are no per-CPU caches."""
    lost, of = cold_never(results, "patch", 0)
    patched = sum(hung(results, ALONE[1]))
    return (
        f"Without per-CPU caches the patch leaves {lost} of {of} sleepers of a cold pool asleep, "
        "one that has no page while receive clusters hold all memory. "
        "A run of the incident hangs if at its end at least as many gets sleep as there are "
        f"senders and NFS clients: {hanging(results, ALONE[0])} runs do as it is, and {patched} "
        f"with the patch. {kinds(results, *ALONE)}"
    )


def _cold(results: Results) -> str:
    lost, of = cold_never(results, "patch", CPUS)
    more, fewer = more_and_fewer(results, BEFORE, PATCHED)
    horizon = given(results, COLD[0])["horizon"]
    return (
        f"{cold_without_caches(results)} With "
        f"caches {lost} of {of} still sleep after {horizon:g} s, and the incident comes out "
        "otherwise in "
        f"{changed(results, BEFORE, PATCHED)}: more requests are done in {more}, fewer in {fewer}."
    )


def _drained(results: Results) -> str:
    names = {
        BEFORE: "as it is",
        CURPAGE: "with the curpage line",
        ALL_THREE: "with the patch, the curpage line, and caches that are drained while somebody "
        "waits",
    }
    told = []
    for cell, name in names.items():
        served, wait = waits(results, cell), typical_wait(results, cell)
        lasted = "and none is served" if wait is None else f"for {wait:,.0f} ms ({reach(served)})"
        told.append(f"{slept_share(results, cell):.1%} of the gets sleep {name}, {lasted}")
    if counts := less_and_more_slept(results, BEFORE, CURPAGE):
        less, more = counts
        told[1] += f", and all together for less than before in {plural(less, 'run')}, for more "
        told[1] += f"in {more}"
    nine = [nine_share(results, cell) for cell in (BEFORE, DRAINED)]
    visits = typical(results, DRAINED, "cpu_visits") / typical(results, DRAINED, "seconds")
    cold = [seconds(results.values(cell, "served_after")) for cell in COLD_DRAINED]
    return (
        "After the incident, in the median of the runs (in brackets: the shortest and the longest "
        f"mean wait of a run), {'; '.join(told)}. "
        f"Draining alone serves {nine[1]:.0%} of the 9k gets (as it is "
        f"{nine[0]:.0%}), for {visits:,.0f} visits to CPUs a second; a cold 9k get then sleeps "
        f"{cold[0]} s, and with the patch, too, {cold[1]} s."
    )


def grabbed(results: Results) -> str:
    """What part of the freed pages sleepers get, and how much of it is chance."""

    def share(name: str, delay: float) -> float:
        found = sleepers_share(results, GRAB[name, delay])
        return sum(found) / len(found)

    rate = given(results, GRAB["patch", LATE])["rate"]
    lucky = math.exp(-rate / 2 * LATE)
    return (
        f"With {rate:g} M_DONTWAIT gets a second, half of them for the pool in which the processes "
        f"sleep, sleepers get {share('patch', 0.0):.0%} of the freed pages under the patch, "
        f"{share('patch', LATE):.0%} if other work holds its task up for {1000 * LATE:g} ms (the "
        f"chance that no get for that pool comes in this time is {lucky:.0%}), and "
        f"{share('direct', LATE):.0%} under a direct wakeup."
    )


def _cost(results: Results) -> str:
    most = max(max(price(results, cell)) for cell in STORMS)
    half = [median(results.values(cell, "left_50")) for cell in IDLE[:2]]
    stay = ["longer than was simulated" if value is None else f"{value:,.0f} s" for value in half]
    return (
        f"In {storm(results)} the wakeups cost {most / 1e6:.2%} of a CPU at most, while it lasts; "
        f"half of 256 idle pages stay for {stay[0]}, and for {stay[1]} with caches."
    )


def storm(results: Results) -> str:
    """The storm in which the wakeups are dearest, in words."""
    load = given(results, max(STORMS, key=lambda cell: max(price(results, cell))))
    return (
        f"a storm of {load['rate']:,g} freed pages a second, with {load['sleepers']} processes "
        "asleep,"
    )


def findings(results: Results) -> list[str]:
    """Return five findings, each a sentence or a few, the curpage line first."""
    return [make(results) for make in (hidden, _cold, _drained, grabbed, _cost)]
