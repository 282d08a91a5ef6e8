"""What a proof says of the timers, and of the checks at the end of a cancelled program."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mbufpools import lab
from tests.lab.test_no_false_proof import BACKENDS, two
from tests.lab.test_parallel import AtOnce

TIMERS = (
    "other orders of timers than that of their deadlines (sleep(0), instead of sleeps that hold "
    "tasks apart, leaves the order to the lab)"
)


@pytest.mark.parametrize("strategy", ["mixed", "exhaustive", "dpor"])
@BACKENDS
def test_a_proof_of_a_race_that_sleeps_hold_apart_says_so(
    backend: lab.BackendName, strategy: lab.StrategyName
) -> None:
    """The two tasks meet only if a timer comes late, as on a machine with much to do."""

    async def program() -> None:
        async def query(after: float) -> None:
            await anyio.sleep(after)
            if not connections:  # the next lines forget that another task may be here, too
                await anyio.sleep(0.01)
                connections.append("a connection")

        connections: list[str] = []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(query, 0)
            tasks.start_soon(query, 0.02)
        assert len(connections) == 1

    found = lab.explore(program, backend=backend, strategy=strategy)
    assert found.verdict == "proved"
    assert TIMERS in found.not_explored


@BACKENDS
def test_a_proof_of_a_program_that_waits_for_one_timer_at_a_time_says_nothing_of_timers(
    backend: lab.BackendName,
) -> None:
    async def program() -> None:
        await anyio.sleep(1)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.sleep, 1)
            tasks.start_soon(anyio.sleep, 1)
            with anyio.fail_after(5):
                await checkpoint()

    found = lab.explore(program, backend=backend)
    assert found.verdict == "proved"
    assert TIMERS not in found.not_explored


def test_a_timer_that_is_cancelled_on_the_way_to_its_deadline_has_no_order() -> None:
    async def program() -> None:
        timer = asyncio.get_running_loop().call_later(5, print)
        timer.cancel()
        await asyncio.sleep(1)

    assert TIMERS not in lab.explore(program).not_explored


UNCHECKED = (
    "the main task ended by itself in no execution with a cancellation, so what it checks at its "
    "end was never checked in one (asyncio.gather cancels the main task, too, but not with "
    "return_exceptions=True, nor does a TaskGroup; lab.invariant checks always)"
)


def two_in_a_gather(*, return_exceptions: bool) -> Callable[[], Coroutine[Any, Any, None]]:
    async def program() -> None:
        await asyncio.gather(checkpoint(), checkpoint(), return_exceptions=return_exceptions)
        assert not lab.has_cancelled()

    return program


@pytest.mark.parametrize("executor", [None, AtOnce()])
def test_a_proof_with_cancellations_that_never_came_to_the_checks_says_so(
    executor: AtOnce | None,
) -> None:
    found = lab.explore(gather_and_check, cancel="native", executor=executor)
    assert found.verdict == "proved"
    assert found.remarks == (UNCHECKED,)


async def gather_and_check() -> None:
    await two_in_a_gather(return_exceptions=False)()


def test_a_program_whose_main_task_goes_on_after_a_cancellation_is_checked() -> None:
    found = lab.explore(two_in_a_gather(return_exceptions=True), cancel="native")
    assert found.verdict == "found"


@BACKENDS
def test_a_proof_with_cancellations_that_came_to_the_end_has_no_remarks(
    backend: lab.BackendName,
) -> None:
    async def program() -> None:
        await two(checkpoint)

    found = lab.explore(program, backend=backend, cancel=True)
    assert found.verdict == "proved"
    assert found.remarks == ()
