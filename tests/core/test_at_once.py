"""What is served behind an open gate, by the calls that are written for speed."""

from __future__ import annotations

import inspect
import textwrap
from typing import Any

import anyio
import pytest

from mbufpools import (
    AccountedMemory,
    Budget,
    Buffer,
    BufferPools,
    Event,
    EventKind,
    OversizeRequest,
    Pool,
    PoolSpec,
)
from mbufpools._request import Request, RequestQueue
from mbufpools._set_state import SetState
from tests.kit.grants import KIB, Counted, entered, settle, small_and_large, taking

PAGE = 4 * KIB


def small(pages: int, **options: Any) -> BufferPools:
    """Four items of 1 KiB to a page."""
    spec = PoolSpec(KIB, name="small", items_per_page=4)
    return BufferPools(pages * PAGE, [spec], memory=AccountedMemory(), **options)


def taken_at_once(function: Any) -> str:
    """The lines of a get that make the lease, with `self` for the pool."""
    source = textwrap.dedent(inspect.getsource(function))
    begin = source.index("buffer = Buffer()")
    end = source.index("return buffer", begin)
    taken = source[begin:end].replace("buffer._pool = pool", "buffer._pool = self")
    return taken.replace("buffer._nbytes = nbytes", "buffer._nbytes = _nbytes")


def test_the_copies_of_the_get_behind_an_open_gate_are_the_same() -> None:
    assert taken_at_once(Pool._get) == taken_at_once(Pool.get_nowait)
    assert taken_at_once(BufferPools.get_nowait) == taken_at_once(Pool.get_nowait)


async def test_a_get_of_a_free_item_makes_no_checkpoint_with_fast_acquire() -> None:
    async with entered(small(1, fast_acquire=True)) as pools:
        with pools.get_nowait(1):
            for get in (pools.pools["small"].get(), pools.get(100)):
                counted = Counted(get)
                with await counted:
                    assert counted.checkpoints == 0


async def test_a_get_of_a_free_item_makes_a_checkpoint_without_fast_acquire() -> None:
    async with entered(small(1)) as pools:
        with pools.get_nowait(1):
            counted = Counted(pools.pools["small"].get())
            with await counted:
                assert counted.checkpoints > 0


@pytest.mark.parametrize("debug", [False, True], ids=["behind the gate", "beside it"])
async def test_a_reservation_makes_no_checkpoint_with_fast_acquire(debug: bool) -> None:
    async with entered(small(1, fast_acquire=True, debug=debug)) as pools:
        counted = Counted(pools.reserve(PAGE))
        with await counted:
            assert counted.checkpoints == 0
            assert pools.budget.allocated == PAGE


async def test_a_reservation_of_bytes_that_are_not_free_waits_with_fast_acquire() -> None:
    async with (
        entered(small(1, fast_acquire=True)) as pools,
        anyio.create_task_group() as tasks,
    ):
        with await pools.reserve(PAGE - 100):

            async def reserve(nbytes: int) -> Any:
                return await pools.reserve(nbytes)

            waiter = await taking(tasks, reserve, 101)
            assert pools.statistics().waiting == 1
            assert pools.budget.allocated == PAGE - 100
        await settle()
        waiter.release()
        assert pools.budget.allocated == 0


async def test_a_request_of_more_bytes_is_not_passed_by_one_of_fewer_under_barging() -> None:
    pools = small(1, fast_acquire=True, order="barging")
    async with entered(pools), anyio.create_task_group() as tasks:

        async def reserve(nbytes: int) -> Any:
            return await pools.reserve(nbytes)

        with await pools.reserve(PAGE - 100):
            first = await taking(tasks, reserve, 200)
            second = await taking(tasks, reserve, 50)
            assert pools.statistics().waiting == 2
        await settle()
        first.release()
        second.release()


async def test_a_get_of_a_size_that_no_pool_has_is_refused_before_it_is_awaited() -> None:
    async with entered(small(1)) as pools:
        with pytest.raises(OversizeRequest):
            _ = pools.get(KIB + 1)  # no coroutine is made, so none could be awaited


async def test_the_hook_is_told_the_size_of_a_whole_item() -> None:
    told: list[Event] = []
    async with entered(small(1, hook=told.append)) as pools:
        pool = pools.pools["small"]
        for _ in range(2):
            pool.get_nowait().release()
        pool.get_nowait(100).release()
    sizes = [(it.kind, it.nbytes) for it in told if it.kind in (EventKind.GET, EventKind.PUT)]
    whole = [(EventKind.GET, KIB), (EventKind.PUT, KIB)]
    assert sizes == [*whole, *whole, (EventKind.GET, 100), (EventKind.PUT, 100)]


async def test_the_hook_is_told_the_size_of_a_lease_that_a_with_ends_after_its_view() -> None:
    told: list[Event] = []
    async with entered(BufferPools(2 * PAGE, [KIB], hook=told.append)) as pools:
        with pools.get_nowait(100) as buffer:
            buffer.view[:1] = b"x"
    assert [it.nbytes for it in told if it.kind is EventKind.PUT] == [100]


async def test_a_buffer_that_is_handed_over_knows_its_pool() -> None:
    async with entered(small_and_large(1)) as pools, anyio.create_task_group() as tasks:
        held = await pools.get(PAGE)
        waiter = await taking(tasks, pools.get, PAGE)
        held.release()
        await settle()
        assert isinstance(waiter.lease, Buffer)
        assert waiter.lease.pool is held.pool
        waiter.release()


async def test_a_put_beside_an_idle_page_serves_a_request_for_several_items() -> None:
    """Under barging the gate stays open, and the put raises no alarm of its page."""
    pools = BufferPools(
        2 * PAGE,
        [PoolSpec(KIB, name="small", items_per_page=4, max_idle_items=0)],
        memory=AccountedMemory(),
        order="barging",
        reclaim="gc",
    )
    async with entered(pools), anyio.create_task_group() as tasks:
        held = [pools.get_nowait(1) for _ in range(8)]
        for buffer in held[:4]:
            buffer.release()
        waiter = await taking(tasks, pools.get_many, [1] * 6)
        assert pools.statistics().waiting == 1
        held[4].release()
        held[5].release()
        await settle()
        assert pools.statistics().waiting == 0
        waiter.release()
        for buffer in held[6:]:
            buffer.release()


async def test_a_release_that_an_exception_interrupts_can_be_made_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with entered(small(1)) as pools:
        reservation = await pools.reserve(100)

        def interrupted(state: SetState, number: int) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(SetState, "unreserve", interrupted)
            with pytest.raises(KeyboardInterrupt):
                reservation.release()
        released = [reservation.released]
        reservation.release()
        released.append(reservation.released)
        assert released == [False, True]
        assert pools.budget.allocated == 0


async def test_a_release_of_all_bytes_asks_for_no_wakeup_if_no_request_waits() -> None:
    async with entered(small(1, wakeup="deferred")) as pools:
        reservation = await pools.reserve(PAGE)
        before = pools.taskq.statistics().added
        reservation.release()
        assert pools.taskq.statistics().added == before


def test_memory_is_low_as_soon_as_a_new_limit_makes_it_so() -> None:
    budget = Budget(1000)
    assert budget.charge(81)
    budget.resize(101)
    assert not budget.low_memory
    budget.resize(100)
    assert budget.low_memory


def test_a_request_is_in_its_queue_from_its_join_until_it_leaves() -> None:
    queue: RequestQueue[str] = RequestQueue()
    request = Request[str](1, 1, 0)
    assert request not in queue
    queue.append(request)
    assert request in queue
    queue.remove(request)
    assert request not in queue
    assert queue.head is None
