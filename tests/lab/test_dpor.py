"""Partial-order reduction leaves nothing out: it agrees with exhaustive exploration."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from mbufpools import lab
from mbufpools.lab._cancelling import declaring_cancellations
from mbufpools.lab._declare import declaring
from mbufpools.lab._dpor import Dpor
from mbufpools.lab._execute import execute
from mbufpools.lab._options import Options
from mbufpools.lab._outcome import Outcome
from mbufpools.lab._schedule import Schedule
from mbufpools.lab._strategies import Exhaustive
from tests.kit.generated_programs import NATIVE, PLAIN, WITH_CANCELLATION, Generated, generate


@dataclass
class Seen:
    """The result of exploring one program."""

    executions: int = 0
    complete: bool = False
    classes: list[Any] = field(default_factory=list)
    """Of each execution, the order of the tasks at each resource."""
    ends: set[Any] = field(default_factory=set)
    """Of each execution, how it ended and what each task saw."""


def class_of(schedule: Schedule) -> Any:
    """Return the order of conflicting steps at each resource; reads between writes have none."""
    resources: dict[Any, list[Any]] = {}
    for step in schedule.steps:
        for resource, write in ({step.task: False} | step.accesses).items():
            # Futures are set by callbacks that count, and the last of them is as good as another.
            # So is the last task of a nursery, which wakes the task that waits for its end.
            # What was there before belongs to the lab.
            wakes = not write and resource != step.task and set(map(type, resource)) == {int}
            if resource[1:2] != ("future",) and resource[0] != "before" and not wakes:
                order = resources.setdefault(resource, [])
                if write:
                    order.append((step.task, step.number))
                else:
                    if not order or not isinstance(order[-1], frozenset):
                        order.append(frozenset())
                    order[-1] |= {(step.task, step.number)}
    return frozenset((resource, tuple(order)) for resource, order in resources.items())


def see(
    generated: Generated, strategy: Exhaustive | Dpor, backend: lab.BackendName, enough: int
) -> Seen:
    """Explore a program, and record the class and the end of every execution."""
    seen = Seen()

    def note(schedule: Schedule, outcome: Outcome) -> None:
        if not outcome.stopped:
            seen.classes.append(class_of(schedule))
            seen.ends.add((outcome.kind, repr(generated.log)))

    with declaring(), declaring_cancellations():
        executed = execute(
            generated.program,
            strategy,
            Options(backend=backend, max_executions=enough, max_failures=None, step_limit=1000),
            on_execution=note,
        )
    seen.executions, seen.complete = executed.executions, strategy.complete
    return seen


def compare(
    seeds: range, operations: tuple[str, ...], backend: lab.BackendName, enough: int
) -> tuple[int, int, int]:
    """Compare dpor with exhaustive, of programs with at most `enough` schedules; return the
    programs compared and the executions of both."""
    lab.explore(generate(0, operations).program, strategy="fifo", backend=backend)  # load it all
    compared = exhaustive = reduced = 0
    for seed in seeds:
        generated = generate(seed, operations)
        everything = see(generated, Exhaustive(None, prefixes=[("eager", ())]), backend, enough)
        if not everything.complete:
            continue
        dpor = Dpor()
        some = see(generated, dpor, backend, enough)
        what = f"seed {seed} on {backend}: {generated.tasks}"
        assert some.complete, what
        assert some.ends == everything.ends, what
        assert set(some.classes) == set(everything.classes), what
        # Futures and cancellations that are tried again tell apart more than the classes show.
        if operations is PLAIN:
            assert len(some.classes) == len(set(some.classes)), f"{what}: a class twice"
            assert dpor.redundant == 0, f"{what}: executions were given up"
        compared += 1
        exhaustive += everything.executions
        reduced += some.executions
    return compared, exhaustive, reduced


BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


@BACKENDS
def test_dpor_executes_each_class_of_schedules_once(backend: lab.BackendName) -> None:
    compared, exhaustive, reduced = compare(range(8), PLAIN, backend, enough=120)
    assert compared >= 5
    assert reduced < exhaustive / 5


@BACKENDS
def test_dpor_misses_no_class_of_programs_that_cancel(backend: lab.BackendName) -> None:
    compared, exhaustive, reduced = compare(range(20, 25), WITH_CANCELLATION, backend, enough=120)
    assert compared >= 3
    assert reduced < exhaustive / 2


def test_dpor_misses_no_class_of_programs_with_primitives_of_asyncio() -> None:
    compared, exhaustive, reduced = compare(range(8), NATIVE, "asyncio", enough=120)
    assert compared >= 3
    assert reduced < exhaustive / 2


@pytest.mark.prove
def test_dpor_agrees_with_exhaustive_on_hundreds_of_programs_of_asyncio() -> None:
    compared, _, _ = compare(range(400), NATIVE, "asyncio", enough=2000)
    assert compared >= 200


@pytest.mark.prove
@BACKENDS
@pytest.mark.parametrize("operations", [PLAIN, WITH_CANCELLATION], ids=["plain", "cancelling"])
def test_dpor_agrees_with_exhaustive_on_hundreds_of_programs(
    operations: tuple[str, ...], backend: lab.BackendName
) -> None:
    compared, _, _ = compare(range(280), operations, backend, enough=2000)
    assert compared >= 200
