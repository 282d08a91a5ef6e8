"""The default strategy, and explorations that run out of executions or of time."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest
from anyio.lowlevel import checkpoint

from mbufpools import lab
from tests.zoo._specimen import together

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])
Program = Callable[[], Coroutine[Any, Any, None]]


def walkers(tasks: int, steps: int) -> Program:
    """Tasks that share nothing, so that nothing can fail."""

    async def walk() -> None:
        for _ in range(steps):
            await checkpoint()

    async def program() -> None:
        await together(*[walk] * tasks)

    return program


async def seldom() -> None:
    """Fails if two tasks take turns three times, in the middle of others that go on."""
    order = []

    async def write(letter: str) -> None:
        for _ in range(3):
            await checkpoint()
            order.append(letter)

    async def a() -> None:
        await write("a")

    async def b() -> None:
        await write("b")

    await together(a, b)
    assert "".join(order) != "abbaab"


@BACKENDS
def test_chance_finds_soon_what_is_beyond_the_bound(backend: lab.BackendName) -> None:
    assert lab.explore(seldom, strategy="exhaustive", max_preemptions=1, backend=backend).complete
    (failure,) = lab.explore(seldom, max_preemptions=1, backend=backend).failures
    assert failure.found_at <= 300
    (again,) = lab.replay(seldom, failure.token).failures
    assert again.report == failure.report


@BACKENDS
def test_the_default_proves_what_exhaustive_does(backend: lab.BackendName) -> None:
    all_of = lab.explore(walkers(2, 2), strategy="exhaustive", backend=backend)
    mixed = lab.explore(walkers(2, 2), backend=backend)
    assert (mixed.verdict, mixed.bound) == ("proved", all_of.bound)
    assert all_of.executions < mixed.executions < all_of.executions + 200, (
        "chance ends where it finds nothing but what it has executed"
    )


def test_where_nothing_can_be_chosen_there_is_no_schedule_by_chance() -> None:
    assert lab.explore(checkpoint, strategy="mixed").executions == 2


def test_at_most_a_quarter_of_few_executions_is_by_chance() -> None:
    numbers: list[int] = []
    program = walkers(3, 3)
    lab.explore(program, max_executions=41, on_progress=numbers.append)
    assert len(numbers) == 41
    found = lab.explore(program, max_executions=2)
    assert found.executions == 2


def test_an_exploration_that_is_late_says_what_is_left() -> None:
    begin = time.monotonic()
    found = lab.explore(walkers(6, 6), max_seconds=3, max_executions=10**6)
    assert time.monotonic() - begin < 15
    assert found.verdict == "ran out"
    assert found.left is not None
    assert found.left > 1000
    assert str(found).startswith(f"ran out: no failure in {found.executions} executions (mixed on")
    assert " more are left (" in str(found)
    assert str(found).endswith(" at this rate)")


def test_an_estimate_of_more_than_anybody_waits_for_is_an_order_of_magnitude() -> None:
    many = lab.explore(walkers(2, 2), max_executions=2)
    assert " more are left (" not in str(many)
    many = replace(many, left=int(2.7e21), seconds=2.0, executions=1000)
    assert str(many).endswith("; about 10**21 more are left (more than a century at this rate)")
    many = replace(many, left=4123)
    assert str(many).endswith("; about 4,100 more are left (about 8 seconds at this rate)")


def test_an_exploration_that_is_late_keeps_what_it_has_found() -> None:
    async def program() -> None:
        await walkers(5, 5)()
        raise KeyError("found")

    found = lab.explore(program, max_seconds=0.3, max_failures=None, max_executions=10**6)
    assert [failure.kind for failure in found.failures] == ["exception"]
    assert found.verdict == "found"


@functools.cache
def schedules_of_three(backend: lab.BackendName) -> int:
    return lab.explore(walkers(3, 3), strategy="exhaustive", backend=backend).executions


@BACKENDS
@pytest.mark.parametrize("executed", [250, 500])
def test_what_is_left_is_estimated_within_a_factor_of_two(
    backend: lab.BackendName, executed: int
) -> None:
    options: dict[str, Any] = {"strategy": "exhaustive", "backend": backend}
    number = schedules_of_three(backend)
    found = lab.explore(walkers(3, 3), max_executions=executed, **options)
    assert found.left is not None
    assert (number - executed) / 2 <= found.left <= (number - executed) * 2


@BACKENDS
def test_there_is_no_estimate_from_a_few_walks(backend: lab.BackendName) -> None:
    """It would be wrong by a factor of ten: most walks find few schedules, and some find many."""
    found = lab.explore(walkers(3, 3), max_executions=60, backend=backend)
    assert found.verdict == "ran out"
    assert found.left is None


def test_a_proof_can_be_required() -> None:
    lab.explore(walkers(2, 1), require_complete=True).assert_holds()
    with pytest.raises(lab.ExplorationIncomplete, match=r"^ran out: .*require_complete") as caught:
        lab.explore(walkers(3, 3), require_complete=True, max_executions=30)
    assert caught.value.exploration.executions == 30

    async def fails() -> None:
        raise KeyError

    assert lab.explore(fails, require_complete=True).verdict == "found"


def test_what_on_progress_raises_ends_the_exploration() -> None:
    class Enough(Exception):
        pass

    def progress(number: int) -> None:
        if number == 5:
            raise Enough

    with pytest.raises(Enough):
        lab.explore(walkers(3, 3), on_progress=progress)
    assert lab.explore(walkers(2, 1)).complete


@pytest.mark.parametrize("seconds", [0, -1, "1"])
def test_seconds_that_cannot_be_are_refused(seconds: Any) -> None:
    with pytest.raises(ValueError, match="max_seconds is"):
        lab.explore(checkpoint, max_seconds=seconds)


async def takes_turns() -> None:
    places = []

    async def walker(name: str) -> None:
        for _ in range(4):
            places.append(name)
            await asyncio.sleep(0)

    await asyncio.gather(walker("a"), walker("b"))
    assert places != ["a", "b"] * 4


def test_the_first_execution_is_what_asyncio_does() -> None:
    (failure,) = lab.explore(takes_turns).failures
    assert (failure.found_at, failure.token) == (1, "asyncio:")
