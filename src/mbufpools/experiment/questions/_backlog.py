"""Question c: do delayed wakeups build up a backlog?"""

from __future__ import annotations

from mbufpools.demokit import Table

from .._results import Cell, Results
from ._question import Question, kernel, mean

__all__ = ["BACKLOG", "BACKLOGS", "BLOCKED", "BLOCKS"]

BLOCKS = (0.0, 0.001, 0.01, 0.1, 1.0, 4.0)
BLOCKED = ("as it is", "patch", "patch + own queue", "direct", "patch + fifo", "patch + pressure")
BACKLOGS = tuple(
    Cell.of("backlog", kernel(name), block=block) for name in BLOCKED for block in BLOCKS
)
ONCE = tuple(
    Cell.of("backlog", kernel(name), block=block, once=True)
    for name in ("patch", "direct")
    for block in BLOCKS[1:]
)


def _backlog_tables(results: Results) -> list[Table]:
    tables = []
    for field, digits, title in (
        ("sleeper_seconds", 0, "Backlog: seconds slept by all 60 processes, in 60 seconds"),
        ("peak", 1, "Peak: the most that slept at one time"),
        ("at_end", 1, "Asleep at the end; 0 is a backlog that has drained"),
    ):
        table = Table(
            {
                "kernel": "kernel",
                "how": "blocked",
                **{f"{block:g}": f"{1000 * block:g} ms" for block in BLOCKS},
            },
            title=title + ", by how long systqmp is blocked",
            right=[f"{block:g}" for block in BLOCKS],
        )
        for cells, how in ((BACKLOGS, "each second"), (ONCE, "once")):
            for name in dict.fromkeys(cell.kernel.name for cell in cells):
                row = {f"{block:g}": "" for block in BLOCKS}
                for cell in cells:
                    if cell.kernel.name == name:
                        found = mean(results, cell, field)
                        row[f"{cell.parameters['block']:g}"] = f"{found:.{digits}f}"
                table.add(kernel=name, how=how, **row)
        tables.append(table)
    return tables


def _backlog_verdict(results: Results) -> str:
    def figure(name: str, block: float, field: str) -> float:
        return mean(results, Cell.of("backlog", kernel(name), block=block), field)

    drained = [block for block in BLOCKS if figure("patch", block, "at_end") < 1]
    knee = next((block for block in BLOCKS if figure("patch", block, "at_end") >= 1), None)
    slept = {
        (name, block): figure(name, block, "sleeper_seconds")
        for name in ("patch", "direct", "patch + pressure")
        for block in BLOCKS
    }
    worst = max(abs(slept["direct", it] / slept["patch", it] - 1) for it in BLOCKS)
    saved = 1 - slept["patch + pressure", 0.0] / slept["patch", 0.0]
    held = (
        f"The patch's backlog drains at blocks up to {max(drained):g} s"
        if drained
        else "The patch's backlog never drains"
    )
    break_ = f", not at {knee:g} s" if knee is not None else ""
    helps = f"direct differs by {worst:.0%} at most, as the gc is late too"
    if worst > 0.1:
        helps = f"direct changes the backlog by up to {worst:.0%}"
    unpatched = figure("as it is", 0.0, "at_end")
    return (
        f"{held}{break_}; {helps}; reclaim under pressure saves {saved:.0%} of it; unpatched "
        f"{unpatched:.0f} of 60 sleep at the end."
    )


BACKLOG = Question(
    "c",
    "backlog",
    "Do delayed wakeups build up a backlog that takes the system down?",
    (*BACKLOGS, *ONCE),
    _backlog_tables,
    _backlog_verdict,
    "60 processes take an mbuf and then want a cluster while they hold the mbuf; after about a "
    "second they free both. Every 15 seconds the size of the clusters changes, so pages must move "
    "between the pools of a budget of 272 KiB. Work on systqmp blocks the gc and the wakeup for "
    "the stated time, again one second after its end, or once, when the first page is due; in the "
    "kernel it could be pf_purge, unp_gc, sched_barrier or another tenant of that queue.",
    (
        "As it is, nothing wakes the sleepers, and a page that leaves serves the process that asks "
        "next. So its row depends on whether a page leaves just when the size changes and all ask "
        "anew, and does not tell what a block does.",
    ),
)
