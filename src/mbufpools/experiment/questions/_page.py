"""The table of one page, which could be posted."""

from __future__ import annotations

from mbufpools.demokit import Table

from .._results import Cell, Results
from ._incidents import FOUR, changed, incident_cell, nine_share, slept_share
from ._question import Question, kernel, mean, seconds

__all__ = ["PAGE", "SHOWN"]

SHOWN = {
    "as it is": "as it is",
    "curpage": "curpage line",
    "patch": "the patch",
    "drained + patch + curpage": "both + draining",
}
"""The kernels of `FOUR` as the table of one page names them, the one-line cure first."""


def _undrained(name: str) -> str:
    return "patch + curpage" if name.startswith("drained") else name


def _page_cells() -> tuple[Cell, ...]:
    hidden = tuple(
        Cell.of("hidden", kernel(_undrained(name)), pool="mcl2k", pages=256) for name in FOUR
    )
    cold = tuple(Cell.of("cold", kernel(name, 8), request="bpf", load=0) for name in FOUR)
    return hidden + cold + tuple(incident_cell(name, 8) for name in FOUR)


PAGE_CELLS = _page_cells()


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
        title="Four kernels with caches on 8 CPUs",
        right=("hidden", "cold", "refused", "slept", "wait", "freed", "nine"),
    )
    for at, name in enumerate(FOUR):
        hidden, cold, incident = PAGE_CELLS[at], PAGE_CELLS[at + 4], PAGE_CELLS[at + 8]
        table.add(
            kernel=SHOWN[name],
            hidden=f"{100 * mean(results, hidden, 'share'):.2f}",
            cold=seconds(results.values(cold, "served_after")),
            refused=f"{100 * mean(results, incident, 'refused_after'):.1f}",
            slept=f"{100 * slept_share(results, incident):.2f}",
            wait=f"{1000 * mean(results, incident, 'wait_after'):,.0f}",
            freed=f"{mean(results, incident, 'freed_after'):.1f}",
            nine=f"{nine_share(results, incident):.0%}",
        )
    return [table]


def _page_verdict(results: Results) -> str:
    hidden = [mean(results, cell, "share") for cell in PAGE_CELLS[:2]]
    waits = [1000 * mean(results, cell, "wait_after") for cell in PAGE_CELLS[8:10]]
    slept = [slept_share(results, cell) for cell in PAGE_CELLS[8:10]]
    helps = "helps" if hidden[1] < 0.1 * hidden[0] else "does not help"
    runs = changed(results, PAGE_CELLS[8], PAGE_CELLS[10])
    nines = nine_share(results, PAGE_CELLS[11])
    return (
        f"The curpage line {helps} alone: {hidden[0]:.0%} → {hidden[1]:.2%} of a pool put, "
        f"{slept[0]:.1%} of gets sleep {waits[0]:,.0f} ms → {slept[1]:.1%} {waits[1]:,.0f} ms; "
        f"with caches the patch alone changes {runs}; both and draining serve {nines:.0%} of 9k."
    )


PAGE = Question(
    "0",
    "page",
    "What do the cures do, on one page?",
    PAGE_CELLS,
    _page_tables,
    _page_verdict,
    "hidden: share of the items of a full 2k pool of 256 pages that are put back, in random order, "
    "until a sleeper is served (without caches). cold 9k: median seconds that a get for a 9k "
    "cluster sleeps in an empty pool, while idle receive clusters hold all memory. The others are "
    "an incident: for ten seconds 200 peers do not read, and 64 KiB for each fill the budget of "
    "16 MiB; receive rings, 64 senders and NFS go on. Counted are the fourteen seconds after the "
    "peers read again. refused: of the M_DONTWAIT gets; slept: of the M_WAIT gets, and how long on "
    "average, without those for 9k; 9k: one is asked for each second. Draining: while a get waits, "
    "the caches of all CPUs and the depots go back to the pages.",
)
