"""Question e: may the wakeup be left out unless the limit is close?"""

from __future__ import annotations

from mbufpools.demokit import Table, conjunction

from .._results import Cell, Results
from ._question import Question, kernel, mean, never, seconds

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


def _margin_tables(results: Results) -> list[Table]:
    table = Table(
        {
            "margin": "margin\n(KiB)",
            "nfs": "2k cluster\n(16 KiB page)",
            "bpf": "9k\n(128 KiB)",
            "64k": "64k\n(512 KiB)",
            "adds": "adds saved\n%",
        },
        title="A get in a cold pool, by the margin of near-limit: seconds until it is served",
    )
    adds = mean(results, MARGIN_CELLS[0], "runs")
    for margin in (None, *MARGINS):
        cells = [cell for cell in MARGIN_CELLS if cell.kernel.margin == margin]
        table.add(
            margin="patch" if margin is None else str(margin // 1024),
            adds=round(100 * (1 - mean(results, cells[0], "runs") / adds)),
            **{
                cell.parameters["request"]: seconds(results.values(cell, "served_after"))
                for cell in cells
            },
        )
    return [table]


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
        return "No margin up to 2 MiB is safe: under each of them some get is never served."
    least = min(safe)
    adds = mean(results, MARGIN_CELLS[0], "runs")
    saved = next(
        1 - mean(results, cell, "runs") / adds
        for cell in MARGIN_CELLS
        if cell.kernel.margin == least
    )
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
        unsafe = f"with {least // 2048} KiB some {conjunction(failing)} gets never are"
    return (
        f"A margin of {least // 1024} KiB serves every get ({unsafe}); it saves {saved:.0%} of the "
        f"{adds:.0f} adds of 80 s, and near-limit with 4 KiB leaves {lost} of {of} gets asleep."
    )


MARGIN = Question(
    "e",
    "margin",
    "Could the wakeup be left out unless the allocation is close to the limit?",
    MARGIN_CELLS,
    _margin_tables,
    _margin_verdict,
    "The cold pool of question a without load, with a budget of 4 MiB: a get sleeps for a page "
    "that is as large as many of those that leave. The wakeup is added only if fewer bytes than "
    "the margin are then available.",
)
