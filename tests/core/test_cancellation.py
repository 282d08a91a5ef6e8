"""A cancelled get did not happen: both orders of every race, by scope and natively.

In each race somebody's put grants an item, and at the same moment the getter is cancelled. By
scope, a getter that was granted first gets its item, and its cancellation comes at its next
checkpoint; cancelled first, it gives back what it is granted before it has noticed. Natively a
getter is always cancelled, in either order. Whatever happens, no item is lost and none is
granted twice.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mbufpools import Buffer, BufferPools, EventKind, MbufPools, PoolSpec
from tests.kit.getter import Getter
from tests.kit.getters import EVERY_ORDER, Scene, on_asyncio, one_item_a_page, until


@pytest.fixture(autouse=True, params=EVERY_ORDER)
def every_order(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of this holds whoever is served first."""
    monkeypatch.setattr(Scene, "rules", request.param)


who_waits = pytest.mark.parametrize("victim", ["first", "second", "third"])
"""The head, the middle and the tail of the queue."""

NAMES = ["first", "second", "third"]


async def three_wait(scene: Scene[BufferPools]) -> Getter:
    holder = await scene.get("holder", 4096)
    for name in NAMES:
        await scene.get(name, 4096)
    assert scene.waiting() == NAMES
    return holder


def one_item() -> Scene[BufferPools]:
    return Scene(BufferPools, 4096, [one_item_a_page()])


async def the_others_are_served_in_order(scene: Scene[BufferPools], names: list[str]) -> None:
    """Each gets the item once the one before has released it, and then nothing is out."""
    for name in names:
        getter = scene.getters[name]
        assert scene.granted[-1] == name
        await getter.ended.wait()
        getter.release()
        scene.check()
    assert scene.of("4096").nout == 0
    assert scene.waiting() == []


# While parked


@who_waits
async def test_a_getter_cancelled_while_it_waits_leaves_the_queue(victim: str) -> None:
    async with one_item() as scene:
        holder = await three_wait(scene)
        getter = scene.getters[victim]
        getter.cancel()
        await getter.ended.wait()
        scene.check()
        assert getter.cancelled
        assert scene.of("4096").waiting == 2
        assert [e.request for e in scene.events if e.kind is EventKind.CANCEL] == [
            1 + NAMES.index(victim)
        ]
        holder.release()
        await the_others_are_served_in_order(scene, [n for n in NAMES if n != victim])


@on_asyncio
@who_waits
async def test_a_getter_cancelled_natively_while_it_waits_leaves_the_queue(victim: str) -> None:
    async with one_item() as scene:
        holder = await three_wait(scene)
        getter = scene.getters[victim]
        getter.cancel_natively()
        await getter.ended.wait()
        scene.check()
        assert getter.cancelled
        assert scene.of("4096").waiting == 2
        holder.release()
        await the_others_are_served_in_order(scene, [n for n in NAMES if n != victim])


async def test_all_who_wait_may_be_cancelled_at_once() -> None:
    async with one_item() as scene:
        holder = await three_wait(scene)
        for name in NAMES:
            scene.getters[name].cancel()
        for name in NAMES:
            await scene.getters[name].ended.wait()
            scene.check()
        assert scene.of("4096").waiting == 0
        holder.release()
        assert scene.granted == ["holder"]
        assert scene.of("4096").nout == 0


# At the moment of the grant


async def test_by_scope_granted_then_cancelled_the_head_has_its_item() -> None:
    """Its cancellation comes at its next checkpoint, as with any call that had succeeded."""
    async with one_item() as scene:
        holder = await three_wait(scene)
        head = scene.getters["first"]
        holder.release()
        head.cancel()
        scene.check()
        await head.ended.wait()
        assert head.holds()
        assert not head.cancelled
        assert head.scope.cancel_called
        head.release()
        await the_others_are_served_in_order(scene, ["second", "third"])
        assert scene.granted == ["holder", "first", "second", "third"]


async def test_by_scope_cancelled_then_granted_the_item_goes_to_the_next() -> None:
    async with one_item() as scene:
        holder = await three_wait(scene)
        head = scene.getters["first"]
        head.cancel()
        holder.release()
        assert scene.granted == ["holder", "first"], "it stands in the queue until it runs"
        scene.check()
        await head.ended.wait()
        scene.check()
        assert head.cancelled
        await the_others_are_served_in_order(scene, ["second", "third"])
        assert scene.granted == ["holder", "first", "second", "third"]
        assert scene.of("4096").nget == scene.of("4096").nput == 4


@on_asyncio
@pytest.mark.parametrize("granted_first", [True, False])
async def test_natively_in_either_order_the_item_goes_to_the_next(granted_first: bool) -> None:
    async with one_item() as scene:
        holder = await three_wait(scene)
        head = scene.getters["first"]
        for step in (
            (holder.release, head.cancel_natively)
            if granted_first
            else (head.cancel_natively, holder.release)
        ):
            step()
        scene.check()
        await head.ended.wait()
        scene.check()
        assert head.cancelled
        await the_others_are_served_in_order(scene, ["second", "third"])
        assert scene.granted == ["holder", "first", "second", "third"]


@pytest.mark.parametrize("cancelled", [1, 2, 3])
async def test_an_item_goes_past_all_who_were_cancelled_before_the_grant(cancelled: int) -> None:
    async with one_item() as scene:
        holder = await three_wait(scene)
        victims, others = NAMES[:cancelled], NAMES[cancelled:]
        for name in victims:
            scene.getters[name].cancel()
        holder.release()
        for name in victims:
            await scene.getters[name].ended.wait()
            assert scene.getters[name].cancelled
            scene.check()
        assert scene.granted[:2] == ["holder", "first"]
        await the_others_are_served_in_order(scene, others)


async def test_an_item_stays_with_the_head_when_all_are_cancelled_after_the_grant() -> None:
    async with one_item() as scene:
        holder = await three_wait(scene)
        holder.release()
        for name in NAMES:
            scene.getters[name].cancel()
        for name in NAMES:
            await scene.getters[name].ended.wait()
            scene.check()
        assert [scene.getters[name].cancelled for name in NAMES] == [False, True, True]
        assert scene.granted == ["holder", "first"]
        assert (scene.of("4096").nout, scene.of("4096").waiting) == (1, 0)


@who_waits
@pytest.mark.parametrize("cancelled_first", [True, False])
async def test_the_cancellation_of_another_does_not_touch_the_grant(
    victim: str, cancelled_first: bool
) -> None:
    """Two items come home while one of the three who wait is cancelled."""
    async with Scene(BufferPools, 2 * 4096, [one_item_a_page()]) as scene:
        holders = [await scene.get(f"holder {n}", 4096) for n in range(2)]
        for name in NAMES:
            await scene.get(name, 4096)
        getter = scene.getters[victim]
        if cancelled_first:
            getter.cancel()
        for holder in holders:
            holder.release()
        if not cancelled_first:
            getter.cancel()
        await getter.ended.wait()
        scene.check()
        left = [name for name in NAMES if name != victim]
        if getter.holds():
            assert not cancelled_first
            assert victim != "third"
            assert scene.granted[2:] == ["first", "second"]
            getter.release()
        else:
            assert scene.granted[2:] == (
                ["first", "second", "third"] if victim != "third" else left
            )
        for name in left:
            await scene.getters[name].ended.wait()
            assert scene.getters[name].holds()
        assert scene.of("4096").nout == 2


async def test_a_grant_by_the_wakeup_task_that_meets_a_cancellation_goes_to_the_next() -> None:
    """The page comes from another pool, by the deferred wakeup."""
    async with Scene(BufferPools, 8192, [one_item_a_page(), one_item_a_page(8192)]) as scene:
        holder = await scene.get("holder", 8192)
        for name in NAMES:
            await scene.get(name, 4096)
        holder.release()
        holder.lease.pool.reclaim()
        scene.getters["first"].cancel()
        await scene.settle()
        for name in NAMES:
            await scene.getters[name].ended.wait()
            scene.check()
        assert scene.getters["first"].cancelled
        assert [scene.getters[name].holds() for name in NAMES] == [False, True, True]
        assert scene.of("4096").nout == 2


async def test_a_head_that_leaves_has_the_queue_run_again() -> None:
    """What it waited for may be there, though nobody was woken: here a raised hard limit, which
    wakes nobody under the kernel's rules."""
    async with Scene(MbufPools, 100) as scene:
        pool = scene.pools.mbpool
        pool.set_hard_limit(1)
        await scene.get("holder", "mbufpl")
        for name in NAMES:
            await scene.get(name, "mbufpl")
        pool.set_hard_limit(2)
        scene.getters["first"].cancel()
        await scene.getters["first"].ended.wait()
        scene.check()
        assert scene.granted == ["holder", "second"]
        assert scene.waiting() == ["third"]


async def test_a_head_that_leaves_has_no_queue_run_if_the_next_clearly_must_wait() -> None:
    """The pool is dry, and all want the same. The next is the claim from then on."""
    async with one_item() as scene:
        holder = await three_wait(scene)
        drops = scene.pools.statistics().drops
        scene.getters["first"].cancel()
        await scene.getters["first"].ended.wait()
        scene.check()
        waiters = scene.pools._waiters
        assert scene.pools.statistics().drops - drops == (not waiters.order.ordered)
        if waiters.order.ordered:
            (queue,) = waiters.active
            assert queue.head.pass_limit is not None
        assert scene.waiting() == ["second", "third"]
        holder.release()
        await the_others_are_served_in_order(scene, ["second", "third"])


async def test_a_head_that_leaves_serves_those_of_other_pools_though_the_next_must_wait() -> None:
    """What it held up in another pool goes on: the next of its own pool wants a page, too, but it
    is younger than the one in the other pool."""
    large = PoolSpec(8192, items_per_page=1)
    async with Scene(BufferPools, 8192 + 4096, [one_item_a_page(), large]) as scene:
        await scene.get("holder", 8192)
        await scene.get("first", 8192)
        await scene.get("other", 4096)
        await scene.get("second", 8192)
        ordered = scene.pools._waiters.order.ordered
        assert ("other" in scene.waiting()) == ordered
        scene.getters["first"].cancel()
        await scene.getters["first"].ended.wait()
        await until(lambda: "other" not in scene.waiting())
        scene.check()
        assert scene.waiting() == ["second"]


# Before it parks, and without waiting


async def test_a_get_cancelled_before_its_first_step_takes_nothing() -> None:
    async with Scene(BufferPools, "1 MiB", [4096]) as scene:
        async with anyio.create_task_group() as group:
            group.start_soon(scene.pools.get, 1)
            group.cancel_scope.cancel()
        scene.check()
        assert scene.of("4096").nget == 0


@on_asyncio
@pytest.mark.parametrize("steps", [0, 1, 2, 3])
async def test_a_get_cancelled_natively_at_any_step_without_waiting_leaks_nothing(
    steps: int,
) -> None:
    """Before its first step; in the checkpoint, with the item in hand; after its end."""
    async with Scene(BufferPools, "1 MiB", [4096]) as scene:
        task = asyncio.create_task(scene.pools.get(1))
        for _ in range(steps):
            await asyncio.sleep(0)
        assert scene.of("4096").nout == (1 if steps else 0)
        task.cancel()
        if steps < 2:
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            (await task).release()
        scene.check()
        assert scene.of("4096").nout == 0
        assert scene.of("4096").nget == (1 if steps else 0)


@on_asyncio
async def test_the_buffer_that_a_native_cancellation_gives_back_goes_to_who_waits() -> None:
    async with one_item() as scene:
        taker, sleeper = (asyncio.create_task(scene.pools.get(1)) for _ in range(2))
        await asyncio.sleep(0)
        assert (scene.of("4096").nout, scene.of("4096").waiting) == (1, 1)
        taker.cancel()  # in its checkpoint, which is shielded from scopes only
        with await sleeper:
            with pytest.raises(asyncio.CancelledError):
                await taker
            scene.check()
            assert scene.of("4096").nout == 1


@on_asyncio
async def test_a_get_that_the_second_try_serves_gives_back_if_cancelled_natively() -> None:
    async with one_item() as scene:
        buffer = scene.pools.get_nowait(1)
        task = asyncio.create_task(scene.pools.get(1))
        with pytest.warns(ResourceWarning):
            del buffer
        await asyncio.sleep(0)
        assert scene.told(EventKind.GET) == ["4096", "4096"]
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        scene.check()
        assert scene.of("4096").nout == 0


@on_asyncio
async def test_a_task_that_cancels_itself_and_then_gets_gives_back() -> None:
    async with one_item() as scene:

        async def get() -> Buffer:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            return await scene.pools.get(1)

        task = asyncio.create_task(get())
        with pytest.raises(asyncio.CancelledError):
            await task
        scene.check()
        assert scene.of("4096").nout == 0


async def test_a_scope_cancelled_during_the_checkpoint_of_a_get_does_not_lose_the_buffer() -> None:
    """The item is taken, so the get succeeds; the cancellation comes at the next checkpoint."""
    async with Scene(BufferPools, "1 MiB", [4096]) as scene:
        taken: list[Buffer] = []
        scope = anyio.CancelScope()

        async def get() -> None:
            with scope:
                taken.append(await scene.pools.get(1))
                await checkpoint()
                taken.clear()

        async with anyio.create_task_group() as group:
            group.start_soon(get)
            await until(lambda: scene.of("4096").nout)
            scope.cancel()
        assert scope.cancelled_caught
        (buffer,) = taken
        buffer.release()


# Timeouts


@pytest.mark.parametrize("putter_first", [True, False])
async def test_a_timeout_at_the_very_moment_of_the_put_loses_nothing(putter_first: bool) -> None:
    """Whether the getter has left the queue when the put comes is up to the loop, and random on
    trio: so it is tried often."""
    for _ in range(30):
        async with one_item() as scene, anyio.create_task_group() as group:
            holder = await scene.get("holder", 4096)
            moment = anyio.current_time() + 5

            async def put(moment: float, holder: Getter) -> None:
                await anyio.sleep_until(moment)
                holder.release()

            if putter_first:
                group.start_soon(put, moment, holder)
                await checkpoint()
            getter = await scene.get("getter", 4096)
            getter.scope.deadline = moment
            await scene.get("next", 4096)
            if not putter_first:
                group.start_soon(put, moment, holder)
            await getter.ended.wait()
            scene.check()
            assert anyio.current_time() == moment
            assert getter.cancelled is not getter.holds()
            if getter.holds():
                getter.release()
            await scene.getters["next"].ended.wait()
            scene.check()
            assert scene.getters["next"].holds()
            assert anyio.current_time() == moment


async def test_a_timeout_at_the_very_moment_of_the_put_but_after_it_is_no_cancellation() -> None:
    async with one_item() as scene:
        holder = await three_wait(scene)
        await anyio.sleep_until(5)
        holder.release()
        scene.getters["first"].scope.deadline = 5
        await scene.getters["first"].ended.wait()
        assert scene.getters["first"].served_at == 5.0
        await the_others_are_served_in_order(scene, NAMES)


async def test_a_waiter_that_timed_out_is_not_granted_and_the_next_is() -> None:
    async with one_item() as scene:
        holder = await scene.get("holder", 4096)
        with anyio.move_on_after(3) as scope:
            await scene.pools.get(1)
        assert scope.cancelled_caught
        assert anyio.current_time() == 3.0
        scene.check()
        assert scene.of("4096").waiting == 0
        await scene.get("next", 4096)
        holder.release()
        scene.check()
        assert scene.granted == ["holder", "next"]


async def test_fail_after_is_a_timeout_error() -> None:
    async with one_item() as scene:
        with scene.pools.get_nowait(1):
            with pytest.raises(TimeoutError):
                with anyio.fail_after(3):
                    await scene.pools.get(1)
            scene.check()
            assert scene.of("4096").waiting == 0


@on_asyncio
async def test_wait_for_of_asyncio_loses_nothing() -> None:
    """It cancels natively."""
    async with one_item() as scene:
        buffer = scene.pools.get_nowait(1)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(scene.pools.get(1), 3)
        scene.check()
        asyncio.get_running_loop().call_at(5, buffer.release)
        try:
            (await asyncio.wait_for(scene.pools.get(1), 5 - anyio.current_time())).release()
        except TimeoutError:
            pass
        scene.check()
        assert (scene.of("4096").nout, scene.of("4096").waiting) == (0, 0)


# Everything at once

in_every_order = pytest.mark.parametrize(
    "order", [" ".join(order) for order in itertools.permutations(["put", "cancel", "get"])]
)


async def in_this_order(order: str, cancel: Callable[[Getter], None]) -> None:
    """A put, the cancellation of the head, and a newcomer, all at one moment."""
    async with Scene(BufferPools, 8192, [PoolSpec(4096, items_per_page=2)]) as scene:
        holders = [await scene.get(f"holder {n}", 4096) for n in range(2)]
        for name in NAMES:
            await scene.get(name, 4096)
        first = scene.getters["first"]
        for step in order.split():
            if step == "put":
                holders[0].release()
            elif step == "get":
                assert not scene.try_get("newcomer", "4096"), "what is handed over is not free"
            else:
                cancel(first)
            scene.check()
        await first.ended.wait()
        scene.check()
        assert scene.of("4096").nout == 2
        if first.holds():
            first.release()
        holders[1].release()
        for name in ("second", "third"):
            await scene.getters[name].ended.wait()
            assert scene.getters[name].holds()
        scene.check()
        assert scene.of("4096").nout == 2


@in_every_order
async def test_a_put_a_cancellation_and_a_newcomer_at_one_moment_leak_nothing(order: str) -> None:
    await in_this_order(order, Getter.cancel)


@on_asyncio
@in_every_order
async def test_a_put_a_native_cancellation_and_a_newcomer_at_one_moment_leak_nothing(
    order: str,
) -> None:
    await in_this_order(order, Getter.cancel_natively)


async def test_many_getters_with_short_patience_leave_nothing_behind() -> None:
    turns = 50
    async with Scene(BufferPools, 4 * 4096, [one_item_a_page()]) as scene:
        served = 0

        async def get(number: int) -> None:
            nonlocal served
            await anyio.sleep(number % 7 * 0.25)
            with anyio.move_on_after(number % 5 * 0.5):
                with await scene.pools.get(1):
                    served += 1
                    scene.check()
                    await anyio.sleep(number % 3 * 0.25)

        async with anyio.create_task_group() as group:
            for number in range(turns):
                group.start_soon(get, number)
        scene.check()
        assert 0 < served < turns
        assert (scene.of("4096").nout, scene.of("4096").waiting) == (0, 0)
        assert scene.of("4096").nget >= served
