"""The table of one page, which could be posted."""

from __future__ import annotations

from mbufpools.demokit import Table

from .._results import Cell, Results
from ._incidents import FOUR, changed, incident_cell, nine_share
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
            "wait": "mean wait\n(ms)",
            "freed": "pages\nfreed",
            "nine": "9k\nserved",
        },
        title="Four kernels with caches",
    )
    for at, name in enumerate(FOUR):
        hidden, cold, incident = PAGE_CELLS[at], PAGE_CELLS[at + 4], PAGE_CELLS[at + 8]
        runs = results.all(incident)
        table.add(
            kernel=SHOWN[name],
            hidden=f"{100 * mean(results, hidden, 'share'):.2f}",
            cold=seconds(results.values(cold, "served_after")),
            refused=f"{100 * mean(results, incident, 'refused_after'):.1f}",
            wait=f"{1000 * mean(results, incident, 'wait_after'):,.0f}",
            freed=f"{mean(results, incident, 'freed_after'):.1f}",
            nine=f"{sum(run['nine_served'] for run in runs)} of "
            f"{sum(run['nine_asked'] for run in runs)}",
        )
    return [table]


def _page_verdict(results: Results) -> str:
    hidden = [mean(results, cell, "share") for cell in PAGE_CELLS[:2]]
    waits = [1000 * mean(results, cell, "wait_after") for cell in PAGE_CELLS[8:]]
    helps = "helps" if hidden[1] < 0.1 * hidden[0] else "does not help"
    runs = changed(results, PAGE_CELLS[8], PAGE_CELLS[10])
    nines = nine_share(results, PAGE_CELLS[11])
    return (
        f"The curpage line {helps} alone: {hidden[0]:.0%} → {hidden[1]:.2%} of a pool put, mean "
        f"wait {waits[0]:,.0f} → {waits[1]:,.0f} ms; with caches the patch alone changes {runs}; "
        f"with both and draining {waits[3]:,.0f} ms, 9k served {nines:.0%}."
    )


PAGE = Question(
    "0",
    "page",
    "What do the cures do, on one page?",
    PAGE_CELLS,
    _page_tables,
    _page_verdict,
    "hidden: share of the items of a full 2k pool of 256 pages that are put until a sleeper is "
    "served (without caches). cold 9k: median seconds that a get for a 9k cluster sleeps in an "
    "empty pool, with no load. The others: the fourteen seconds after the "
    "incident; mean wait is that of the sleeps that began in them, without those for 9k.",
)
