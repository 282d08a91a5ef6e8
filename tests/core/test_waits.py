"""How a task is parked and woken, by itself: a request, and the sleeper of each backend."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
import trio
import trio.testing
from anyio.lowlevel import checkpoint

from mbufpools import AccountedMemory, BufferPools, Order, PoolSpec
from mbufpools._buffer import Buffer, move
from mbufpools._request import Request
from mbufpools._waits import Waits, current_waits, has_ended, name_of
from tests.kit.coroutines import ByItsMethods
from tests.kit.grants import ORDERED

ON_BOTH = pytest.mark.parametrize("run", ["asyncio", "trio"], ids=["one", "other"])
"""The backends, under ids that mutation testing does not leave out."""


def on(backend: str, main: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        with anyio.fail_after(5):
            await main()

    anyio.run(bounded, backend=backend)


@ON_BOTH
def test_a_request_parks_until_it_is_granted(run: str) -> None:
    async def main() -> None:
        request: Request[str] = Request(1, 2, 3)
        taken: list[str] = []

        async def getter() -> None:
            taken.append(await request.park())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(getter)
            for _ in range(3):
                await checkpoint()
            assert not taken
            request.grant("it")
            assert request.settled
            assert not taken, "the task runs later"
        assert taken == ["it"]

    on(run, main)


@ON_BOTH
def test_a_request_that_was_granted_before_it_parks_passes_a_checkpoint(run: str) -> None:
    async def main() -> None:
        request: Request[str] = Request(1, 2, 3)
        request.grant("it")
        with anyio.CancelScope() as scope:
            scope.cancel()
            await request.park()
        assert scope.cancelled_caught
        assert await request.park() == "it"

    on(run, main)


@ON_BOTH
def test_a_sleeper_that_was_woken_before_it_is_awaited_passes_a_checkpoint(run: str) -> None:
    async def main() -> None:
        sleeper = current_waits().sleeper()
        assert not sleeper.done()
        sleeper.set_result(None)
        assert sleeper.done()
        await sleeper

    on(run, main)


@ON_BOTH
def test_a_sleeper_whose_task_was_cancelled_is_woken_without_effect(run: str) -> None:
    async def main() -> None:
        sleepers = [current_waits().sleeper() for _ in range(2)]

        async def sleep(number: int) -> None:
            await sleepers[number]

        async with anyio.create_task_group() as tasks:
            for number in range(2):
                tasks.start_soon(sleep, number)
            for _ in range(3):
                await checkpoint()
            tasks.cancel_scope.cancel()
        for sleeper in sleepers:
            if not sleeper.done():  # as Request.wake asks
                sleeper.set_result(None)
            assert sleeper.done()

    on(run, main)


def test_a_sleeper_of_trio_reschedules_its_task_once() -> None:
    async def main() -> None:
        sleeper = current_waits().sleeper()
        order: list[str] = []

        async def sleep() -> None:
            await sleeper
            order.append("woken")
            await trio.testing.wait_all_tasks_blocked()
            order.append("done")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(sleep)
            await trio.testing.wait_all_tasks_blocked()
            sleeper.set_result(None)
            sleeper.set_result(None)  # else trio would raise an error for the second reschedule
            assert sleeper.done()
        assert order == ["woken", "done"]

    trio.run(main)


@ON_BOTH
def test_the_waits_of_a_loop_are_its_own(run: str) -> None:
    async def main() -> None:
        waits = current_waits()
        task = waits.native_task()
        assert waits.current_task() is task
        assert id(task) == anyio.get_current_task().id
        assert name_of(task) == anyio.get_current_task().name
        asyncio_s = hasattr(task, "get_name")
        assert asyncio_s == (run == "asyncio")
        await waits.checkpoint()

    on(run, main)


def test_waits_know_no_task_where_none_runs() -> None:
    loop = asyncio.new_event_loop()
    try:
        assert Waits(loop).current_task() is None
    finally:
        loop.close()


@ON_BOTH
def test_a_task_has_ended_once_it_has_returned_also_while_something_keeps_it(run: str) -> None:
    async def main() -> None:
        waits, others = current_waits(), []

        async def other() -> None:
            others.append(waits.native_task())
            assert not has_ended(others[0])
            await checkpoint()

        async with anyio.create_task_group() as group:
            group.start_soon(other)
        assert has_ended(others[0])
        assert not has_ended(waits.native_task())

    on(run, main)


def test_a_task_has_ended_also_if_its_coroutine_is_one_by_its_methods_only() -> None:
    async def main() -> None:
        others: list[Any] = []

        async def other() -> None:
            others.append(trio.lowlevel.current_task())
            assert not has_ended(others[0])
            await checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: ByItsMethods(other()), name="other")
            await trio.testing.wait_all_tasks_blocked()
            assert has_ended(others[0])

    trio.run(main)


async def test_an_item_moves_into_a_lease_that_only_the_caller_knows() -> None:
    class Own(Buffer):
        __slots__ = ()

    async with BufferPools(4096, [PoolSpec(4096, items_per_page=1)]) as pools:
        buffer = await pools.get(100)
        buffer.view[:2] = b"ab"
        own = move(buffer, Own)
        assert type(own) is Own
        assert buffer.released
        assert (own.pool, own.nbytes, own.released) == (buffer.pool, 100, False)
        assert bytes(own.view[:2]) == b"ab"
        assert move(buffer, Own) is None, "it was released by the first move"
        own.release()
        assert pools.statistics().nout == 0


@pytest.mark.parametrize("order", ORDERED)
async def test_a_get_at_once_is_refused_with_one_drop_if_idle_pages_stay_for_the_gc(
    order: Order,
) -> None:
    specs = [PoolSpec(size, items_per_page=1) for size in (2048, 4096)]
    pools = BufferPools(4096, specs, order=order, reclaim="gc", memory=AccountedMemory())
    async with pools:
        (await pools.get(2048)).release()
        with pytest.raises(anyio.WouldBlock):
            pools.get_nowait(4096)
        assert pools.budget.drops == 1
