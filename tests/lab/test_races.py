"""Which step happens before which, and which steps race: against the definitions."""

from __future__ import annotations

from itertools import takewhile
from random import Random

import pytest

from mbufpools.lab._races import Races, conflict
from mbufpools.lab._steps import CLOCK, EVERYTHING, MAIN, Accesses, Name, Step


def some_steps(source: Random, begin: list[Step]) -> list[Step]:
    """Return twelve steps of four tasks and the clock, of which the first ones are given."""
    steps = [copy_of(step) for step in begin]
    for number in range(len(steps), 12):
        cause = source.choice([0, 0, 1 << source.randrange(number)]) if number else 0
        task = CLOCK if source.random() < 0.05 else (0, source.randrange(4))
        steps.append(Step(task, 1, cause))
        for _ in range(source.randrange(4)):
            steps[-1].accesses["resource", source.randrange(3)] = source.random() < 0.4
        if source.random() < 0.2:  # cancel a task, or ask how often it was cancelled
            steps[-1].accesses[0, source.randrange(4)] = source.random() < 0.7
    if source.random() < 0.5:
        steps[-1].accesses[EVERYTHING] = True
    return steps


def copy_of(step: Step) -> Step:
    copy = Step(step.task, step.number, step.causes)
    copy.accesses = dict(step.accesses)
    return copy


def ordered(steps: list[Step]) -> tuple[list[int], list[tuple[int, int]]]:
    """Return what happens before each step, as a mask with the step itself, and all races, by the
    definitions: closures are made again for each pair."""

    def closure(direct: dict[int, set[int]], step: int) -> set[int]:
        found, left = set(), {step}
        while left:
            at = left.pop()
            found.add(at)
            left |= direct[at] - found
        return found

    direct: dict[int, set[int]] = {}
    races = []
    for i, step in enumerate(steps):
        direct[i] = {
            j
            for j, earlier in enumerate(steps[:i])
            if step.task == earlier.task
            or step.causes >> j & 1
            or step.task == CLOCK  # a later step has it among its causes
        }
        for j in reversed(range(i)):
            earlier = steps[j]
            conflicts = conflict(earlier.task, earlier.accesses, step.task, step.accesses)
            if conflicts and j not in closure(direct, i):
                races.append((j, i))
                direct[i].add(j)
    return [sum(1 << j for j in closure(direct, i)) for i in direct], races


def test_two_steps_conflict_if_both_touch_something_and_one_of_them_writes_it() -> None:
    read: Accesses = {("it",): False}
    write: Accesses = {("it",): True}
    other: Accesses = {("other",): True, ("more",): True}
    assert not conflicts(read, read)
    assert conflicts(read, write)
    assert conflicts(write, write | other)
    assert not conflicts(write, other)
    assert not conflicts(write, {})


def test_a_step_conflicts_with_a_step_of_the_task_that_it_cancels() -> None:
    cancels: Accesses = {(0, 1): True}
    asks: Accesses = {(0, 1): False}
    assert conflicts(cancels, {})
    assert not conflicts({(0, 2): True}, {})
    assert not conflicts(asks, {})
    assert conflicts(cancels, asks, (0, 2))


def test_the_last_step_conflicts_with_each_other_if_it_ends_the_program() -> None:
    assert conflicts({EVERYTHING: True}, {})


def conflicts(one: Accesses, other: Accesses, task: Name = (0, 1)) -> bool:
    """Return True if a step of the main task and one of another task conflict."""
    assert conflict(MAIN, one, task, other) is conflict(task, other, MAIN, one)
    return conflict(MAIN, one, task, other)


@pytest.mark.parametrize("seed", range(20))
def test_of_one_execution_after_the_other_the_order_and_the_races_are_as_defined(seed: int) -> None:
    source = Random(seed)
    races = Races()
    steps: list[Step] = []
    found = 0
    for _ in range(20):
        last = steps
        steps = some_steps(source, last[: source.randrange(12)])
        same = races.same_as_before(steps)
        assert same == len(
            list(
                takewhile(
                    lambda both: all(
                        getattr(both[0], it) == getattr(both[1], it)
                        for it in ("task", "causes", "accesses")
                    ),
                    zip(last, steps, strict=False),
                )
            )
        )
        new = races.follow(steps, same)
        before, every = ordered(steps)
        assert races.before == before
        assert new == [(first, second) for first, second in every if second >= same]
        found += len(new)
    assert found
