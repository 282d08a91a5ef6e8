"""The lab finds nothing in correct programs that cancel, and are cancelled."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import count

import pytest

from mbufpools import lab
from tests.kit.correct_programs import CORRECT, ONLY_BY_SCOPE, Program

STRATEGIES: list[lab.StrategyName] = ["fifo", "random", "pct", "exhaustive", "dpor"]
EACH_STRATEGY = pytest.mark.parametrize("strategy", STRATEGIES)
BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])

MANY = 10_000
FEW = 20


def executions_without_failure(
    programs: Sequence[Program], strategy: lab.StrategyName, backend: lab.BackendName, at_least: int
) -> int:
    """Explore the programs, with and without cancellation, again and again; return how often they
    were executed. Each round has its own seeds and one preemption more."""
    executions = 0
    share = max(2, at_least // len(programs) // 2)
    for number in count():
        for program in programs:
            for cancel in (False, True) if strategy != "dpor" else (False,):
                exploration = lab.explore(
                    program,
                    strategy=strategy,
                    backend=backend,
                    cancel="scope" if cancel and program in ONLY_BY_SCOPE else cancel,
                    max_executions=share,
                    max_preemptions=2 + number,
                    seed=number * share,
                )
                exploration.assert_holds()
                executions += exploration.executions
        if executions >= at_least:
            return executions
    raise AssertionError("unreachable")


@BACKENDS
@EACH_STRATEGY
def test_nothing_is_found_in_correct_programs(
    strategy: lab.StrategyName, backend: lab.BackendName
) -> None:
    # Each strategy explores two programs of five, and each program is explored by two strategies.
    turn = STRATEGIES.index(strategy)
    programs = [it for at, it in enumerate(CORRECT[backend]) if (at + turn) % 5 < 2]
    assert executions_without_failure(programs, strategy, backend, FEW) >= FEW


@pytest.mark.prove
@BACKENDS
@EACH_STRATEGY
def test_nothing_is_found_in_ten_thousand_executions(
    strategy: lab.StrategyName, backend: lab.BackendName
) -> None:
    assert executions_without_failure(CORRECT[backend], strategy, backend, MANY) >= MANY


@BACKENDS
def test_the_corpus_is_of_many_programs_and_each_of_them_ends(backend: lab.BackendName) -> None:
    assert len(CORRECT[backend]) > 30
    for program in CORRECT[backend]:
        lab.run(program, backend=backend, patience=0)


# The order that asyncio guarantees


async def a_chain_of_callbacks() -> None:
    loop = asyncio.get_running_loop()
    called: list[int] = []
    loop.call_soon(lambda: loop.call_soon(called.append, 1))
    await asyncio.sleep(0)
    assert not called, "the task has yielded before the second callback was called for"


async def a_timer_that_is_due_at_once() -> None:
    called: list[int] = []
    asyncio.get_running_loop().call_later(0, called.append, 1)
    await asyncio.sleep(0)
    assert not called, "asyncio looks at timers after what is ready"


async def what_a_due_timer_calls_for() -> None:
    loop = asyncio.get_running_loop()
    called: list[int] = []
    loop.call_later(0, lambda: loop.call_soon(called.append, 1))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not called, "the task has yielded again before the timer called for it"


async def what_a_callback_of_a_chain_calls_for() -> None:
    loop = asyncio.get_running_loop()
    called: list[int] = []
    loop.call_soon(loop.call_soon, loop.call_soon, called.append, 1)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not called


async def a_timer_that_became_due_in_the_same_step() -> None:
    called: list[int] = []
    asyncio.get_running_loop().call_later(0.001, called.append, 1)
    time.sleep(0.002)
    await asyncio.sleep(0)
    assert not called


async def a_deadline_that_passed_in_the_same_step() -> None:
    async with asyncio.timeout(0.001):
        time.sleep(0.002)
        await asyncio.sleep(0)


async def a_callback_of_a_gathering_future() -> None:
    future = asyncio.get_running_loop().create_future()
    both = asyncio.gather(future)
    called: list[object] = []
    both.add_done_callback(called.append)
    future.set_result(1)
    await asyncio.sleep(0)
    assert not called
    await both


async def a_shield_of_a_shield() -> None:
    future = asyncio.get_running_loop().create_future()
    shield = asyncio.shield(asyncio.shield(future))
    future.set_result(1)
    await asyncio.sleep(0)
    assert not shield.done()
    await shield


async def a_new_task_before_a_later_callback() -> None:
    called: list[int] = []

    async def child() -> None:
        assert not called

    task = asyncio.ensure_future(child())
    asyncio.get_running_loop().call_soon(called.append, 1)
    await task


@pytest.mark.parametrize("strategy", ["fifo", "random", "pct", "exhaustive", "mixed"])
@pytest.mark.parametrize("before", [True, False], ids=["after another task", "alone"])
@pytest.mark.parametrize(
    "program",
    [
        a_chain_of_callbacks,
        a_timer_that_is_due_at_once,
        what_a_due_timer_calls_for,
        what_a_callback_of_a_chain_calls_for,
        a_timer_that_became_due_in_the_same_step,
        a_deadline_that_passed_in_the_same_step,
        a_callback_of_a_gathering_future,
        a_shield_of_a_shield,
        a_new_task_before_a_later_callback,
    ],
)
def test_no_callback_or_timer_overtakes_the_step_of_a_single_task_that_has_yielded_before(
    program: Callable[[], Awaitable[None]], before: bool, strategy: lab.StrategyName
) -> None:
    async def run() -> None:
        if before:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(asyncio.sleep(0))
                tasks.create_task(asyncio.sleep(1))
        await program()

    lab.explore(run, strategy=strategy, max_executions=300).assert_holds()
