"""The incident under each kernel: its cells, its tables, and what became of its users."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mbufpools.demokit import Table, plural

from .._intervals import spread
from .._kernels import CPUS
from .._results import Cell, Results
from ._question import given, kernel, mean, percent

__all__ = [
    "FOUR",
    "INCIDENT_CELLS",
    "VARIED_CELLS",
    "at_the_limit",
    "changed",
    "incident_cell",
    "incident_notes",
    "incident_tables",
    "mean_wait",
    "more_and_fewer",
    "nine_share",
    "refused_share",
    "slept_seconds",
    "slept_share",
    "slept_sums",
    "wait_text",
]

INCIDENTS = (
    ("as it is", 0),
    ("patch", 0),
    ("direct", 0),
    ("near-limit", 0),
    ("wanted", 0),
    ("curpage", 0),
    ("patch + curpage", 0),
    ("patch + fifo", 0),
    ("patch + pressure", 0),
    ("as it is", CPUS),
    ("patch", CPUS),
    ("direct", CPUS),
    ("curpage", CPUS),
    ("patch + fifo", CPUS),
    ("patch + pressure", CPUS),
    ("depots", CPUS),
    ("depots + patch + curpage", CPUS),
    ("drained", CPUS),
    ("drained + patch", CPUS),
    ("drained + patch + curpage", CPUS),
    ("drained + patch + fifo", CPUS),
    ("drained + patch + pressure", CPUS),
)
"""The kernels, and the CPUs whose caches they have; 0 for none."""

FOUR = ("as it is", "curpage", "patch", "drained + patch + curpage")
"""The kernels that are compared on other machines and under other loads."""

LARGE = {"nmbclust": 262144}
"""The default limit of amd64."""
FILLED = LARGE | {"hogs": 8192}
"""The same, with as many hogs as fill it."""
VARIED: tuple[tuple[str, dict[str, Any], int, tuple[str, ...]], ...] = (
    ("1 CPU", {}, 1, FOUR),
    ("4 CPUs", {}, 4, FOUR),
    ("512 MiB", LARGE, CPUS, FOUR[::3]),
    ("512 MiB, filled", FILLED, CPUS, FOUR),
    ("512 MiB, filled", FILLED, 0, ("as it is", "curpage", "patch", "patch + curpage")),
)
"""What is other than in `INCIDENTS`: its name, parameters, the CPUs with caches, the kernels."""


def incident_cell(name: str, caches: int, **parameters: Any) -> Cell:
    """The incident under one kernel."""
    return Cell.of("incident", kernel(name, caches), **parameters)


INCIDENT_CELLS = tuple(incident_cell(name, caches) for name, caches in INCIDENTS)
VARIED_CELLS = tuple(
    incident_cell(name, caches, **parameters)
    for _, parameters, caches, names in VARIED
    for name in names
)

OUTCOME = ("done_after", "refused_after", "wait_after", "never", "nine_served")
"""The figures that tell what the users of the pools went through after the incident."""


def incident_notes(results: Results) -> tuple[str, ...]:
    """Return what the tables of the incident mean, with the parameters of these results."""
    load = given(results, INCIDENT_CELLS[0])
    return (
        "Done: sends and rounds of NFS. Slept: of the gets that may sleep. Refused: of the gets "
        "that may not (M_DONTWAIT). Waits are those of gets that began to sleep after the peers "
        "had read again, and were served; those for 9k clusters are left out. Asleep at the end "
        "are all, of both.",
        "Pages freed, puts, wakeups, takers and visits are counted from the beginning, in "
        f"{load['end']:g} s; a visit to a CPU, to drain its caches, is what draining costs. A page "
        "counts for the request that takes the last of its bytes; the rest of the freed pages "
        "nobody has taken.",
        "1 CPU is a multiprocessor kernel on one CPU; a kernel for a single processor has no "
        "caches. 512 MiB is nmbclust 262,144, the default of amd64: 200 hogs do not fill it, 8,192 "
        "do.",
        "So that a run takes seconds, the phases are shorter and the rates lower than in the "
        "measurements of the kernel's own code: one ring, in turn, receives each "
        f"{1000 * load['rx_period']:g} ms (there each ring each 2 ms), and a sender thinks for "
        f"{1000 * load['think']:g} ms (there 20). mbufpools compare --list names the parameters, "
        "and --set changes them.",
    )


def incident_tables(results: Results) -> list[Table]:
    """Return the tables of the incident: its users, its pages, and other machines and loads."""
    load = given(results, INCIDENT_CELLS[0])
    users = Table(
        {"kernel": "kernel", "cpus": "CPUs with\ncaches", **USERS},
        title=f"The incident: its users, in the {load['end'] - load['resume']:g} seconds after the "
        "peers read again",
        right=USERS.keys() - SPREAD,
    )
    pages = Table(
        {
            "kernel": "kernel",
            "cpus": "CPUs with\ncaches",
            "freed": "pages\nfreed",
            "ratio": "puts to\na page",
            "sleeper": "taken by\na sleeper",
            "newcomer": "by a\nnewcomer",
            "runs": "wakeups",
            "vain": "served\nnobody",
            "visits": "visits to\nCPUs",
        },
        title=f"The same runs, all {load['end']:g} seconds: pages that were freed, who took them, "
        "wakeups",
        right=("cpus", "freed", "ratio", "sleeper", "newcomer", "runs", "vain", "visits"),
    )
    for cell in INCIDENT_CELLS:
        caches = results.measured(cell).kernel.caches
        machine = {"kernel": cell.kernel.name, "cpus": caches or "-"}
        users.add(**machine, **_users(results, cell))
        freed = mean(results, cell, "pages_freed")
        pages.add(
            **machine,
            freed=f"{freed:.1f}",
            ratio=f"{mean(results, cell, 'puts') / freed:,.0f}" if freed else "none freed",
            sleeper=f"{mean(results, cell, 'taken_by_sleeper'):.1f}",
            newcomer=f"{mean(results, cell, 'taken_by_newcomer'):.1f}",
            runs=f"{mean(results, cell, 'runs'):.1f}",
            vain=f"{mean(results, cell, 'runs_in_vain'):.1f}",
            visits=f"{mean(results, cell, 'cpu_visits'):,.0f}",
        )
    varied = Table(
        {"what": "what is other", "cpus": "CPUs with\ncaches", "kernel": "kernel", **USERS},
        title="The incident on other machines and under other loads: its users",
        right=USERS.keys() - SPREAD,
    )
    cells = iter(VARIED_CELLS)
    changes = results.changes.get("incident", {})
    for what, parameters, _, names in VARIED:
        told = [f"{name}={changes[name]}" for name in parameters if name in changes]
        for _ in names:
            cell = next(cells)
            varied.add(
                what=f"{what}, but {', '.join(told)}" if told else what,
                cpus=results.measured(cell).kernel.caches or "-",
                kernel=cell.kernel.name,
                **_users(results, cell),
            )
    return [users, pages, varied]


USERS = {
    "done": "requests\ndone",
    "slept": "slept\n%",
    "wait": "mean wait\n(ms)",
    "p99": "p99\n(ms)",
    "refused": "refused\n%",
    "never": "asleep at\nthe end",
    "nine": "9k served\n%",
}


SPREAD = {"wait", "refused"}
"""The columns with an interval behind the mean."""


def _users(results: Results, cell: Cell) -> dict[str, str]:
    runs = results.all(cell)
    waits = spread([1000 * run["wait_after"] for run in runs], "{:.0f}")
    return {
        "done": f"{mean(results, cell, 'done_after'):,.0f}",
        "slept": f"{100 * slept_share(results, cell):.2f}",
        "wait": wait_text(results, cell, waits),
        "p99": f"{1000 * mean(results, cell, 'p99_after'):,.0f}",
        "refused": spread([100 * run["refused_after"] for run in runs]),
        "never": f"{mean(results, cell, 'never'):.1f}",
        "nine": percent([run["nine_served"] / max(1, run["nine_asked"]) for run in runs]),
    }


def slept_share(results: Results, cell: Cell) -> float:
    """The share of the gets after the stop that had to sleep, without those for 9k clusters."""
    runs = results.all(cell)
    shares: list[float] = [
        (run["slept_after"] + run["never_after"]) / max(1, run["asked_after"]) for run in runs
    ]
    return sum(shares) / len(shares)


def nine_share(results: Results, cell: Cell) -> float:
    """The share of the 9k clusters that were served."""
    runs = results.all(cell)
    asked = sum(int(run["nine_asked"]) for run in runs)
    return sum(int(run["nine_served"]) for run in runs) / max(1, asked)


def at_the_limit(results: Results, cells: Iterable[Cell]) -> bool:
    """True if a get slept or was refused in a run of one of the cells. If not, the limit was never
    reached, and all kernels are alike."""
    return any(run["refused"] or run["slept"] for cell in cells for run in results.all(cell))


def mean_wait(results: Results, cell: Cell) -> float | None:
    """The mean of the waits after the stop, in milliseconds; None if no sleeper was served."""
    if not any(results.values(cell, "slept_after")):
        return None
    return 1000 * mean(results, cell, "wait_after")


def wait_text(results: Results, cell: Cell, served: str = "") -> str:
    """The cell of a table for the mean wait in milliseconds: `served`, by default the mean; or that
    no sleeper was served."""
    wait = mean_wait(results, cell)
    if wait is None and any(results.values(cell, "never_after")):
        return "none served"
    return served or ("-" if wait is None else f"{wait:,.0f}")


def slept_seconds(results: Results, cell: Cell) -> float:
    """The mean over the seeds of the seconds slept after the stop by all that were served."""
    runs = results.all(cell)
    return sum(float(run["slept_after"] * run["wait_after"]) for run in runs) / len(runs)


def slept_sums(results: Results, one: Cell, other: Cell) -> tuple[float, float] | None:
    """The `slept_seconds` of two cells; None if a sleeper of one was not served, because it is not
    known how long that one would sleep."""
    if any(any(results.values(cell, "never_after")) for cell in (one, other)):
        return None
    return slept_seconds(results, one), slept_seconds(results, other)


def refused_share(results: Results, cell: Cell, pool: str) -> float:
    """The share of the M_DONTWAIT gets of one pool, after the stop, that were refused."""
    tried, refused = (
        sum(int(run[f"{what}_after_by_pool"].get(pool, 0)) for run in results.all(cell))
        for what in ("tries", "refused")
    )
    return refused / max(1, tried)


def changed(results: Results, one: Cell, other: Cell) -> str:
    """In how many runs the outcome of two cells differs, of how many: "1 of 20 runs"."""
    rows = [
        list(zip(*(results.values(cell, name) for name in OUTCOME), strict=True))
        for cell in (one, other)
    ]
    differ = sum(before != after for before, after in zip(*rows, strict=True))
    return f"{differ} of {plural(len(rows[0]), 'run')}"


def more_and_fewer(results: Results, one: Cell, other: Cell) -> tuple[int, int]:
    """In how many runs more requests are done under `other` than under `one`, and in how many
    fewer."""
    pairs = zip(results.values(one, "done_after"), results.values(other, "done_after"), strict=True)
    differences = [after - before for before, after in pairs]
    return sum(it > 0 for it in differences), sum(it < 0 for it in differences)
