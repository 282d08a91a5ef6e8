"""What happened in one execution: its steps, what each touched, and what had to come before what.

A step is what one task does from one await point to the next, with the callbacks that the event
loop runs after it. Two steps *conflict* if both touch a resource and one of them writes it. A step
*happens before* another if the task, a spawn, a wakeup, a join, the clock or a conflict puts it
there; sets of steps are kept as bit masks. Uses no other room.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

__all__ = ["CLOCK", "MAIN", "Accesses", "Name", "Resource", "Step", "conflict", "order", "spell"]

Name = tuple[int, ...]
"""A task by its descent, which is the same in every schedule: ``(0, 2, 1)`` is the second child
of the third child of the main task."""
Resource = tuple[object, ...]
"""A shared thing, named by who made it."""
Accesses = dict[Resource, bool]
"""What a step touched; True is a write."""

MAIN: Name = (0,)
CLOCK: Name = (-1,)
"""Moves the clock when nothing else can run; all before comes before all after."""


def spell(name: Name) -> str:
    """A task's name for people, and for tokens: ``0.2.1``."""
    return "clock" if name == CLOCK else ".".join(map(str, name))


class Step:
    """One step of one task."""

    __slots__ = ("accesses", "causes", "number", "task")

    def __init__(self, task: Name, number: int, causes: int) -> None:
        self.task = task
        self.number = number
        """Counted from 1 for each task."""
        self.causes = causes
        """The steps that it had to wait for, as a mask."""
        self.accesses: Accesses = {}

    def __repr__(self) -> str:
        return f"<Step {spell(self.task)}@{self.number}>"


def conflict(one: Accesses, other: Accesses) -> bool:
    """True if the order of two steps that touch this can matter."""
    if len(one) > len(other):
        one, other = other, one
    return any(resource in other and (write or other[resource]) for resource, write in one.items())


def order(steps: Sequence[Step]) -> tuple[list[int], list[tuple[int, int]]]:
    """Return for each step the mask of those that happen before it, itself among them; and the
    races: pairs of conflicting steps with nothing in between, which could come the other way
    round."""
    before: list[int] = []
    races: list[tuple[int, int]] = []
    last: dict[Name, int] = {}
    written: dict[Resource, int] = {}
    read: dict[Resource, list[int]] = {}
    for i, step in enumerate(steps):
        if step.task == CLOCK:
            mask = (1 << i) - 1
        else:
            mask = before[last[step.task]] if step.task in last else 0
            for cause in _bits(step.causes):
                mask |= before[cause]
        candidates: set[int] = set()
        for resource, write in step.accesses.items():
            if resource in written:
                candidates.add(written[resource])
            if write:
                candidates.update(read.get(resource, ()))
        for j in sorted(candidates, reverse=True):
            if not mask >> j & 1:
                races.append((j, i))
                mask |= before[j]
        before.append(mask | 1 << i)
        last[step.task] = i
        for resource, write in step.accesses.items():
            if write:
                written[resource] = i
                read.pop(resource, None)
            else:
                read.setdefault(resource, []).append(i)
    return before, races


def _bits(mask: int) -> Iterator[int]:
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low
