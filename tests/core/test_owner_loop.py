"""The event loop that a set lives on: what is refused elsewhere, before and after; the close."""

from __future__ import annotations

import asyncio
import threading
import warnings
from collections.abc import Awaitable, Callable

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from mbufpools import Buffer, BufferPools, Event, MbufPools, PoolSpec, Task, UsageError
from mbufpools._owner_loop import OwnerLoop

ONE_ITEM = PoolSpec(4096, items_per_page=1, name="one")

Take = Callable[[BufferPools], Buffer | Awaitable[Buffer]]


def get(pools: BufferPools) -> Awaitable[Buffer]:
    return pools.get(1)


def get_of_the_pool(pools: BufferPools) -> Awaitable[Buffer]:
    return pools.pools["one"].get()


def get_nowait(pools: BufferPools) -> Buffer:
    return pools.get_nowait(1)


def get_nowait_of_the_pool(pools: BufferPools) -> Buffer:
    return pools.pools["one"].get_nowait()


def prime_and_get(pools: BufferPools) -> Buffer:
    pools.pools["one"].prime(1)
    return pools.get_nowait(1)


every_get = pytest.mark.parametrize(
    "take", [get, get_of_the_pool, get_nowait, get_nowait_of_the_pool, prime_and_get]
)


async def taken(take: Take, pools: BufferPools) -> Buffer:
    """What `take` takes from `pools`, awaited if need be."""
    buffer = take(pools)
    return buffer if isinstance(buffer, Buffer) else await buffer


def relay() -> BufferPools:
    """A set that has room for one buffer."""
    return BufferPools(4096, [ONE_ITEM], name="relay")


# Before, after, twice


@every_get
async def test_before_it_is_entered_a_set_gives_nothing_and_says_how_to_enter_it(
    take: Take,
) -> None:
    pools = relay()
    with pytest.raises(UsageError, match="relay is not entered; use it inside of its `async with`"):
        await taken(take, pools)
    assert pools.budget.allocated == 0
    async with pools:
        with await taken(take, pools):
            pools.check()


@every_get
async def test_after_its_close_a_set_gives_nothing(take: Take) -> None:
    async with relay() as pools:
        pass
    with pytest.raises(anyio.ClosedResourceError, match="relay is closed; nothing can be taken"):
        await taken(take, pools)
    assert pools.budget.allocated == 0
    pools.check()


async def test_a_set_lives_once() -> None:
    async with relay() as pools:
        with pytest.raises(UsageError, match=r"relay was entered before; .* make a new one"):
            await pools.__aenter__()
        with await pools.get(1):  # the refusal has changed nothing
            pools.check()
    with pytest.raises(UsageError, match="relay was entered before"):
        await pools.__aenter__()


async def test_everything_can_be_made_and_set_outside_a_loop() -> None:
    def make() -> BufferPools:
        pools = BufferPools("1 MiB", [512, 2048])
        pools.pools["512"].set_hard_limit(10)
        pools.pools["512"].set_high_water(64)
        pools.budget.resize("2 MiB")
        pools.check()
        return pools

    pools = await anyio.to_thread.run_sync(make)
    async with pools:
        with await pools.get(512):
            assert pools.statistics().limit == 2 << 20
            assert pools.pools["512"].statistics().hard_limit == 10


# Elsewhere


@every_get
@pytest.mark.real_time
async def test_a_set_gives_nothing_to_another_thread(take: Take, anyio_backend_name: str) -> None:
    refusals: list[str] = []

    async def elsewhere() -> None:
        with pytest.raises(UsageError) as refusal:
            await taken(take, pools)
        refusals.append(str(refusal.value))

    async with relay() as pools:
        await anyio.to_thread.run_sync(lambda: anyio.run(elsewhere, backend=anyio_backend_name))
        assert pools.statistics().nout == 0
        pools.check()
    assert len(refusals) == 1
    assert "relay belongs to the event loop of another thread" in refusals[0]
    assert "call this in that loop, by loop.call_soon_threadsafe or asyncio.run_" in refusals[0]
    assert "anyio.to_thread, by anyio.from_thread.run or run_sync); only the" in refusals[0]


@pytest.mark.real_time
async def test_a_thread_gets_a_buffer_by_what_the_refusal_names(anyio_backend_name: str) -> None:
    async with relay() as pools:
        if anyio_backend_name == "asyncio":
            loop = asyncio.get_running_loop()

            def by_asyncio() -> Buffer:
                return asyncio.run_coroutine_threadsafe(pools.get(10), loop).result(60)

            with await asyncio.to_thread(by_asyncio) as buffer:
                assert buffer.nbytes == 10

        def by_anyio() -> Buffer:
            return anyio.from_thread.run(pools.get, 10)

        with await anyio.to_thread.run_sync(by_anyio) as buffer:
            assert buffer.nbytes == 10
        pools.check()


Call = Callable[[BufferPools], object]


@pytest.mark.parametrize(
    "call",
    [
        lambda pools: pools.resize(8192),
        lambda pools: pools.budget.resize(8192),
        lambda pools: pools.explain(),
        lambda pools: pools.reserve_nowait(1),
        lambda pools: pools.pools["one"].wakeup(),
        lambda pools: pools.pools["one"].reclaim(),
        lambda pools: pools.pools["one"].prime(1),
        lambda pools: pools.pools["one"].set_low_water(0),
        lambda pools: pools.pools["one"].set_high_water(9),
        lambda pools: pools.pools["one"].set_hard_limit(9),
        lambda pools: pools.taskq.add(Task(print)),
        lambda pools: pools.taskq.add_later(Task(print), 1),
        lambda pools: pools.taskq.discard(Task(print)),
    ],
    ids=[
        "resize", "budget.resize", "explain", "reserve_nowait", "wakeup", "reclaim", "prime",
        "set_low_water", "set_high_water", "set_hard_limit", "add", "add_later", "discard",
    ],
)  # fmt: skip
@pytest.mark.real_time
async def test_what_changes_a_set_is_refused_to_another_thread_and_changes_nothing(
    call: Call,
) -> None:
    """A plain function that another thread called in the middle of a get would corrupt it."""
    async with relay() as pools:
        with await pools.get(1):
            pass
        before = pools.statistics()
        with pytest.raises(
            UsageError, match=r"relay.* belongs to the event loop of another thread"
        ):
            await anyio.to_thread.run_sync(call, pools)
        assert pools.statistics() == before
        pools.check()


@pytest.mark.real_time
async def test_the_kernels_limit_is_not_changed_by_another_thread() -> None:
    async with MbufPools(8) as pools:
        with pytest.raises(UsageError, match="belongs to the event loop of another thread"):
            await anyio.to_thread.run_sync(pools.nmbclust_update, 16)
        assert (pools.nmbclust, pools.budget.limit) == (8, 8 * 2048)


@pytest.mark.real_time
async def test_any_thread_may_read_the_statistics() -> None:
    async with relay() as pools:
        with await pools.get(1):
            read = await anyio.to_thread.run_sync(pools.statistics)
            assert (read.nout, read.allocated) == (1, 4096)


@pytest.mark.parametrize("pages", [1, 2], ids=["it would wait", "it need not wait"])
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_get_on_another_loop_of_the_same_thread_is_refused(backend: str, pages: int) -> None:
    """One loop pauses with an open set, and another one runs meanwhile on its thread."""
    loop = asyncio.new_event_loop()
    pools = BufferPools(pages * 4096, [ONE_ITEM], name="relay")
    entered: asyncio.Future[Buffer] = loop.create_future()
    leave: asyncio.Future[None] = loop.create_future()

    async def hold() -> None:
        async with pools:
            with await pools.get(1) as buffer:
                entered.set_result(buffer)
                await leave

    async def elsewhere() -> None:
        with pytest.raises(
            UsageError, match="relay belongs to another event loop; make a pool set for each loop"
        ):
            await pools.get(1)
        with pytest.raises(UsageError, match="relay belongs to another event loop"):
            await pools.get_many([1])
        with pytest.raises(UsageError, match="relay belongs to another event loop"):
            await pools.reserve(1)

    task = loop.create_task(hold())
    try:
        loop.run_until_complete(entered)
        anyio.run(elsewhere, backend=backend)
        assert (pools.statistics().waiting, pools.statistics().nout) == (0, 1)
        leave.set_result(None)
        loop.run_until_complete(task)
    finally:
        loop.close()
    pools.check()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_outside_of_any_loop_is_another_loop_too(backend: str) -> None:
    """A loop that stopped, and never left the set."""
    owner_loop = OwnerLoop("relay")

    async def enter() -> None:
        owner_loop.enter()
        owner_loop.check_loop()

    anyio.run(enter, backend=backend)
    with pytest.raises(UsageError, match="relay belongs to another event loop"):
        owner_loop.check_loop()
    owner_loop._leave("closed")


async def test_a_task_of_the_sets_own_queue_may_not_wait_for_its_pools() -> None:
    refused: list[str] = []

    async def wait() -> None:
        with pytest.raises(UsageError) as refusal:
            await pools.get(1)
        refused.append(str(refusal.value))

    async with relay() as pools:
        with await pools.get(1):
            pools.taskq.add(Task(wait))
            await pools.taskq.barrier()
    assert len(refused) == 1
    assert "a task of the pools' own queue cannot wait for pool 'one'" in refused[0]
    assert "use get_nowait" in refused[0]


async def test_a_task_of_the_sets_own_queue_may_take_what_is_there() -> None:
    nouts: list[int] = []

    def take() -> None:
        with pools.get_nowait(1):
            nouts.append(pools.statistics().nout)

    async with relay() as pools:
        pools.taskq.add(Task(take))
        await pools.taskq.barrier()
    assert nouts == [1]


# The close


async def test_at_the_close_whoever_waits_is_told_and_by_which_pool() -> None:
    told: list[str] = []
    served: list[Buffer] = []

    async def wait() -> None:
        with pytest.raises(anyio.ClosedResourceError) as refusal:
            await pools.get(1)
        told.append(str(refusal.value))

    pools = relay()

    async def close_with_waiters() -> None:
        async with anyio.create_task_group() as outer, pools:
            served.append(await pools.get(1))
            for _ in range(3):
                outer.start_soon(wait)
            await anyio.sleep(1)
            assert pools.statistics().waiting == 3

    with pytest.warns(ResourceWarning, match="1 of pool 'one'"):
        await close_with_waiters()
    assert pools.statistics().waiting == 0
    served.pop().release()
    assert len(told) == 3
    for message in told:
        assert message.startswith("relay was closed while ")
        assert "one" in message.split()
    assert pools.budget.allocated == 0
    assert pools.pools["one"].statistics().nget == 1, "nobody was served"
    pools.check()


async def test_what_was_granted_a_moment_before_the_close_is_kept() -> None:
    served: list[Buffer] = []

    async def wait() -> None:
        served.append(await pools.get(1))

    pools = relay()

    async def use() -> None:
        async with anyio.create_task_group() as outer, pools:
            buffer = await pools.get(1)
            outer.start_soon(wait)
            await anyio.sleep(1)
            buffer.release()

    with pytest.warns(ResourceWarning, match="1 of pool 'one'"):
        await use()
    served.pop().release()
    assert pools.budget.allocated == 0
    pools.check()


async def close_with_two_out(pools: BufferPools) -> None:
    """Close `pools` while a buffer and a reservation are out, and release them."""
    try:
        async with pools:
            buffer = await pools.get(1)
            reservation = await pools.reserve(100)
    finally:
        buffer.release()
        reservation.release()


@pytest.mark.caller
@pytest.mark.parametrize("debug", [False, True])
async def test_what_is_out_at_the_close_is_in_the_log_because_python_hides_the_warning(
    debug: bool, caplog: pytest.LogCaptureFixture
) -> None:
    pools = BufferPools(8192, [ONE_ITEM], name="relay", debug=debug)
    with pytest.warns(ResourceWarning) as warned:
        await close_with_two_out(pools)
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("mbufpools", "WARNING")
    message = record.getMessage()
    assert message.startswith(
        "relay was closed with buffers still out: 1 of pool 'one', 1 reservation; "
    )
    assert (f"at {__file__}:" in message) == debug
    assert message == str(warned.list[0].message)


async def test_a_warning_that_is_an_error_leaves_the_report_of_the_close_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pools = BufferPools(8192, [ONE_ITEM], name="relay")
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        with pytest.raises(ResourceWarning, match="relay was closed with"):
            await close_with_two_out(pools)
    (record,) = caplog.records
    assert record.getMessage().startswith("relay was closed with buffers still out: ")
    pools.check()


async def test_pools_that_are_closed_with_nothing_out_write_no_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with relay() as pools:
        (await pools.get(1)).release()
    assert caplog.records == []


async def test_an_exception_of_the_body_passes_as_it_is() -> None:
    error = KeyError("mine")
    with pytest.raises(KeyError) as caught:
        async with relay() as pools:
            with await pools.get(1):
                raise error
    assert caught.value is error
    with pytest.raises(anyio.ClosedResourceError):
        await pools.get(1)
    assert pools.budget.allocated == 0


async def test_an_exception_of_a_queued_task_is_not_swallowed() -> None:
    error = KeyError("mine")

    def fail() -> None:
        raise error

    with pytest.raises(KeyError) as caught:
        async with relay() as pools:
            with await pools.get(1):
                pools.taskq.add(Task(fail))
                with pytest.raises(KeyError):
                    await pools.get(1)
    assert caught.value is error
    assert pools.budget.allocated == 0
    pools.check()


async def test_a_cancelled_set_is_closed_and_holds_nothing() -> None:
    with anyio.move_on_after(2) as scope:
        async with relay() as pools:
            with await pools.get(1):
                await pools.get(1)
    assert scope.cancelled_caught
    assert pools.budget.allocated == 0
    pools.check()
    with pytest.raises(anyio.ClosedResourceError):
        await pools.get(1)


async def test_after_the_close_limits_may_be_set_and_looked_at_and_wake_nobody() -> None:
    async with BufferPools("1 MiB", [512]) as pools:
        pass
    runs = pools.taskq.statistics().runs
    pools.resize("2 MiB")
    pools.pools["512"].set_hard_limit(5)
    pools.pools["512"].wakeup()
    assert pools.pools["512"].reclaim() == 0
    assert pools.statistics().limit == 2 << 20
    assert pools.taskq.statistics().runs == runs
    assert pools.taskq.statistics().queued == 0
    pools.check()


async def test_the_kernels_set_closes_as_well() -> None:
    async with MbufPools(1024) as pools:
        with await pools.get(256):
            assert pools.mbpool.statistics().nout == 1
    with pytest.raises(anyio.ClosedResourceError, match="MbufPools is closed"):
        await pools.get(256)
    pools.nmbclust_update(2048)
    assert pools.budget.allocated == 0
    pools.check()


# The clock


async def test_time_is_counted_from_the_entry_in_whole_microseconds() -> None:
    """In floats `2.2 - 1.2 > 1`."""
    owner_loop = OwnerLoop("clock")
    assert owner_loop.now() == 0
    await anyio.sleep(1.2)
    owner_loop.enter()
    assert owner_loop.now() == 0
    assert owner_loop.loop_time(1_000_000) == 2.2
    await anyio.sleep_until(2.2)
    now = owner_loop.now()
    assert (now, type(now)) == (1_000_000, int)
    owner_loop.close()
    await anyio.sleep(1)
    assert owner_loop.now() == 1_000_000, "a closed set's time stands still"


async def test_time_is_rounded_to_the_nearest_microsecond() -> None:
    """In floats `0.3 - 0.1 < 0.2`."""
    owner_loop = OwnerLoop("clock")
    await anyio.sleep_until(0.1)
    owner_loop.enter()
    await anyio.sleep_until(0.3)
    assert owner_loop.now() == 200_000
    owner_loop.close()


async def test_events_after_the_close_bear_the_time_of_the_close() -> None:
    events: list[Event] = []
    pools = BufferPools(4096, [ONE_ITEM], hook=events.append)

    async def use() -> Buffer:
        async with pools:
            buffer = await pools.get(1)
            await anyio.sleep(2.5)
        return buffer

    with pytest.warns(ResourceWarning, match="still out"):
        buffer = await use()
    await anyio.sleep(5)
    buffer.release()
    assert [(event.kind, event.time) for event in events[-2:]] == [("put", 2.5), ("page out", 2.5)]


# The way home


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_what_comes_back_when_the_loop_has_stopped_stays_deferred(backend: str) -> None:
    owner_loop = OwnerLoop("stopped")
    came: list[str] = []

    async def enter() -> None:
        await anyio.lowlevel.checkpoint()
        owner_loop.enter()

    def come() -> None:
        came.append("home")

    anyio.run(enter, backend=backend)
    owner_loop.run_on_owner(come)  # and no error: it may be called from `__del__`
    assert came == []
    owner_loop.run_deferred()
    assert came == ["home"]


@pytest.mark.real_time
async def test_only_the_loops_own_thread_runs_what_is_deferred() -> None:
    owner_loop = OwnerLoop("own thread")
    owner_loop.enter()
    came_on: list[int] = []

    def come() -> None:
        came_on.append(threading.get_ident())

    owner_loop.deferred.append(come)
    await anyio.to_thread.run_sync(owner_loop.run_deferred)
    assert came_on == []
    owner_loop.run_deferred()
    assert came_on == [threading.get_ident()]
    owner_loop.close()


async def test_each_deferred_call_is_made_once_in_the_order_of_their_arrival() -> None:
    await anyio.lowlevel.checkpoint()
    owner_loop = OwnerLoop("patient")
    owner_loop.enter()
    came: list[str] = []

    def first() -> None:
        came.append("first")
        owner_loop.run_on_owner(lambda: came.append("third"))

    owner_loop.run_on_owner(first)
    owner_loop.run_on_owner(lambda: came.append("second"))
    for _ in range(2):
        owner_loop.run_deferred()
        assert came == ["first", "second", "third"]
    owner_loop.close()


async def test_what_is_deferred_while_the_rest_is_run_after_the_close_is_not_left_there() -> None:
    """The one who empties it looks again for what those left who found it being emptied."""
    owner_loop = OwnerLoop("busy")
    owner_loop.enter()
    await anyio.lowlevel.checkpoint()
    owner_loop.close()
    came: list[str] = []

    def quick() -> None:
        came.append("quick")

    def slow() -> None:
        if not came:
            came.append("slow")
            thread = threading.Thread(target=owner_loop.run_on_owner, args=(quick,), daemon=True)
            thread.start()
            thread.join(10)
            assert not thread.is_alive(), "it must not wait for the one who empties it"

    owner_loop.run_on_owner(slow)
    assert came == ["slow", "quick"]


async def test_a_stack_that_is_full_is_not_taken_for_another_loop() -> None:
    """A RecursionError is a RuntimeError, by which asyncio says that no loop runs."""
    owner_loop = OwnerLoop("deep")
    owner_loop.enter()
    await anyio.lowlevel.checkpoint()

    def full() -> object:
        raise RecursionError

    owner_loop._current = full
    with pytest.raises(RecursionError):
        owner_loop.check_loop()
    owner_loop.close()
