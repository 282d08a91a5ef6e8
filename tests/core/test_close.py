"""The end of a pool set: those who wait, what is still out, and what the body and tasks raised."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mbufpools import (
    Buffer,
    BufferPools,
    DoubleRelease,
    MbufPools,
    PoolSpec,
    Task,
    UsageError,
)
from tests.kit.getters import EVERY_ORDER, one_item_a_page, until


@pytest.fixture(params=EVERY_ORDER)
def pools(request: pytest.FixtureRequest) -> BufferPools:
    """A pool of two items and one of one; the limit is three pages of 4 KiB."""
    return BufferPools(
        3 * 4096,
        [one_item_a_page(name="small"), one_item_a_page(8192, name="large")],
        name="tested",
        **request.param,
    )


@pytest.fixture(autouse=True)
def everything_came_back(pools: BufferPools) -> Iterator[None]:
    """Once a test has released all, nothing is out and nothing charged."""
    yield
    pools.check()
    statistics = pools.statistics()
    assert (statistics.nout, statistics.waiting, statistics.allocated) == (0, 0, 0)


@contextmanager
def leaks(match: str = "was closed with") -> Iterator[None]:
    """The set that is closed inside reports what is still out."""
    with pytest.warns(ResourceWarning, match=match):
        yield


# Those who wait


@pytest.mark.filterwarnings("ignore:tested was closed with:ResourceWarning")
async def test_whoever_waits_gets_closed_resource_error(pools: BufferPools) -> None:
    errors: dict[str, Exception] = {}

    async def get(name: str, nbytes: int) -> None:
        try:
            await pools.get(nbytes)
        except anyio.ClosedResourceError as error:
            errors[name] = error

    async with anyio.create_task_group() as group:
        async with pools:
            buffers = [pools.get_nowait(4096) for _ in range(3)]
            for name, nbytes in (("a", 1), ("b", 8192), ("c", 1)):
                group.start_soon(get, name, nbytes)
            await until(lambda: pools.statistics().waiting == 3)
        assert pools.statistics().waiting == 0
        pools.check()
    assert set(errors) == {"a", "b", "c"}
    assert len({id(error) for error in errors.values()}) == 3, "each has a traceback of its own"
    assert str(errors["a"]).startswith("tested was closed while ")
    assert "small" in str(errors["a"])
    assert "large" in str(errors["b"])
    for buffer in buffers:
        buffer.release()


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_those_who_wait_are_told_in_the_order_of_their_arrival() -> None:
    """Of their arrival, whatever their pool; else two runs would differ on asyncio, too."""
    sizes = [4096 * n for n in (5, 2, 7, 1, 3, 6, 4, 8)]
    other = BufferPools("32 KiB", [one_item_a_page(size) for size in sizes])
    told: list[int] = []

    async def get(size: int) -> None:
        try:
            await other.get(size)
        except anyio.ClosedResourceError:
            told.append(size)

    with leaks():
        async with anyio.create_task_group() as group, other:
            buffer = other.get_nowait(32768)
            for size in sizes:
                group.start_soon(get, size)
            await until(lambda: other.statistics().waiting == len(sizes))
    buffer.release()
    assert told == sizes


@pytest.mark.parametrize("cancelled_first", [True, False])
async def test_a_waiter_that_is_cancelled_as_the_set_closes_is_cancelled_or_told(
    pools: BufferPools, cancelled_first: bool
) -> None:
    outcome: list[str] = []
    scope = anyio.CancelScope()

    async def get() -> None:
        with scope:
            try:
                await pools.get(8192)
            except anyio.ClosedResourceError:
                outcome.append("told")
        if scope.cancelled_caught:
            outcome.append("cancelled")

    with leaks("1 of .*'large'"):
        async with anyio.create_task_group() as group:
            async with pools:
                buffer = pools.get_nowait(8192)
                group.start_soon(get)
                await until(lambda: pools.statistics().waiting)
                if cancelled_first:
                    scope.cancel()
                else:
                    pools.taskq.add(Task(scope.cancel))  # which runs while the set is closing
            pools.check()
    buffer.release()
    assert outcome == ["cancelled" if cancelled_first else "told"]


async def test_what_was_granted_as_the_set_closes_is_the_getters() -> None:
    pools = BufferPools(4096, [one_item_a_page()], name="tested")
    taken: list[Buffer] = []

    async def get() -> None:
        taken.append(await pools.get(1))

    with leaks("tested was closed with .*1 of .*'4096'"):
        async with anyio.create_task_group() as group, pools:
            holder = pools.get_nowait(1)
            group.start_soon(get)
            await until(lambda: pools.statistics().waiting)
            holder.release()
    (buffer,) = taken
    assert not buffer.released
    assert pools.budget.allocated == 4096
    buffer.release()
    pools.check()
    assert pools.budget.allocated == 0


# Afterwards


async def test_nothing_can_be_taken_from_a_closed_set(pools: BufferPools) -> None:
    async with pools:
        pass
    pool = pools.pools["small"]
    calls: list[Callable[[], object]] = [
        lambda: pools.get_nowait(1),
        pool.get_nowait,
        lambda: pool.prime(1),
        lambda: pool.set_low_water(1),
    ]
    for call in calls:
        with pytest.raises(anyio.ClosedResourceError, match="tested is closed"):
            call()
    gets: list[Callable[[], Awaitable[object]]] = [lambda: pools.get(1), pool.get]
    for get in gets:
        with pytest.raises(anyio.ClosedResourceError, match="tested is closed"):
            await get()
    pools.check()
    assert pool.statistics().min_pages == 0, "a refused low water has changed nothing"


async def test_what_only_looks_or_lets_go_works_on_a_closed_set(pools: BufferPools) -> None:
    async with pools:
        pass
    pool = pools.pools["small"]
    assert pool.reclaim() == 0
    pool.wakeup()
    pool.set_high_water(1)
    pool.set_hard_limit(1)
    pools.resize("1 MiB")
    assert pools.statistics().limit == 1 << 20
    assert pool.statistics().hard_limit == 1


async def test_a_closed_set_cannot_be_opened_again(pools: BufferPools) -> None:
    async with pools:
        pass
    with pytest.raises(UsageError, match=r"tested was entered before; .* make a new one"):
        await pools.__aenter__()
    with pytest.raises(UsageError, match="tested was entered before"):
        async with pools:
            pytest.fail("it was opened again")


async def test_the_pages_are_given_back_at_the_end_also_those_of_the_minimum() -> None:
    pools = BufferPools("1 MiB", [PoolSpec(4096, min_items=8), 1024])
    async with pools:
        for nbytes in (4096, 1024):
            pools.get_nowait(nbytes).release()
        assert pools.budget.allocated == 32768 + 8192
    pools.check()
    assert pools.budget.allocated == 0


# What is still out


async def test_a_buffer_that_is_out_stays_usable_and_its_release_gives_the_memory_back(
    pools: BufferPools,
) -> None:
    with leaks():
        async with pools:
            small, large = pools.get_nowait(4096), pools.get_nowait(8192)
            small.view[:] = b"s" * 4096
    assert pools.budget.allocated == 3 * 4096
    assert bytes(small.view) == b"s" * 4096
    large.view[-1] = 1
    small.release()
    pools.check()
    assert pools.budget.allocated == 8192
    large.release()
    pools.check()
    assert pools.budget.allocated == 0
    with pytest.raises(DoubleRelease):
        large.release()


async def test_items_of_one_page_give_it_back_with_the_last_of_them() -> None:
    pools = BufferPools("1 MiB", [1024])
    with leaks():
        async with pools:
            buffers = [pools.get_nowait(1) for _ in range(9)]
    assert pools.budget.allocated == 2 * 8192
    for buffer in buffers[:8]:
        buffer.release()
        pools.check()
    assert pools.budget.allocated == 8192
    buffers[8].release()
    assert pools.budget.allocated == 0


@pytest.mark.caller
async def test_a_resource_warning_counts_what_is_out_of_each_pool(pools: BufferPools) -> None:
    with pytest.warns(ResourceWarning) as caught:
        async with pools:
            buffers = [pools.get_nowait(nbytes) for nbytes in (1, 8192)]
    (warning,) = caught.list
    text = str(warning.message)
    assert text.startswith("tested was closed with ")
    assert "1 of pool 'small', 1 of pool 'large'" in text
    assert "their memory comes back when they are released" in text
    assert warning.filename == __file__, "it points to the async with"
    for buffer in buffers:
        buffer.release()


async def test_a_set_with_nothing_out_warns_of_nothing(pools: BufferPools) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        async with pools:
            with await pools.get(1), pools.get_nowait(8192):
                pass


async def test_a_buffer_that_is_dropped_after_the_end_gives_its_memory_back(
    pools: BufferPools,
) -> None:
    with leaks():
        async with pools:
            buffer = pools.get_nowait(1)
    with pytest.warns(ResourceWarning, match="dropped without a release"):
        del buffer
    assert pools.budget.allocated == 0


async def test_a_page_that_is_still_exported_at_the_end_stays_charged_until_it_is_not(
    pools: BufferPools,
) -> None:
    with leaks():
        async with pools:
            first, second, third = (pools.get_nowait(1) for _ in range(3))
            with first:
                part = first.view[:1]
    assert pools.budget.allocated == 3 * 4096
    pools.check()
    second.release()
    assert pools.budget.allocated == 2 * 4096
    part.release()
    third.release()  # the next call looks after its page
    assert pools.budget.allocated == 0


# The exceptions


class Oops(Exception):
    pass


async def test_an_exception_of_the_body_passes_as_it_is(pools: BufferPools) -> None:
    oops = Oops()
    with pytest.raises(Oops) as caught:
        async with pools:
            with pools.get_nowait(1):
                await checkpoint()
                raise oops
    assert caught.value is oops
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


async def test_an_exception_of_the_body_passes_also_if_something_is_out(
    pools: BufferPools,
) -> None:
    with leaks("1 of .*'small'"), pytest.raises(Oops):
        async with pools:
            buffer = pools.get_nowait(1)
            raise Oops
    buffer.release()


@pytest.mark.parametrize("asynchronous", [True, False])
async def test_an_exception_of_a_queued_task_is_not_swallowed(
    pools: BufferPools, asynchronous: bool
) -> None:
    async def fails() -> None:
        await checkpoint()
        raise Oops

    def fails_at_once() -> None:
        raise Oops

    with pytest.raises(Oops):
        async with pools:
            pools.taskq.add(Task(fails if asynchronous else fails_at_once))
            await anyio.sleep(60)
            with pytest.raises(Oops):
                pools.get_nowait(1)
            with pytest.raises(Oops):
                await pools.get(1)
    with pytest.raises(anyio.ClosedResourceError):
        pools.get_nowait(1)


async def test_an_exception_of_a_task_that_is_queued_at_the_end_is_not_swallowed(
    pools: BufferPools,
) -> None:
    def fails() -> None:
        raise Oops

    with pytest.raises(Oops):
        async with pools:
            pools.taskq.add(Task(fails))


async def test_a_failing_task_fails_those_who_wait(pools: BufferPools) -> None:
    errors: list[Exception] = []

    def fails() -> None:
        raise Oops

    async def get() -> None:
        try:
            await pools.get(8192)
        except Oops as error:
            errors.append(error)

    with leaks("1 of .*'small'"):
        async with anyio.create_task_group() as group:
            with pytest.raises(Oops):
                async with pools:
                    buffers = [pools.get_nowait(1) for _ in range(2)]
                    group.start_soon(get)
                    await until(lambda: pools.statistics().waiting)
                    pools.taskq.add(Task(fails))
                    await anyio.sleep(60)
                    assert len(errors) == 1
                    buffers.pop().release()
    for buffer in buffers:
        buffer.release()


async def test_a_failing_task_and_a_failing_body_leave_in_a_group(pools: BufferPools) -> None:
    def fails() -> None:
        raise Oops

    with pytest.RaisesGroup(Oops, KeyError):
        async with pools:
            pools.taskq.add(Task(fails))
            await anyio.sleep(1)
            raise KeyError


async def test_a_set_may_be_entered_in_one_task_and_left_in_another(pools: BufferPools) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(pools.__aenter__)
    with await pools.get(1):
        pass
    pools.pools["small"].reclaim()
    await anyio.sleep(3)
    async with anyio.create_task_group() as group:
        group.start_soon(pools.aclose)
    with pytest.raises(anyio.ClosedResourceError):
        pools.get_nowait(1)
    await pools.aclose()


async def test_the_task_that_entered_may_be_cancelled_and_gone(pools: BufferPools) -> None:
    async def service() -> None:
        await pools.__aenter__()
        await anyio.sleep(60)

    async with anyio.create_task_group() as group:
        group.start_soon(service)
        await anyio.sleep(1)
        group.cancel_scope.cancel()
    with await pools.get(1):
        await anyio.sleep(3)
    await pools.aclose()


@pytest.mark.real_time
def test_who_cancels_all_other_tasks_ends_neither_the_body_nor_the_pools() -> None:
    """asyncio's usual farewell; a task group around the runner took it for a reason to cancel the
    body, and swallowed that."""

    async def main() -> None:
        pools = BufferPools(16384, [2048, PoolSpec(16384, items_per_page=1)])
        async with pools:
            held = await pools.get(16384)
            await asyncio.sleep(0.01)
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            await asyncio.sleep(0.01)
            waiter = asyncio.create_task(pools.get(1))
            await asyncio.sleep(0.01)
            held.release()  # which needs the wakeup task
            (await asyncio.wait_for(waiter, 10)).release()
            done.append("body")

    done: list[str] = []
    asyncio.run(main())
    assert done == ["body"]


@pytest.mark.real_time
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_run_ends_with_a_set_left_open(backend: str) -> None:
    async def main() -> None:
        await BufferPools(16384, [2048]).__aenter__()
        await anyio.sleep(0.01)

    anyio.run(main, backend=backend)


async def test_a_cancelled_body_closes_the_set(pools: BufferPools) -> None:
    with anyio.move_on_after(5) as scope:
        async with pools:
            with await pools.get(1):
                await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert anyio.current_time() == 5.0
    with pytest.raises(anyio.ClosedResourceError):
        pools.get_nowait(1)


async def test_tasks_that_are_queued_at_the_end_are_run(pools: BufferPools) -> None:
    ran: list[str] = []
    async with pools:
        pools.taskq.add(Task(lambda: ran.append("queued")))
        pools.taskq.add_later(Task(lambda: ran.append("later")), 1)
    assert ran == ["queued"]
    assert anyio.current_time() == 0.0, "nobody waited for the gc"


async def test_a_wakeup_that_is_queued_at_the_end_grants_nothing_more(pools: BufferPools) -> None:
    errors: list[Exception] = []

    async def get() -> None:
        try:
            await pools.get(8192)
        except anyio.ClosedResourceError as error:
            errors.append(error)

    async with anyio.create_task_group() as group, pools:
        buffers = [pools.get_nowait(4096) for _ in range(3)]
        group.start_soon(get)
        await until(lambda: pools.statistics().waiting)
        for buffer in buffers:
            buffer.release()
        pools.pools["small"].reclaim()
        assert pools.taskq.statistics().queued == 1
    assert len(errors) == 1
    assert pools.statistics().pools["large"].nget == 0


async def test_mbuf_pools_close_in_the_same_way() -> None:
    pools = MbufPools(8)
    errors: list[Exception] = []

    async def get() -> None:
        try:
            await pools.mbpool.get()
        except anyio.ClosedResourceError as error:
            errors.append(error)

    with leaks("1 of .*'mcl2k'"):
        async with anyio.create_task_group() as group, pools:
            buffer = pools.get_nowait(2048)
            group.start_soon(get)
            await until(lambda: pools.statistics().waiting)
    assert len(errors) == 1
    buffer.release()
    pools.check()
    assert pools.budget.allocated == 0
