"""A task that waits for several others, or for an event, is cancelled. The cancellation races with
the end of each of the others, also with one that is not the last, and with what sets the event.
`dpor` sees all that happens in any order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
import trio
from anyio.lowlevel import checkpoint

from mbufpools import lab

Outcomes = set[tuple[str, ...]]
Join = Callable[[Callable[[], Any], Callable[[], Any]], Awaitable[None]]


async def group_of_asyncio(one: Callable[[], Any], other: Callable[[], Any]) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(one())
        group.create_task(other())


async def group_of_asyncio_that_a_child_fills(
    one: Callable[[], Any], other: Callable[[], Any]
) -> None:
    async def fill() -> None:
        group.create_task(one())
        group.create_task(other())

    async with asyncio.TaskGroup() as group:
        group.create_task(fill())


async def group_of_anyio(one: Callable[[], Any], other: Callable[[], Any]) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(one)
        group.start_soon(other)


async def group_of_anyio_that_a_child_fills(
    one: Callable[[], Any], other: Callable[[], Any]
) -> None:
    async def fill() -> None:
        group.start_soon(one)
        group.start_soon(other)

    async with anyio.create_task_group() as group:
        group.start_soon(fill)


async def nursery(one: Callable[[], Any], other: Callable[[], Any]) -> None:
    async with trio.open_nursery() as tasks:
        tasks.start_soon(one)
        tasks.start_soon(other)


async def gathered(one: Callable[[], Any], other: Callable[[], Any]) -> None:
    await asyncio.gather(one(), other())


async def waited_for(one: Callable[[], Any], other: Callable[[], Any]) -> None:
    await asyncio.wait([asyncio.ensure_future(one()), asyncio.ensure_future(other())])


def cancelled_by_a_scope(join: Join, outcomes: Outcomes) -> Callable[[], Awaitable[None]]:
    """Return a program whose task `second` waits for `one` and `other`; a task that `other` wakes
    cancels it."""

    async def program() -> None:
        log: list[str] = []
        scope, event = anyio.CancelScope(), anyio.Event()

        async def one() -> None:
            await checkpoint()
            log.append("one")

        async def other() -> None:
            event.set()

        async def second() -> None:
            with scope:
                try:
                    await join(one, other)
                    log.append("joined")
                except anyio.get_cancelled_exc_class():
                    log.append("cancelled")
                    raise

        async def cancels() -> None:
            await event.wait()
            scope.cancel()

        async with anyio.create_task_group() as group:
            group.start_soon(second)
            group.start_soon(cancels)
        outcomes.add(tuple(sorted(log)))

    return program


def cancelled_natively(join: Join, outcomes: Outcomes) -> Callable[[], Awaitable[None]]:
    """Return the same program of asyncio, whose task is cancelled by its own method."""

    async def program() -> None:
        log: list[str] = []
        event = asyncio.Event()

        async def one() -> None:
            await asyncio.sleep(0)
            log.append("one")

        async def other() -> None:
            event.set()

        async def second() -> None:
            try:
                await join(one, other)
                log.append("joined")
            except asyncio.CancelledError:
                log.append("cancelled")
                raise

        async def cancels() -> None:
            await event.wait()
            task.cancel()

        task = asyncio.create_task(second())
        await asyncio.wait([task, asyncio.create_task(cancels())])
        outcomes.add(tuple(sorted(log)))

    return program


ON_ASYNCIO = [
    group_of_asyncio,
    group_of_asyncio_that_a_child_fills,
    group_of_anyio,
    group_of_anyio_that_a_child_fills,
    gathered,
    waited_for,
]
ON_TRIO = [nursery, group_of_anyio, group_of_anyio_that_a_child_fills]


@pytest.mark.parametrize(
    ("cancelled", "join", "backend"),
    [
        *((cancelled_natively, join, "asyncio") for join in ON_ASYNCIO),
        *((cancelled_by_a_scope, join, "asyncio") for join in ON_ASYNCIO),
        *((cancelled_by_a_scope, join, "trio") for join in ON_TRIO),
    ],
)
def test_dpor_sees_what_a_cancellation_of_a_join_does_in_every_order(
    cancelled: Callable[[Join, Outcomes], Callable[[], Awaitable[None]]],
    join: Join,
    backend: lab.BackendName,
) -> None:
    seen: dict[str, Outcomes] = {"dpor": set(), "exhaustive": set()}
    for strategy in ("dpor", "exhaustive"):
        program = cancelled(join, seen[strategy])
        found = lab.explore(program, backend=backend, strategy=strategy, max_executions=1500)
        assert found.verdict == "proved"
    assert seen["dpor"] == seen["exhaustive"]
    assert len(seen["dpor"]) > 1


def test_dpor_sees_a_cancellation_that_a_group_passes_on_to_a_join() -> None:
    async def program() -> None:
        victim = lab.Shared[Any](None)
        cut_short = lab.Shared(False)

        async def first() -> None:
            victim.value = asyncio.current_task()
            async with anyio.create_task_group() as inner:
                inner.start_soon(checkpoint)

        async def cancels() -> None:
            task = victim.value
            if task is not None and not task.done():
                task.cancel()

        async def second() -> None:
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(asyncio.sleep(0))
                    group.create_task(cancels())
            except asyncio.CancelledError:
                cut_short.value = True
                raise

        async with anyio.create_task_group() as outer:
            outer.start_soon(first)
            outer.start_soon(second)
        assert not cut_short.value

    assert lab.explore(program, strategy="dpor").verdict == "found"


def test_dpor_sees_that_a_cancelled_wait_leaves_an_event() -> None:
    async def program() -> None:
        event, go = asyncio.Event(), asyncio.Event()

        async def first() -> None:
            waiting = asyncio.create_task(event.wait())
            await go.wait()
            assert not waiting.done()
            waiting.cancel()
            await asyncio.wait([waiting])

        async def second() -> None:
            await go.wait()
            await asyncio.create_task(asyncio.sleep(0))
            event.set()

        tasks = [asyncio.create_task(first()), asyncio.create_task(second())]
        await asyncio.sleep(1)
        go.set()
        for task in tasks:
            await task

    assert lab.explore(program, strategy="dpor").verdict == "found"


@pytest.mark.parametrize("kind", [asyncio.Event, anyio.Event], ids=["asyncio", "anyio"])
def test_dpor_sees_what_a_cancellation_of_a_wait_for_an_event_does_in_every_order(
    kind: Callable[[], Any],
) -> None:
    seen: dict[str, Outcomes] = {"dpor": set(), "exhaustive": set()}

    def program_of(outcomes: Outcomes) -> Callable[[], Awaitable[None]]:
        async def program() -> None:
            event, scope, got = kind(), anyio.CancelScope(), list[str]()

            async def waits() -> None:
                with scope:
                    await event.wait()
                    got.append("got")

            async def cancels() -> None:
                scope.cancel()

            async def sets() -> None:
                await asyncio.create_task(asyncio.sleep(0))
                event.set()

            async with anyio.create_task_group() as group:
                for task in (waits, cancels, sets):
                    group.start_soon(task)
            outcomes.add(tuple(got))

        return program

    for strategy in ("dpor", "exhaustive"):
        lab.explore(program_of(seen[strategy]), strategy=strategy).assert_holds()
    assert seen["dpor"] == seen["exhaustive"] == {(), ("got",)}


# A task that waits in a loop


async def a_task_spins() -> None:
    flag = lab.Shared(False)

    async def spins() -> None:
        while not flag.value:
            await checkpoint()

    async def sets() -> None:
        flag.value = True

    async with anyio.create_task_group() as group:
        group.start_soon(spins)
        group.start_soon(sets)


async def a_cancelled_scope_wakes_a_join_again_and_again() -> None:
    with anyio.CancelScope() as scope:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(0))
            scope.cancel()


@pytest.mark.parametrize(
    ("program", "backend"),
    [
        (a_task_spins, "asyncio"),
        (a_task_spins, "trio"),
        (a_cancelled_scope_wakes_a_join_again_and_again, "asyncio"),
    ],
)
def test_dpor_lets_no_task_spin_for_ever_while_another_one_can_run_and_says_so(
    program: Callable[[], Awaitable[None]], backend: lab.BackendName
) -> None:
    found = lab.explore(program, backend=backend, strategy="dpor")
    assert found.verdict == "proved"
    assert "in which no task takes more than 100 steps in a row" in found.bound
    assert any("slice_steps" in remark for remark in found.remarks)


def test_dpor_lets_a_task_go_on_for_as_many_steps_as_it_is_told() -> None:
    found = lab.explore(a_task_spins, strategy="dpor", slice_steps=150)
    assert "more than 160 steps in a row" in found.bound
    assert lab.explore(a_task_spins, strategy="dpor").executions < found.executions
