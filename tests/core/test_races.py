"""Grant, cancellation and close at one moment, in both orders, by scope and natively.

In each race the second act comes before the task of the first has run. Whatever the outcome, what
was granted is either with the task or with the next in line, and nothing leaks.
"""

from __future__ import annotations

import asyncio
import threading
import warnings
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from mbufpools import (
    AccountedMemory,
    BufferPools,
    EventKind,
    ImpossibleRequest,
    Order,
    PoolSpec,
    Wakeup,
)
from tests.kit.getter import Getter
from tests.kit.getters import on_asyncio, until
from tests.kit.grants import (
    KIB,
    WAKING,
    GrantLog,
    break_silently,
    entered,
    release_all,
    reserve,
    settle,
    small_and_large,
    taking,
)

PAGE = 4 * KIB
KINDS = ["get", "get_many", "reserve"]
ORDERS = list(Order)


def take(pools: BufferPools, kind: str, mark: int) -> Callable[[], Awaitable[Any]]:
    """A request for the whole of a budget of two pages, told by the `mark` in its bytes."""

    async def take() -> Any:
        if kind == "get_many":
            return await pools.get_many([4000 + mark, 4000])
        if kind == "reserve":
            return await pools.reserve(8000 + mark)
        return await pools.get(8000 + mark)

    return take


def whole(**options: Any) -> BufferPools:
    """A budget of two pages, and a pool whose page takes both."""
    return BufferPools(
        2 * PAGE,
        [
            PoolSpec(PAGE, name="large", items_per_page=1),
            PoolSpec(2 * PAGE, name="whole", items_per_page=1),
        ],
        memory=AccountedMemory(),
        **options,
    )


async def race(
    first: str, how: str, kind: str, order: Order, wakeup: str = "direct"
) -> tuple[Getter, Getter, Getter, GrantLog]:
    """Let a grant and the cancellation of the one it is for meet, in this order.

    Two stand in line behind, so that what is handed on can be seen to be handed on once.
    """
    log = GrantLog()
    pools = whole(order=order, wakeup=wakeup, hook=log)
    async with entered(pools), anyio.create_task_group() as tasks:
        held = await take(pools, kind, 9)()
        racers = [await taking(tasks, take(pools, kind, mark)) for mark in (1, 2, 3)]
        head, second, third = racers
        assert pools.statistics().waiting == 3
        if first == "grant":
            held.release()
            head.cancel(how)
        else:
            head.cancel(how)
            held.release()
        await settle()
        pools.check()
        out = [racer for racer in racers if racer.holds()]
        assert len(out) == 1, "all of it is with just one"
        if head.holds():
            head.release()
            await settle()
        else:
            assert head.cancelled
        assert second.holds()
        assert not third.holds()
        second.release()
        await settle()
        third.release()
    return head, second, third, log


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("first", ["grant", "cancel"])
async def test_a_grant_and_a_cancellation_by_scope_leak_nothing(
    first: str, kind: str, order: Order
) -> None:
    head, *_ = await race(first, "by scope", kind, order)
    if first == "cancel":
        assert not head.holds()


@on_asyncio
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("first", ["grant", "cancel"])
async def test_a_grant_and_a_native_cancellation_leak_nothing(
    first: str, kind: str, order: Order
) -> None:
    head, *_, log = await race(first, "natively", kind, order)
    assert not head.holds()
    assert head.cancelled
    if first == "grant":
        assert log.granted[0] % 10 == 1, "it was granted"
        assert log.granted[1] % 10 == 2, "and then handed on"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wakeup", WAKING)
async def test_what_a_cancelled_task_gives_back_goes_on_under_each_wakeup(
    wakeup: Wakeup, kind: str
) -> None:
    for first in ("grant", "cancel"):
        await race(first, "by scope", kind, Order.BOUNDED, wakeup)


@on_asyncio
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wakeup", WAKING)
async def test_what_a_natively_cancelled_task_gives_back_goes_on_under_each_wakeup(
    wakeup: Wakeup, kind: str
) -> None:
    for first in ("grant", "cancel"):
        await race(first, "natively", kind, Order.BOUNDED, wakeup)


# A checkpoint that is cancelled when the request was served at once


@on_asyncio
@pytest.mark.parametrize("kind", KINDS)
async def test_a_native_cancellation_at_the_checkpoint_of_a_request_served_at_once(
    kind: str,
) -> None:
    log = GrantLog()
    pools = whole(hook=log)
    async with entered(pools), anyio.create_task_group() as tasks:
        racer = Getter.started(tasks, take(pools, kind, 1))
        while not log.taken:
            await asyncio.sleep(0)
        assert not racer.holds(), "it is at its checkpoint"
        racer.cancel("natively")
        await settle()
        assert racer.cancelled
        with await take(pools, kind, 2)():
            pass


@pytest.mark.parametrize("kind", KINDS)
async def test_a_scope_cancelled_at_the_checkpoint_of_a_request_served_at_once_keeps_it(
    kind: str,
) -> None:
    # Once it has been served, the checkpoint is shielded: a success is a success.
    pools = whole()
    async with entered(pools):
        with anyio.CancelScope() as scope:
            tasks: list[Any] = []
            async with anyio.create_task_group() as group:
                group.start_soon(_cancel_soon, scope)
                lease = await take(pools, kind, 1)()
                tasks.append(lease)
                lease.release()
        assert tasks


async def _cancel_soon(scope: anyio.CancelScope) -> None:
    scope.cancel()


# The queue runs again


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", KINDS)
async def test_several_cancelled_at_the_moment_of_their_grants_hand_on_to_the_last(
    kind: str, order: Order
) -> None:
    pools = whole(order=order)
    async with entered(pools), anyio.create_task_group() as tasks:
        held = await take(pools, kind, 9)()
        racers = [await taking(tasks, take(pools, kind, mark)) for mark in range(8)]
        held.release()
        for racer in racers[:-1]:
            racer.cancel("by scope")
        await settle()
        pools.check()
        if racers[0].holds():  # whose grant was first
            racers[0].release()
            await settle()
        assert racers[-1].holds()
        assert all(not racer.holds() for racer in racers[1:-1])
        racers[-1].release()


@pytest.mark.parametrize("order", ORDERS)
async def test_cancelling_everybody_at_once_leaves_nothing(order: Order) -> None:
    pools = small_and_large(2, order=order)
    async with entered(pools):
        held = [await pools.get(4000), await pools.get(4000)]
        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                await taking(tasks, pools.get, 1000)
                await taking(tasks, pools.get, 4000)
                await taking(tasks, pools.get_many, [1000, 4000])
                await taking(tasks, reserve, pools, 2 * PAGE)
            tasks.cancel_scope.cancel()
        pools.check()
        assert pools.statistics().waiting == 0
        release_all(held)


@pytest.mark.parametrize("order", ORDERS)
async def test_a_grant_that_is_handed_back_is_counted_and_told_in_order(order: Order) -> None:
    log = GrantLog()
    pools = whole(order=order, hook=log)
    async with entered(pools), anyio.create_task_group() as tasks:
        held = await pools.get(8000)
        head = await taking(tasks, take(pools, "get", 1))
        head.cancel("by scope")
        await settle()
        statistics = pools.statistics().waits
        assert (statistics.waits, statistics.grants, statistics.cancellations) == (1, 0, 1)
        held.release()
        kinds = [event.kind for event in log.events if event.name == "whole"]
        assert kinds == [
            EventKind.PAGE_IN,
            EventKind.GET,
            EventKind.WAIT,
            EventKind.CANCEL,
            EventKind.PUT,
        ]


# The close


CLOSES = ["close", "grant", "cancel", "grant, cancel", "close, cancel"]


async def see_the_close(what: str, how: str, kind: str, order: Order) -> None:
    """Let the close meet a grant, a cancellation, or both, before the head's task has run."""
    pools = whole(order=order, wakeup="direct")

    async def cancel() -> None:
        head.cancel(how)

    async with anyio.create_task_group() as tasks:
        with warnings.catch_warnings(record=True) as reports:
            warnings.simplefilter("always")
            async with pools:
                held = await take(pools, kind, 9)()
                head = await taking(tasks, take(pools, kind, 1))
                other = await taking(tasks, take(pools, kind, 2))
                if "grant" in what:
                    held.release()
                if what == "close, cancel":
                    tasks.start_soon(cancel)  # runs when the close has woken everybody
                elif "cancel" in what:
                    head.cancel(how)
        await settle()
    assert all("closed with buffers still out" in str(report.message) for report in reports)
    if what != "grant, cancel":  # of which the head may have given all back meanwhile
        assert len(reports) == 1
    assert isinstance(other.error, anyio.ClosedResourceError)
    assert "was closed while a request for" in str(other.error)
    if what == "close":
        assert isinstance(head.error, anyio.ClosedResourceError)
    elif what == "grant":
        assert head.holds(), "what was granted before the close stays granted"
    elif "grant" not in what:
        assert not head.holds()
    if "grant" not in what:
        held.release()
    if head.holds():
        head.release()
    pools.check()
    statistics = pools.statistics()
    assert (statistics.allocated, statistics.nout, statistics.reserved) == (0, 0, 0)
    assert statistics.waiting == 0


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("first", CLOSES)
async def test_a_close_meets_a_grant_or_a_cancellation_by_scope(
    first: str, kind: str, order: Order
) -> None:
    await see_the_close(first, "by scope", kind, order)


@on_asyncio
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("first", CLOSES)
async def test_a_close_meets_a_grant_or_a_native_cancellation(
    first: str, kind: str, order: Order
) -> None:
    await see_the_close(first, "natively", kind, order)


async def hold_beyond_the_close(pools: BufferPools, kind: str) -> Any:
    async with pools:
        return await take(pools, kind, 9)()


@pytest.mark.parametrize("kind", KINDS)
async def test_releases_after_the_close_give_the_memory_back_and_wake_nobody(kind: str) -> None:
    pools = whole()
    with pytest.warns(ResourceWarning, match="closed with buffers still out"):
        held = await hold_beyond_the_close(pools, kind)
    assert pools.budget.allocated > 8000
    held.release()
    assert pools.budget.allocated == 0
    with pytest.raises(anyio.ClosedResourceError):
        await take(pools, kind, 1)()
    pools.check()


@pytest.mark.parametrize("what", ["bytes", "buffer", "several"])
async def test_what_the_repair_of_the_set_grants_to_a_cancelled_request_goes_back(
    what: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The request that is cancelled is the one that the repair serves: it is the first call after
    an exception has ended a step in its middle."""
    pools = BufferPools(4096, [PoolSpec(4096, items_per_page=1)], wakeup="none")
    async with entered(pools), anyio.create_task_group() as tasks:
        held = await pools.reserve(4096)
        waits: dict[str, Callable[[], Awaitable[object]]] = {
            "bytes": lambda: pools.reserve(4096),
            "buffer": lambda: pools.get(4096),
            "several": lambda: pools.get_many([4096]),
        }
        scope = anyio.CancelScope()
        granted: list[object] = []

        async def waiter() -> None:
            with scope:
                granted.append(await waits[what]())

        tasks.start_soon(waiter)
        await until(lambda: pools.statistics().waiting == 1)
        held.release()
        assert pools.statistics().waiting == 1, "this policy wakes no request"
        scope.cancel()
        break_silently(pools)
        await until(lambda: pools.statistics().waiting == 0)
        pools.check()
        statistics = pools.statistics()
        assert (granted, statistics.nout, statistics.reserved, statistics.dropped) == ([], 0, 0, 0)
    assert not caplog.records


async def test_a_newcomer_queues_behind_a_request_that_the_repair_shows() -> None:
    pools = BufferPools(4096, [PoolSpec(2048, items_per_page=2)])
    async with entered(pools), anyio.create_task_group() as tasks:
        held = await pools.reserve(4096)

        async def waiter() -> None:
            async with pools.reserve(4096):
                pass

        tasks.start_soon(waiter)
        await until(lambda: pools.statistics().waiting == 1)
        break_silently(pools)
        with pytest.raises(anyio.WouldBlock):
            pools.get_nowait(2048)
        held.release()


@on_asyncio
async def test_a_release_in_a_thread_starts_the_runner_again_that_was_cancelled() -> None:
    """The loop then makes a call that has no context but its own."""
    pools = BufferPools(4096, [PoolSpec(4096, items_per_page=1)], wakeup="deferred")
    async with entered(pools), anyio.create_task_group() as tasks:
        held = await pools.reserve(4096)
        served: list[object] = []

        async def waiter() -> None:
            async with pools.reserve(4096) as reservation:
                served.append(reservation)

        tasks.start_soon(waiter)
        await until(lambda: pools.statistics().waiting == 1)
        runner: Any = pools._taskq._runner
        runner.cancel()
        await until(lambda: pools._taskq._runner is None)
        thread = threading.Thread(target=held.release)
        thread.start()
        thread.join()
        await until(lambda: bool(served))


async def test_a_get_at_once_from_a_pool_whose_maximum_is_none_is_impossible() -> None:
    pools = BufferPools(4096, [PoolSpec(4096, items_per_page=1)])
    async with entered(pools):
        with await pools.reserve(4096):
            pools.pools["4096"].set_max_items(0)
            with pytest.raises(ImpossibleRequest):
                pools.get_nowait(4096)
            with pytest.raises(ImpossibleRequest):
                await pools.get(4096)
