"""Question c: do delayed wakeups build up a backlog?"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from mbufpools.demokit import Table

from .._intervals import middle, reach
from .._results import Cell, Results
from ._incidents import at_the_limit
from ._question import Question, given, kernel, memory, typical

__all__ = [
    "BACKLOG",
    "BACKLOGS",
    "BLOCKED",
    "BLOCKS",
    "BY_PUTS",
    "GROWS",
    "most_saved_by_direct",
    "what_blocks_do",
]

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
BY_PUTS = tuple(
    Cell.of("backlog", kernel(name), block=block, keep=0)
    for name in ("as it is", "patch", "patch + own queue", "direct")
    for block in BLOCKS
)
"""Puts free idle pages, too."""
GROWS = 0.1
"""A share by which more must be slept to be told."""


def _backlog_tables(results: Results) -> list[Table]:
    load = given(results, BACKLOGS[0])
    tables = []
    for field, title in (
        (
            "sleeper_seconds",
            f"Backlog: seconds slept by all {load['processes']} processes, in {load['end']:g} "
            "seconds",
        ),
        ("peak", "Peak: the most that slept at one time"),
        ("at_end", "Asleep at the end; 0 is a backlog that has drained"),
    ):
        table = Table(
            {
                "kernel": "kernel",
                "how": "blocked",
                **{f"{block:g}": f"{1000 * block:g} ms" for block in BLOCKS},
            },
            title=title + ", by how long systqmp is blocked",
        )
        for cells, how in (
            (BACKLOGS, "each second"),
            (ONCE, "once"),
            (BY_PUTS, "each second*"),
        ):
            for name in dict.fromkeys(cell.kernel.name for cell in cells):
                row = {f"{block:g}": "" for block in BLOCKS}
                for cell in cells:
                    if cell.kernel.name == name:
                        row[f"{cell.parameters['block']:g}"] = middle(results.values(cell, field))
                table.add(kernel=name, how=how, **row)
        tables.append(table)
    return tables


@dataclass(frozen=True, slots=True)
class Backlog:
    """What a block does to the backlog of the patch. Times are in seconds."""

    processes: int
    drained: float | None
    """The longest block behind which nobody is asleep at the end of any run; None if there is
    none."""
    grows: float
    """By which share more is slept with blocks up to that one than without."""
    knee: float | None
    """The shortest block with which somebody is asleep at the end; None if there is none."""
    asleep: str
    """How many then are, in the runs in which some are."""
    some: int
    runs: int
    unpatched: tuple[str, int]
    """How many are asleep at the end without the patch and without a block, and in how many
    runs."""
    saved: float
    """The largest share of the time slept that a direct wakeup saves."""


def what_blocks_do(results: Results) -> Backlog | None:
    """Return what a block does to the backlog; None if the limit was never reached."""

    def figures(name: str, block: float, field: str) -> list[float]:
        return results.values(Cell.of("backlog", kernel(name), block=block), field)

    if not at_the_limit(results, BACKLOG.cells):
        return None
    at_end = {block: figures("patch", block, "at_end") for block in BLOCKS}
    knee = next((block for block in BLOCKS if any(at_end[block])), None)
    drained = [block for block in BLOCKS if knee is None or block < knee]
    grows = 0.0
    if len(drained) > 1:  # the first is no block
        slept = [statistics.median_low(figures("patch", it, "sleeper_seconds")) for it in drained]
        grows = max(slept) / slept[0] - 1 if slept[0] else float(max(slept) > 0)
    asleep, some, runs = _asleep(at_end[BLOCKS[-1] if knee is None else knee])
    return Backlog(
        processes=given(results, BACKLOGS[0])["processes"],
        drained=max(drained) if len(drained) > 1 else None,
        grows=grows,
        knee=knee,
        asleep=asleep,
        some=some,
        runs=runs,
        unpatched=_asleep(figures("as it is", 0.0, "at_end"))[:2],
        saved=most_saved_by_direct(results),
    )


def _backlog_verdict(results: Results) -> str:
    found = what_blocks_do(results)
    if found is None:
        return "In these runs the limit was never reached, so no process slept."
    if found.drained is None:
        held = "A doom spiral: the patch's backlog does not drain"
    else:
        held = f"No doom spiral: blocks up to {found.drained:g} s drain, slept time " + (
            f"grows by {found.grows:.0%}" if found.grows > GROWS else "does not grow"
        )
    if found.knee is not None:
        held += f"; at {found.knee:g} s {found.asleep} of {found.processes} stay asleep in "
        held += f"{found.some} of {found.runs} runs"
    helps = (
        f"direct saves at most {found.saved:.0%} of the time slept"
        if found.saved > 0
        else "direct saves nothing"
    )
    asleep, some = found.unpatched
    return f"{held} (unpatched, unblocked: {asleep} of {found.processes} in {some}); {helps}."


def _asleep(at_end: Sequence[float]) -> tuple[str, int, int]:
    """How many processes sleep at the end where some do, in how many runs, and of how many."""
    some = [count for count in at_end if count]
    return reach(some or [0]), len(some) or len(at_end), len(at_end)


def most_saved_by_direct(results: Results) -> float:
    """The largest share of the seconds slept under the patch that the direct wakeup saves, over all
    blocks, where puts free pages, too. Negative if it never saves any."""

    def slept(name: str, block: float) -> float:
        cell = Cell.of("backlog", kernel(name), block=block, keep=0)
        return typical(results, cell, "sleeper_seconds")

    return max(
        1 - slept("direct", block) / patch if (patch := slept("patch", block)) else 0.0
        for block in BLOCKS
    )


def _how(results: Results) -> str:
    load = given(results, BACKLOGS[0])
    return (
        f"{load['processes']} processes take an mbuf and then want a cluster while they hold the "
        "mbuf; after about a second they free both. Every 15 seconds the size of the clusters "
        "changes, so pages must move between the pools of a budget of "
        f"{memory(load['nmbclust'])}. Work on systqmp blocks the gc and the wakeup for "
        "the stated time, again one second after its end, or once, when the first page is due; in "
        "the kernel it could be pf_purge, unp_gc, sched_barrier or another tenant of that queue."
    )


BACKLOG = Question(
    "c",
    "backlog",
    "Do delayed wakeups build up a backlog that takes the system down?",
    (*BACKLOGS, *ONCE, *BY_PUTS),
    _backlog_tables,
    _backlog_verdict,
    _how,
    lambda results: (
        "Only the gc frees pages here, because no pool ever has more idle pages than it may keep. "
        "The gc is on systqmp, too, so in these rows the direct wakeup cannot be earlier than the "
        "task. In the rows with a * a pool may keep no idle page, so a put frees one that has been "
        "empty for more than a second. There direct wakes at once, and the task of the patch only "
        "after the block. `mbufpools demo backlog` shows one such page, and a raised limit.",
        "As it is, nothing wakes the sleepers, and a page that leaves serves the process that asks "
        "next. So its row depends on whether a page leaves just when the size changes and all ask "
        "anew, and does not tell what a block does.",
    ),
)
