"""Writes the report of a failure for people: what failed, in which schedule, and where tasks stood.

The schedule is shown as runs of steps, one line for each run of one task, with a line of its own
where the schedule deviates from its rule.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from pathlib import Path

from ._outcome import Outcome
from ._schedule import Cancel, Schedule
from ._steps import CLOCK, Name, spell

__all__ = ["report"]

LONGEST = 40
"""The number of lines of a schedule that are shown; a longer schedule loses its middle."""
HERE = Path(__file__).parent


def report(token: str, schedule: Schedule, outcome: Outcome) -> str:
    """Say what failed, in which schedule, where each task stood, and how to repeat it."""
    lines = [f"{outcome.kind}: {outcome.message}"]
    lines += [f"  {line}" for line in outcome.where]
    rule = _rule(token, schedule)
    lines.append(f"schedule (task: its steps in a row, and where it stops), {rule}:")
    story = list(_story(schedule, outcome.quiet_since))
    if outcome.quiet_since is not None:
        story.append("  from here on only background services run, and nothing comes of it")
    if len(story) > LONGEST:
        left_out = f"  ... {len(story) - LONGEST} more lines ..."
        story[LONGEST // 2 : -LONGEST // 2] = [left_out]
    lines += story
    if outcome.error is not None:
        lines += _traceback(outcome.error)
    lines.append(f"replay: lab.replay(program, {token!r})")
    return "\n".join(lines)


def _rule(token: str, schedule: Schedule) -> str:
    """Say what the schedule follows, but for its deviations."""
    backend = token.partition(":")[0].partition("/")[0]
    if schedule.rule == "run-on":
        rule = "in which each task runs on for as long as it can"
    elif backend == "trio":
        rule = "in which the task runs that was ready first, one of the orders that trio takes"
    else:
        rule = "in the order that asyncio itself takes"
    number = len(schedule.deviations)
    if number:
        rule += f", but for {number} deviation{'s' * (number > 1)}"
    return rule


def _story(schedule: Schedule, length: int | None) -> Iterator[str]:
    """Yield the lines of a schedule, of its first `length` steps (None: all)."""
    steps = schedule.steps[:length]
    deviations: dict[tuple[Name, int], list[str]] = {}
    for anchor, choice in schedule.deviations.items():
        if isinstance(choice, Cancel):
            how = "by a scope" if choice.by == "scope" else "natively"
            told = f"here the lab cancels {spell(choice.task)} {how}"
        else:
            default = schedule.defaults[anchor]
            instead = f" instead of {spell(default)}" if default != CLOCK else ""
            told = f"here {spell(choice)} is scheduled{instead}"
        deviations.setdefault((anchor.task, anchor.number), []).append(told)
    width = max((len(spell(step.task)) for step in steps), default=0)
    first = 0
    for number, step in enumerate(steps):
        following = steps[number + 1 : number + 2]
        here = deviations.get((step.task, step.number), [])
        if here or not following or following[0].task != step.task:
            begin, end = steps[first].number, step.number
            numbers = str(begin) if begin == end else f"{begin} to {end}"
            locations = schedule.locations or ()
            location = locations[number] if number < len(locations) else ""
            yield f"  {spell(step.task):{width}}: {numbers:8} {location}".rstrip()
            yield from (f"  {'':{width}}  {told}" for told in here)
            first = number + 1


def _traceback(error: BaseException) -> list[str]:
    """Return the lines of a traceback, without the frames of the lab."""
    told = traceback.TracebackException.from_exception(error)
    parts = [told]
    while parts:
        part = parts.pop()
        part.stack[:] = [frame for frame in part.stack if Path(frame.filename).parent != HERE]
        parts += [*(part.exceptions or ()), *filter(None, (part.__cause__, part.__context__))]
    return "".join(told.format()).rstrip().splitlines()
