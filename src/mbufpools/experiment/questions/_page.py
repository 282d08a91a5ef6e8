"""The table of one page, which could be posted."""

from __future__ import annotations

import math

from mbufpools.demokit import Table, plural

from .._kernels import CPUS
from .._measured import INCIDENT
from .._results import Cell, Results
from ._incidents import (
    at_the_limit,
    changed,
    hanging,
    hung,
    incident_cell,
    less_and_more_slept,
    nine_share,
    slept_share,
    standstills,
    typical_wait,
    waits,
)
from ._question import Question, as_percent, given, kernel, mean, memory, seconds, typical

__all__ = ["AFTER_CELLS", "COLD_CELLS", "PAGE", "SHOWN", "standing_still"]

SHOWN = {
    "as it is": "as it is",
    "curpage": "curpage line",
    "patch": "the patch",
    "drained": "draining",
    "drained + patch": "drain + patch",
    "drained + patch + curpage": "all three",
}
"""The kernels as the table of one page names them, the curpage line first."""
HIDDEN_CELLS = {
    name: Cell.of("hidden", kernel(name, CPUS), pool="mcl2k", pages=256) for name in SHOWN
}
COLD_CELLS = {name: Cell.of("cold", kernel(name, CPUS), request="bpf", load=0) for name in SHOWN}
AFTER_CELLS = {name: incident_cell(name, CPUS) for name in SHOWN}


def _page_tables(results: Results) -> list[Table]:
    table = Table(
        {
            "kernel": "kernel",
            "hidden": "hidden\n%",
            "cold": "cold 9k\n(s)",
            "refused": "refused\n%",
            "slept": "slept\n%",
            "wait": "wait\n(ms)",
            "worst": "worst\n(ms)",
            "freed": "pages\nfreed",
            "nine": "9k\n%",
        },
        title=f"The kernel and its cures, with caches on {results.cpus or CPUS} CPUs",
        right=("hidden", "cold", "refused", "slept", "wait", "worst", "freed", "nine"),
    )
    for name, shown in SHOWN.items():
        hidden, cold, incident = HIDDEN_CELLS[name], COLD_CELLS[name], AFTER_CELLS[name]
        served = waits(results, incident)
        unserved = "none" if any(results.values(incident, "never_after")) else "-"
        table.add(
            kernel=shown,
            hidden=as_percent(mean(results, hidden, "share")),
            cold=seconds(results.values(cold, "served_after")),
            refused=f"{100 * typical(results, incident, 'refused_after'):.1f}",
            slept=f"{100 * slept_share(results, incident):.2f}",
            wait=f"{typical_wait(results, incident):,.0f}" if served else unserved,
            worst=f"{max(served):,.0f}" if served else unserved,
            freed=f"{typical(results, incident, 'freed_after'):.0f}",
            nine=f"{100 * nine_share(results, incident):.0f}",
        )
    measured = Table(
        {
            "kernel": "kernel",
            "done": "requests\ndone",
            "refused": "refused\n%",
            "wait": "mean\n(ms)",
        },
        title="Measured on the kernel's own code (16 MiB, caches of 8 CPUs, more load; one run of "
        "each)",
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
    lasted = [
        f" {wait:,.0f} ms" if wait is not None else ", none served" if share else ""
        for share, wait in zip(slept, (typical_wait(results, cell) for cell in after), strict=True)
    ]
    helps = "helps" if hidden[1] < 0.5 * hidden[0] else "does not help"
    asleep = f"{slept[0]:.1%} of gets sleep{lasted[0]} → {slept[1]:.1%}{lasted[1]}"
    if (counts := less_and_more_slept(results, *after)) and any(counts):
        asleep += f", in {plural(counts[0], 'run')} less in all"
    runs = changed(results, after[0], AFTER_CELLS["patch"])
    nines = nine_share(results, AFTER_CELLS["drained"])
    ending = f"{asleep}; with caches the patch changes {runs}; draining serves {nines:.0%} of 9k."
    if not at_the_limit(results, AFTER_CELLS.values()):
        ending = "in the incident the limit was never reached."
    before, line = map(as_percent, hidden)
    return f"The curpage line {helps} alone: {before}% → {line}% of a pool put, {ending}"


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
        f"sleeper{'s' * (asleep > 1)} is served. cold 9k: median seconds that a get "
        f"for a 9k cluster sleeps in an empty pool, while {busy or 'idle receive clusters'} "
        "hold all memory. The "
        f"others are an incident: for {incident['resume'] - incident['stop']:g} seconds "
        f"{incident['hogs']:,} peers do not read, and 64 KiB for each "
        f"{'fill' if full else 'do not fill'} the budget of {memory(incident['nmbclust'])}; "
        f"receive rings, {incident['senders']} senders and NFS go on. Counted are the "
        f"{incident['end'] - incident['resume']:g} seconds after the peers read again. refused: of "
        "the M_DONTWAIT gets; slept: of the M_WAIT gets, without those for 9k; wait: how long they "
        "sleep, on average over a run; 9k: served, of one asked for each second. hidden is the "
        "mean of the runs, worst the wait of the run with the longest, and each other column the "
        f"median of the runs. {_hung(results)} Draining: before a get sleeps, and at each run of "
        "the gc while one sleeps, the caches of all CPUs and the depots go back to the pages, and "
        "the requests of all pools are tried again."
    )


def _hung(results: Results) -> str:
    """What it means that a run hangs, and in how many runs of which kernels one does."""
    told = [
        f"{hanging(results, cell)} ({SHOWN[name]})"
        for name, cell in AFTER_CELLS.items()
        if any(hung(results, cell))
    ]
    return (
        "A run hangs if at its end at least as many gets sleep, those for 9k not counted, as there "
        f"are senders and NFS clients; {'these do: ' + ', '.join(told) if told else 'none does'}."
    )


def standing_still(results: Results) -> str:
    """Why one run of a kernel that drains waits far longer than all others; empty if none does."""
    cell, cured = (AFTER_CELLS[f"drained + patch{more}"] for more in ("", " + curpage"))
    served = waits(results, cell)
    stood, alone, never = (standstills(results, it) for it in (cell, AFTER_CELLS["drained"], cured))
    if len(served) < len(stood) or stood[served.index(max(served))] < 2 or any(never):
        return ""
    some = [it for it in alone if it]
    others = (
        f"Under draining alone all sleep at once in {plural(len(some), 'run')}, for up to "
        f"{plural(max(some), 'second')}"
        if some
        else "Under draining alone they never do"
    )
    return (
        f"In the run of drain + patch that waits the longest, {max(served):,.0f} ms on average, "
        f"all senders and NFS clients sleep for {max(stood)} seconds beside free mbufs that "
        "mbufpl does not see, because its pr_curpage is NULL. The sleepers hold its other mbufs, "
        "so no put comes; it ends when the gc frees a page of another pool and the patch wakes "
        "them. "
        f"{others}; with the curpage line in none."
    )


def _notes(results: Results) -> tuple[str, ...]:
    """Why more gets sleep with the curpage line, and why one run waits so long, if the figures show
    it."""
    cells = [AFTER_CELLS[name] for name in ("as it is", "curpage")]
    slept = [slept_share(results, cell) for cell in cells]
    refused = [typical(results, cell, "refused_after") for cell in cells]
    lasted = [typical_wait(results, cell) or math.inf for cell in cells]
    counts = less_and_more_slept(results, *cells)
    more, shorter = slept[0] < slept[1], lasted[1] < lasted[0]
    still = tuple(filter(None, [standing_still(results)]))
    if not (more and shorter and refused[0] < refused[1] and counts):
        return still
    return (
        "With the curpage line more gets sleep, each for a shorter time: added up, they sleep for "
        f"less in {plural(counts[0], 'run')}, and for more in {counts[1]}. A process that "
        "sleeps less asks for more, so a few more M_DONTWAIT gets are refused here; on the "
        "kernel's own code, with more load, fewer are.",
        *still,
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
