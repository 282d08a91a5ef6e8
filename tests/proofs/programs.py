"""The programs of the proof: two to four tasks, two pools, a budget of two small pages.

Each checks the invariants of the pools after every step of its own, and at the end the promises:
every waiter is served, nothing is out and nothing charged. A wait for ever would let the timer of
the gc tick for ever, so each wait has a limit in virtual time.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial

import anyio
from anyio.lowlevel import checkpoint

from mbufpools import (
    AccountedMemory,
    BufferPools,
    ImpossibleRequest,
    Order,
    PoolSpec,
    Reclaim,
    Task,
    TaskQueue,
    Wakeup,
    lab,
)
from mbufpools.net import ByteBoundReceiveStream, ByteBoundSendStream, create_byte_stream

__all__ = ["POLICIES", "SUBJECTS", "Policy", "Program", "Subject"]

Program = Callable[[], Awaitable[None]]

SMALL, LARGE = 4096, 8192
PATIENCE = 60
"""Seconds of virtual time: longer than the gc takes to let an idle page go, once for each task."""


@dataclass(frozen=True)
class Policy:
    """One way to set up the pools."""

    order: str
    wakeup: str
    reclaim: str

    def __str__(self) -> str:
        return f"{self.order} {self.wakeup} {self.reclaim}"


POLICIES = tuple(
    Policy(str(order), str(wakeup), str(reclaim))
    for order, wakeup, reclaim in itertools.product(Order, Wakeup, Reclaim)
    # Under NONE the sleepers of the other pools sleep on: that is the stall, and no promise.
    if wakeup is not Wakeup.NONE
)
ANY_POLICY = (Policy("bounded", "deferred", "pressure"),)
"""For programs without pools."""


@asynccontextmanager
async def pools_under(policy: Policy) -> AsyncIterator[BufferPools]:
    """Two pools of one item a page, and a budget of two small pages or a large one."""
    specs = [PoolSpec(size, items_per_page=1) for size in (SMALL, LARGE)]
    with anyio.fail_after(PATIENCE):
        async with BufferPools(
            LARGE,
            specs,
            order=Order(policy.order),
            wakeup=Wakeup(policy.wakeup),
            reclaim=Reclaim(policy.reclaim),
            memory=AccountedMemory(),
        ) as pools:
            yield pools
            pools.check()
            assert pools.statistics().waiting == 0
            assert pools.statistics().nout == 0
    pools.check()
    assert pools.budget.allocated == 0


async def use(pools: BufferPools, nbytes: int) -> None:
    """Get a buffer, hold it for a moment, and give it back."""
    with await pools.get(nbytes):
        pools.check()
        await checkpoint()
    pools.check()


def get_and_put(policy: Policy, *sizes: int) -> Program:
    """Tasks that each use one buffer."""

    async def program() -> None:
        async with pools_under(policy) as pools, anyio.create_task_group() as group:
            for nbytes in sizes:
                group.start_soon(use, pools, nbytes)

    return program


def cancel(policy: Policy) -> Program:
    """One task waits for the whole budget and is cancelled at any time; the other goes on."""

    async def program() -> None:
        async with pools_under(policy) as pools, anyio.create_task_group() as group:
            scope = anyio.CancelScope()

            async def cancelled() -> None:
                with scope:
                    await use(pools, LARGE)

            async def canceller() -> None:
                await checkpoint()
                scope.cancel()

            group.start_soon(use, pools, SMALL)
            group.start_soon(cancelled)
            group.start_soon(canceller)

    return program


def head_leaves(policy: Policy) -> Program:
    """The request for the whole budget is cancelled. The request behind it is served at once, not
    when the holder releases, because the holder waits for that."""

    async def program() -> None:
        async with pools_under(policy) as pools, anyio.create_task_group() as group:
            scope, served = anyio.CancelScope(), anyio.Event()

            async def hold() -> None:
                with await pools.get(SMALL):
                    group.start_soon(head)
                    group.start_soon(behind)
                    await checkpoint()
                    scope.cancel()
                    await served.wait()

            async def head() -> None:
                with scope:
                    await pools.get(LARGE)

            async def behind() -> None:
                with await pools.get(SMALL):
                    served.set()

            group.start_soon(hold)

    return program


def cancel_natively(policy: Policy) -> Program:
    """The same by asyncio's own cancellation."""

    async def program() -> None:
        async with pools_under(policy) as pools:
            loop = asyncio.get_running_loop()
            holder = loop.create_task(use(pools, SMALL))
            waiter = loop.create_task(use(pools, LARGE))
            await checkpoint()
            waiter.cancel()
            await asyncio.gather(holder, waiter, return_exceptions=True)
            assert holder.exception() is None

    return program


def resize(policy: Policy) -> Program:
    """The limit is lowered below what is used, and raised again."""

    async def program() -> None:
        async with pools_under(policy) as pools, anyio.create_task_group() as group:

            async def may_be_impossible(nbytes: int) -> None:
                try:
                    await use(pools, nbytes)
                except ImpossibleRequest:
                    assert nbytes == LARGE

            async def resizer() -> None:
                pools.resize(SMALL)
                pools.check()
                await checkpoint()
                pools.resize(LARGE)
                pools.check()

            group.start_soon(use, pools, SMALL)
            group.start_soon(may_be_impossible, LARGE)
            group.start_soon(resizer)

    return program


@contextmanager
def closed_while_buffers_are_out() -> Iterator[None]:
    """Pools that are closed in this context may have buffers out: no report of it is printed."""
    report = "BufferPools was closed with buffers still out"
    logger = logging.getLogger("mbufpools")

    def is_another(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(report)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", report, ResourceWarning)
        logger.addFilter(is_another)
        try:
            yield
        finally:
            logger.removeFilter(is_another)


def close(policy: Policy) -> Program:
    """The pools are closed while one holds a buffer and another waits."""

    async def program() -> None:
        specs = [PoolSpec(size, items_per_page=1) for size in (SMALL, LARGE)]
        async with anyio.create_task_group() as group:
            pools = BufferPools(
                LARGE,
                specs,
                order=Order(policy.order),
                wakeup=Wakeup(policy.wakeup),
                reclaim=Reclaim(policy.reclaim),
                memory=AccountedMemory(),
            )

            async def until_closed(nbytes: int) -> None:
                try:
                    await use(pools, nbytes)
                except anyio.ClosedResourceError:
                    pass

            # A task served just before the close still holds its buffer.
            with closed_while_buffers_are_out():
                async with pools:
                    buffer = await pools.get(SMALL)
                    group.start_soon(until_closed, LARGE)
                    await checkpoint()
                    buffer.release()
                    await checkpoint()
                    pools.check()
            pools.check()
        pools.check()
        assert pools.budget.allocated == 0

    return program


def many(policy: Policy) -> Program:
    """Two tasks that each want a small and a large buffer at once, all or nothing."""

    async def program() -> None:
        async with pools_under(policy) as pools, anyio.create_task_group() as group:

            async def both() -> None:
                with await pools.get_many([SMALL, SMALL]):
                    pools.check()
                    await checkpoint()
                pools.check()

            group.start_soon(both)
            group.start_soon(both)
            group.start_soon(use, pools, SMALL)

    return program


def taskq_coalesces() -> Program:
    """Tasks that are added by two others run once for each time they were queued, and the mark is
    cleared before the run: an add during the run is not lost."""

    async def program() -> None:
        seen: list[int] = []
        state = 0

        async def look() -> None:
            seen.append(state)
            await checkpoint()

        async with TaskQueue("taskq") as queue, anyio.create_task_group() as group:
            task = Task(look)

            async def change() -> None:
                nonlocal state
                state += 1
                queue.add(task)
                await checkpoint()

            group.start_soon(change)
            group.start_soon(change)
        assert seen, "it never ran"
        assert seen[-1] == 2, "the last change was not looked at"
        assert seen == sorted(seen)

    return program


def taskq_barrier() -> Program:
    """A barrier returns when what was queued before it has run, and a discarded task does not."""

    async def program() -> None:
        ran: list[str] = []
        async with TaskQueue("taskq") as queue, anyio.create_task_group() as group:
            first, second = (Task(partial(ran.append, name), name=name) for name in "ab")

            async def wait() -> None:
                queue.add(first)
                await queue.barrier()
                assert "a" in ran

            async def meddle() -> None:
                queue.add(second)
                await checkpoint()
                if queue.discard(second):
                    assert "b" not in ran
                    ran.append("discarded")

            group.start_soon(wait)
            group.start_soon(meddle)
        assert ("b" in ran) != ("discarded" in ran)

    return program


class Log:
    """What the receivers of a stream saw, in the order in which they saw it."""

    def __init__(self, sent: list[bytes]) -> None:
        self.sent = sent
        self.received: list[bytes] = []

    async def receive_all(self, stream: ByteBoundReceiveStream[bytes]) -> None:
        """Receive until the end, and look at the order."""
        try:
            while True:
                self.received.append(await stream.receive())
                assert self.received == self.sent[: len(self.received)], "out of order"
        except anyio.EndOfStream:
            assert self.received == self.sent, "the end came before the last item"
            raise


async def ending(log: Log, stream: ByteBoundReceiveStream[bytes]) -> None:
    """Receive until the end, which must come."""
    with stream:
        try:
            await log.receive_all(stream)
        except anyio.EndOfStream:
            pass


def stream_by_scope(policy: Policy, *, cancelled: int) -> Program:
    """Receivers of a stream are cancelled by their scopes at any time; one is left, and gets
    everything that the others did not take, in order, and then the end."""

    async def program() -> None:
        log = Log([b"1", b"2"])
        async with pools_under(policy) as pools, anyio.create_task_group() as group:
            send, receive = create_byte_stream[bytes](pools)
            scopes = [anyio.CancelScope() for _ in range(cancelled)]

            async def leaving(
                stream: ByteBoundReceiveStream[bytes], scope: anyio.CancelScope
            ) -> None:
                with stream, scope:
                    try:
                        await log.receive_all(stream)
                    except anyio.EndOfStream:
                        pass

            with receive, send:
                for scope in scopes:
                    group.start_soon(leaving, receive.clone(), scope)
                group.start_soon(ending, log, receive.clone())
                await checkpoint()
                for item in log.sent:
                    send.send_nowait(item)
            for scope in scopes:
                scope.cancel()
        assert log.received == log.sent

    return program


def stream_natively(policy: Policy, *, backwards: bool) -> Program:
    """The same by asyncio's own cancellation, of two receivers in either order; and a third one
    stays parked behind them."""

    async def program() -> None:
        log = Log([b"1", b"2", b"3"])
        async with pools_under(policy) as pools:
            send, receive = create_byte_stream[bytes](pools)
            loop = asyncio.get_running_loop()
            with receive:
                leaving = [loop.create_task(log.receive_all(receive)) for _ in range(2)]
                last = loop.create_task(ending(log, receive.clone()))
                await checkpoint()
                with send:
                    for item in log.sent:
                        send.send_nowait(item)
                for task in reversed(leaving) if backwards else leaving:
                    task.cancel()
                results = await asyncio.gather(*leaving, last, return_exceptions=True)
            allowed = (type(None), asyncio.CancelledError, anyio.EndOfStream)
            assert all(isinstance(result, allowed) for result in results), results
        assert log.received == log.sent

    return program


def stream_of_senders(policy: Policy) -> Program:
    """Two senders wait for memory behind a third one, whose item fills the pools, and the first of
    them is cancelled at any time: it has sent once or not at all, and the other goes on."""

    async def program() -> None:
        received: list[bytes] = []
        async with pools_under(policy) as pools, anyio.create_task_group() as group:
            send, receive = create_byte_stream[bytes](pools)
            scope = anyio.CancelScope()
            sent = [bytes(LARGE)]

            async def sending(stream: ByteBoundSendStream[bytes], item: bytes) -> None:
                with stream:
                    await stream.send(item)
                    sent.append(item)

            async def leaving(stream: ByteBoundSendStream[bytes], item: bytes) -> None:
                with scope:
                    await sending(stream, item)
                stream.close()

            with send:
                send.send_nowait(sent[0])
                group.start_soon(leaving, send.clone(), b"cancelled")
                group.start_soon(sending, send.clone(), b"last")
            await checkpoint()
            scope.cancel()
            with receive:
                async for item in receive:
                    received.append(item)  # noqa: PERF401 - an item counts when it is received
        assert sorted(received) == sorted(sent)
        assert b"last" in received

    return program


@dataclass(frozen=True)
class Subject:
    """What is proved, and within which bound."""

    name: str
    make: Callable[[Policy], Program]
    preemptions: int = 2
    backends: tuple[lab.BackendName, ...] = ("asyncio", "trio")
    policies: tuple[Policy, ...] = POLICIES


SUBJECTS = (
    Subject("get and put, 2 tasks", lambda policy: get_and_put(policy, LARGE, SMALL)),
    Subject("get and put, 3 tasks", lambda policy: get_and_put(policy, SMALL, LARGE, SMALL)),
    Subject(
        "get and put, 4 tasks",
        lambda policy: get_and_put(policy, SMALL, LARGE, SMALL, LARGE),
        preemptions=1,
    ),
    Subject("cancel a waiter by its scope", cancel),
    Subject("the head of the queue leaves", head_leaves),
    Subject("cancel a waiter natively", cancel_natively, backends=("asyncio",)),
    Subject("resize below usage, and back", resize),
    Subject("close with a waiter", close),
    Subject("get_many, and a get", many),
    Subject(
        "stream: cancel 1 receiver",
        lambda policy: stream_by_scope(policy, cancelled=1),
        policies=ANY_POLICY,
    ),
    Subject(
        "stream: cancel 2 receivers",
        lambda policy: stream_by_scope(policy, cancelled=2),
        preemptions=1,
        policies=ANY_POLICY,
    ),
    Subject(
        "stream: natively, in order",
        lambda policy: stream_natively(policy, backwards=False),
        preemptions=1,
        backends=("asyncio",),
        policies=ANY_POLICY,
    ),
    Subject(
        "stream: natively, backwards",
        lambda policy: stream_natively(policy, backwards=True),
        preemptions=1,
        backends=("asyncio",),
        policies=ANY_POLICY,
    ),
    Subject("stream: cancel a sender", stream_of_senders, policies=ANY_POLICY),
    Subject("task queue: add while it runs", lambda policy: taskq_coalesces(), policies=ANY_POLICY),
    Subject("task queue: barrier, discard", lambda policy: taskq_barrier(), policies=ANY_POLICY),
)
