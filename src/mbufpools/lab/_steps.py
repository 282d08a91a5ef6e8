"""What happened in one execution: its steps, what each touched, and which happens before which.

A step is what one task does from one await point to the next, with the callbacks that the event
loop runs after it. Two steps *conflict* if both touch a resource and at least one of them writes
it. A step *happens before* another if both are of the same task, or if a spawn, a wakeup, a join,
the clock or a conflict puts them in this order. A set of steps is a bit mask: bit *i* is the step
with index *i*.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "CLOCK",
    "MAIN",
    "OVER",
    "RAISED",
    "Accesses",
    "Name",
    "Resource",
    "Step",
    "conflict",
    "order",
    "spell",
]

Name = tuple[int, ...]
"""The name of a task, which is its descent: ``(0, 2, 1)`` is the second child of the third child of
the main task ``(0,)``. It is the same in every schedule."""
Resource = tuple[object, ...]
"""The name of a shared object: the task that made it, and a counter."""
Accesses = dict[Resource, bool]
"""The resources that a step touched: True if it wrote one, False if it only read it."""

MAIN: Name = (0,)
CLOCK: Name = (-1,)
"""The task whose steps move the clock, when nothing else can run. Every earlier step happens before
such a step, and every later step after it."""
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


def conflict(one: Accesses, other: Accesses) -> bool:
    """Return True if the order of two steps with these accesses can matter."""
    if len(one) > len(other):
        one, other = other, one
    for resource, write in one.items():  # noqa: SIM110 - `any` would make a generator each time
        if resource in other and (write or other[resource]):
            return True
    return False


def order(
    steps: Sequence[Step], known: Sequence[int] = ()
) -> tuple[list[int], list[tuple[int, int]]]:
    """Return which step happens before which, and the races.

    The first result has for each step the mask of the steps that happen before it, and of itself.
    A race is a pair of conflicting steps that nothing else orders, directly or through a third
    step, so they could also come in the opposite order. Of the first steps the masks may be
    `known`; then the races among those are left out.
    """
    before: list[int] = [*known]
    races: list[tuple[int, int]] = []
    last: dict[Name, int] = {}
    # For each resource, as masks: the last step that wrote it, and this one with those that have
    # read it since. Names of resources are slow to hash, so there is one table for both.
    touched: dict[Resource, list[int]] = {}
    for i, step in enumerate(steps):
        this = 1 << i
        conflicting = 0
        for resource, write in step.accesses.items():
            masks = touched.get(resource)
            if masks is None:
                touched[resource] = [this if write else 0, this]
            elif write:
                conflicting |= masks[1]
                masks[0] = masks[1] = this
            else:
                conflicting |= masks[0]
                masks[1] |= this
        if i == len(before):
            if step.task == CLOCK:
                mask = this - 1
            else:
                mask = before[last[step.task]] if step.task in last else 0
                # What came before a cause is in its mask, so the latest one comes first.
                causes = step.causes & ~mask
                while causes:
                    mask |= before[causes.bit_length() - 1]
                    causes &= ~mask
            conflicting &= ~mask
            while conflicting:
                j = conflicting.bit_length() - 1
                races.append((j, i))
                mask |= before[j]
                conflicting &= ~mask
            before.append(mask | this)
        last[step.task] = i
    return before, races
