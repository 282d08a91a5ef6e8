"""Question e: may the wakeup be left out unless the limit is close?"""

from __future__ import annotations

from mbufpools.demokit import Table, conjunction

from .._intervals import middle
from .._results import Cell, Results
from ._incidents import hanging, incident_cell
from ._question import Question, given, kernel, memory, never, seconds, typical

__all__ = ["MARGIN", "MARGINS", "MARGIN_CELLS"]

MARGINS = tuple(4096 << power for power in range(10))
MARGIN_CELLS = tuple(
    Cell.of("cold", kernel_with, nmbclust=2050, request=request, load=0, horizon=80.0)
    for request in ("nfs", "bpf", "64k")
    for kernel_with in (
        kernel("patch"),
        *(kernel("near-limit").near(margin) for margin in MARGINS),
    )
)

LOADED = (
    incident_cell("patch", 0),
    *(
        Cell.of("incident", kernel("near-limit").near(margin))
        for margin in MARGINS
        if margin in (4096, 65536, 1 << 20, 2 << 20)
    ),
)
"""The incident of question g, without caches."""


def _adds(results: Results, cell: Cell) -> float:
    """How often the task was added, also while it was queued."""
    return typical(results, cell, "runs") + typical(results, cell, "coalesced")


def _margin_tables(results: Results) -> list[Table]:
    table = Table(
        {
            "margin": "margin\n(KiB)",
            "nfs": "2k cluster\n(16 KiB page)",
            "bpf": "9k\n(128 KiB)",
            "64k": "64k\n(512 KiB)",
            "adds": "adds*",
            "saved": "saved\n%",
        },
        title="A get in a cold pool, by the margin of near-limit: seconds until it is served",
        right=("margin", "nfs", "bpf", "64k", "adds"),
    )
    adds = _adds(results, MARGIN_CELLS[0])
    for margin in (None, *MARGINS):
        cells = [cell for cell in MARGIN_CELLS if cell.kernel.margin == margin]
        table.add(
            margin="patch" if margin is None else str(margin // 1024),
            adds=f"{_adds(results, cells[0]):.0f}",
            saved=round(100 * (1 - _adds(results, cells[0]) / adds)) if adds else None,
            **{
                cell.parameters["request"]: seconds(results.values(cell, "served_after"))
                for cell in cells
            },
        )
    loaded = Table(
        {
            "margin": "margin\n(KiB)",
            "hung": "runs that\nhang",
            "done": "requests\ndone",
            "slept": "slept (s)\nby all",
            "adds": "adds",
            "saved": "adds saved\n%",
        },
        title="The incident of question g without caches, by the margin",
        right=("margin",),
    )
    adds = _adds(results, LOADED[0])
    for cell in LOADED:
        margin = cell.kernel.margin
        loaded.add(
            margin="patch" if margin is None else str(margin // 1024),
            hung=hanging(results, cell),
            done=middle(results.values(cell, "done_after")),
            slept=middle(results.values(cell, "sleeper_seconds")),
            adds=middle([run["runs"] + run["coalesced"] for run in results.all(cell)]),
            saved=round(100 * (1 - _adds(results, cell) / adds)) if adds else None,
        )
    return [table, loaded]


def _margin_verdict(results: Results) -> str:
    def served(margin: int) -> bool:
        return not any(
            never(results.values(cell, "served_after"))
            for cell in MARGIN_CELLS
            if cell.kernel.margin == margin
        )

    safe = [
        margin
        for margin in MARGINS
        if all(served(larger) for larger in MARGINS if larger >= margin)
    ]
    if not safe:
        return "No margin up to 2 MiB is safe: under each of them some get is not served."
    least = min(safe)
    adds = _adds(results, MARGIN_CELLS[0])
    with_margin = next(cell for cell in MARGIN_CELLS if cell.kernel.margin == least)
    saved = 1 - _adds(results, with_margin) / adds if adds else 0.0
    horizon = given(results, with_margin)["horizon"]
    outcomes = [
        value
        for cell in MARGIN_CELLS
        if cell.kernel.margin == MARGINS[0]
        for value in results.values(cell, "served_after")
    ]
    lost, of = never(outcomes), len(outcomes)
    if least == MARGINS[0]:
        unsafe = "no smaller one was tried"
    else:
        names = {"nfs": "2k", "bpf": "9k", "64k": "64k"}
        failing = [
            names[cell.parameters["request"]]
            for cell in MARGIN_CELLS
            if cell.kernel.margin == least // 2 and never(results.values(cell, "served_after"))
        ]
        unsafe = f"{least // 2048} KiB does not serve every {conjunction(failing)} get"
    return (
        f"A margin of {least // 1024} KiB serves every get ({unsafe}); it saves {saved:.0%} of the "
        f"{adds:.0f} adds in {horizon:g} s, and a margin of 4 KiB leaves {lost} of {of} gets "
        "asleep."
    )


def _how(results: Results) -> str:
    cold = given(results, MARGIN_CELLS[0])
    load = f"a load of {cold['load']} %" if cold["load"] else "no load"
    return (
        f"The cold pool of question a with {load} and a budget of {memory(cold['nmbclust'])}: a "
        "get sleeps for a page that is as large as many of those that leave. The wakeup is added "
        "only if fewer bytes than the margin are then available. The pages leave one a second, so "
        f"each is an add of its own. {cold['horizon']:g} s are simulated."
    )


MARGIN = Question(
    "e",
    "margin",
    "Could the wakeup be left out unless the allocation is close to the limit?",
    (*MARGIN_CELLS, *LOADED),
    _margin_tables,
    _margin_verdict,
    _how,
    lambda results: (
        "*: how often the task is added, while a get for a 2k cluster sleeps and afterwards; the "
        "last column is the share of the patch's adds that the margin saves. A run hangs as in "
        "question g.",
    ),
)
