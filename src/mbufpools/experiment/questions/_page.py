"""The table of one page, which could be posted."""

from __future__ import annotations

from mbufpools.demokit import Table

from .._kernels import CPUS
from .._measured import INCIDENT
from .._results import Cell, Results
from ._incidents import at_the_limit, changed, incident_cell, mean_wait, nine_share, slept_share
from ._question import Question, kernel, mean, seconds

__all__ = ["PAGE", "SHOWN"]

SHOWN = {
    "as it is": "as it is",
    "curpage": "curpage line",
    "patch": "the patch",
    "drained": "draining",
    "drained + patch": "draining + patch",
    "drained + patch + curpage": "all three",
}
"""The kernels as the table of one page names them, the one-line cure first."""
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
        title="The kernel and its cures, with caches on 8 CPUs (but for hidden)",
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
            wait="-" if (wait := mean_wait(results, incident)) is None else f"{wait:,.0f}",
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
        title="An incident measured on the kernel's own code, with more load; one run of each",
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
        "on" if wait is None else f"{wait:,.0f} ms"
        for wait in (mean_wait(results, cell) for cell in after)
    ]
    helps = "helps" if hidden[1] < 0.1 * hidden[0] else "does not help"
    runs = changed(results, after[0], AFTER_CELLS["patch"])
    nines = nine_share(results, AFTER_CELLS["drained"])
    ending = (
        f"{slept[0]:.1%} of gets sleep {waits[0]} → {slept[1]:.1%} {waits[1]}; with caches the "
        f"patch alone changes {runs}, and draining alone serves {nines:.0%} of 9k."
    )
    if not at_the_limit(results, AFTER_CELLS.values()):
        ending = "in the incident the limit was never reached."
    return (
        f"The curpage line {helps} alone: {hidden[0]:.0%} → {hidden[1]:.2%} of a pool put, {ending}"
    )


PAGE = Question(
    "0",
    "page",
    "What do the cures do, on one page?",
    (*HIDDEN_CELLS.values(), *COLD_CELLS.values(), *AFTER_CELLS.values()),
    _page_tables,
    _page_verdict,
    "hidden: share of the items of a full 2k pool of 256 pages that are put back, in random order, "
    "until a sleeper is served (without caches). cold 9k: median seconds that a get for a 9k "
    "cluster sleeps in an empty pool, while idle receive clusters hold all memory. The others are "
    "an incident: for ten seconds 200 peers do not read, and 64 KiB for each fill the budget of "
    "16 MiB; receive rings, 64 senders and NFS go on. Counted are the fourteen seconds after the "
    "peers read again. refused: of the M_DONTWAIT gets; slept: of the M_WAIT gets, and how long on "
    "average, without those for 9k; 9k: one is asked for each second. Draining: before a get "
    "sleeps, and at each run of the gc while one sleeps, the caches of all CPUs and the depots go "
    "back to the pages, and the requests of all pools are tried again.",
    (
        "With the curpage line more gets sleep, each for a shorter time. Who no longer sleeps asks "
        "for more, so a few more M_DONTWAIT gets are refused here; on the kernel's own code, with "
        "more load, fewer are.",
    ),
)
