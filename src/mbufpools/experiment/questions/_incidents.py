"""The incident under each kernel: its cells, its tables, and what became of its users."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import Any

from mbufpools.demokit import Table, plural

from .._intervals import middle, reach
from .._kernels import CPUS
from .._results import Cell, Results
from ._question import given, kernel

__all__ = [
    "FOUR",
    "INCIDENT_CELLS",
    "VARIED_CELLS",
    "at_the_limit",
    "changed",
    "hanging",
    "hung",
    "incident_cell",
    "incident_notes",
    "incident_tables",
    "kinds",
    "less_and_more_slept",
    "more_and_fewer",
    "nine_share",
    "refused_share",
    "slept_seconds",
    "slept_share",
    "standstills",
    "typical_wait",
    "waits",
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
        "are all, of both. A run hangs if at its end at least as many gets sleep, "
        "those for 9k not counted, as there are senders and NFS clients.",
        "Pages freed, puts, wakeups, takers and visits are counted from the beginning, in "
        f"{load['end']:g} s; a visit to a CPU, to drain its caches, is what draining costs. A page "
        "counts for the request that takes the last of its bytes; the rest of the freed pages "
        "nobody has taken. Puts to a page are those of all runs together.",
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
        right=("ratio",),
    )
    for cell in INCIDENT_CELLS:
        caches = results.measured(cell).kernel.caches
        machine = {"kernel": cell.kernel.name, "cpus": caches or "-"}
        users.add(**machine, **_users(results, cell))
        freed = sum(results.values(cell, "pages_freed"))
        pages.add(
            **machine,
            ratio=f"{sum(results.values(cell, 'puts')) / freed:,.0f}" if freed else "none freed",
            **{column: middle(results.values(cell, name)) for column, name in PAGES.items()},
        )
    varied = Table(
        {"what": "what is other", "cpus": "CPUs with\ncaches", "kernel": "kernel", **USERS},
        title="The incident on other machines and under other loads: its users",
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


PAGES = {
    "freed": "pages_freed",
    "sleeper": "taken_by_sleeper",
    "newcomer": "taken_by_newcomer",
    "runs": "runs",
    "vain": "runs_in_vain",
    "visits": "cpu_visits",
}
"""The columns of the pages, and their figures."""

USERS = {
    "hung": "runs that\nhang",
    "done": "requests\ndone",
    "slept": "slept\n%",
    "wait": "mean wait\n(ms)",
    "p99": "p99\n(ms)",
    "refused": "refused\n%",
    "never": "asleep at\nthe end",
    "nine": "9k served\n%",
}


def _users(results: Results, cell: Cell) -> dict[str, str]:
    runs = results.all(cell)
    served = waits(results, cell)
    unserved = "none served" if any(results.values(cell, "never_after")) else "-"
    return {
        "hung": hanging(results, cell),
        "done": middle(results.values(cell, "done_after")),
        "slept": middle([100 * share for share in slept_shares(results, cell)], "{:.2f}"),
        "wait": middle(served) if served else unserved,
        "p99": middle([1000 * run["p99_after"] for run in runs]),
        "refused": middle([100 * run["refused_after"] for run in runs], "{:.1f}"),
        "never": middle(results.values(cell, "never")),
        "nine": middle([100 * share for share in nine_shares(results, cell)]),
    }


def hung(results: Results, cell: Cell) -> list[bool]:
    """For each run: True if at its end at least as many gets sleep as there are senders and NFS
    clients, whenever they began to. Those for 9k clusters, which other processes ask for, are not
    counted."""
    load = given(results, cell)
    processes = load["senders"] + load["small"] + load["nfs"]
    return [
        run["never"] - (run["nine_asked"] - run["nine_served"]) >= processes
        for run in results.all(cell)
    ]


def standstills(results: Results, cell: Cell) -> list[int]:
    """For each run the most seconds, after the stop, during which all senders and NFS clients
    slept, as it was noted at the end of each second."""
    load = given(results, cell)
    processes = load["senders"] + load["small"] + load["nfs"]
    found = []
    for run in results.all(cell):
        longest = noted = 0
        for second, asleep in enumerate(run["asleep_by_second"], start=1):
            asked = int(second - load["resume"])  # gets for 9k clusters, one a second
            stands = second >= load["resume"] and asleep - asked >= processes
            noted = noted + 1 if stands else 0
            longest = max(longest, noted - 1)
        found.append(longest)
    return found


def hanging(results: Results, cell: Cell) -> str:
    """How many runs hang, as text: "4 of 20"."""
    found = hung(results, cell)
    return f"{sum(found)} of {len(found)}"


def kinds(results: Results, one: Cell, other: Cell) -> str:
    """The requests done under `one`, the kernel as it is, and under `other`, the patch, in
    sentences: apart for the runs that hang under `one` and for the rest."""
    stuck = hung(results, one)
    done = [results.values(cell, "done_after") for cell in (one, other)]

    def of(kind: bool) -> str:
        before, after = (
            reach([it for it, at in zip(each, stuck, strict=True) if at is kind]) for each in done
        )
        same = "in the same runs " if kind else ""
        return f"{before} requests are done, and {after} {same}with the patch"

    told = [f"In the runs that hang, {of(True)}."] if any(stuck) else []
    if not all(stuck):
        told.append(f"{'In the others' if any(stuck) else 'In all'}, {of(False)}.")
    return " ".join(told)


def slept_shares(results: Results, cell: Cell) -> list[float]:
    """For each run the share of the gets after the stop that had to sleep, without those for 9k
    clusters."""
    return [
        (run["slept_after"] + run["never_after"]) / max(1, run["asked_after"])
        for run in results.all(cell)
    ]


def slept_share(results: Results, cell: Cell) -> float:
    """The median of the `slept_shares`."""
    return statistics.median_low(slept_shares(results, cell))


def nine_shares(results: Results, cell: Cell) -> list[float]:
    """For each run the share of the 9k clusters that were served."""
    return [run["nine_served"] / max(1, run["nine_asked"]) for run in results.all(cell)]


def nine_share(results: Results, cell: Cell) -> float:
    """The median of the shares of the 9k clusters that were served."""
    return statistics.median_low(nine_shares(results, cell))


def at_the_limit(results: Results, cells: Iterable[Cell]) -> bool:
    """True if a get slept or was refused in a run of one of the cells. If not, the limit was never
    reached, and all kernels are alike."""
    return any(run["refused"] or run["slept"] for cell in cells for run in results.all(cell))


def waits(results: Results, cell: Cell) -> list[float]:
    """The mean of the waits after the stop, in milliseconds, of each run in which a sleeper was
    served."""
    return [1000 * run["wait_after"] for run in results.all(cell) if run["slept_after"]]


def typical_wait(results: Results, cell: Cell) -> float | None:
    """The median of the `waits`; None if no sleeper was served."""
    found = waits(results, cell)
    return statistics.median_low(found) if found else None


def slept_seconds(results: Results, cell: Cell) -> list[float]:
    """The seconds slept after the stop by all that were served, of each run."""
    return [float(run["slept_after"] * run["wait_after"]) for run in results.all(cell)]


def less_and_more_slept(results: Results, one: Cell, other: Cell) -> tuple[int, int] | None:
    """In how many runs the `slept_seconds` are less under `other` than under `one`, and in how many
    more. None if a sleeper was not served, because it is not known how long that one would
    sleep."""
    if any(any(results.values(cell, "never_after")) for cell in (one, other)):
        return None
    pairs = zip(slept_seconds(results, one), slept_seconds(results, other), strict=True)
    differences = [after - before for before, after in pairs]
    return sum(it < 0 for it in differences), sum(it > 0 for it in differences)


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
