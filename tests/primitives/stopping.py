"""Groups, timeouts and scopes: a cancelled task stops, and a started task is not forgotten."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial

import anyio
from anyio.functools import lru_cache
from anyio.lowlevel import checkpoint

from mbufpools.lab import Shared

from ._subject import BOTH, Program, Subject, together

__all__ = ["SUBJECTS"]

STOPS = "a task that is cancelled in the moment in which its time is up, or its child fails, stops"


async def cancelled_as_it_ends(how: Program) -> None:
    """A task is cancelled natively at the moment when its operation ends."""

    async def victim() -> None:
        await how()
        await asyncio.sleep(5)

    task = asyncio.create_task(victim())
    await asyncio.sleep(1)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled(), "the cancellation is swallowed"


async def timeout() -> None:
    try:
        async with asyncio.timeout(1):
            await asyncio.sleep(2)
    except TimeoutError:
        pass


async def wait_for() -> None:
    try:
        await asyncio.wait_for(asyncio.sleep(2), 1)
    except TimeoutError:
        pass


async def wait_for_in_time() -> None:
    await asyncio.wait_for(asyncio.sleep(1), 2)


async def move_on_after() -> None:
    with anyio.move_on_after(1):
        await anyio.sleep(2)


async def fails() -> None:
    await anyio.sleep(1)
    raise ValueError


async def task_group_of_asyncio() -> None:
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(fails())
    except* ValueError:
        pass


async def task_groups_of_asyncio() -> None:
    async with asyncio.TaskGroup():
        await task_group_of_asyncio()


async def task_group_of_anyio() -> None:
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(fails)
    except* ValueError:
        pass


async def gather() -> None:
    await asyncio.gather(fails(), asyncio.sleep(1), return_exceptions=True)


async def started_and_stopped() -> None:
    """A child is started in a group, which is then cancelled."""
    running = Shared(0)

    async def serve(*, task_status: anyio.abc.TaskStatus[None]) -> None:
        running.value += 1
        try:
            await checkpoint()
            task_status.started()
            await anyio.sleep(5)
        finally:
            running.value -= 1

    try:
        async with anyio.create_task_group() as group:
            with suppress(RuntimeError):  # the child was cancelled before it had started
                await group.start(serve)
            group.cancel_scope.cancel()
    finally:
        assert running.value == 0, "still running"


async def cached() -> None:
    """Three calls with two keys, of which one is remembered; and one more when all is over."""

    @lru_cache(maxsize=1)
    async def double(number: int) -> int:
        await checkpoint()
        return 2 * number

    async def call(number: int) -> None:
        assert await double(number) == 2 * number

    try:
        await together(partial(call, 1), partial(call, 1), partial(call, 2))
    finally:
        double.cache_clear()


SUBJECTS = (
    *(
        Subject(
            f"{name}, cancelled as it ends",
            partial(cancelled_as_it_ends, how),
            STOPS,
            ("asyncio",),
            cancel=False,
        )
        for name, how in (
            ("asyncio.timeout", timeout),
            ("asyncio.wait_for", wait_for),
            ("asyncio.wait_for, in time", wait_for_in_time),
            ("asyncio.TaskGroup", task_group_of_asyncio),
            ("asyncio.TaskGroup, nested", task_groups_of_asyncio),
            ("asyncio.gather", gather),
            ("anyio.move_on_after", move_on_after),
            ("anyio.create_task_group", task_group_of_anyio),
        )
    ),
    Subject(
        "anyio.create_task_group, start",
        started_and_stopped,
        "what is started runs, and ends with its group",
        BOTH,
    ),
    Subject(
        "anyio.functools.lru_cache(maxsize=1)",
        cached,
        "each call that is not cancelled returns its result",
        BOTH,
    ),
)
