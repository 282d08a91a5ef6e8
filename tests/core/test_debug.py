"""Debug mode: who writes to what he released, who holds what, and who took what was leaked."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from mbufpools import (
    AccountedMemory,
    Buffer,
    BufferInUse,
    BufferPools,
    Holder,
    PoolCorruption,
    PoolSpec,
)
from mbufpools._buffer import hold_by_connection, hold_by_task
from tests.kit.grants import entered, release_all, reserve, settle, taking
from tests.kit.memory import memory_of

THIS = re.escape(__file__)
DAMAGE = (
    r"an item of pool 'frames' was written to after its release, from its byte {byte} on; "
    r"it was last held as {nbytes} bytes of pool 'frames' by task '{task}' at " + THIS + r":\d+"
)


def frames(**options: Any) -> BufferPools:
    """One pool, ``frames``, with real memory."""
    return BufferPools("64 KiB", [PoolSpec(512, name="frames", **options)], debug=True)


# Poison


async def write_late(pools: BufferPools, at: int = 0) -> memoryview:
    """Keep access to an item's memory, as only foreign code can, beyond the release."""
    buffer = await pools.get(100)
    kept = memory_of(buffer)[at:]
    buffer.release()
    return kept


@pytest.mark.caller
async def test_a_write_through_a_slice_kept_beyond_the_release_is_found_by_check() -> None:
    async with frames() as pools:
        kept = await write_late(pools, at=7)
        pools.check()
        kept[0] = 1
        with pytest.raises(PoolCorruption, match=DAMAGE.format(byte=7, nbytes=100, task=".*")):
            pools.check()
        kept.release()


@pytest.mark.caller
async def test_it_is_logged_with_the_last_holder_when_the_item_goes_out_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with frames() as pools, anyio.create_task_group() as tasks:
        kept: list[memoryview] = []

        async def careless() -> None:
            kept.append(await write_late(pools))

        tasks.start_soon(careless, name="the careless")
        await settle()
        kept[0][99] = 1
        with caplog.at_level(logging.ERROR, logger="mbufpools"), await pools.get(1):
            pass
        assert [record.levelname for record in caplog.records] == ["ERROR"]
        damage = DAMAGE.format(byte=99, nbytes=100, task="the careless")
        assert re.search(damage, caplog.text)
        kept[0].release()
        pools.check()  # the release has poisoned it anew


async def test_a_read_of_a_released_item_shows_the_pattern() -> None:
    async with frames() as pools:
        kept = await write_late(pools)
        assert set(kept) == {0xDF}
        kept.release()


async def test_what_is_written_within_the_lease_is_no_damage() -> None:
    async with frames() as pools:
        for _ in range(3):
            with await pools.get(512) as buffer:
                buffer.view[:] = bytes(512)
        with await pools.get_many([512] * 100) as buffers:
            for buffer in buffers:
                buffer.view[:] = b"x" * 512
        pools.check()


async def test_the_holder_of_a_damaged_item_is_not_one_who_held_it_long_before() -> None:
    async with frames() as pools, anyio.create_task_group() as tasks:

        async def innocent() -> None:
            (await pools.get(10)).release()

        tasks.start_soon(innocent, name="the innocent")
        await settle()
        buffer = await pools.get(100)
        kept = memory_of(buffer)
        with pytest.warns(ResourceWarning, match="dropped without a release"):
            del buffer
        await settle()
        kept[0] = 1
        with pytest.raises(PoolCorruption) as found:
            pools.check()
        assert "the innocent" not in str(found.value)
        kept[0] = 0xDF
        kept.release()


async def test_a_dropped_buffer_is_poisoned_as_well() -> None:
    async with frames() as pools:
        buffer = await pools.get(100)
        kept = memory_of(buffer)
        kept[:] = bytes(100)
        with pytest.warns(ResourceWarning, match="dropped without a release"):
            del buffer
        await settle()
        assert set(kept) == {0xDF}
        kept.release()
        pools.check()


async def test_without_debug_nothing_is_poisoned_or_looked_at() -> None:
    async with BufferPools("64 KiB", [512]) as pools:
        kept = await write_late(pools)
        kept[:] = bytes(100)
        pools.check()
        kept.release()


async def test_a_simulation_without_memory_has_nothing_to_poison() -> None:
    pools = BufferPools("64 KiB", [512], debug=True, memory=AccountedMemory())
    async with entered(pools):
        with await pools.get(1), await pools.get_many([1] * 20):
            pools.check()


# Who took what


@pytest.mark.caller
async def test_the_report_of_leaks_tells_who_took_what_and_where() -> None:
    pools = frames()
    leases: list[Any] = []

    async def take(nbytes: int) -> None:
        leases.append(await pools.get(nbytes))

    async def leak() -> None:
        async with pools, anyio.create_task_group() as tasks:
            rest = await pools.get_many([1] * 127)
            tasks.start_soon(take, 42, name="the forgetful")
            await settle()
            tasks.start_soon(take, 43, name="the patient")
            await settle()
            assert pools.statistics().waiting == 1
            rest.release()
            await settle()
            leases.append(pools.reserve_nowait(77))

    with pytest.warns(ResourceWarning, match="closed with buffers still out") as reports:
        await leak()
    (report,) = [str(report.message) for report in reports]
    assert "2 of pool 'frames', 1 reservation" in report
    assert re.search(rf"42 bytes of pool 'frames' by task 'the forgetful' at {THIS}:\d+", report)
    assert re.search(rf"77 bytes, reserved by task '.*' at {THIS}:\d+", report)
    # Granted by somebody else's release, it is noted for the one who waited.
    assert re.search(rf"43 bytes of pool 'frames' by task 'the patient' at {THIS}:\d+", report)
    for lease in leases:
        lease.release()


async def test_without_debug_the_report_says_how_to_learn_more() -> None:
    pools = BufferPools("64 KiB", [512])

    async def leak() -> Any:
        async with pools:
            return await pools.get(1)

    with pytest.warns(ResourceWarning, match=r"1 of pool '512'; .* \(debug=True records which"):
        buffer = await leak()
    buffer.release()


async def test_each_of_get_many_is_noted_with_its_pool() -> None:
    pools = BufferPools("1 MiB", [512, 4096], debug=True)
    async with pools, anyio.create_task_group() as tasks:
        blocker = await pools.reserve(1024 * 1024)
        one = await taking(tasks, pools.get_many, [4096, 1, 2])
        waiter = await taking(tasks, reserve, pools, 1024 * 1024)
        blocker.release()
        await settle()
        (explained,) = pools.explain().waiters
        holders = [(holder.pool, holder.nbytes) for holder in explained.holders]
        assert sorted(holders) == [("4096", 4096), ("512", 1), ("512", 2)]
        assert all(isinstance(holder, Holder) for holder in explained.holders)
        one.release()
        await settle()
        waiter.release()


async def test_a_lease_that_a_connection_holds_is_told_with_what_the_connection_does() -> None:
    async with frames() as pools, anyio.create_task_group() as tasks:
        sent, ahead, released = [await pools.get(nbytes) for nbytes in (1, 2, 3)]
        task = anyio.get_current_task()
        waiter = await taking(tasks, reserve, pools, 64 * 1024)

        def holders() -> list[tuple[int, str, bool, str]]:
            (explained,) = pools.explain().waiters
            return sorted(
                (holder.nbytes, holder.task, bool(holder.where), holder.connection)
                for holder in explained.holders
            )

        hold_by_connection(sent, "being sent")
        hold_by_connection(ahead, "read ahead", read_ahead=True)
        mine = (3, str(task.name), True, "")
        assert holders() == [(1, task.name, True, "being sent"), (2, "", False, "read ahead"), mine]
        hold_by_task(ahead)  # it was received
        assert holders() == [(1, task.name, True, "being sent"), (2, task.name, True, ""), mine]
        released.release()
        hold_by_connection(released, "being sent")
        hold_by_task(released)
        assert [nbytes for nbytes, *_ in holders()] == [1, 2]
        release_all([sent, ahead])
        await settle()
        waiter.release()


async def test_without_debug_a_lease_that_a_connection_holds_has_no_holder() -> None:
    async with BufferPools("64 KiB", [512]) as pools, anyio.create_task_group() as tasks:
        with await pools.get(1) as buffer:
            waiter = await taking(tasks, reserve, pools, 64 * 1024)
            hold_by_connection(buffer, "being sent")
            hold_by_task(buffer)
            (explained,) = pools.explain().waiters
            assert explained.holders == ()
        await settle()
        waiter.release()


TAKES = pytest.mark.parametrize(
    "take",
    [
        lambda pools: pools.get(512),
        lambda pools: pools.get_many([512]),
        lambda pools: pools.reserve(512),
    ],
    ids=["get", "get_many", "reserve"],
)
Take = Callable[[BufferPools], Awaitable[Any]]


@TAKES
async def test_the_task_that_enters_the_with_of_a_lease_from_another_task_is_its_holder(
    take: Take,
) -> None:
    passed_on: list[Any] = []
    at_work = anyio.Event()

    async def produce() -> None:
        passed_on.append(await take(pools))
        await anyio.sleep_forever()

    async def work() -> None:
        with passed_on[0]:
            at_work.set()
            await anyio.sleep(1)

    async with frames() as pools, anyio.create_task_group() as tasks:
        tasks.start_soon(produce, name="the producer")
        await settle()
        (holder,) = pools.explain().holders
        assert holder.task == "the producer"
        tasks.start_soon(work, name="the worker")
        await at_work.wait()
        (holder,) = pools.explain().holders
        assert (holder.task, holder.nbytes, holder.ended) == ("the worker", 512, False)
        await anyio.sleep(2)
        assert pools.explain().holders == ()
        tasks.cancel_scope.cancel()


@pytest.mark.caller
@TAKES
async def test_the_place_of_a_holder_is_that_of_the_with_which_it_has_entered(take: Take) -> None:
    async with frames() as pools, anyio.create_task_group() as tasks:
        lease = await take(pools)

        async def work() -> None:
            with lease:
                await anyio.sleep(1)

        tasks.start_soon(work)
        await settle()
        (holder,) = pools.explain().holders
        assert holder.where == f"{__file__}:{work.__code__.co_firstlineno + 1}"
        await anyio.sleep(2)


@TAKES
async def test_the_task_that_took_a_lease_is_its_holder_where_it_took_it(take: Take) -> None:
    async with frames() as pools:
        lease = await take(pools)
        before = pools.explain().holders
        with lease:
            assert pools.explain().holders == before
        with lease:  # it has been released, so nobody holds it
            assert pools.explain().holders == ()


async def test_a_queue_whose_workers_have_all_buffers_is_no_deadlock() -> None:
    pools = BufferPools("8 KiB", [PoolSpec(4096, items_per_page=1)], debug=True)
    send, receive = anyio.create_memory_object_stream[Buffer](8)
    done = 0

    async def produce() -> None:
        with send:
            for _ in range(4):
                await send.send(await pools.get(4096))

    async def work() -> None:
        nonlocal done
        async for buffer in receive:
            with buffer:
                await anyio.sleep(1)
                done += 1

    async with pools, anyio.create_task_group() as tasks:
        tasks.start_soon(produce, name="the producer")
        tasks.start_soon(work, name="one worker")
        tasks.start_soon(work, name="the other worker")
        await anyio.sleep(0.5)
        explained = pools.explain()
        (waiter,) = explained.waiters
        assert waiter.task == "the producer"
        assert sorted(it.task for it in waiter.holders) == ["one worker", "the other worker"]
        assert explained.stuck is False
    receive.close()
    assert done == 4


async def test_a_lease_that_another_thread_releases_while_a_with_is_entered_has_no_holder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The other thread comes at the worst moment: when the new holder is about to be noted."""
    async with frames() as pools, anyio.create_task_group() as tasks:
        buffer = await pools.get(512)

        def release_elsewhere() -> str:
            thread = threading.Thread(target=buffer.release)
            thread.start()
            thread.join()
            return "here"

        async def work() -> None:
            monkeypatch.setattr("mbufpools._debug.caller", release_elsewhere)
            with buffer:
                assert buffer.released

        tasks.start_soon(work)
        await settle()
        assert pools.explain().holders == ()
        pools.check()


async def test_a_with_in_another_thread_leaves_the_holder_as_it_is() -> None:
    async with frames() as pools:
        buffer = await pools.get(512)
        (before,) = pools.explain().holders

        tracker = pools._state.tracker
        assert tracker is not None

        def enter() -> None:
            with buffer:
                seen.append(tracker.holders())

        seen: list[list[Holder]] = []
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        assert seen == [[before]]
        await settle()


async def test_a_holder_is_forgotten_with_his_lease() -> None:
    async with frames() as pools, anyio.create_task_group() as tasks:
        kept = await pools.get(1)
        with await pools.get(2):
            pass
        dropped = await pools.get(3)
        with pytest.warns(ResourceWarning, match="dropped"):
            del dropped
        waiter = await taking(tasks, reserve, pools, 64 * 1024)
        (explained,) = pools.explain().waiters
        assert [holder.nbytes for holder in explained.holders] == [1]
        kept.release()
        await settle()
        waiter.release()


@pytest.mark.caller
async def test_a_lease_that_a_callback_took_is_told_without_a_task(anyio_backend_name: str) -> None:
    if anyio_backend_name == "trio":
        pytest.skip("trio calls nothing outside of a task")
    leases: list[Any] = []

    def callback() -> None:
        leases.extend((pools.get_nowait(100), pools.reserve_nowait(200)))

    async with frames() as pools, anyio.create_task_group() as tasks:
        asyncio.get_running_loop().call_soon(callback)
        await settle()
        waiter = await taking(tasks, reserve, pools, 64 * 1024)
        (explained,) = pools.explain().waiters
        by = rf"by a callback outside of any task at {THIS}:\d+"
        bytes_of_pool, reserved = map(str, explained.holders)
        assert re.fullmatch(rf"100 bytes of pool 'frames' {by}", bytes_of_pool)
        assert re.fullmatch(rf"200 bytes, reserved {by}", reserved)
        release_all(leases)
        await settle()
        waiter.release()


@pytest.mark.caller
@pytest.mark.parametrize("kind", ["buffer", "reservation"])
async def test_a_dropped_lease_is_told_with_what_to_do_and_the_log_names_its_holder(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def forget() -> None:
        lease = await (pools.get(100) if kind == "buffer" else pools.reserve(100))
        assert lease is not None
        with pytest.warns(ResourceWarning) as told:
            del lease
        assert str(told[0].message).endswith(
            "was dropped without a release; release each by `with`; "
            "the log says which task took it, and where"
        )

    async with frames() as pools, anyio.create_task_group() as tasks:
        tasks.start_soon(forget, name="the forgetful")
        await anyio.sleep(1)
    what = "100 bytes of pool 'frames'" if kind == "buffer" else "100 bytes, reserved"
    assert re.search(
        rf"dropped without a release: {what} by task 'the forgetful' at {THIS}:\d+", caplog.text
    )


async def test_a_dropped_reservation_has_no_holder_any_more() -> None:
    async with frames() as pools, anyio.create_task_group() as tasks:
        kept = await pools.reserve(1)
        dropped = await pools.reserve(3)
        with pytest.warns(ResourceWarning, match="dropped"):
            del dropped
        waiter = await taking(tasks, reserve, pools, 64 * 1024)
        (explained,) = pools.explain().waiters
        assert [holder.nbytes for holder in explained.holders] == [1]
        kept.release()
        await settle()
        waiter.release()


@pytest.mark.real_time
async def test_who_holds_what_can_be_looked_at_while_other_threads_release() -> None:
    """A dictionary that changed under the one who goes through it would be an error."""
    often = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        async with BufferPools("2 MiB", [64], debug=True, memory=AccountedMemory()) as pools:
            tracker = pools._state.tracker
            assert tracker is not None
            for _ in range(5):
                held = [pools.get_nowait(1) for _ in range(2000)]
                thread = threading.Thread(target=release_all, args=(held,))
                thread.start()
                while thread.is_alive():
                    assert len(list(tracker.holders())) <= 2000
                await anyio.lowlevel.checkpoint()
            assert not list(tracker.holders())
    finally:
        sys.setswitchinterval(often)


# The buffer itself as a buffer

exports = pytest.mark.skipif(
    sys.version_info < (3, 12), reason="a Python class exports a buffer from 3.12 on"
)


@exports
async def test_a_buffer_can_be_given_to_whatever_wants_one() -> None:
    async with BufferPools("64 KiB", [512]) as pools:
        with await pools.get(100) as buffer:
            with memoryview(buffer) as view:  # type: ignore[arg-type,unused-ignore]  # below 3.12
                assert view.nbytes == 100
                assert not view.readonly
                view[:3] = b"abc"
            assert bytes(buffer.view[:3]) == b"abc"
            assert bytes(buffer)[:3] == b"abc"  # type: ignore[call-overload,unused-ignore]


@exports
async def test_its_release_is_refused_while_it_is_exported() -> None:
    async with BufferPools("64 KiB", [512]) as pools:
        buffer = await pools.get(100)
        first = memoryview(buffer)  # type: ignore[arg-type,unused-ignore]  # below 3.12
        second = memoryview(buffer)  # type: ignore[arg-type,unused-ignore]  # below 3.12
        for view in (first, second):
            with pytest.raises(BufferInUse):
                buffer.release()
            assert pools.statistics().nout == 1
            view.release()
        buffer.release()
        with pytest.raises(ValueError, match="released"):
            memoryview(buffer)  # type: ignore[arg-type,unused-ignore]  # below 3.12


@exports
async def test_an_array_of_numpy_over_it_is_seen() -> None:
    """NumPy keeps a view, which the release can see, only of a type that has the method; of others
    it keeps the address, and the array would lie over the next owner's bytes, or over none."""
    assert hasattr(Buffer, "__release_buffer__")
    numpy = pytest.importorskip("numpy")
    async with BufferPools("64 KiB", [512]) as pools:
        buffer = await pools.get(512)
        array = numpy.frombuffer(buffer, dtype="u1")
        part = array[10:20]
        del array
        with pytest.raises(BufferInUse):
            buffer.release()
        part[0] = 7
        assert buffer.view[10] == 7
        del part
        buffer.release()
        pools.check()


@exports
async def test_recv_into_a_buffer() -> None:
    left, right = socket.socketpair()
    with left, right:
        async with BufferPools("64 KiB", [512]) as pools:
            with await pools.get(100) as buffer:
                left.sendall(b"hello")
                assert right.recv_into(buffer) == 5  # type: ignore[arg-type,unused-ignore]
                assert bytes(buffer.view[:5]) == b"hello"


async def test_debug_changes_nothing_of_what_is_granted() -> None:
    # Nor of the order, nor of the counters. (Only the budget refuses more often, because debug mode
    # serves a request by the long way, which tries the next one, too.)
    outcomes = []
    for debug in (False, True):
        pools = BufferPools("16 KiB", [512], debug=debug)
        async with pools, anyio.create_task_group() as tasks:
            rest = await pools.get_many([1] * 32)
            ones = [await taking(tasks, pools.get, number) for number in (1, 2, 3)]
            rest.release()
            await settle()
            for one in ones:
                one.release()
            statistics = pools.statistics()
            outcomes.append((statistics.waits, statistics.pools["512"]))
    assert outcomes[0] == outcomes[1]
