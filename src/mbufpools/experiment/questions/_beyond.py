"""Question g: beyond the thread, how long idle pages stay, and the incident."""

from __future__ import annotations

from mbufpools.demokit import Table, plural

from .._intervals import median, spread
from .._results import Cell, Figures, Results
from ._question import Question, kernel, mean, percent, seconds

__all__ = ["BEYOND", "IDLE", "changed", "incident_cell", "incident_cells", "nine_share"]

IDLE = tuple(
    Cell.of("idle", kernel(name, caches), **parameters)
    for name, caches, parameters in (
        ("as it is", 0, {"pool": "mbufpl", "items": 4096}),
        ("as it is", 8, {"pool": "mbufpl", "items": 4096, "horizon": 4500.0}),
        ("as it is", 8, {"pool": "mbufpl", "items": 4096, "horizon": 4500.0, "trim": 10.0}),
        ("as it is", 0, {"pool": "mbufpl", "items": 4096, "trim": 10.0}),
        ("as it is", 8, {"pool": "mcl64k", "items": 64, "horizon": 4500.0}),
        (
            "as it is",
            8,
            {"pool": "mbufpl", "items": 16384, "shuffled": True, "horizon": 20000.0},
        ),
    )
)

INCIDENTS = (
    ("as it is", 0),
    ("patch", 0),
    ("curpage", 0),
    ("patch + curpage", 0),
    ("as it is", 8),
    ("patch", 8),
    ("curpage", 8),
    ("depots + patch + curpage", 8),
    ("drained", 8),
    ("drained + patch + curpage", 8),
)


def incident_cell(name: str, caches: int) -> Cell:
    """The incident under one kernel."""
    return Cell.of("incident", kernel(name, caches))


incident_cells = tuple(incident_cell(name, caches) for name, caches in INCIDENTS)


def _beyond_tables(results: Results) -> list[Table]:
    idle = Table(
        {
            "what": "what is put",
            "caches": "caches",
            "trim": "trim\neach",
            "1": "1 %\n(s)",
            "50": "50 %\n(s)",
            "90": "90 %\n(s)",
            "100": "100 %\n(s)",
        },
        title="Idle pages: seconds until so many have left; nothing else happens",
    )
    for cell in IDLE:
        given = cell.parameters
        order = "random" if given.get("shuffled") else "in order"
        idle.add(
            what=f"{given['items']:,} of {given['pool']}, {order}",
            caches=cell.kernel.caches > 0,
            trim=f"{given['trim']:g} s" if "trim" in given else "-",
            **{
                str(part): seconds(results.values(cell, f"left_{part}"))
                for part in (1, 50, 90, 100)
            },
        )
    incident = Table(
        {
            "kernel": "kernel",
            "caches": "caches",
            "done": "requests\ndone",
            "refused": "refused\n%",
            "slept": "slept\n%",
            "wait": "mean wait\n(ms)",
            "p99": "p99 wait\n(ms)",
            "never": "asleep at\nthe end",
            "freed": "pages\nfreed",
            "nine": "9k served\n%",
            "visits": "visits to\nCPUs",
        },
        title="The incident: fourteen seconds after the peers read again",
    )
    for cell in incident_cells:
        runs = results.all(cell)
        incident.add(
            kernel=cell.kernel.name,
            caches=cell.kernel.caches > 0,
            done=f"{mean(results, cell, 'done_after'):,.0f}",
            refused=spread([100 * run["refused_after"] for run in runs]),
            wait=spread([1000 * run["wait_after"] for run in runs], "{:.0f}"),
            slept=spread([100 * _slept(run) for run in runs], "{:.2f}"),
            p99=f"{1000 * mean(results, cell, 'p99_after'):,.0f}",
            never=f"{mean(results, cell, 'never'):.1f}",
            freed=f"{mean(results, cell, 'freed_after'):.1f}",
            nine=percent([run["nine_served"] / max(1, run["nine_asked"]) for run in runs]),
            visits=f"{mean(results, cell, 'cpu_visits'):,.0f}",
        )
    return [idle, incident]


OUTCOME = ("done_after", "refused_after", "wait_after", "never", "nine_served")
"""The figures that tell what the users of the pools went through after the incident."""


def _slept(run: Figures) -> float:
    """The share of the gets after the stop that had to sleep."""
    slept, asked = int(run["slept_after"]) + int(run["never_after"]), int(run["asked_after"])
    return slept / max(1, asked)


def nine_share(results: Results, cell: Cell) -> float:
    """The share of the 9k clusters that were served."""
    runs = results.all(cell)
    asked = sum(int(run["nine_asked"]) for run in runs)
    return sum(int(run["nine_served"]) for run in runs) / max(1, asked)


def changed(results: Results, one: Cell, other: Cell) -> str:
    """In how many runs the outcome of two cells differs, of how many: "1 of 20 runs"."""
    rows = [
        list(zip(*(results.values(cell, name) for name in OUTCOME), strict=True))
        for cell in (one, other)
    ]
    differ = sum(before != after for before, after in zip(*rows, strict=True))
    return f"{differ} of {plural(len(rows[0]), 'run')}"


def _beyond_verdict(results: Results) -> str:
    plain, cached = (median(results.values(IDLE[at], "left_50")) for at in (0, 1))

    def text(value: float | None) -> str:
        return "for ever" if value is None else f"{value:,.0f} s"

    done = [
        mean(results, incident_cell(name, 0), "done_after")
        for name in ("as it is", "patch", "patch + curpage")
    ]
    runs = changed(results, incident_cell("as it is", 8), incident_cell("patch", 8))
    return (
        f"Half of 256 idle pages stay {text(plain)}, {text(cached)} with caches; requests done "
        f"after the incident: {done[0]:,.0f} as it is, {done[1]:,.0f} patched, {done[2]:,.0f} with "
        f"curpage too; with caches the patch changes {runs}."
    )


BEYOND = Question(
    "g",
    "beyond",
    "How long do idle pages stay, and what becomes of an incident under each kernel?",
    (*IDLE, *incident_cells),
    _beyond_tables,
    _beyond_verdict,
    "Idle pages: items are taken, put back, each on any CPU, and then nothing happens. Trim frees "
    "every idle page of every pool each ten seconds. The incident: receive rings, 64 senders, 8 "
    "NFS clients; 200 hogs fill the budget of 16 MiB with data that nobody reads for ten seconds; "
    "then the peers read, 50 small senders come, and each second a process asks for a 9k cluster.",
    (
        "Waits are those of gets that began to sleep after the peers had read again, and were "
        "served; those for 9k clusters are left out. Asleep at the end are all, of both.",
    ),
)
