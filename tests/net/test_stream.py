"""The stream of objects that is bounded by their bytes, in virtual time on asyncio and trio."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from mbufpools import BufferPools, ImpossibleRequest, MbufPools, PoolSpec
from mbufpools.net import ByteBoundReceiveStream, ByteBoundSendStream, create_byte_stream

LIMIT = 16384
Ends = tuple[ByteBoundSendStream[bytes], ByteBoundReceiveStream[bytes], BufferPools]


@asynccontextmanager
async def stream(limit: int = LIMIT, **options: Any) -> AsyncIterator[Ends]:
    """A stream, and its pools; at the end nothing of the pools may be held."""
    async with BufferPools(limit, [PoolSpec(4096, items_per_page=1)], **options) as pools:
        send, receive = create_byte_stream[bytes](pools)
        with send, receive:
            yield send, receive, pools
        pools.check()
        end = pools.statistics()
        assert (end.nout, end.reserved, end.waiting) == (0, 0, 0)
        assert send.statistics().current_buffer_used == 0
        assert send.statistics().current_bytes == 0


def native_only(anyio_backend: Any) -> None:
    if anyio_backend[0] == "trio":
        pytest.skip("trio has no cancellation beside its scopes")


class Doing:
    """A task that can be cancelled by its scope or natively, and its result."""

    def __init__(self) -> None:
        self.scope = anyio.CancelScope()
        self.results: list[Any] = []
        self.error: Exception | None = None
        self.task: asyncio.Task[Any] | None = None
        self.cancelled = False

    async def run(self, function: Callable[..., Any], *args: Any) -> None:
        try:
            self.task = asyncio.current_task()
        except RuntimeError:  # on trio
            self.task = None
        try:
            with self.scope:
                self.results.append(await function(*args))
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream) as error:
            self.error = error
        except asyncio.CancelledError:  # noqa: ASYNC103  # a task group would end with its child
            if not self.cancelled:
                raise

    def cancel(self, native: bool) -> None:
        if native:
            assert self.task is not None
            self.cancelled = True
            self.task.cancel()
        else:
            self.scope.cancel()


# --- what is held


async def test_an_item_holds_its_bytes_until_it_is_received() -> None:
    async with stream() as (send, receive, pools):
        await send.send(bytes(1000))
        send.send_nowait(bytes(24))
        assert (pools.budget.allocated, pools.statistics().reserved) == (1024, 1024)
        assert send.statistics() == receive.statistics()
        assert send.statistics().current_buffer_used == 2
        assert send.statistics().current_bytes == 1024
        assert await receive.receive() == bytes(1000)
        assert pools.budget.allocated == 24
        assert receive.receive_nowait() == bytes(24)
        assert pools.budget.allocated == 0


async def test_the_caller_chooses_the_size_of_an_item() -> None:
    async with BufferPools(LIMIT, [4096 // 8]) as pools:
        send, receive = create_byte_stream[tuple[str, int]](pools, size=lambda item: item[1])
        with send, receive:
            await send.send(("seventy", 70))
            assert pools.statistics().reserved == 70
            assert await receive.receive() == ("seventy", 70)


async def test_items_of_no_bytes_are_never_delayed_but_keep_their_place() -> None:
    async with stream() as (send, receive, _), anyio.create_task_group() as tasks:
        await send.send(bytes(LIMIT))
        await send.send(b"")
        tasks.start_soon(send.send, b"waits")
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(send.send, b"")
        await anyio.wait_all_tasks_blocked()
        got = [await receive.receive() for _ in range(4)]
        assert got == [bytes(LIMIT), b"", b"waits", b""]


async def test_buffers_and_items_share_one_limit() -> None:
    async with stream() as (send, receive, pools), anyio.create_task_group() as tasks:
        buffers = [await pools.get(4096) for _ in range(3)]
        await send.send(bytes(4096))
        with pytest.raises(anyio.WouldBlock):
            send.send_nowait(b"!")
        tasks.start_soon(send.send, b"waits")
        await anyio.wait_all_tasks_blocked()
        assert send.statistics().tasks_waiting_send == 1
        buffers.pop().release()
        await anyio.wait_all_tasks_blocked()
        assert send.statistics().tasks_waiting_send == 0
        for buffer in buffers:
            buffer.release()
        assert [await receive.receive(), await receive.receive()] == [bytes(4096), b"waits"]


async def test_in_debug_mode_the_sender_holds_the_bytes_of_an_item() -> None:
    async with stream(debug=True) as (send, receive, pools):
        await send.send(bytes(LIMIT))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send.send, b"12345", name="the second sender")
            await wait_until_parked(pools)
            (waiter,) = pools.explain().waiters
            assert (waiter.task, waiter.wants, waiter.nbytes) == ("the second sender", "bytes", 5)
            (holder,) = waiter.holders
            assert holder.where.startswith(f"{__file__}:"), "not a line of the library"
            for nbytes in (LIMIT, 5):
                assert len(await receive.receive()) == nbytes


async def wait_until_parked(pools: BufferPools) -> None:
    while not pools.explain().waiters:  # noqa: ASYNC110 - it takes no time
        await anyio.lowlevel.checkpoint()


async def test_an_item_that_can_never_fit_is_refused_at_once() -> None:
    async with stream() as (send, receive, _), anyio.create_task_group() as tasks:
        await send.send(bytes(LIMIT))
        tasks.start_soon(send.send, b"waits")
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(ImpossibleRequest):
            await send.send(bytes(LIMIT + 1))
        with pytest.raises(ImpossibleRequest):
            send.send_nowait(bytes(LIMIT + 1))
        assert len(await receive.receive()) == LIMIT
        assert await receive.receive() == b"waits"


@pytest.mark.parametrize(
    ("nbytes", "error", "message"),
    [(-1, ValueError, "is -1 bytes"), ("7", TypeError, "is '7'"), (True, TypeError, "is True")],
)
async def test_a_size_that_is_not_a_number_of_bytes_is_refused(
    nbytes: Any, error: type[Exception], message: str
) -> None:
    async with BufferPools(LIMIT, [512]) as pools:
        send, receive = create_byte_stream[None](pools, size=lambda item: nbytes)
        with send, receive:
            with pytest.raises(error, match=message):
                await send.send(None)
            with pytest.raises(error, match=message):
                send.send_nowait(None)


# --- order


async def test_items_are_received_in_the_order_of_the_sends() -> None:
    async with stream() as (send, receive, _), anyio.create_task_group() as tasks:
        contents = [bytes([n]) * random.Random(n).randrange(1, LIMIT) for n in range(50)]
        for content in contents:
            tasks.start_soon(send.send, content)
            await anyio.wait_all_tasks_blocked()
        assert [await receive.receive() for _ in contents] == contents


async def test_senders_granted_together_keep_their_order() -> None:
    """trio resumes tasks that were woken together in any order."""
    for _ in range(10):
        async with stream() as (send, receive, _), anyio.create_task_group() as tasks:
            await send.send(bytes(LIMIT))
            contents = [bytes([n]) * 1000 for n in range(16)]
            for content in contents:
                tasks.start_soon(send.send, content)
                await anyio.wait_all_tasks_blocked()
            await receive.receive()
            assert [await receive.receive() for _ in contents] == contents


async def test_no_sender_overtakes_one_that_was_granted_and_has_not_run() -> None:
    # Under `direct` the same call gives the bytes back and grants them.
    async with (
        stream(wakeup="direct") as (send, receive, _),
        anyio.create_task_group() as tasks,
    ):
        await send.send(bytes(LIMIT))
        tasks.start_soon(send.send, b"first")
        await anyio.wait_all_tasks_blocked()
        assert len(receive.receive_nowait()) == LIMIT
        assert send.statistics().tasks_waiting_send == 1
        with pytest.raises(anyio.WouldBlock):
            send.send_nowait(b"second")
        await send.send(b"third")
        assert [await receive.receive() for _ in range(2)] == [b"first", b"third"]


async def test_a_small_item_does_not_pass_a_large_one() -> None:
    async with stream() as (send, receive, _), anyio.create_task_group() as tasks:
        await send.send(bytes(10_000))
        tasks.start_soon(send.send, bytes(LIMIT))
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(anyio.WouldBlock, match=r"an item of 5 bytes now .* `await send`"):
            send.send_nowait(b"small")
        tasks.start_soon(send.send, b"small")
        await anyio.wait_all_tasks_blocked()
        assert len(receive.receive_nowait()) == 10_000
        with pytest.raises(anyio.WouldBlock, match="no item to receive now; `await receive`"):
            receive.receive_nowait()
        assert [len(await receive.receive()) for _ in range(2)] == [LIMIT, 5]


async def test_receivers_that_run_in_any_order_take_the_items_in_the_order_of_the_sends() -> None:
    """trio resumes tasks that were woken together in any order."""
    for _ in range(10):
        got: list[bytes] = []
        async with stream() as (send, receive, _), anyio.create_task_group() as tasks:

            async def receiving(
                receive: ByteBoundReceiveStream[bytes] = receive, got: list[bytes] = got
            ) -> None:
                got.append(await receive.receive())

            for _ in range(5):
                tasks.start_soon(receiving)
                await anyio.wait_all_tasks_blocked()
            for number in range(5):
                send.send_nowait(bytes([number]))
            assert send.statistics().current_buffer_used == 5
            with pytest.raises(anyio.WouldBlock):
                receive.receive_nowait()
        assert got == [bytes([number]) for number in range(5)]


async def test_receivers_are_woken_in_the_order_of_their_calls() -> None:
    got: list[int] = []
    async with stream() as (send, receive, _), anyio.create_task_group() as tasks:

        async def receiving(number: int) -> None:
            await receive.receive()
            got.append(number)

        for number in range(5):
            tasks.start_soon(receiving, number)
            await anyio.wait_all_tasks_blocked()
        for count in range(1, 6):
            send.send_nowait(b"item")
            await anyio.wait_all_tasks_blocked()
            assert got == list(range(count))


async def test_a_newcomer_takes_only_what_no_woken_receiver_was_woken_for() -> None:
    async with stream() as (send, receive, _), anyio.create_task_group() as tasks:
        doing = Doing()
        tasks.start_soon(doing.run, receive.receive)
        await anyio.wait_all_tasks_blocked()
        send.send_nowait(b"1")
        send.send_nowait(b"2")
        assert receive.receive_nowait() == b"1"
        with pytest.raises(anyio.WouldBlock):
            receive.receive_nowait()
        await anyio.wait_all_tasks_blocked()
        assert doing.results == [b"2"]


# --- checkpoints and cancellation


async def test_both_calls_are_checkpoints_that_do_nothing_when_cancelled() -> None:
    async with stream() as (send, receive, pools):
        with anyio.CancelScope() as scope:
            scope.cancel()
            await send.send(b"never")
        assert pools.statistics().reserved == 0
        await send.send(b"item")
        with anyio.CancelScope() as scope:
            scope.cancel()
            await receive.receive()
        assert await receive.receive() == b"item"


@pytest.mark.parametrize("native", [False, True])
async def test_a_cancelled_sender_lets_the_senders_behind_it_through(
    native: bool, anyio_backend: Any
) -> None:
    if native:
        native_only(anyio_backend)
    async with stream() as (send, receive, _), anyio.create_task_group() as tasks:
        await send.send(bytes(10_000))
        large, small = Doing(), Doing()
        tasks.start_soon(large.run, send.send, bytes(LIMIT))
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(small.run, send.send, b"small")
        await anyio.wait_all_tasks_blocked()
        large.cancel(native)
        await anyio.wait_all_tasks_blocked()
        assert (large.results, small.results) == ([], [None])
        assert [len(await receive.receive()) for _ in range(2)] == [10_000, 5]


async def test_a_cancelled_sender_lets_a_ready_item_behind_it_be_received() -> None:
    async with stream() as (send, receive, pools), anyio.create_task_group() as tasks:
        with await pools.get_many([4096] * 4):
            sender, behind, receiver = Doing(), Doing(), Doing()
            tasks.start_soon(sender.run, send.send, b"waits")
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(behind.run, send.send, b"")  # needs no memory
            tasks.start_soon(receiver.run, receive.receive)
            await anyio.wait_all_tasks_blocked()
            assert (behind.results, receiver.results) == ([None], [])
            sender.scope.cancel()
            await anyio.wait_all_tasks_blocked()
            assert receiver.results == [b""]


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("first", ["grant", "cancel"])
async def test_a_sender_cancelled_at_the_grant_has_sent_once_or_not_at_all(
    native: bool, first: str, anyio_backend: Any
) -> None:
    if native:
        native_only(anyio_backend)
    # Under `direct` the same call gives the bytes back and grants them.
    async with stream(wakeup="direct") as (send, receive, pools):
        async with anyio.create_task_group() as tasks:
            await send.send(bytes(LIMIT))
            sender, behind = Doing(), Doing()
            tasks.start_soon(sender.run, send.send, bytes(LIMIT))
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(behind.run, send.send, b"behind")
            await anyio.wait_all_tasks_blocked()
            if first == "grant":
                receive.receive_nowait()
                sender.cancel(native)
            else:
                sender.cancel(native)
                receive.receive_nowait()
            await anyio.wait_all_tasks_blocked()
            sent = sender.results == [None]
            if sent:
                assert len(await receive.receive()) == LIMIT
            assert await receive.receive() == b"behind"
        assert behind.results == [None]
        with pytest.raises(anyio.WouldBlock):
            receive.receive_nowait()
        assert pools.statistics().reserved == 0


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("others", [0, 1])
@pytest.mark.parametrize("first", ["item", "cancel"])
async def test_a_receiver_cancelled_at_the_item_loses_and_doubles_nothing(
    native: bool, others: int, first: str, anyio_backend: Any
) -> None:
    if native:
        native_only(anyio_backend)
    async with stream() as (send, receive, pools):
        doings = [Doing() for _ in range(1 + others)]
        async with anyio.create_task_group() as tasks:
            for doing in doings:
                tasks.start_soon(doing.run, receive.receive)
                await anyio.wait_all_tasks_blocked()
            if first == "item":
                send.send_nowait(b"item")
                doings[0].cancel(native)
            else:
                doings[0].cancel(native)
                send.send_nowait(b"item")
            await anyio.wait_all_tasks_blocked()
            got = [result for doing in doings for result in doing.results]
            if not got:
                got.append(receive.receive_nowait())
            assert got == [b"item"]
            with pytest.raises(anyio.WouldBlock):
                receive.receive_nowait()
            assert pools.statistics().reserved == 0
            for doing in doings:
                doing.cancel(native=False)


ORDERS = [order for count in (1, 2, 3) for order in itertools.permutations(range(3), count)]


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("parked", [0, 2])
@pytest.mark.parametrize("order", ORDERS)
async def test_receivers_cancelled_in_any_order_leave_the_items_in_order(
    order: tuple[int, ...], parked: int, native: bool, anyio_backend: Any
) -> None:
    """Three receivers are woken for an item each, and some are cancelled before they run. Others
    may still be parked, and are woken instead."""
    if native:
        native_only(anyio_backend)
    got: list[bytes] = []
    async with stream() as (send, receive, _), anyio.create_task_group() as tasks:

        async def receiving() -> None:
            got.append(await receive.receive())

        doings = [Doing() for _ in range(3 + parked)]
        for doing in doings:
            tasks.start_soon(doing.run, receiving)
            await anyio.wait_all_tasks_blocked()
        for item in (b"1", b"2", b"3"):
            send.send_nowait(item)
        for number in order:
            doings[number].cancel(native)
        send.send_nowait(b"4")
        await anyio.wait_all_tasks_blocked()
        for doing in doings:
            doing.cancel(native=False)
        await anyio.wait_all_tasks_blocked()
        try:
            while True:
                got.append(receive.receive_nowait())
        except anyio.WouldBlock:
            pass
        assert got == [b"1", b"2", b"3", b"4"]


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("others", [1, 2])
async def test_the_end_comes_after_an_item_that_a_cancelled_receiver_did_not_take(
    others: int, native: bool, anyio_backend: Any
) -> None:
    if native:
        native_only(anyio_backend)
    async with stream() as (send, receive, _), anyio.create_task_group() as tasks:
        told: list[Any] = []

        async def working() -> None:
            async for item in receive:
                told.append(item)  # noqa: PERF401 - an item counts when it is received
            told.append("end")

        doings = [Doing() for _ in range(1 + others)]
        for doing in doings:
            tasks.start_soon(doing.run, working)
            await anyio.wait_all_tasks_blocked()
        send.send_nowait(b"the last item")
        send.close()
        with pytest.raises(anyio.WouldBlock):
            receive.receive_nowait()
        doings[0].cancel(native)
        await anyio.wait_all_tasks_blocked()
        assert told[:2] == [b"the last item", "end"]
        assert set(told[1:]) == {"end"}
        with pytest.raises(anyio.EndOfStream):
            receive.receive_nowait()


async def test_a_newcomer_waits_for_the_last_item_that_a_woken_receiver_may_leave(
    anyio_backend: Any,
) -> None:
    native_only(anyio_backend)
    async with stream() as (send, receive, _), anyio.create_task_group() as tasks:
        woken, newcomer = Doing(), Doing()
        tasks.start_soon(woken.run, receive.receive)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(newcomer.run, receive.receive)
        await anyio.lowlevel.checkpoint()
        send.send_nowait(b"item")
        send.close()
        woken.cancel(native=True)
        await anyio.wait_all_tasks_blocked()
        assert (woken.results, newcomer.results) == ([], [b"item"])


async def test_an_item_is_dropped_if_no_receiver_is_left_to_take_it(anyio_backend: Any) -> None:
    native_only(anyio_backend)
    async with stream() as (send, receive, pools), anyio.create_task_group() as tasks:
        doing = Doing()
        tasks.start_soon(doing.run, receive.receive)
        await anyio.wait_all_tasks_blocked()
        send.send_nowait(b"item")
        receive.close()
        doing.cancel(native=True)
        await anyio.wait_all_tasks_blocked()
        assert doing.results == []
        assert pools.statistics().reserved == 0


async def test_a_close_meets_a_woken_receiver_and_its_item_goes_to_another_clone() -> None:
    async with stream() as (send, receive, _):
        with receive.clone() as other:
            async with anyio.create_task_group() as tasks:
                closed, open_ = Doing(), Doing()
                tasks.start_soon(closed.run, receive.receive)
                await anyio.wait_all_tasks_blocked()
                tasks.start_soon(open_.run, other.receive)
                await anyio.wait_all_tasks_blocked()
                send.send_nowait(b"item")
                receive.close()
                await anyio.wait_all_tasks_blocked()
                assert type(closed.error) is anyio.ClosedResourceError
                assert open_.results == [b"item"]


@pytest.mark.parametrize("native", [False, True])
async def test_a_sender_that_is_cancelled_and_refused_at_once_holds_nothing(
    native: bool, anyio_backend: Any
) -> None:
    if native:
        native_only(anyio_backend)
    async with (
        stream(wakeup="direct") as (send, receive, pools),
        anyio.create_task_group() as tasks,
    ):
        buffers = [await pools.get(4096) for _ in range(4)]
        doing = Doing()
        tasks.start_soon(doing.run, send.send, bytes(4096))
        await anyio.wait_all_tasks_blocked()
        buffers.pop().release()  # it is granted
        receive.close()
        doing.cancel(native)
        await anyio.wait_all_tasks_blocked()
        assert (doing.results, pools.statistics().reserved) == ([], 0)
        for buffer in buffers:
            buffer.release()


# --- closing


async def test_the_end_comes_after_the_last_item() -> None:
    async with stream() as (send, receive, _):
        with send.clone() as other:
            await send.send(b"one")
            send.close()
            await other.send(b"two")
        assert [item async for item in receive] == [b"one", b"two"]
        for _ in range(2):
            with pytest.raises(anyio.EndOfStream):
                await receive.receive()
            with pytest.raises(anyio.EndOfStream):
                receive.receive_nowait()


async def test_the_last_close_ends_the_waiting_receivers() -> None:
    async with stream() as (send, receive, _), anyio.create_task_group() as tasks:
        doings = [Doing(), Doing()]
        for doing in doings:
            tasks.start_soon(doing.run, receive.receive)
        await anyio.wait_all_tasks_blocked()
        assert receive.statistics().tasks_waiting_receive == 2
        send.close()
        await anyio.wait_all_tasks_blocked()
        assert [type(doing.error) for doing in doings] == [anyio.EndOfStream] * 2


async def test_the_close_of_all_receivers_breaks_the_senders_and_gives_bytes_back() -> None:
    async with stream() as (send, receive, pools), anyio.create_task_group() as tasks:
        await send.send(bytes(10_000))
        doing = Doing()
        tasks.start_soon(doing.run, send.send, bytes(10_000))
        await anyio.wait_all_tasks_blocked()
        other = receive.clone()
        receive.close()
        await anyio.wait_all_tasks_blocked()
        assert (doing.results, pools.statistics().reserved) == ([], 10_000)
        other.close()
        assert pools.statistics().reserved == 0
        await anyio.wait_all_tasks_blocked()
        assert type(doing.error) is anyio.BrokenResourceError
        with pytest.raises(anyio.BrokenResourceError):
            await send.send(b"item")
        with pytest.raises(anyio.BrokenResourceError):
            send.send_nowait(b"item")


async def test_a_closed_end_refuses_and_a_second_close_does_nothing() -> None:
    async with stream() as (send, receive, _):
        await send.aclose()
        send.close()
        await receive.aclose()
        receive.close()
        for call in (send.clone, receive.clone, receive.receive_nowait):
            with pytest.raises(anyio.ClosedResourceError):
                call()
        with pytest.raises(anyio.ClosedResourceError):
            send.send_nowait(b"item")
        with pytest.raises(anyio.ClosedResourceError):
            await send.send(b"item")
        with pytest.raises(anyio.ClosedResourceError):
            await receive.receive()
        statistics = send.statistics()
        assert (statistics.open_send_streams, statistics.open_receive_streams) == (0, 0)


async def test_a_close_ends_the_sends_of_that_clone_alone() -> None:
    async with stream() as (send, receive, _):
        with send.clone() as other:
            async with anyio.create_task_group() as tasks:
                await send.send(bytes(LIMIT))
                doings = [Doing(), Doing()]
                tasks.start_soon(doings[0].run, send.send, b"closed")
                await anyio.wait_all_tasks_blocked()
                tasks.start_soon(doings[1].run, other.send, b"sent")
                await anyio.wait_all_tasks_blocked()
                send.close()
                await anyio.wait_all_tasks_blocked()
                assert type(doings[0].error) is anyio.ClosedResourceError
                assert [len(await receive.receive()), await receive.receive()] == [LIMIT, b"sent"]
            assert doings[1].results == [None]


async def test_a_close_ends_the_receives_of_that_clone_alone() -> None:
    async with stream() as (send, receive, _):
        with receive.clone() as other:
            async with anyio.create_task_group() as tasks:
                doings = [Doing(), Doing()]
                tasks.start_soon(doings[0].run, receive.receive)
                tasks.start_soon(doings[1].run, other.receive)
                await anyio.wait_all_tasks_blocked()
                receive.close()
                await anyio.wait_all_tasks_blocked()
                assert type(doings[0].error) is anyio.ClosedResourceError
                send.send_nowait(b"item")
            assert doings[1].results == [b"item"]


@pytest.mark.parametrize("first", ["grant", "close"])
@pytest.mark.parametrize("end", ["send", "receive"])
async def test_a_close_at_the_grant_leaves_no_bytes_held(first: str, end: str) -> None:
    async with (
        stream(wakeup="direct") as (send, receive, pools),
        anyio.create_task_group() as tasks,
    ):
        buffers = [await pools.get(4096) for _ in range(4)]
        doing = Doing()
        tasks.start_soon(doing.run, send.send, bytes(4096))
        await anyio.wait_all_tasks_blocked()
        closing = send if end == "send" else receive
        if first == "close":
            closing.close()
        buffers.pop().release()
        if first == "grant":
            closing.close()
        await anyio.wait_all_tasks_blocked()
        error = anyio.ClosedResourceError if end == "send" else anyio.BrokenResourceError
        assert type(doing.error) is error
        assert pools.statistics().reserved == 0
        for buffer in buffers:
            buffer.release()


async def test_closing_the_pools_wakes_the_senders() -> None:
    pools = BufferPools(LIMIT, [512])
    send, receive = create_byte_stream[bytes](pools)
    async with anyio.create_task_group() as tasks:
        with pytest.warns(ResourceWarning, match="was closed with"):  # noqa: PT031
            async with pools:
                await send.send(bytes(LIMIT))
                doing = Doing()
                tasks.start_soon(doing.run, send.send, b"waits")
                await anyio.wait_all_tasks_blocked()
        await anyio.wait_all_tasks_blocked()
        assert type(doing.error) is anyio.ClosedResourceError
    with pytest.raises(anyio.ClosedResourceError, match="BufferPools is closed"):
        await send.send(b"late")
    assert len(await receive.receive()) == LIMIT
    assert pools.statistics().reserved == 0
    send.close()
    receive.close()


async def test_an_end_that_is_dropped_unclosed_is_reported() -> None:
    async with BufferPools(LIMIT, [512]) as pools:
        ends: list[object] = list(create_byte_stream[bytes](pools))
        for kind in ("Receive", "Send"):
            with pytest.warns(ResourceWarning, match=f"Unclosed <ByteBound{kind}Stream"):
                ends.pop()


# --- everything at once


async def test_a_stream_works_under_the_rules_of_the_kernel() -> None:
    async with MbufPools(256) as pools, anyio.create_task_group() as tasks:
        send, receive = create_byte_stream[bytes](pools)
        with send, receive:
            limit = pools.budget.limit
            for _ in range(3):
                tasks.start_soon(send.send, bytes(limit))
            for _ in range(3):
                assert len(await receive.receive()) == limit
        assert pools.statistics().reserved == 0


@pytest.mark.parametrize("seed", range(8))
async def test_many_senders_and_receivers_with_cancellation_lose_and_double_nothing(
    seed: int,
) -> None:
    chance = random.Random(seed)
    sent: list[tuple[int, int]] = []
    got: list[tuple[int, int]] = []

    async def sending(stream: ByteBoundSendStream[bytes], number: int) -> None:
        with stream:
            for count in range(30):
                item = number.to_bytes(2, "big") + count.to_bytes(2, "big")
                item += bytes(chance.randrange(6000))
                with anyio.move_on_after(chance.choice([0.01, 0.1, 10])):
                    await stream.send(item)
                    sent.append((number, count))
                if chance.random() < 0.3:
                    await anyio.sleep(chance.random() / 20)

    async def receiving(stream: ByteBoundReceiveStream[bytes]) -> None:
        with stream:
            while True:
                with anyio.move_on_after(chance.choice([0.01, 0.1, 10])):
                    try:
                        item = await stream.receive()
                    except anyio.EndOfStream:
                        return
                    got.append((int.from_bytes(item[:2], "big"), int.from_bytes(item[2:4], "big")))
                    assert pools.statistics().allocated <= LIMIT
                if chance.random() < 0.3:
                    await anyio.sleep(chance.random() / 20)

    async with stream() as (send, receive, pools), anyio.create_task_group() as tasks:
        for number in range(6):
            tasks.start_soon(sending, send.clone(), number)
        for _ in range(3):
            tasks.start_soon(receiving, receive.clone())
        send.close()
        receive.close()
    assert sorted(got) == sorted(sent)
    assert len(sent) > 50
