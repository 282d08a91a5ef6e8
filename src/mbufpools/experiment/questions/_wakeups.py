"""Question d: what do wakeups cost?"""

from __future__ import annotations

from collections.abc import Sequence

from mbufpools import MbufPools
from mbufpools.demokit import Table
from mbufpools.mbufs import MCLBYTES

from .._intervals import middle
from .._kernels import CPUS
from .._measured import microseconds_a_second
from .._results import Cell, Results
from ._incidents import incident_cell
from ._question import Question, given, kernel, mean

__all__ = ["STEADY", "STORMS", "WAKEUPS", "price"]

PAGE = MbufPools(1).mbpool.page_size
"""Bytes of a page of mbufs."""
STORMS = tuple(
    Cell.of("storm", kernel(name), sleepers=sleepers)
    for name in ("patch", "direct", "near-limit", "wanted")
    for sleepers in (0, 20)
)

STEADY = tuple(
    incident_cell(name, caches)
    for name, caches in (
        ("patch", 0),
        ("direct", 0),
        ("wanted", 0),
        ("patch + curpage", 0),
        ("patch", CPUS),
        ("drained + patch + curpage", CPUS),
    )
)


def price(results: Results, cell: Cell) -> list[float]:
    """Microseconds of CPU time a second that the wakeups cost, of each run; in a storm, a second
    of the storm."""
    return [
        microseconds_a_second(
            run["runs_idle"],
            run["runs"] - run["runs_idle"],
            run["coalesced"],
            run.get("storm_seconds") or run["seconds"],
        )
        for run in results.all(cell)
    ]


def _wakeup_tables(results: Results) -> list[Table]:
    table = Table(
        {
            "load": "load",
            "kernel": "kernel",
            "runs": "runs",
            "vain": "in vain\n%",
            "served": "served\na run",
            "coalesced": "coalesced\nadds",
            "price": "µs of CPU\na second",
        },
        title="Runs of m_pool_wakeup, and what they cost",
    )
    for cell in (*STORMS, *STEADY):
        runs = mean(results, cell, "runs")
        load = (
            f"storm, {cell.parameters['sleepers']} asleep"
            if cell.workload == "storm"
            else f"incident, {'caches' if cell.kernel.caches else 'no caches'}"
        )
        table.add(
            load=load,
            kernel=cell.kernel.name,
            runs=middle(results.values(cell, "runs")),
            vain=round(100 * mean(results, cell, "runs_in_vain") / runs) if runs else None,
            served=round(mean(results, cell, "served_by_runs") / runs, 2) if runs else None,
            coalesced=middle(results.values(cell, "coalesced")),
            price=round(max(price(results, cell)), 1),
        )
    return [table]


def _wakeup_verdict(results: Results) -> str:
    def dearest(cells: Sequence[Cell]) -> float:
        return max(max(price(results, cell)) for cell in cells)

    storm = Cell.of("storm", kernel("direct"), sleepers=20)
    runs, vain = mean(results, storm, "runs"), mean(results, storm, "runs_in_vain")
    steady = dearest(STEADY)
    return (
        f"{'Yes, it is cheap' if steady / 1e6 < 0.001 else 'No, it is not cheap'}: in the incident "
        f"the wakeups take {steady:.1f} µs of CPU a second at most; in a storm of {runs:.0f} freed "
        f"pages direct takes {dearest([storm]) / 1e6:.2%} of a CPU, and {vain / max(1, runs):.1%} "
        f"of its runs serve nobody."
    )


def _how(results: Results) -> str:
    storm = given(results, STORMS[0])
    asleep = max(cell.parameters["sleepers"] for cell in STORMS)
    pages = storm["nmbclust"] * MCLBYTES // PAGE
    return (
        f"Storm: {pages:,} idle pages of mbufs, more than the pool may keep, so each of "
        f"{storm['rate']:,g} puts a second frees one until they are gone; {asleep} processes sleep "
        "for 64k clusters meanwhile, or nobody. Incident: as in g. The counts are simulated; each "
        "is multiplied by the most nanoseconds that a call of the kernel's own code takes, and a "
        "run that finds somebody asleep is priced as one that eight pools refuse. In a storm, a "
        "second is one of the storm. The dearest run counts."
    )


WAKEUPS = Question(
    "d",
    "wakeups",
    "Could one just call wakeup, knowing that it is cheap if nobody sleeps?",
    (*STORMS, *STEADY),
    _wakeup_tables,
    _wakeup_verdict,
    _how,
    lambda results: (
        "In vain: runs that served nobody. Where nobody sleeps all are in vain, and wanted has "
        "none. These shares are those of all runs of the experiment together.",
    ),
)
