"""Which step of an execution happens before which, and which steps race.

Two steps *conflict* if both touch a resource and at least one of them writes it. Each step reads
the resource that has the name of its task, and a step that cancels the task writes it. A step
*happens before* another if both are of the same task, or if a spawn, a wakeup, a join, the clock or
a conflict puts them in this order. Two conflicting steps that nothing else orders are a *race*.

An execution mostly begins like the one before it. So the tables of that one are kept, and go back
to where the two differ: of each mask only the lower bits are kept.
"""

from __future__ import annotations

from collections.abc import Sequence

from ._steps import CLOCK, EVERYTHING, Accesses, Name, Resource, Step

__all__ = ["Races", "conflict"]


def conflict(one_task: Name, one: Accesses, other_task: Name, other: Accesses) -> bool:
    """Return True if the order of two steps of these tasks, with these accesses, can matter."""
    if one.get(other_task) or other.get(one_task) or EVERYTHING in one or EVERYTHING in other:
        return True
    if len(one) > len(other):
        one, other = other, one
    for resource, write in one.items():  # noqa: SIM110 - `any` would make a generator each time
        if resource in other and (write or other[resource]):
            return True
    return False


class Races:
    """The order of the steps of one execution after the other."""

    __slots__ = ("_steps", "_touched", "before")

    def __init__(self) -> None:
        self._steps: list[Step] = []
        self.before: list[int] = []
        """For each step, the mask of the steps that happen before it, and of itself."""
        self._touched: dict[Resource, list[int]] = {}
        """For each resource, as masks: the steps that wrote it, and those that touched it. Names of
        resources are slow to hash, so there is one table for both."""

    def same_as_before(self, steps: Sequence[Step]) -> int:
        """Return how many of the first steps were the same in the last execution."""
        for i, (step, old) in enumerate(zip(steps, self._steps, strict=False)):
            if step.task != old.task or step.causes != old.causes or step.accesses != old.accesses:
                return i
        return min(len(steps), len(self._steps))

    def follow(self, steps: Sequence[Step], same: int) -> list[tuple[int, int]]:
        """Order the steps of another execution, whose first ones are the `same` as in the last one.
        Return its races, but not those among these first steps.

        A race is a pair of steps, the first one first. They could also come in the opposite order.
        """
        self._go_back(same)
        self._steps = [*steps]
        before, touched = self.before, self._touched
        last: dict[Name, int] = {step.task: i for i, step in enumerate(steps[:same])}
        races: list[tuple[int, int]] = []
        end = len(steps) - 1
        for i in range(same, end + 1):
            step = steps[i]
            task = step.task
            this = 1 << i
            conflicting = 0
            for resource, write in step.accesses.items():
                masks = touched.get(resource)
                if masks is None:
                    masks = touched[resource] = [0, 0]
                if write:
                    conflicting |= masks[1]
                    masks[0] |= this
                else:
                    conflicting |= masks[0]
                masks[1] |= this
            if task == CLOCK:
                mask = this | this - 1
            else:
                mask = this | before[last[task]] if task in last else this
                masks = touched.get(task)
                if masks is None:
                    masks = touched[task] = [0, 0]
                conflicting |= masks[0]
                masks[1] |= this
                # What came before a cause is in its mask, so the latest one comes first.
                causes = step.causes & ~mask
                while causes:
                    mask |= before[causes.bit_length() - 1]
                    causes &= ~mask
            if i == end and EVERYTHING in step.accesses:
                conflicting = this - 1
            # Nor is a race what comes before a conflicting step: its mask has that, too.
            conflicting &= ~mask
            while conflicting:
                j = conflicting.bit_length() - 1
                races.append((j, i))
                mask |= before[j]
                conflicting &= ~mask
            before.append(mask)
            last[task] = i
        return races

    def _go_back(self, number: int) -> None:
        """Forget the steps after so many."""
        kept = (1 << number) - 1
        for masks in self._touched.values():
            masks[0] &= kept
            masks[1] &= kept
        del self.before[number:]
