"""Probabilistic concurrency testing finds bugs of a known depth as often as it promises."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mbufpools import lab
from mbufpools.lab._execute import execute
from mbufpools.lab._options import Options
from mbufpools.lab._outcome import Outcome
from mbufpools.lab._schedule import Schedule
from mbufpools.lab._strategies import Pct
from tests.zoo._specimen import together

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])
SEEDS = 1_000


async def used_before_it_is_there() -> None:
    """One ordering constraint: the use comes before the making."""
    there = lab.Shared(False)

    async def make() -> None:
        there.value = True

    async def use() -> None:
        assert there.value

    await together(make, use)


async def changed_after_the_look() -> None:
    """Two: the change comes after the look, and before the act."""
    there = lab.Shared(True)

    async def look_and_act() -> None:
        if there.value:
            await checkpoint()
            assert there.value

    async def change() -> None:
        await checkpoint()
        there.value = False

    await together(look_and_act, change)


async def turn_by_turn() -> None:
    """Three: the first, the second, the first again, the second again."""
    turns = lab.Shared("")

    async def take_two_turns(name: str) -> None:
        turns.value += name
        await checkpoint()
        turns.value += name

    async def a() -> None:
        await take_two_turns("a")

    async def b() -> None:
        await take_two_turns("b")

    await together(a, b)
    assert turns.value != "abab"


OF_KNOWN_DEPTH = pytest.mark.parametrize(
    ("program", "depth"),
    [(used_before_it_is_there, 1), (changed_after_the_look, 2), (turn_by_turn, 3)],
)


def hits(
    program: Callable[[], Coroutine[Any, Any, None]], depth: int, backend: lab.BackendName
) -> tuple[int, int, int]:
    """Execute it by `SEEDS` seeds; return how many fail, the number of tasks, and of steps."""
    executions = failed = tasks = steps = 0

    def note(schedule: Schedule, outcome: Outcome) -> None:
        nonlocal executions, failed, tasks, steps
        executions += 1
        if executions > 1:  # the first measures how long they are
            failed += outcome.kind is not None
        tasks = max(tasks, len({step.task for step in schedule.steps}))
        steps = max(steps, len(schedule.steps))

    execute(
        program,
        Pct(SEEDS + 1, seed=0, depth=depth),
        Options(backend=backend, max_executions=SEEDS + 1, max_failures=None, step_limit=1_000),
        on_execution=note,
    )
    return failed, tasks, steps


@BACKENDS
@OF_KNOWN_DEPTH
def test_a_bug_is_found_at_least_as_often_as_promised(
    program: Callable[[], Coroutine[Any, Any, None]], depth: int, backend: lab.BackendName
) -> None:
    failed, tasks, steps = hits(program, depth, backend)
    assert failed / SEEDS >= 1 / (tasks * steps ** (depth - 1))


@BACKENDS
@pytest.mark.parametrize(("program", "depth"), [(changed_after_the_look, 2), (turn_by_turn, 3)])
def test_a_bug_is_not_found_with_fewer_changes_of_priority_than_it_needs(
    program: Callable[[], Coroutine[Any, Any, None]], depth: int, backend: lab.BackendName
) -> None:
    failed, _, _ = hits(program, depth - 1, backend)
    assert failed == 0


@BACKENDS
@pytest.mark.parametrize("strategy", ["pct", "mixed"])
def test_no_priorities_keep_a_task_from_running_for_ever(
    strategy: lab.StrategyName, backend: lab.BackendName
) -> None:
    """Two tasks wake each other in turn until the third, which can run, has stopped them."""

    async def program() -> None:
        events = [anyio.Event(), anyio.Event()]
        stopped = False

        async def turns(mine: int) -> None:
            while not stopped:
                events[1 - mine].set()
                await events[mine].wait()
                events[mine] = anyio.Event()
            events[1 - mine].set()

        async def stops() -> None:
            nonlocal stopped
            for _ in range(30):
                await checkpoint()
            stopped = True

        async with anyio.create_task_group() as group:
            for mine in (0, 1):
                group.start_soon(turns, mine)
            group.start_soon(stops)

    exploration = lab.explore(
        program, strategy=strategy, backend=backend, max_executions=150, step_limit=2_000
    )
    assert exploration.executions == 150
    assert not exploration.failures
