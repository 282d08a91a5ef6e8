"""What happened in one execution: its steps, and what each touched.

A step is what one task does from one await point to the next, with the callbacks that the event
loop runs after it. A set of steps is a bit mask: bit *i* is the step with index *i*.
"""

from __future__ import annotations

__all__ = [
    "CLOCK",
    "EVERYTHING",
    "MAIN",
    "OVER",
    "RAISED",
    "Accesses",
    "Name",
    "Resource",
    "Step",
    "spell",
]

Name = tuple[int, ...]
"""The name of a task, which is its descent: ``(0, 2, 1)`` is the second child of the third child of
the main task ``(0,)``. It is the same in every schedule."""
Resource = tuple[object, ...]
"""The name of a shared object: the task that made it, and a counter. The name of a task is a
resource, too: each step of the task reads it, and a step that cancels the task writes it."""
Accesses = dict[Resource, bool]
"""The resources that a step touched: True if it wrote one, False if it only read it. It is not
noted that a step reads its own task."""

MAIN: Name = (0,)
CLOCK: Name = (-1,)
"""The task whose steps move the clock, when nothing else can run. Every earlier step happens before
such a step, and every later step after it."""
EVERYTHING: Resource = ("everything",)
"""What the last step of an execution writes if its order matters to every other step."""
OVER = "it is over"
"""How the place of a task begins that has ended."""
RAISED = ": it raised "
"""What follows, if it has ended with an error; after that comes the error."""


def spell(name: Name) -> str:
    """Return a task's name as reports and tokens write it: ``0.2.1``."""
    return "clock" if name == CLOCK else ".".join(map(str, name))


class Step:
    """One step of one task."""

    __slots__ = ("accesses", "causes", "number", "task")

    def __init__(self, task: Name, number: int, causes: int) -> None:
        self.task: Name = task
        self.number: int = number
        """The number of the step among those of its task, from 1."""
        self.causes: int = causes
        """The steps that it had to wait for, as a bit mask."""
        self.accesses: Accesses = {}

    def __repr__(self) -> str:
        return f"<Step {spell(self.task)}@{self.number}>"
