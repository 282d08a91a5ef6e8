"""The story of one execution: its steps as data, which reports, pictures and JSON show.

A step is what one task does from one await point to the next. The story has a row for each, with
where the task stopped, which task woke it, and where the schedule deviates from its rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ._schedule import Anchor, Cancel, Pick, Schedule
from ._steps import CLOCK, RAISED, Name, spell

__all__ = ["ScheduledStep", "lanes_of", "named", "same_course", "steps_of"]


ELSEWHERE = "in code of a library"
"""Where a task stands if none of the functions that it is in is the program's own: a thread of an
executor before and after its work, or a task that a library has made."""


@dataclass(frozen=True, slots=True)
class ScheduledStep:
    """One step of a failing execution.

    Attributes:
        task: the lab's name of the task, such as ``0.1``; the main task is ``0``, and ``clock`` is
            the clock, which moves when nothing else can run.
        title: what the task is called.
        number: the number of the step among those of its task, from 1.
        stopped_at: where the task stands after the step: its file, line and function, or how it
            ended.
        time: seconds of virtual time after the step.
        woken_by: the steps that made the task ready, as indices of the schedule, from 0.
        deviations: what the lab did after this step instead of what the rule says, in words.
        values: the values that `choose` returned in this step.
    """

    task: str
    title: str
    number: int
    stopped_at: str
    time: float
    woken_by: tuple[int, ...] = ()
    deviations: tuple[str, ...] = ()
    values: tuple[str, ...] = ()


def steps_of(schedule: Schedule, length: int | None = None) -> tuple[ScheduledStep, ...]:
    """Return the steps of an execution that was noted in full, or its first `length` steps."""
    told: dict[tuple[Name, int], list[str]] = {}
    for anchor, choice in schedule.deviations.items():
        if not isinstance(choice, Pick):
            told.setdefault(anchor[:2], []).append(_told(schedule, anchor, choice))
    picked: dict[tuple[Name, int], list[str]] = {}
    for anchor, start in schedule.starts.items():
        told.setdefault(anchor[:2], []).append(start)
    for anchor, value in schedule.picks.items():
        picked.setdefault(anchor[:2], []).append(value)
    locations = schedule.locations or []
    steps = []
    jump = 0
    for at, step in enumerate(schedule.steps[:length]):
        causes = step.causes
        if causes >> jump & 1:  # all before a jump of the clock come before what it makes ready
            causes = causes >> jump << jump
        steps.append(
            ScheduledStep(
                task=spell(step.task),
                title="" if step.task == CLOCK else schedule.titles.get(step.task, ""),
                number=step.number,
                stopped_at=locations[at] or ELSEWHERE if at < len(locations) else "",
                time=schedule.times[at] if at < len(schedule.times) else 0.0,
                woken_by=tuple(it for it in _bits(causes) if it < at),
                deviations=tuple(told.get((step.task, step.number), ())),
                values=tuple(picked.get((step.task, step.number), ())),
            )
        )
        if step.task == CLOCK:
            jump = at
    return tuple(steps)


def same_course(one: Iterable[ScheduledStep], other: Iterable[ScheduledStep]) -> bool:
    """Return True if two executions took the same steps, which stopped at the same places. What a
    task raised in the end may differ in its message."""
    courses = (
        [(it.task, it.number, it.stopped_at.partition(RAISED)[0]) for it in steps]
        for steps in (one, other)
    )
    return next(courses) == next(courses)


def lanes_of(steps: Iterable[ScheduledStep]) -> list[str]:
    """Return the tasks of a schedule, each after its parent, and the clock last."""
    return sorted({step.task for step in steps}, key=_order)


def named(tasks: Iterable[Name], titles: Mapping[Name, str]) -> str:
    """Return a list of tasks, of which the first five are named."""
    them = sorted(tasks)
    names = ", ".join(f"{spell(name)} {titles[name]!r}" for name in them[:5])
    return names + (f" and {len(them) - 5} more" if len(them) > 5 else "")


def _order(task: str) -> tuple[int, ...]:
    return (1,) if task == "clock" else (0, *map(int, task.split(".")))


def _told(schedule: Schedule, anchor: Anchor, choice: Name | Cancel) -> str:
    if isinstance(choice, Cancel):
        how = "by a scope" if choice.by == "scope" else "natively"
        return f"here the lab cancels {spell(choice.task)} {how}"
    default = schedule.defaults[anchor]
    instead = f" instead of {spell(default)}" if default != CLOCK else ""
    return f"here {spell(choice)} is scheduled{instead}"


def _bits(mask: int) -> list[int]:
    found = []
    while mask:
        low = mask & -mask
        found.append(low.bit_length() - 1)
        mask ^= low
    return found
