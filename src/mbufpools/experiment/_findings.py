"""What one would tell in a few lines: five findings, and a mail to the list.

Each sentence is made of the figures; where a finding can come out the other way, the sentence
says so.
"""

from __future__ import annotations

import textwrap

from mbufpools.demokit import plural

from ._intervals import median, reach
from ._measured import INCIDENT, SPINS
from ._results import Cell, Results
from .questions._backlog import BACKLOG, BACKLOGS, BY_PUTS
from .questions._beyond import IDLE
from .questions._cure import COLD
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
    refused_share,
    slept_share,
    typical_wait,
    waits,
)
from .questions._page import PAGE
from .questions._question import kernel, mean, never, seconds, typical
from .questions._wakeups import STEADY, STORMS, price

__all__ = ["MAIL_CELLS", "findings", "mail"]

COLUMNS = 72
"""Columns of a mail."""

HIDDEN = {
    name: Cell.of("hidden", kernel(name), pool="mcl2k", pages=256)
    for name in ("patch", "patch + curpage")
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
GRAB = {
    (name, delay): Cell.of("grab", kernel(name), delay=delay)
    for name in ("patch", "direct")
    for delay in (0.0, 0.01)
}
MAIL_CELLS = (
    *PAGE.cells,
    *ALONE,
    *HIDDEN.values(),
    *COLD,
    *STORMS,
    *STEADY[:2],
    *GRAB.values(),
    *BACKLOGS,
    *BY_PUTS,
    *IDLE[:2],
)
"""The cells that the findings and the mail are made of."""


def _hidden(results: Results) -> str:
    stale = mean(results, HIDDEN["patch"], "share")
    puts = max(results.values(HIDDEN["patch + curpage"], "put"))
    return (
        f"With the patch {stale:.0%} of a full 2k pool of 256 pages is put back before its first "
        f"sleeper is served; with the curpage line it takes {puts} put"
        f"{'' if puts == 1 else 's'}."
    )


def _cold(results: Results) -> str:
    counts = {}
    for caches in (0, 8):
        values = [
            value
            for cell in COLD
            if cell.kernel == kernel("patch", caches)
            for value in results.values(cell, "served_after")
        ]
        counts[caches] = (never(values), len(values))
    (lost, of), (lost_cached, of_cached) = counts[0], counts[8]
    more, fewer = more_and_fewer(results, BEFORE, PATCHED)
    patched = sum(hung(results, ALONE[1]))
    return (
        f"Without per-CPU caches the patch leaves {lost} of {of} sleepers of a cold pool asleep. "
        f"The incident hangs in {hanging(results, ALONE[0])} runs as it is, with as many gets "
        f"asleep at the end as there are senders and NFS clients, and in {patched} with the patch. "
        f"{kinds(results, *ALONE)} With "
        f"caches {lost_cached} of {of_cached} sleep on, and the incident comes out otherwise in "
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


def _grabbed(results: Results) -> str:
    def share(name: str, delay: float) -> float:
        found = sleepers_share(results, GRAB[name, delay])
        return sum(found) / len(found)

    return (
        f"Sleepers get {share('patch', 0.0):.0%} of the freed pages under the patch, "
        f"{share('patch', 0.01):.0%} if other work holds its task up for 10 ms, and "
        f"{share('direct', 0.01):.0%} under a direct wakeup."
    )


def _cost(results: Results) -> str:
    most = max(max(price(results, cell)) for cell in STORMS)
    half = [median(results.values(cell, "left_50")) for cell in IDLE[:2]]
    stay = ["longer than was simulated" if value is None else f"{value:,.0f} s" for value in half]
    return (
        f"In a storm of freed pages the wakeups cost {most / 1e6:.2%} of a CPU at most, while it "
        f"lasts; half of 256 idle pages stay for {stay[0]}, and for {stay[1]} with caches."
    )


def findings(results: Results) -> list[str]:
    """Return five findings, each a sentence or a few, the curpage line first."""
    return [make(results) for make in (_hidden, _cold, _drained, _grabbed, _cost)]


RECORDINGS = 132
"""The recordings of the kernel's own code with which the tests compare the pools."""
CURPAGE_LINE = """\
--- sys/kern/subr_pool.c
+++ sys/kern/subr_pool.c
@@ pool_do_put(), once a page that was full is on pr_partpages @@
+\t\tif (pp->pr_curpage == NULL)
+\t\t\tpp->pr_curpage = ph;"""
"""The curpage line, an assignment and its condition, as in a diff; the kernel's own lines are left
out."""
LATE = (
    "behind 5 s of other work on systqmp the first sleeper is served 4.9 s late, and 508 processes "
    "sleep meanwhile; with a direct wakeup it is not late, and 18 sleep"
)
"""What ``mbufpools demo backlog`` shows of a page that a put frees, and of a raised limit."""


def _why(results: Results) -> str:
    """What the table shows of the curpage line beside the shorter waits."""
    cells = (BEFORE, CURPAGE)
    refused = [typical(results, cell, "refused_after") for cell in cells]
    cold, small = (
        [refused_share(results, cell, pool) for cell in cells] for pool in ("mcl4k", "mcl2k")
    )
    slept = [slept_share(results, cell) for cell in cells]
    lasted = [typical_wait(results, cell) or 0.0 for cell in cells]
    real = (INCIDENT["as it is"], INCIDENT["curpage"])
    return (
        f"With the curpage line {'more' if slept[1] > slept[0] else 'fewer'} gets sleep, each for "
        f"a {'shorter' if lasted[1] < lasted[0] else 'longer'} time. A process that "
        f"sleeps less asks for more, and {refused[1]:.1%} of the M_DONTWAIT gets are refused "
        f"instead of {refused[0]:.1%}: of those for 4k clusters, whose pool is cold, "
        f"{cold[0]:.0%} without the line and {cold[1]:.0%} with it; of those "
        f"for 2k clusters {small[0]:.1%} and {small[1]:.1%}. On the real code, with more load, "
        f"{real[1].refused:.1%} are refused instead of {real[0].refused:.1%}, with "
        f"{real[1].done:,} requests instead of {real[0].done:,} and a mean wait of {real[1].wait} "
        f"ms instead of {real[0].wait} (one run of each)."
    )


def _objections() -> str:
    return (
        "Two things about the patch itself. If phpool has no header for a page, pool_p_alloc gives "
        "the page back by m_pool_free, which adds the task, which tries again: on the real code "
        f"the task ran {SPINS:,} times without a pause, and a direct wakeup once. It is narrow: "
        "phpool must refuse after m_pool_alloc has succeeded. And its wakeup can be lost: "
        "pool_wakeup looks at pr_requests without the lock, while pool_runqueue may have taken the "
        "requests off it. That window is 12 to 14 ns on the real code; a put has it today."
    )


def _replies(results: Results) -> list[str]:
    """The reviewer's questions of the thread, each with its answer."""
    patch, direct = (max(price(results, cell)) for cell in STEADY[:2])
    storm = max(max(price(results, cell)) for cell in STORMS if cell.kernel.wakeup == "direct")
    return [
        f"Is the memory grabbed before the wakeup makes it through? {_grabbed(results)}",
        "Does a late wakeup build up a backlog? In the model other work blocks systqmp each "
        "second, for up to 4 s, while 60 processes hold an mbuf and want a cluster. "
        f"{BACKLOG.verdict(results)} What the gc frees is "
        "late under a direct wakeup, too, because the gc is on systqmp. But if a put frees the "
        f"page or nmbclust is raised, the patch is late by all of that work: in a small run, "
        f"{LATE}. For nmbclust that is a regression: today nmbclust_update wakes the pools itself.",
        f"Just call wakeup? It is cheap: in the incident it takes {direct:.1f} µs of CPU a second "
        f"at most (the patch {patch:.1f}), and {storm / 1e6:.2%} of a CPU in a storm of freed "
        "pages. The counts are those of the model, the nanoseconds those of the real code.",
    ]


def mail(results: Results) -> str:
    """Return the mail that one would send to the list: at most 72 columns, the curpage line
    first."""
    table, _ = PAGE.tables(results)
    table.title = ""
    paragraphs = [
        "These figures come from a Python model of subr_pool.c and of the mbuf pools above it, in "
        f"virtual time. It agrees with {RECORDINGS} recordings of the real code, operation by "
        "operation. The loads are made up. What was measured on the real code, compiled for user "
        "space, says so.",
        "Begin with pool_do_put: let a put that makes a full page partial set pr_curpage to that "
        "page if pr_curpage is NULL. Today it does not: pool_do_get then sees no free item, asks "
        "m_pool_alloc for a page, and is refused at the limit. These two lines, called the curpage "
        "line below, stand without the patch:",
        CURPAGE_LINE,
        "The model with per-CPU caches on 8 CPUs, but for `hidden`, which is without caches:",
        str(table),
        PAGE.how(results),
        *findings(results)[:3],
        _why(results),
        _objections(),
        *_replies(results),
        f"There are {plural(results.seeds_of(PAGE.cells), 'run')} of each kernel and load, each "
        "with a seed of its own. The model is a Python library, "
        "mbufpools, which has no public address yet; in its source, `make report` computes all "
        "this again, with a page on each question of the thread, but for what was measured on the "
        "real code: that is data there, and the harness that measured it is not in the tree.",
    ]
    text = "\n\n".join(
        paragraph
        if "\n" in paragraph
        else textwrap.fill(paragraph, COLUMNS, break_long_words=False, break_on_hyphens=False)
        for paragraph in paragraphs
    )
    return f"Subject: Re: wake up mbuf pools when pages get released\n\n{text}\n"
