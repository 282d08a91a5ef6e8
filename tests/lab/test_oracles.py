"""Invariants after every step, what must come true in time, and values that are explored."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mbufpools import lab
from tests.zoo._specimen import together

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


class Accounts:
    """Money moves from one to the other, in two steps."""

    def __init__(self) -> None:
        self.a, self.b = lab.Shared(10), lab.Shared(0)

    def balanced(self) -> bool:
        return self.a.value + self.b.value == 10

    async def move(self, at_once: bool) -> None:
        self.a.value -= 1
        if not at_once:
            await checkpoint()
        self.b.value += 1
        await checkpoint()


@BACKENDS
@pytest.mark.parametrize("strategy", ["mixed", "exhaustive", "random", "pct", "fifo", "dpor"])
def test_an_invariant_is_checked_after_every_step(
    backend: lab.BackendName, strategy: lab.StrategyName
) -> None:
    async def program(at_once: bool) -> None:
        accounts = Accounts()
        lab.invariant(accounts.balanced)
        await together(lambda: accounts.move(at_once), lambda: accounts.move(at_once))
        assert accounts.balanced()

    options: Any = {"backend": backend, "strategy": strategy, "max_executions": 100}
    (failure,) = lab.explore(lambda: program(False), **options).failures
    assert failure.kind == "exception"
    assert failure.found_at == 1
    assert isinstance(failure.error, lab.Violated)
    assert failure.report.startswith("exception: Violated: invariant Accounts.balanced (line ")
    assert "does not hold: it returned False\n" in failure.report
    assert "task 0.0 " in failure.report, "it says where each task stands"
    (again,) = lab.replay(lambda: program(False), failure.token).failures
    assert again.report == failure.report
    lab.explore(lambda: program(True), **options).assert_holds()


@BACKENDS
@pytest.mark.parametrize("strategy", ["exhaustive", "dpor"])
def test_dpor_tries_every_order_of_what_an_invariant_reads(
    backend: lab.BackendName, strategy: lab.StrategyName
) -> None:
    """Two steps of different variables, so without the invariant their order does not matter."""

    async def program() -> None:
        first, second = lab.Shared(0), lab.Shared(0)

        async def one() -> None:
            await checkpoint()
            first.value = 1

        async def two() -> None:
            await checkpoint()
            second.value = 1

        lab.invariant(lambda: not second.value or first.value)
        await together(one, two)

    assert lab.explore(program, backend=backend, strategy=strategy).failures


@BACKENDS
def test_an_invariant_may_raise_and_may_be_a_decorator(backend: lab.BackendName) -> None:
    async def program() -> None:
        value = 0

        @lab.invariant
        def small() -> None:
            assert value < 2, f"{value} is too much"

        small()
        value = 1
        await checkpoint()
        value = 2

    (failure,) = lab.explore(program, backend=backend).failures
    assert "does not hold: AssertionError: 2 is too much" in failure.report
    assert "assert value < 2" in failure.report, "the traceback of the check is shown"


class HasNoTruth:
    """Raises when it is asked whether it is true."""

    def __bool__(self) -> bool:
        raise ValueError("no truth")


def fails() -> None:
    pytest.fail("by hand")


def is_cancelled() -> None:
    raise asyncio.CancelledError("by hand")


@BACKENDS
@pytest.mark.parametrize(
    ("check", "told"),
    [
        (fails, "Failed: by hand"),
        (is_cancelled, "CancelledError: by hand"),
        (HasNoTruth, "ValueError: no truth"),
        (sys.exit, "SystemExit: "),
    ],
)
def test_whatever_a_check_raises_is_told_with_a_token(
    backend: lab.BackendName, check: Callable[[], Any], told: str
) -> None:
    async def invariant() -> None:
        broken: list[int] = []
        lab.invariant(lambda: check() if broken else None)
        await anyio.sleep(1)
        broken.append(1)
        await checkpoint()

    async def promise() -> None:
        broken: list[int] = []
        lab.eventually(lambda: check() if broken else False, within=10)
        await anyio.sleep(1)
        broken.append(1)
        await checkpoint()

    for program, said in ((invariant, "does not hold: "), (promise, "raised ")):
        (failure,) = lab.explore(program, backend=backend).failures
        assert failure.kind == "exception"
        assert said + told in failure.report.partition("\n")[0]
        assert lab.replay(program, failure.token).failures


def test_an_invariant_that_does_not_hold_at_once_raises_there() -> None:
    def never() -> bool:
        return False

    with pytest.raises(lab.Violated, match=r"invariant .*never .*does not hold: it returned False"):
        lab.invariant(never)
    assert lab.invariant(lambda: None)() is None


@BACKENDS
@pytest.mark.parametrize("seconds", [5, 50])
def test_what_must_come_true_in_time_does(backend: lab.BackendName, seconds: float) -> None:
    async def program() -> None:
        done: list[int] = []
        lab.eventually(lambda: done, within=10)
        await anyio.sleep(seconds)
        done.append(1)
        await anyio.sleep(1)

    found = lab.explore(program, backend=backend)
    assert found.verdict == ("proved" if seconds == 5 else "found")
    for failure in found.failures:
        assert "did not come true within 10 s, until 10 s: it is 50 s now" in failure.report


async def sleeps_in_the_step(done: list[int]) -> None:
    await checkpoint()
    time.sleep(100)
    done.append(1)


async def sleeps_in_the_first_step(done: list[int]) -> None:
    time.sleep(100)
    done.append(1)


async def looks_at_the_clock_until_it_is_late(done: list[int]) -> None:
    begin = time.monotonic()
    while time.monotonic() < begin + 100:
        pass
    done.append(1)


async def sleeps_to_the_end(done: list[int]) -> None:
    await anyio.sleep(100)
    done.append(1)


@BACKENDS
@pytest.mark.parametrize(
    "late",
    [
        sleeps_in_the_step,
        sleeps_in_the_first_step,
        looks_at_the_clock_until_it_is_late,
        sleeps_to_the_end,
    ],
)
def test_what_comes_true_in_the_step_that_moves_the_clock_too_far_is_late(
    backend: lab.BackendName, late: Callable[[list[int]], Awaitable[None]]
) -> None:
    async def program() -> None:
        done: list[int] = []
        lab.eventually(lambda: done, within=10)
        await late(done)

    (failure,) = lab.explore(program, backend=backend).failures
    assert "did not come true within 10 s, until 10 s: it is 100" in failure.report


@pytest.mark.parametrize("strategy", ["mixed", "fifo", "random", "dpor"])
@pytest.mark.parametrize("seconds", [4, 5])
def test_what_a_callback_makes_true_in_time_is_in_time_though_no_task_runs_then(
    seconds: float, strategy: lab.StrategyName
) -> None:
    async def program() -> None:
        done: list[int] = []
        lab.eventually(lambda: bool(done), within=5)
        asyncio.get_running_loop().call_later(seconds, done.append, 1)
        await asyncio.sleep(6)

    lab.explore(program, strategy=strategy, max_executions=50).assert_holds()


def test_what_a_callback_makes_true_too_late_is_late() -> None:
    async def program() -> None:
        done: list[int] = []
        lab.eventually(lambda: bool(done), within=5)
        asyncio.get_running_loop().call_later(5.5, done.append, 1)
        await asyncio.sleep(6)

    (failure,) = lab.explore(program).failures
    assert "did not come true within 5 s" in str(failure)


def test_an_invariant_that_only_a_callback_breaks_is_found_before_the_clock_moves() -> None:
    async def program() -> None:
        loop, held = asyncio.get_running_loop(), [True]
        lab.invariant(lambda: held[0])
        loop.call_later(1, held.__setitem__, 0, False)
        loop.call_later(2, held.__setitem__, 0, True)
        await asyncio.sleep(3)

    (failure,) = lab.explore(program).failures
    assert "does not hold" in str(failure)


@BACKENDS
def test_what_comes_true_because_the_clock_moves_is_late(backend: lab.BackendName) -> None:
    async def deadline() -> None:
        scope = anyio.CancelScope(deadline=anyio.current_time() + 100)
        lab.eventually(lambda: scope.cancel_called, within=10)
        with scope:
            await anyio.sleep_forever()

    async def clock() -> None:
        begin = time.monotonic()
        lab.eventually(lambda: time.monotonic() > begin + 50, within=10)
        await anyio.sleep(100)

    for program in (deadline, clock):
        (failure,) = lab.explore(program, backend=backend).failures
        assert "did not come true within 10 s, until 10 s: it is 100" in failure.report


@BACKENDS
def test_what_is_true_at_once_is_in_time_and_what_is_not_there_yet_is_no_error(
    backend: lab.BackendName,
) -> None:
    async def program() -> None:
        lab.eventually(lambda: True, within=10)
        lab.eventually(lambda: done, within=200)
        done = [1]
        await anyio.sleep(100)
        assert done

    assert lab.explore(program, backend=backend).verdict == "proved"


@BACKENDS
def test_a_program_that_ends_before_it_comes_true_fails(backend: lab.BackendName) -> None:
    async def program() -> None:
        lab.eventually(lambda: False, within=10)
        await anyio.sleep(1)

    (failure,) = lab.explore(program, backend=backend).failures
    assert "within 10 s, until 10 s: the program has ended" in failure.report


def test_what_comes_true_at_the_last_moment_is_in_time_though_the_sum_of_the_waits_is_rounded() -> (
    None
):
    async def program() -> None:
        done: list[int] = []
        lab.eventually(lambda: done, within=0.3)
        for _ in range(3):
            await anyio.sleep(0.1)
        done.append(1)

    assert not lab.explore(program).failures


def test_a_promise_that_is_late_by_little_says_the_times_in_enough_digits() -> None:
    async def program() -> None:
        lab.eventually(lambda: False, within=1000)
        await anyio.sleep(1000.001)

    (failure,) = lab.explore(program).failures
    assert "within 1000 s, until 1000 s: it is 1000.001 s now" in failure.report


@BACKENDS
@pytest.mark.parametrize("cleans_up_for", [0, 100])
def test_a_program_that_ends_with_its_cancellation_need_not_keep_what_was_promised(
    backend: lab.BackendName, cleans_up_for: float
) -> None:
    async def program() -> None:
        done: list[int] = []
        lab.eventually(lambda: done, within=60)
        try:
            await anyio.sleep(1)
            done.append(1)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(cleans_up_for)

    assert lab.explore(program, backend=backend, cancel="scope").verdict == "proved"


@BACKENDS
@pytest.mark.parametrize("goes_on_for", [0, 100])
def test_a_program_that_goes_on_after_a_cancellation_has_to_keep_what_was_promised(
    backend: lab.BackendName, goes_on_for: float
) -> None:
    async def program() -> None:
        done: list[int] = []
        lab.eventually(lambda: done, within=60)

        async def finish() -> None:
            await anyio.sleep(1)
            done.append(1)

        async with anyio.create_task_group() as group:
            group.start_soon(finish)
        await anyio.sleep(goes_on_for)

    cancel = lab.cancellable("*finish", by="scope")
    (failure,) = lab.explore(program, backend=backend, cancel=cancel).failures
    why = "it is 10" if goes_on_for else "the program has ended"
    assert f"did not come true within 60 s, until 60 s: {why}" in failure.report


# The shutdown


async def leaves_a_task(clean_up: Callable[[], None]) -> None:
    """Leave a task that calls `clean_up` when `asyncio.run` cancels it."""

    async def left() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            clean_up()

    task = asyncio.create_task(left())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not task.done()


def take_a_value() -> None:
    if lab.choose("good", "bad") == "bad":
        raise ValueError("bad")


@pytest.mark.parametrize("strategy", ["mixed", "exhaustive", "random", "pct"])
def test_a_value_that_is_chosen_in_the_shutdown_is_explored_and_replayed(
    strategy: lab.StrategyName,
) -> None:
    async def program() -> None:
        await leaves_a_task(take_a_value)

    (failure,) = lab.explore(program, strategy=strategy).failures
    assert "unhandled exception during asyncio.run() shutdown: ValueError('bad')" in failure.report
    assert "here lab.choose takes 'bad'" in failure.report
    (again,) = lab.replay(program, failure.token).failures
    assert again.report == failure.report
    with pytest.raises(lab.LabError, match=r"calls lab.choose, and strategy 'dpor' cannot"):
        lab.explore(program, strategy="dpor")


def test_an_invariant_is_checked_in_the_shutdown() -> None:
    async def program(at_first: bool) -> None:
        free = [1]
        if at_first:
            lab.invariant(lambda: free)

        def clean_up() -> None:
            if not at_first:
                lab.invariant(lambda: free)
            free.clear()

        await leaves_a_task(clean_up)

    for at_first in (True, False):
        (failure,) = lab.explore(partial(program, at_first)).failures
        assert failure.report.startswith("exception: Violated: invariant")


def test_an_invariant_is_checked_when_an_async_generator_is_closed_at_the_end() -> None:
    async def program() -> None:
        free = [1]
        lab.invariant(lambda: free)

        async def generator() -> AsyncIterator[int]:
            try:
                yield 1
            finally:
                free.clear()

        it = generator()
        await anext(it)
        asyncio.current_task().it = it  # type: ignore[union-attr]  # so that it is not dropped

    (failure,) = lab.explore(program).failures
    assert failure.report.startswith("exception: Violated: invariant")


def test_oracles_of_one_execution_are_forgotten_in_the_next() -> None:
    number = 0

    async def program() -> None:
        nonlocal number
        number += 1
        if number == 1:
            lab.invariant(lambda: number == 1)
        await checkpoint()

    lab.explore(program, strategy="random", max_executions=5)
    lab.eventually(lambda: False, within=1)  # outside of an exploration nothing happens
    with pytest.raises(ValueError, match="within is -1"):
        lab.eventually(lambda: True, within=-1)


# Values


async def three_coins() -> None:
    coins = []

    async def throw() -> None:
        coins.append(lab.choose("head", "tail"))
        await checkpoint()
        coins.append(lab.choose("head", "tail", "edge"))

    await throw()
    coins.append(lab.choose("head", "tail"))
    assert coins != ["head", "edge", "tail"]


@BACKENDS
@pytest.mark.parametrize("strategy", ["mixed", "exhaustive", "random", "pct"])
def test_a_value_is_explored_shrunk_and_replayed(
    backend: lab.BackendName, strategy: lab.StrategyName
) -> None:
    (failure,) = lab.explore(three_coins, backend=backend, strategy=strategy).failures
    assert failure.token.endswith(":0@2?=2,0@2??=1")
    assert "here lab.choose takes 'edge'" in failure.report
    assert "here lab.choose takes 'head'" in failure.report
    (again,) = lab.replay(three_coins, failure.token).failures
    assert again.report == failure.report
    assert [step.values for step in again.schedule] == [("'head'",), ("'edge'", "'tail'")]


@BACKENDS
def test_all_values_are_executed(backend: lab.BackendName) -> None:
    seen = []

    async def program() -> None:
        first = lab.choose(1, 2)
        await checkpoint()
        seen.append((first, lab.choose(*"abc")))

    found = lab.explore(program, backend=backend, strategy="exhaustive")
    assert found.verdict == "proved"
    assert found.bound.endswith(", each with the values of lab.choose")
    assert {*seen} == {(number, letter) for number in (1, 2) for letter in "abc"}
    assert seen[0] == (1, "a")
    assert lab.explore(program, backend=backend).verdict == "proved"


def test_fifo_takes_the_first_value_and_says_so_and_dpor_refuses() -> None:
    found = lab.explore(three_coins, strategy="fifo")
    assert "other values of lab.choose than the first" in found.not_explored
    with pytest.raises(lab.LabError, match=r"calls lab.choose, and strategy 'dpor' cannot"):
        lab.explore(three_coins, strategy="dpor")


def test_outside_of_an_exploration_the_first_value_is_taken() -> None:
    assert lab.choose("a", "b") == "a"
    with pytest.raises(ValueError, match="at least one value"):
        lab.choose()
    with pytest.raises(ValueError, match=r"choose\(\*values\)"):
        lab.choose([1, 2])


async def fewer_each_time() -> None:
    lab.choose(*range(max(2, 5 - len(_calls))))
    _calls.append(1)
    await checkpoint()


_calls: list[int] = []


def test_values_that_are_not_the_same_in_the_same_schedule_are_refused() -> None:
    with pytest.raises(lab.LabError, match=r"lab.choose|does not do the same"):
        lab.explore(fewer_each_time, strategy="exhaustive")


@pytest.mark.parametrize("token", ["asyncio:0@1=1", "asyncio:0@1?=0", "asyncio:0@1?=x"])
def test_a_token_of_values_that_cannot_be_is_refused(token: str) -> None:
    with pytest.raises(ValueError, match="is no token"):
        lab.replay(three_coins, token)


def test_a_token_of_a_value_that_is_not_offered_does_not_fit() -> None:
    with pytest.raises(lab.LabError, match="does not fit the program"):
        lab.replay(three_coins, "asyncio:0@1?=5")
