"""The engine of the lab, for a backend of your own.

A *backend* runs something step by step: tasks on an event loop, or the threads of a simulated
kernel. The engine decides which of them runs next. `mbufpools.smp` is a backend in about 40 lines
(its ``_processors`` module); the lab's own two are those for asyncio and for trio.

One `Schedule` is one execution:

1. ``strategy.begin()`` comes before each execution; False means that none is left.
2. The backend makes ``Schedule(strategy)`` and starts the program from the same state each time.
3. ``schedule.spawned(name, exempt=...)`` and ``ended(name)`` say when a task starts and ends. Only
   a schedule that injects cancellations needs them.
4. While anything can run, ``schedule.choose(ready)`` names the task that runs next. `ready` holds
   every task that can run, and a task keeps its name in every schedule. The answer can also be a
   `Cancel` if the schedule has ``cancel_by``: the backend cancels that task, and asks again.
5. ``step = schedule.begin(name, causes)`` comes before that step. `causes` is the bit mask of the
   steps that made the task ready.
6. While the step runs, the backend sets ``step.accesses[resource]`` to True for each write, and to
   False for a resource that the step only reads. `Dpor` is sound only if none is left out. A
   step also reads the resource that has the name of its task, without an entry there; a step that
   cancels the task writes it.
7. If nothing can run and time can pass, ``schedule.jumped()`` counts as a step of the clock. It
   returns the causes of the tasks that become ready.
8. If the main task ends before others, ``schedule.left`` gets the tasks that could still run.
9. `Livelock` (the step limit) and `Stop` (nothing new can be found) end the execution early.
10. ``strategy.end(schedule, failed)`` comes after each execution that began, also after `Stop`.

`spell_token` writes ``schedule.deviations`` as one line, `parse_token` reads it back, and `Replay`
executes it again, under the `Rule` that the schedule had. `shrink` looks for fewer deviations that
still fail.
"""

from __future__ import annotations

from ._dpor import Dpor
from ._outcome import LabError, Outcome
from ._pages import with_pages
from ._parallel import kill_workers, workers
from ._program import needed_arguments
from ._schedule import (
    Anchor,
    Cancel,
    Choice,
    Deviations,
    Livelock,
    Point,
    Ready,
    Rule,
    Schedule,
    Stop,
)
from ._shrink import shrink
from ._steps import CLOCK, MAIN, Accesses, Name, Resource, Step
from ._strategies import Exhaustive, Fifo, Pct, Prefix, Random, Replay
from ._strategy import Strategy
from ._token import parse_token, spell_token

__all__ = [
    "CLOCK",
    "MAIN",
    "Accesses",
    "Anchor",
    "Cancel",
    "Choice",
    "Deviations",
    "Dpor",
    "Exhaustive",
    "Fifo",
    "LabError",
    "Livelock",
    "Name",
    "Outcome",
    "Pct",
    "Point",
    "Prefix",
    "Random",
    "Ready",
    "Replay",
    "Resource",
    "Rule",
    "Schedule",
    "Step",
    "Stop",
    "Strategy",
    "kill_workers",
    "needed_arguments",
    "parse_token",
    "shrink",
    "spell_token",
    "with_pages",
    "workers",
]
