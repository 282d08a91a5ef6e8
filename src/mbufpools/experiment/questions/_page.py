"""The table of one page, which could be posted."""

from __future__ import annotations

import math

from mbufpools.demokit import Table

from .._kernels import CPUS
from .._measured import INCIDENT
from .._results import Cell, Results
from ._incidents import (
    at_the_limit,
    changed,
    incident_cell,
    mean_wait,
    nine_share,
    slept_share,
    slept_sums,
    wait_text,
)
from ._question import Question, given, kernel, mean, memory, seconds

__all__ = ["PAGE", "SHOWN"]

SHOWN = {
    "as it is": "as it is",
    "curpage": "curpage line",
    "patch": "the patch",
    "drained": "draining",
    "drained + patch": "draining + patch",
    "drained + patch + curpage": "all three",
}
"""The kernels as the table of one page names them, the curpage line first."""
UNDRAINED = {
    "drained": "as it is",
    "drained + patch": "patch",
    "drained + patch + curpage": "patch + curpage",
}
"""What stands for a kernel that drains where there are no caches."""

HIDDEN_CELLS = {
    name: Cell.of("hidden", kernel(UNDRAINED.get(name, name)), pool="mcl2k", pages=256)
    for name in SHOWN
}
COLD_CELLS = {name: Cell.of("cold", kernel(name, CPUS), request="bpf", load=0) for name in SHOWN}
AFTER_CELLS = {name: incident_cell(name, CPUS) for name in SHOWN}


def _page_tables(results: Results) -> list[Table]:
    table = Table(
        {
            "kernel": "kernel",
            "hidden": "hidden:\n% put",
            "cold": "cold 9k\n(s)",
            "refused": "refused\n%",
            "slept": "slept\n%",
            "wait": "mean\n(ms)",
            "freed": "pages\nfreed",
            "nine": "9k\nserved",
        },
        title=f"The kernel and its cures, with caches on {results.cpus or CPUS} CPUs (but for "
        "hidden)",
        right=("hidden", "cold", "refused", "slept", "wait", "freed", "nine"),
    )
    for name, shown in SHOWN.items():
        hidden, cold, incident = HIDDEN_CELLS[name], COLD_CELLS[name], AFTER_CELLS[name]
        table.add(
            kernel=shown,
            hidden=f"{100 * mean(results, hidden, 'share'):.2f}",
            cold=seconds(results.values(cold, "served_after")),
            refused=f"{100 * mean(results, incident, 'refused_after'):.1f}",
            slept=f"{100 * slept_share(results, incident):.2f}",
            wait=wait_text(results, incident),
            freed=f"{mean(results, incident, 'freed_after'):.1f}",
            nine=f"{nine_share(results, incident):.0%}",
        )
    measured = Table(
        {
            "kernel": "kernel",
            "done": "requests\ndone",
            "refused": "refused\n%",
            "wait": "mean\n(ms)",
        },
        title="Measured on the kernel's own code (budget 16 MiB, more load; one run of each)",
        right=("done",),
    )
    for name, run in INCIDENT.items():
        measured.add(
            kernel=SHOWN[name],
            done=f"{run.done:,}",
            refused=round(100 * run.refused, 1),
            wait=run.wait,
        )
    return [table, measured]


def _page_verdict(results: Results) -> str:
    names = ("as it is", "curpage")
    hidden = [mean(results, HIDDEN_CELLS[name], "share") for name in names]
    after = [AFTER_CELLS[name] for name in names]
    slept = [slept_share(results, cell) for cell in after]
    waits = [
        f" {wait:,.0f} ms" if wait is not None else ", none served" if share else ""
        for share, wait in zip(slept, (mean_wait(results, cell) for cell in after), strict=True)
    ]
    helps = "helps" if hidden[1] < 0.5 * hidden[0] else "does not help"
    asleep = f"{slept[0]:.1%} of gets sleep{waits[0]} → {slept[1]:.1%}{waits[1]}"
    if (sums := slept_sums(results, *after)) and any(sums):
        asleep += f", {sums[0]:,.0f} → {sums[1]:,.0f} s in all"
    runs = changed(results, after[0], AFTER_CELLS["patch"])
    nines = nine_share(results, AFTER_CELLS["drained"])
    ending = f"{asleep}; with caches the patch changes {runs}; draining serves {nines:.0%} of 9k."
    if not at_the_limit(results, AFTER_CELLS.values()):
        ending = "in the incident the limit was never reached."
    return (
        f"The curpage line {helps} alone: {hidden[0]:.0%} → {hidden[1]:.2%} of a pool put, {ending}"
    )


def _how(results: Results) -> str:
    hidden, cold, incident = (
        given(results, cells["as it is"]) for cells in (HIDDEN_CELLS, COLD_CELLS, AFTER_CELLS)
    )
    asleep = hidden["sleepers"]
    busy = f"receive clusters, {cold['load']} % of them in use," if cold["load"] else ""
    full = at_the_limit(results, AFTER_CELLS.values())
    return (
        f"hidden: share of the items of a full 2k pool of {hidden['pages']} pages that are put "
        f"back, in random order, until {'a' if asleep == 1 else f'one of {asleep}'} "
        f"sleeper{'s' * (asleep > 1)} is served (without caches). cold 9k: median seconds that a "
        f"get for a 9k cluster sleeps in an empty pool, while {busy or 'idle receive clusters'} "
        "hold all memory. The "
        f"others are an incident: for {incident['resume'] - incident['stop']:g} seconds "
        f"{incident['hogs']:,} peers do not read, and 64 KiB for each "
        f"{'fill' if full else 'do not fill'} the budget of {memory(incident['nmbclust'])}; "
        f"receive rings, {incident['senders']} senders and NFS go on. Counted are the "
        f"{incident['end'] - incident['resume']:g} seconds after the peers read again. refused: of "
        "the M_DONTWAIT gets; slept: of the M_WAIT gets, and how long on average, without those "
        "for 9k; 9k: one is asked for each second. Draining: before a get sleeps, and at each run "
        "of the gc while one sleeps, the caches of all CPUs and the depots go back to the pages, "
        "and the requests of all pools are tried again."
    )


def _notes(results: Results) -> tuple[str, ...]:
    """Why more gets sleep with the curpage line, if the figures show it."""
    cells = [AFTER_CELLS[name] for name in ("as it is", "curpage")]
    slept = [slept_share(results, cell) for cell in cells]
    refused = [mean(results, cell, "refused_after") for cell in cells]
    waits = [mean_wait(results, cell) or math.inf for cell in cells]
    sums = slept_sums(results, *cells)
    more, shorter = slept[0] < slept[1], waits[1] < waits[0]
    if not (more and shorter and refused[0] < refused[1] and sums):
        return ()
    return (
        "With the curpage line more gets sleep, each for a shorter time: added up, they sleep for "
        f"{sums[1]:,.0f} s instead of {sums[0]:,.0f}. Who no longer sleeps asks for more, so a few "
        "more M_DONTWAIT gets are refused here; on the kernel's own code, with more load, fewer "
        "are.",
    )


PAGE = Question(
    "0",
    "page",
    "What do the cures do, on one page?",
    (*HIDDEN_CELLS.values(), *COLD_CELLS.values(), *AFTER_CELLS.values()),
    _page_tables,
    _page_verdict,
    _how,
    _notes,
    fixed=("hidden.pool", "hidden.order", "cold.request"),
)
