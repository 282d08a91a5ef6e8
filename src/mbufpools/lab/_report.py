"""Writes the report of a failure for people: what failed, in which schedule, and where tasks stood.

The schedule is shown as runs of steps, one line for each run of one task, with a line of its own
where the schedule deviates from its rule. Between the steps and the places is a picture: a lane for
each task, in which ``o`` is a step, and ``|`` a task that waits or could run. A legend above says
what the tasks are called.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator, Sequence, Set
from pathlib import Path

from ._frames import short_path
from ._hypothesis import LATE, rejection
from ._outcome import Outcome, describe, first_line
from ._schedule import Schedule
from ._steps import OVER
from ._story import ScheduledStep, lanes_of, named, steps_of

__all__ = ["report"]

LONGEST = 40
"""The number of lines of a schedule that are shown; a longer schedule loses its middle."""
LANES = 16
"""The number of tasks that have a lane of their own in the picture; with more there is none."""
WIDTH = 80
"""The number of characters of a line of the legend, at most."""
INDENT = len("  tasks: ")
LONGEST_ENTRY = WIDTH - INDENT - 1
"""The number of characters for one task in the legend, so that it fits into a line."""
OUTER = re.compile(r"\S*<locals>\.")
"""What comes before the name of a function that is inside of others."""
HERE = Path(__file__).parent


def report(token: str, schedule: Schedule, outcome: Outcome, remarks: Sequence[str] = ()) -> str:
    """Say what failed, in which schedule, where each task stood, and how to repeat it; before that
    come the remarks, a line for each."""
    lines = [f"{outcome.kind}: {outcome.message}"]
    lines += [f"  {_cause(error)}" for error in outcome.causes]
    lines += [f"  {line}" for line in outcome.where]
    rule = _rule(token, schedule)
    lines.append(f"schedule (task: its steps in a row, and where it stops), {rule}:")
    steps = steps_of(schedule, outcome.quiet_since)
    story = list(_story(steps))
    if len(story) > LONGEST:
        left_out = f"  ... {len(story) - LONGEST} more lines ..."
        story[LONGEST // 2 : -LONGEST // 2] = [(None, left_out)]
    lines += _legend(steps, {task for task, _ in story})
    lines += [line for _, line in story]
    if outcome.quiet_since is not None:
        lines.append("  from here on only background services run, and nothing comes of it")
    if outcome.cancelled_at_the_end:
        tasks = named(outcome.cancelled_at_the_end, schedule.titles)
        lines.append(f"  from here on asyncio.run cancels {tasks}, and waits until they are over")
    for error in (outcome.error, *outcome.causes):
        if error is not None:
            lines += _traceback(error)
    if isinstance(outcome.error, FileExistsError):
        lines.append(
            "a file outlives an execution, and names by chance are the same in each; make them in "
            "a temporary directory of the program, or remove them by reset="
        )
    if schedule.stillness.first:
        lines.append(f"the clock moved although something could run: {schedule.stillness.first}")
    if rejection(outcome.error) is not None:
        lines.append(LATE)
    lines += remarks
    lines.append(f"replay: lab.replay(program, {token!r})")
    return "\n".join(lines)


def _cause(error: BaseException) -> str:
    """Say which error came before the failure, and where it was raised."""
    frames = [it for it in traceback.extract_tb(error.__traceback__) if not _is_ours(it.filename)]
    where = ""
    if frames:
        frame = frames[-1]
        where = f" at {short_path(frame.filename)}:{frame.lineno}, in {frame.name}"
    return (
        f"before that {first_line(describe(error))} was raised{where}, and nothing has handled it"
    )


def _rule(token: str, schedule: Schedule) -> str:
    """Say what the schedule follows, but for its deviations."""
    backend = token.partition(":")[0].partition("/")[0]
    if schedule.rule != "stock":
        rule = "in which each task runs on for as long as it can"
    elif backend == "trio":
        rule = "in which the task runs that was ready first, one of the orders that trio takes"
    else:
        rule = "in the order that asyncio itself takes"
    if schedule.rule == "stock" and schedule.threaded:
        rule += ", with threads as tasks (in reality they have no order)"
    number = len(schedule.deviations)
    if number:
        rule += f", but for {number} deviation{'s' * (number > 1)}"
    return rule


def _legend(steps: Sequence[ScheduledStep], shown: Set[str | None]) -> Iterator[str]:
    """Yield lines that say what the tasks are called that are shown, if there are several."""
    titles = {step.task: step.title for step in steps}
    entries = [
        _called(task, titles[task])
        for task in lanes_of(steps)
        if task in shown and titles[task] not in ("", task)
    ]
    if len(entries) < 2:
        return  # the main task, whose title says nothing
    line = "  tasks: "
    for at, entry in enumerate(entries):
        text = entry + "," * (at < len(entries) - 1)
        if len(line) + len(text) > WIDTH:
            yield line.rstrip()
            line = " " * INDENT
        line += f"{text} "
    yield line.rstrip()


def _called(task: str, title: str) -> str:
    """Return a task and its title, without the functions around that of the task. If it is too long
    for a line, it loses its beginning."""
    title = OUTER.sub("", title)
    left_out = len(f"{task} {title!r}") - LONGEST_ENTRY
    return f"{task} {title if left_out <= 0 else f'...{title[left_out + 3 :]}'!r}"


def _story(steps: Sequence[ScheduledStep]) -> Iterator[tuple[str | None, str]]:
    """Yield the lines of a schedule, each with its task: a line for each run of steps of one task,
    with a lane for each task in between, and a line for each deviation."""
    tasks = lanes_of(steps)
    width = max(map(len, tasks), default=0)
    begins = {step.task: at for at, step in reversed(list(enumerate(steps)))}
    ends = {step.task: at for at, step in enumerate(steps) if step.stopped_at.startswith(OVER)}
    first = 0
    for at, step in enumerate(steps):
        following = steps[at + 1 : at + 2]
        told = [*(f"here lab.choose takes {it}" for it in step.values), *step.deviations]
        if told or not following or following[0].task != step.task:
            begin, end = steps[first].number, step.number
            numbers = str(begin) if begin == end else f"{begin} to {end}"
            lanes = ""
            if 1 < len(tasks) <= LANES:
                alive = {it for it in tasks if begins[it] <= at < ends.get(it, len(steps))}
                marks = ("o" if it == step.task else "|" if it in alive else " " for it in tasks)
                lanes = f"{''.join(marks)}  "
            line = f"  {step.task:{width}}: {numbers:8} {lanes}{step.stopped_at}"
            yield step.task, line.rstrip()
            yield from ((None, f"  {'':{width}}  {it}") for it in told)
            first = at + 1


def _traceback(error: BaseException) -> list[str]:
    """Return the lines of a traceback, without the frames of the lab."""
    told = traceback.TracebackException.from_exception(error)
    parts = [told]
    while parts:
        part = parts.pop()
        part.stack[:] = [frame for frame in part.stack if not _is_ours(frame.filename)]
        parts += [*(part.exceptions or ()), *filter(None, (part.__cause__, part.__context__))]
    return "".join(told.format()).rstrip().splitlines()


def _is_ours(file: str) -> bool:
    return Path(file).parent == HERE
