"""What one would tell in a few lines: five findings, and a mail to the list.

Each sentence is made of the figures; where a finding can come out the other way, the sentence
says so.
"""

from __future__ import annotations

import textwrap

from mbufpools.demokit import plural

from ._intervals import median
from ._results import Cell, Results
from .questions._beyond import IDLE
from .questions._cure import COLD
from .questions._grab import sleepers_share
from .questions._incidents import changed, incident_cell, nine_share, slept_share
from .questions._page import PAGE
from .questions._question import kernel, mean, never
from .questions._wakeups import STORMS, price

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
BOTH = incident_cell("drained + patch + curpage", 8)
ALONE = (incident_cell("as it is", 0), incident_cell("patch", 0))
GRAB = {
    (name, delay): Cell.of("grab", kernel(name), delay=delay)
    for name in ("patch", "direct")
    for delay in (0.0, 0.01)
}
MAIL_CELLS = (*PAGE.cells, *ALONE, *HIDDEN.values(), *COLD, *STORMS, *GRAB.values(), *IDLE[:2])
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
    runs = changed(results, BEFORE, PATCHED)
    done = [mean(results, cell, "done_after") for cell in ALONE]
    return (
        f"Without per-CPU caches the patch leaves {lost} of {of} sleepers of a cold pool asleep, "
        f"and after the incident {done[1]:,.0f} requests are done instead of {done[0]:,.0f}; with "
        f"caches {lost_cached} of {of_cached} sleep on, and the incident comes out otherwise in "
        f"{runs}."
    )


def _drained(results: Results) -> str:
    wait = [1000 * mean(results, cell, "wait_after") for cell in (BEFORE, CURPAGE, BOTH)]
    nine = [nine_share(results, cell) for cell in (BEFORE, BOTH)]
    visits = mean(results, BOTH, "cpu_visits") / mean(results, BOTH, "seconds")
    slept = [slept_share(results, cell) for cell in (BEFORE, CURPAGE, BOTH)]
    told = [
        f"{share:.1%} of the gets sleep, {seconds:,.0f} ms on average"
        for share, seconds in zip(slept, wait, strict=True)
    ]
    return (
        f"After the incident {told[0]}, as it is; {told[1]}, with the curpage line; {told[2]}, "
        f"with both and caches that are drained while somebody waits (9k served: {nine[0]:.0%}, "
        f"then {nine[1]:.0%}; {visits:,.0f} visits to CPUs a second)."
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
    """Return five sentences, the one-line cure first."""
    return [make(results) for make in (_hidden, _cold, _drained, _grabbed, _cost)]


def mail(results: Results) -> str:
    """Return the mail that one would send to the list: at most 72 columns, the one-line cure
    first."""
    (table,) = PAGE.tables(results)
    table.title = ""
    paragraphs = [
        "pool_do_put: let a put that makes a full page partial set pr_curpage to that page if "
        "pr_curpage is NULL. Today it does not: pool_do_get then sees no free item, asks "
        "m_pool_alloc for a page, and is refused at the limit. This line stands without the "
        "patch.",
        "The pools in virtual time, with per-CPU caches on 8 CPUs, under four kernels:",
        str(table),
        PAGE.how,
        *findings(results)[:3],
        f"Means of {plural(results.seeds_of(PAGE.cells), 'seed')}. `make report` computes it again "
        "and writes a page with each question of the thread; `mbufpools compare page` prints this "
        "table.",
    ]
    text = "\n\n".join(
        paragraph
        if "\n" in paragraph
        else textwrap.fill(paragraph, COLUMNS, break_long_words=False, break_on_hyphens=False)
        for paragraph in paragraphs
    )
    return f"Subject: Re: wake up mbuf pools when pages get released\n\n{text}\n"
