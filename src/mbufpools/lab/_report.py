"""The story of a failure, for people. Uses `_outcome`, `_schedule` and `_trace`."""

from __future__ import annotations

import traceback
from itertools import groupby

from ._outcome import Outcome
from ._schedule import Cancel, Schedule
from ._trace import spell

__all__ = ["report"]

LONGEST = 40
"""Lines of a schedule that are shown."""


def report(token: str, schedule: Schedule, outcome: Outcome) -> str:
    """Say what failed, in which schedule, where each task stood, and how to see it again."""
    lines = [f"{outcome.kind}: {outcome.message}"]
    lines += [f"  {line}" for line in outcome.where]
    lines.append("schedule (task: its steps in a row):")
    runs = [(name, list(steps)) for name, steps in groupby(schedule.steps, lambda step: step.task)]
    told = runs if len(runs) <= LONGEST else [*runs[: LONGEST // 2], *runs[-LONGEST // 2 :]]
    for number, (name, steps) in enumerate(told):
        if len(runs) > LONGEST and number == LONGEST // 2:
            lines.append(f"  ... {len(runs) - LONGEST} more ...")
        first, last = steps[0].number, steps[-1].number
        lines.append(f"  {spell(name)}: {first if first == last else f'{first} to {last}'}")
    for anchor, choice in schedule.deviations.items():
        after = f"after step {anchor.number} of {spell(anchor.task)}"
        if isinstance(choice, Cancel):
            how = "by a scope" if choice.by == "scope" else "natively"
            lines.append(f"{after} the lab cancels {spell(choice.task)} {how}")
        else:
            lines.append(f"{after} {spell(choice)} runs, where it would not by the usual rule")
    if not schedule.deviations:
        lines.append("no step of it is out of the usual order")
    if outcome.error is not None:
        lines += "".join(traceback.format_exception(outcome.error)).rstrip().splitlines()
    lines.append(f"replay: lab.replay(program, {token!r})")
    return "\n".join(lines)
