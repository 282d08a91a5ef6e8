"""`PooledBufferedProtocol` on asyncio's own loop and on uvloop."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import pickle
import random
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tracemalloc
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
import trio

from mbufpools import (
    AccountedMemory,
    Buffer,
    BufferInUse,
    BufferPools,
    DoubleRelease,
    OversizeRequest,
    PoolSpec,
    UsageError,
    UseAfterRelease,
)
from mbufpools.net import PooledBufferedProtocol
from tests.kit.network import (
    ASYNCIO_LOOPS,
    LARGE,
    NARROW,
    SLICE,
    checked,
    connected,
    fail_at_the_end_of_a_lease,
    read,
    read_slowly,
    reset,
    send,
    turns,
)

pytestmark = pytest.mark.real_time

MEBIBYTE = 1 << 20
ONE_A_PAGE = [PoolSpec(4096, items_per_page=1)]


@pytest.fixture(params=ASYNCIO_LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


def on_uvloop() -> bool:
    return type(asyncio.get_running_loop()).__module__.startswith("uvloop")


def large() -> AbstractAsyncContextManager[BufferPools]:
    """Pools of four buffers, each larger than the bytes that the kernel takes at once."""
    return checked(4 * LARGE, [PoolSpec(LARGE, items_per_page=1)])


def four() -> AbstractAsyncContextManager[BufferPools]:
    """Pools of four buffers of 4096 bytes."""
    return checked(4 * 4096, ONE_A_PAGE)


@asynccontextmanager
async def protocol_on(
    sock: socket.socket,
    pools: BufferPools,
    nbytes: int | None = None,
    make: type[PooledBufferedProtocol] = PooledBufferedProtocol,
    **options: int,
) -> AsyncIterator[PooledBufferedProtocol]:
    """A connected protocol, which is closed at the end. The transport owns the socket."""
    smallest = min(pool.item_size for pool in pools.pools.values())
    protocol = make(pools, nbytes or smallest, **options)
    own = sock.dup()
    own.setblocking(False)
    sock.close()
    await asyncio.get_running_loop().create_connection(lambda: protocol, sock=own)
    try:
        yield protocol
    finally:
        with anyio.CancelScope(shield=True):
            protocol.abort()
            await protocol.aclose()


async def filled(pools: BufferPools, content: bytes) -> Buffer:
    buffer = await pools.get(len(content))
    buffer.view[:] = content
    return buffer


async def received(protocol: PooledBufferedProtocol) -> bytes:
    buffer, nbytes = await protocol.receive()
    with buffer:
        return bytes(buffer.view[:nbytes])


@contextmanager
def allocations() -> Iterator[SimpleNamespace]:
    """At the end, `peak` says how many bytes Python allocated at most, beside those of before."""
    allocated = SimpleNamespace(peak=0)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        yield allocated
        allocated.peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def holding(pools: BufferPools) -> list[Buffer]:
    """Every buffer that the pools still have; the pools have one size."""
    (pool,) = pools.pools.values()
    buffers = []
    try:
        while True:
            buffers.append(pool.get_nowait())
    except anyio.WouldBlock:
        return buffers


# --- receiving


async def test_received_bytes_are_in_a_buffer_that_belongs_to_the_receiver() -> None:
    with connected() as (ours, theirs):
        async with checked() as pools, protocol_on(ours, pools) as protocol:
            theirs.sendall(b"hello")
            buffer, nbytes = await protocol.receive()
            assert (bytes(buffer.view[:nbytes]), buffer.nbytes) == (b"hello", 4096)
            assert pools.statistics().nout == 1
            buffer.release()


async def test_the_end_comes_after_all_bytes_and_stays() -> None:
    with connected() as (ours, theirs):
        async with checked() as pools, protocol_on(ours, pools) as protocol:
            theirs.sendall(b"hello")
            theirs.shutdown(socket.SHUT_WR)
            await turns()
            assert await received(protocol) == b"hello"
            for _ in range(2):
                with pytest.raises(anyio.EndOfStream):
                    await protocol.receive()


async def test_a_waiting_receive_is_woken_by_bytes_and_by_the_end() -> None:
    with connected() as (ours, theirs):
        async with checked() as pools, protocol_on(ours, pools) as protocol:
            task = asyncio.create_task(received(protocol))
            await turns()
            theirs.sendall(b"hello")
            assert await task == b"hello"
            task = asyncio.create_task(received(protocol))
            await turns()
            theirs.shutdown(socket.SHUT_WR)
            with pytest.raises(anyio.EndOfStream):
                await task


async def test_several_reads_fill_one_buffer_until_it_is_received() -> None:
    with connected() as (ours, theirs):
        async with checked() as pools, protocol_on(ours, pools) as protocol:
            for part in (b"one ", b"two ", b"three"):
                theirs.sendall(part)
                await turns()
            assert pools.statistics().nout == 1
            assert await received(protocol) == b"one two three"


async def test_a_slow_receiver_gets_all_of_many_megabytes() -> None:
    chance = random.Random(6)
    data = chance.randbytes(6 << 20)
    digest = hashlib.sha256()

    async def sending(sock: socket.socket) -> None:
        offset = 0
        while offset < len(data):
            await anyio.wait_writable(sock)
            offset += sock.send(data[offset : offset + chance.choice([1, 4096, 30000])])
        sock.shutdown(socket.SHUT_WR)

    with connected() as (ours, theirs):
        async with (
            checked("128 KiB", [PoolSpec(16384, items_per_page=1)]) as pools,
            protocol_on(ours, pools, 16384) as protocol,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(sending, theirs)
            with pytest.raises(anyio.EndOfStream):
                while True:
                    buffer, nbytes = await protocol.receive()
                    with buffer:
                        digest.update(buffer.view[:nbytes])
                        if chance.random() < 0.05:
                            await anyio.sleep(0.0005)
    assert digest.digest() == hashlib.sha256(data).digest()


async def test_reading_pauses_while_the_pools_are_dry_and_resumes_with_the_grant() -> None:
    data = random.Random(7).randbytes(1 << 20)
    with connected() as (ours, theirs):
        async with (
            four() as pools,
            protocol_on(ours, pools) as protocol,
            anyio.create_task_group() as tasks,
        ):
            held = holding(pools)
            first = asyncio.create_task(protocol.receive())
            tasks.start_soon(send_and_end, theirs, data)
            await turns(20)
            assert protocol.transport is not None
            assert not protocol.transport.is_reading()
            (waiter,) = pools.explain().waiters
            assert waiter.task == first.get_name()
            assert not first.done()
            held.pop().release()
            buffer, nbytes = await first
            got = bytearray(buffer.view[:nbytes])
            assert nbytes > 1, "the buffer goes on being filled behind the spare byte"
            buffer.release()
            with pytest.raises(anyio.EndOfStream):
                while True:
                    got += await received(protocol)
            assert got == data
            for buffer in held:
                buffer.release()


async def send_and_end(sock: socket.socket, data: bytes) -> None:
    view = memoryview(data)
    while view:
        await anyio.wait_writable(sock)
        view = view[sock.send(view) :]
    sock.shutdown(socket.SHUT_WR)


async def test_a_single_byte_that_arrived_while_the_pools_were_dry_is_received() -> None:
    with connected() as (ours, theirs):
        async with four() as pools, protocol_on(ours, pools) as protocol:
            held = holding(pools)
            theirs.sendall(b"!")
            await turns()
            for buffer in held:
                buffer.release()
            assert await received(protocol) == b"!"


async def test_a_byte_that_arrived_while_the_pools_were_dry_is_received_before_the_end() -> None:
    with connected() as (ours, theirs):
        async with four() as pools, protocol_on(ours, pools) as protocol:
            held = holding(pools)
            theirs.sendall(b"!")
            await turns()
            theirs.close()
            for buffer in held:
                buffer.release()
            assert await received(protocol) == b"!"
            with pytest.raises(anyio.EndOfStream):
                await protocol.receive()


async def test_reading_ahead_continues_without_a_wait_when_the_pools_have_memory_again() -> None:
    with connected() as (ours, theirs):
        async with four() as pools, protocol_on(ours, pools) as protocol:
            held = holding(pools)
            held.pop().release()
            theirs.sendall(bytes(4096) + b"carried")
            await turns()
            assert protocol.transport is not None
            assert not protocol.transport.is_reading()
            for buffer in held:
                buffer.release()
            assert await received(protocol) == bytes(4096)
            assert protocol.transport.is_reading()
            await turns()
            assert await received(protocol) == b"carried"
            assert pools.statistics().waits.waits == 0


async def test_the_spare_byte_fills_a_buffer_of_one_byte() -> None:
    with connected() as (ours, theirs):
        async with (
            checked(4096, [PoolSpec(1, items_per_page=64)]) as pools,
            protocol_on(ours, pools, 1, read_ahead=1) as protocol,
        ):
            held = [await pools.get(1) for _ in range(64)]
            theirs.sendall(b"ab")
            await turns()
            for buffer in held:
                buffer.release()
            assert await received(protocol) + await received(protocol) == b"ab"


async def test_idle_connections_hold_no_buffer() -> None:
    async with four() as pools:

        async def echo(protocol: PooledBufferedProtocol) -> None:
            async with protocol:
                try:
                    while True:
                        await protocol.send(*await protocol.receive())
                except anyio.EndOfStream:
                    pass

        serving: list[asyncio.Task[None]] = []

        def accept() -> PooledBufferedProtocol:
            protocol = PooledBufferedProtocol(pools, 4096)
            serving.append(asyncio.create_task(echo(protocol)))
            return protocol

        loop = asyncio.get_running_loop()
        server = await loop.create_server(accept, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        clients = [socket.create_connection(address) for _ in range(40)]
        for turn in range(3):
            for number, client in enumerate(clients):
                client.setblocking(False)
                client.sendall(bytes([number]) * (4096 if turn else 100))
            for number, client in enumerate(clients):
                nbytes = 4096 if turn else 100
                assert await read(client, nbytes) == bytes([number]) * nbytes
            await turns()
            assert pools.statistics().nout == 0
        for client in clients:
            client.close()
        await asyncio.gather(*serving)
        server.close()
        await server.wait_closed()


async def test_a_buffer_that_got_no_bytes_is_given_back() -> None:
    with connected() as (ours, _):
        async with checked() as pools, protocol_on(ours, pools) as protocol:
            one = protocol.get_buffer(-1)
            assert len(one) == 4096
            assert len(protocol.get_buffer(-1)) == 4096
            assert pools.statistics().nout == 1
            await turns()
            assert pools.statistics().nout == 0


async def test_a_speculative_buffer_is_given_back() -> None:
    """uvloop asks again when a buffer came back full (101 calls for 81 updates were seen)."""
    calls: list[str] = []

    class Counting(PooledBufferedProtocol):
        def get_buffer(self, sizehint: int) -> memoryview | bytearray:
            calls.append("get")
            return super().get_buffer(sizehint)

        def buffer_updated(self, nbytes: int) -> None:
            calls.append("updated")
            super().buffer_updated(nbytes)

    with connected() as (ours, theirs):
        async with checked() as pools, protocol_on(ours, pools, make=Counting) as protocol:
            for _ in range(5):
                theirs.sendall(bytes(4096))
                await turns()
                assert await received(protocol) == bytes(4096)
                await turns()
                assert pools.statistics().nout == 0
    assert calls.count("updated") == 5
    if on_uvloop():
        assert calls.count("get") > 5, "this loop does not speculate any more"


@pytest.mark.parametrize("read_ahead", [1, 3])
async def test_at_most_read_ahead_buffers_wait_to_be_received(read_ahead: int) -> None:
    data = random.Random(8).randbytes(10 * 4096)
    with connected() as (ours, theirs):
        async with (
            checked() as pools,
            protocol_on(ours, pools, read_ahead=read_ahead) as protocol,
        ):
            theirs.sendall(data)
            await turns()
            assert pools.statistics().nout == read_ahead
            got = b""
            while len(got) < len(data):
                got += await received(protocol)
                await turns()
                assert pools.statistics().nout <= read_ahead
            assert got == data


@pytest.mark.caller
async def test_explain_names_the_connection_that_holds_a_buffer_and_the_task_that_received_it() -> (
    None
):
    def holders() -> list[str]:
        (waiter,) = pools.explain().waiters
        assert not waiter.stuck
        told = (str(holder).replace(__file__, "HERE") for holder in waiter.holders)
        return sorted(re.sub(r"(?<=HERE:)\d+", "N", line) for line in told)

    with connected(**NARROW) as (ours, theirs):
        async with large() as pools, protocol_on(ours, pools) as protocol:
            sender = asyncio.create_task(send(theirs, bytes(2 * LARGE)))
            while not sender.done() or "2 full" not in repr(protocol):
                await turns()
            held = holding(pools)
            sleeper = asyncio.create_task(pools.get(1))
            await turns()
            this = asyncio.current_task()
            assert this is not None
            what = f"{LARGE} bytes of pool '{LARGE}'"
            took = f"{what} by task {this.get_name()!r} at HERE:N"
            host, port = theirs.getsockname()
            ahead = f"{what}, read ahead from {host}:{port} and received by no task"
            assert holders() == [took, took, ahead, ahead]
            buffer, _ = await protocol.receive()
            assert holders() == [took, took, took, ahead]
            protocol.write(buffer)
            sent = f"{took}, being sent to {host}:{port}"
            assert holders() == sorted([took, took, sent, ahead])
            await read(theirs, LARGE)
            (await sleeper).release()
            for buffer in held:
                buffer.release()


async def test_a_task_that_waits_for_what_its_connection_sends_is_in_no_deadlock() -> None:
    with connected(**NARROW) as (ours, theirs):
        async with large() as pools, protocol_on(ours, pools) as protocol:

            async def write_and_get() -> None:
                for _ in range(4):
                    protocol.write(await filled(pools, bytes(LARGE)))
                (await pools.get(1)).release()

            task = asyncio.create_task(write_and_get())
            await turns()
            (waiter,) = pools.explain().waiters
            assert not waiter.stuck
            assert "which waits itself" not in str(pools.explain())
            await read(theirs, 4 * LARGE)
            await task


async def test_two_tasks_cannot_receive_at_once() -> None:
    with connected() as (ours, theirs):
        async with checked() as pools, protocol_on(ours, pools) as protocol:
            task = asyncio.create_task(received(protocol))
            await turns()
            with pytest.raises(anyio.BusyResourceError, match="receiving from"):
                await protocol.receive()
            theirs.sendall(b"hello")
            assert await task == b"hello"


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("first", ["bytes", "cancel"])
async def test_a_cancelled_receive_loses_no_byte(native: bool, first: str) -> None:
    with connected() as (ours, theirs):
        async with checked() as pools, protocol_on(ours, pools) as protocol:
            for count in range(6):
                scope = anyio.CancelScope()
                got: list[bytes] = []

                async def receive(scope: anyio.CancelScope = scope, got: list[bytes] = got) -> None:
                    with scope:
                        got.append(await received(protocol))

                task = asyncio.create_task(receive())
                await turns()

                def cancel(
                    task: asyncio.Task[None] = task, scope: anyio.CancelScope = scope
                ) -> None:
                    if native:
                        task.cancel()
                    else:
                        scope.cancel()

                if first == "bytes":
                    theirs.sendall(b"hello")
                    for _ in range(count):
                        await asyncio.sleep(0)
                    cancel()
                else:
                    cancel()
                    theirs.sendall(b"hello")
                await asyncio.gather(task, return_exceptions=True)
                assert (got or [await received(protocol)]) == [b"hello"]


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("first", ["grant", "cancel"])
async def test_a_receive_cancelled_at_the_grant_loses_no_byte_and_no_buffer(
    native: bool, first: str
) -> None:
    with connected() as (ours, theirs):
        async with four() as pools, protocol_on(ours, pools) as protocol:
            held = holding(pools)
            theirs.sendall(b"hello")
            scope = anyio.CancelScope()
            got: list[bytes] = []

            async def receive() -> None:
                with scope:
                    got.append(await received(protocol))

            task = asyncio.create_task(receive())
            await turns()
            assert pools.statistics().waiting == 1

            def grant() -> None:
                for buffer in held:
                    buffer.release()

            def cancel() -> None:
                if native:
                    task.cancel()
                else:
                    scope.cancel()

            for step in (grant, cancel) if first == "grant" else (cancel, grant):
                step()
            await asyncio.gather(task, return_exceptions=True)
            data = b"".join(got)
            while data != b"hello":
                data += await received(protocol)


# --- writing


async def test_a_slow_reader_gets_all_of_many_megabytes_that_are_written() -> None:
    """Other tasks write over all free buffers during the writes."""
    chance, nbytes = random.Random(9), 6 << 20
    wrote, got = hashlib.sha256(), hashlib.sha256()
    with connected(SO_SNDBUF=32768, SO_RCVBUF=32768) as (ours, theirs):
        async with (
            checked("256 KiB", [PoolSpec(16384, items_per_page=1)]) as pools,
            anyio.create_task_group() as tasks,
            protocol_on(ours, pools, 16384) as protocol,
        ):
            tasks.start_soon(read_slowly, theirs, got.update)

            async def scribble() -> None:
                while True:
                    with await pools.get(16384) as buffer:
                        buffer.view[:] = b"\xff" * 16384

            async with anyio.create_task_group() as others:
                others.start_soon(scribble)
                while nbytes > 0:
                    content = chance.randbytes(chance.choice([1, 5000, 16384]))
                    wrote.update(content)
                    nbytes -= len(content)
                    buffer = await pools.get(16384)
                    buffer.view[: len(content)] = content
                    if chance.random() < 0.5:
                        protocol.write(buffer, len(content))
                    else:
                        await protocol.send(buffer, len(content))
                others.cancel_scope.cancel()
            protocol.write_eof()
            await protocol.aclose()
    assert wrote.digest() == got.digest()


@pytest.mark.parametrize("early", ["with", "release", "dropped"])
async def test_the_next_owner_of_the_memory_does_not_write_into_bytes_that_are_still_to_be_sent(
    early: str,
) -> None:
    """asyncio since 3.12 and uvloop keep the memory that was written, not a copy."""
    with connected(**NARROW) as (ours, theirs):
        async with large() as pools, protocol_on(ours, pools) as protocol:
            buffer = await filled(pools, b"1" * LARGE)
            if early == "with":
                with buffer:
                    protocol.write(buffer)
            else:
                protocol.write(buffer)
            if early == "release":
                with pytest.raises(DoubleRelease):
                    buffer.release()
            del buffer
            for buffer in holding(pools):
                with buffer:
                    buffer.view[:] = b"\xff" * LARGE
            assert await read(theirs, LARGE) == b"1" * LARGE


async def test_a_transport_that_is_written_to_directly_makes_an_early_release_an_error() -> None:
    """asyncio since 3.12 and uvloop keep the memory that was written, not a copy."""
    copies = not on_uvloop() and sys.version_info < (3, 12)
    with connected(**NARROW) as (ours, theirs):
        async with large() as pools, protocol_on(ours, pools) as protocol:
            buffer = await filled(pools, b"1" * LARGE)
            assert protocol.transport is not None
            protocol.transport.write(buffer.view[:])
            if copies:
                buffer.release()
            else:
                with pytest.raises(BufferInUse):
                    buffer.release()
            buffer.end()
            for other in holding(pools):
                with other:
                    other.view[:] = b"\xff" * LARGE
            assert await read(theirs, LARGE) == b"1" * LARGE


async def test_kafka_19012_a_written_buffer_is_not_free_while_the_transport_keeps_it() -> None:
    with connected(**NARROW) as (ours, theirs):
        async with large() as pools, protocol_on(ours, pools) as protocol:
            first = await filled(pools, b"1" * LARGE)
            second = await filled(pools, b"2" * LARGE)
            protocol.write(first)
            protocol.write(second, 100)
            await turns()
            assert [first.released, second.released] == [True, True], "the protocol has them"
            assert pools.statistics().nout == 2
            assert await read(theirs, LARGE + 100) == b"1" * LARGE + b"2" * 100
            await turns()
            assert pools.statistics().nout == 0


async def test_a_peer_that_does_not_read_costs_at_most_a_slice_outside_the_limit() -> None:
    """The transport of asyncio on Python 3.11 keeps a copy of what it could not send."""
    with connected(**NARROW) as (ours, _):
        async with (
            checked("2 MiB", [PoolSpec(MEBIBYTE, items_per_page=1)], debug=False) as pools,
            protocol_on(ours, pools) as protocol,
        ):
            buffers = [await pools.get(MEBIBYTE) for _ in range(2)]
            with allocations() as allocated:
                for buffer in buffers:
                    protocol.write(buffer)
                await turns()
            assert protocol.transport is not None
            assert 0 < protocol.transport.get_write_buffer_size() <= SLICE
            assert allocated.peak < 2 * SLICE
            protocol.abort()
            await turns()  # uvloop exports the memory until then


async def test_a_buffer_of_many_slices_arrives_whole_and_then_the_next_one() -> None:
    content = random.Random(3).randbytes(MEBIBYTE)
    got = bytearray()
    with connected(**NARROW) as (ours, theirs):
        async with (
            checked("2 MiB", [PoolSpec(MEBIBYTE, items_per_page=1)]) as pools,
            anyio.create_task_group() as tasks,
            protocol_on(ours, pools) as protocol,
        ):
            tasks.start_soon(read_slowly, theirs, got.extend)
            protocol.write(await filled(pools, content), MEBIBYTE - 1)
            await protocol.send(await filled(pools, content), 2 * SLICE)
            assert pools.statistics().nout == 0
            protocol.write_eof()
            await protocol.aclose()
    assert got == content[:-1] + content[: 2 * SLICE]


async def test_a_send_returns_when_its_bytes_have_gone() -> None:
    with connected(**NARROW) as (ours, theirs):
        async with large() as pools, protocol_on(ours, pools) as protocol:
            buffer = await filled(pools, b"1" * LARGE)
            task = asyncio.create_task(protocol.send(buffer))
            await turns()
            assert not task.done()
            assert pools.statistics().nout == 1
            assert await read(theirs, LARGE) == b"1" * LARGE
            await task
            assert pools.statistics().nout == 0


async def test_a_send_that_does_not_wait_is_a_checkpoint() -> None:
    with connected() as (ours, theirs):
        async with checked() as pools, protocol_on(ours, pools) as protocol:
            buffer = await filled(pools, b"hello")
            with anyio.CancelScope() as scope:
                scope.cancel()
                await protocol.send(buffer)
            assert scope.cancelled_caught
            assert buffer.released
            assert await read(theirs, 5) == b"hello"


@pytest.mark.parametrize("native", [True, False])
async def test_the_bytes_of_a_cancelled_send_still_go_out_and_its_buffer_is_released(
    native: bool,
) -> None:
    with connected(**NARROW) as (ours, theirs):
        async with large() as pools, protocol_on(ours, pools) as protocol:
            buffers = [await filled(pools, bytes([n]) * LARGE) for n in (1, 2)]
            scopes = [anyio.CancelScope() for _ in buffers]

            async def sending(scope: anyio.CancelScope, buffer: Buffer) -> None:
                with scope:
                    await protocol.send(buffer)

            tasks = [
                asyncio.create_task(sending(scope, buffer))
                for scope, buffer in zip(scopes, buffers, strict=True)
            ]
            await turns()
            for cancelled in tasks if native else scopes:
                cancelled.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert pools.statistics().nout == 2
            assert await read(theirs, 2 * LARGE) == b"\1" * LARGE + b"\2" * LARGE
            await turns()
            assert pools.statistics().nout == 0


@pytest.mark.parametrize("abort", [False, True])
async def test_after_a_send_that_timed_out_the_block_ends_at_once_only_if_it_aborts(
    abort: bool,
) -> None:
    with connected(**NARROW) as (ours, theirs):
        async with large() as pools, protocol_on(ours, pools) as protocol:

            async def converse() -> None:
                async with protocol:
                    with anyio.move_on_after(0.05):
                        await protocol.send(await filled(pools, b"1" * LARGE))
                    if abort:
                        protocol.abort()

            conversation = asyncio.create_task(converse())
            await asyncio.wait({conversation}, timeout=30 if abort else 0.2)
            assert conversation.done() == abort
            assert pools.statistics().nout == (0 if abort else 1)
            await read(theirs, LARGE)
            await conversation
            assert pools.statistics().nout == 0


@pytest.mark.parametrize("by", ["fail_after inside", "timeout outside", "Task.cancel"])
async def test_a_deadline_or_a_cancellation_that_leaves_the_block_does_not_wait_for_the_peer(
    by: str,
) -> None:
    with connected(**NARROW) as (ours, _):
        async with large() as pools, protocol_on(ours, pools) as protocol:

            async def converse() -> None:
                with anyio.fail_after(0.05) if by == "fail_after inside" else nullcontext():
                    await protocol.send(await filled(pools, b"1" * LARGE))

            async def connection() -> None:
                async with asyncio.timeout(0.05 if by == "timeout outside" else None), protocol:
                    await converse()

            task = asyncio.create_task(connection())
            await turns()
            if by == "Task.cancel":
                task.cancel()
            await asyncio.wait({task}, timeout=30)
            assert task.done()
            with pytest.raises(asyncio.CancelledError if by == "Task.cancel" else TimeoutError):
                await task
            assert pools.statistics().nout == 0


@pytest.mark.parametrize("awaited", [False, True])
async def test_a_written_buffer_that_something_exports_waits_in_quarantine_and_stops_nothing(
    awaited: bool,
) -> None:
    with connected() as (ours, theirs):
        async with checked() as pools, protocol_on(ours, pools) as protocol:
            one, two = await filled(pools, b"one"), await filled(pools, b"two")
            export = pickle.PickleBuffer(one.view)
            if awaited:
                await protocol.send(one)
            else:
                protocol.write(one)
            protocol.write(two)
            assert await read(theirs, 6) == b"onetwo"
            statistics = pools.statistics()
            assert (statistics.nout, quarantined(pools)) == (1, 1)
            assert bytes(export) == b"one"
            export.release()
            pools.check()
            await turns()
            assert (pools.statistics().nout, quarantined(pools)) == (0, 0)


def quarantined(pools: BufferPools) -> int:
    return sum(pool.quarantined for pool in pools.statistics().pools.values())


@pytest.mark.parametrize("awaited", [False, True])
async def test_an_error_at_the_end_of_a_lease_loses_neither_the_writes_behind_it_nor_a_send(
    awaited: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports: list[dict[str, Any]] = []
    with connected(**NARROW) as (ours, theirs):
        async with large() as pools, protocol_on(ours, pools) as protocol:
            asyncio.get_running_loop().set_exception_handler(
                lambda loop, context: reports.append(context)
            )
            buffers = [await filled(pools, bytes([n]) * LARGE) for n in (1, 2)]
            first = asyncio.create_task(protocol.send(buffers[0])) if awaited else None
            if first is None:
                protocol.write(buffers[0])
            await turns()
            second = asyncio.create_task(protocol.send(buffers[1]))
            await turns()
            fail_at_the_end_of_a_lease(monkeypatch)
            assert await read(theirs, 2 * LARGE) == b"\1" * LARGE + b"\2" * LARGE
            await second
            if first is not None:
                with pytest.raises(MemoryError, match="planted"):
                    await first
            assert pools.statistics().nout == 0
            asyncio.get_running_loop().set_exception_handler(None)
    assert [type(report["exception"]) for report in reports] == [MemoryError] * (not awaited)
    assert all(report["protocol"] is protocol for report in reports)


@pytest.mark.parametrize("awaited", [False, True])
async def test_an_error_at_the_end_of_a_lease_whose_bytes_went_at_once_is_told_once(
    awaited: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports: list[dict[str, Any]] = []
    with connected() as (ours, theirs):
        async with checked() as pools, protocol_on(ours, pools) as protocol:
            asyncio.get_running_loop().set_exception_handler(
                lambda loop, context: reports.append(context)
            )
            buffer = await filled(pools, b"first")
            fail_at_the_end_of_a_lease(monkeypatch)
            if awaited:
                with pytest.raises(MemoryError, match="planted") as caught:
                    await protocol.send(buffer)
                assert len(caught.value.__notes__) == 1
            else:
                protocol.write(buffer)
            assert buffer.released
            await protocol.send(await filled(pools, b"second"))
            assert await read(theirs, 11) == b"firstsecond"
            assert pools.statistics().nout == 0
            asyncio.get_running_loop().set_exception_handler(None)
    assert [type(report["exception"]) for report in reports] == [MemoryError] * (not awaited)


@pytest.mark.parametrize("when", ["at once", "later"])
async def test_a_transport_that_refuses_to_write_ends_the_connection_and_every_wait(
    when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports: list[dict[str, Any]] = []

    class Refusing:
        def __init__(self, transport: Any) -> None:
            self._transport = transport
            self.left = 0 if when == "at once" else LARGE // SLICE

        def __getattr__(self, name: str) -> Any:
            return getattr(self._transport, name)

        def write(self, data: memoryview) -> None:
            if not self.left:
                raise RuntimeError("planted")
            self.left -= 1
            self._transport.write(data)

    class OnRefusing(PooledBufferedProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(Refusing(transport))  # type: ignore[arg-type]

    with connected(**NARROW) as (ours, theirs):
        async with large() as pools, protocol_on(ours, pools, make=OnRefusing) as protocol:
            asyncio.get_running_loop().set_exception_handler(
                lambda loop, context: reports.append(context)
            )
            buffers = [await filled(pools, bytes([n]) * LARGE) for n in (1, 2, 3)]
            sends = [asyncio.create_task(protocol.send(buffer)) for buffer in buffers]
            await turns()
            theirs.setblocking(False)
            data = await read(theirs, LARGE)
            results = await asyncio.gather(*sends, return_exceptions=True)
            sent = when == "later"
            assert [type(result) for result in results] == [
                type(None) if sent else anyio.BrokenResourceError,
                *[anyio.BrokenResourceError] * 2,
            ]
            assert str(results[-1].__cause__) == "planted"  # type: ignore[union-attr]
            assert data == (b"\1" * LARGE if sent else b"")
            assert pools.statistics().nout == 0
            asyncio.get_running_loop().set_exception_handler(None)
    assert [str(report["exception"]) for report in reports] == ["planted"]


async def test_a_buffer_that_the_end_has_reached_before_it_was_received_can_be_released() -> None:
    with connected() as (ours, theirs):
        async with checked() as pools, protocol_on(ours, pools) as protocol:
            theirs.sendall(b"last")
            await turns()
            theirs.shutdown(socket.SHUT_WR)
            await turns()
            buffer, nbytes = await protocol.receive()
            assert bytes(buffer.view[:nbytes]) == b"last"
            buffer.release()  # the transport has the memory behind these bytes no more


async def test_a_connection_that_has_ended_goes_without_the_garbage_collector() -> None:
    with connected() as (ours, theirs):
        async with checked() as pools:
            made = [PooledBufferedProtocol(pools, 4096)]
            protocol = made[0]
            own = ours.dup()
            own.setblocking(False)
            await asyncio.get_running_loop().create_connection(lambda: made[0], sock=own)
            gc.collect()
            gc.disable()
            try:
                await protocol.send(await filled(pools, b"question"))
                assert await read(theirs, 8) == b"question"
                theirs.sendall(b"answer")
                assert await received(protocol) == b"answer"
                await protocol.aclose()
                reference = weakref.ref(made.pop())
                del protocol
                await turns()
                assert reference() is None
            finally:
                gc.enable()


async def test_each_direction_ends_separately() -> None:
    with connected() as (ours, theirs):
        async with checked() as pools, protocol_on(ours, pools) as protocol:
            theirs.sendall(b"question")
            theirs.shutdown(socket.SHUT_WR)
            assert await received(protocol) == b"question"
            with pytest.raises(anyio.EndOfStream):
                await protocol.receive()
            await protocol.send(await filled(pools, b"answer"))
            protocol.write_eof()
            protocol.write_eof()
            assert await read(theirs, 100) == b"answer"


async def test_the_end_is_announced_after_everything_that_was_written() -> None:
    with connected(**NARROW) as (ours, theirs):
        async with large() as pools, protocol_on(ours, pools) as protocol:
            protocol.write(await filled(pools, b"1" * LARGE))
            protocol.write_eof()
            assert await read(theirs, 2 * LARGE) == b"1" * LARGE
            theirs.sendall(b"still here")
            assert await received(protocol) == b"still here"


async def test_a_piece_of_no_bytes_is_released_in_its_turn() -> None:
    with connected() as (ours, _):
        async with checked() as pools, protocol_on(ours, pools) as protocol:
            buffer = await pools.get(5)
            protocol.write(buffer, 0)
            assert buffer.released


WRONG: list[tuple[Any, Any, type[Exception]]] = [
    (Buffer, "1", TypeError),
    (Buffer, True, TypeError),
    (Buffer, LARGE + 1, ValueError),
    (Buffer, -1, ValueError),
    (None, None, TypeError),
    (b"bytes", None, TypeError),
    ("released", None, UseAfterRelease),
]


@pytest.mark.parametrize("awaited", [False, True])
@pytest.mark.parametrize(("what", "nbytes", "error"), WRONG)
async def test_a_buffer_that_cannot_be_sent_is_taken_all_the_same(
    what: Any, nbytes: Any, error: type[Exception], awaited: bool
) -> None:
    with connected() as (ours, theirs):
        async with checked() as pools, protocol_on(ours, pools) as protocol:
            buffer = await filled(pools, b"no")
            if what == "released":
                buffer.release()
            with pytest.raises(error) as caught:
                await give(protocol, buffer if what in (Buffer, "released") else what, nbytes)
            told = str(caught.value)
            assert "held" not in told
            assert ("release" in told) is (what in (Buffer, "released"))
            if what in (None, b"bytes"):
                buffer.release()
            assert (buffer.released, pools.statistics().nout) == (True, 0)
            await give(protocol, await filled(pools, b"yes"), None, awaited)
            assert await read(theirs, 3) == b"yes"


@pytest.mark.parametrize("kind", [tuple, list])
async def test_a_pair_given_to_a_protocol_as_one_argument_is_taken_and_the_error_says_so(
    kind: type,
) -> None:
    with connected() as (ours, _):
        async with checked() as pools, protocol_on(ours, pools) as protocol:
            buffer = await filled(pools, b"no")
            pair: Any = kind((buffer, 2))
            with pytest.raises(
                TypeError, match=r"as two arguments: send\(buffer, nbytes\)"
            ) as caught:
                await protocol.send(pair)
            assert "the buffer was released" in str(caught.value)
            assert "held" not in str(caught.value)
            assert buffer.released


async def give(
    protocol: PooledBufferedProtocol, buffer: Any, nbytes: Any = None, awaited: bool = True
) -> None:
    """Send `buffer`, or write it."""
    if awaited:
        await protocol.send(buffer, nbytes)
    else:
        protocol.write(buffer, nbytes)


STATES = {
    "not connected": UsageError,
    "write_eof": anyio.ClosedResourceError,
    "closing": anyio.BrokenResourceError,
    "lost": anyio.BrokenResourceError,
    "closed": anyio.ClosedResourceError,
    "aborted": anyio.ClosedResourceError,
    "set_protocol": UsageError,
}


@pytest.mark.parametrize("awaited", [False, True])
@pytest.mark.parametrize("state", STATES)
async def test_a_connection_that_cannot_send_takes_the_buffer_all_the_same(
    state: str, awaited: bool
) -> None:
    with connected() as (ours, theirs):
        async with checked() as pools, protocol_on(ours, pools) as protocol:
            transport = protocol.transport
            assert transport is not None
            match state:
                case "not connected":
                    protocol = PooledBufferedProtocol(pools, 4096)
                case "write_eof":
                    protocol.write_eof()
                case "closing":
                    transport.abort()
                case "lost":
                    reset(theirs)
                    await turns()
                case "closed":
                    protocol.close()
                case "aborted":
                    protocol.abort()
                case "set_protocol":
                    transport.set_protocol(asyncio.Protocol())
            buffer = await filled(pools, b"never")
            with pytest.raises(STATES[state]) as caught:
                await give(protocol, buffer, None, awaited)
            assert "the send has released its buffers" in caught.value.__notes__[0]
            # The error is kept here, and its frames: they must not keep the memory exported.
            assert (buffer.released, pools.statistics().nout) == (True, 0)


async def test_a_buffer_can_be_given_only_once_and_its_view_ends() -> None:
    with connected(**NARROW) as (ours, theirs):
        async with large() as pools, protocol_on(ours, pools) as protocol:
            buffer = await filled(pools, b"1" * LARGE)
            view = buffer.view
            protocol.write(buffer)
            with pytest.raises(UseAfterRelease, match="a send releases it"):
                protocol.write(buffer)
            with pytest.raises(UseAfterRelease):
                buffer.view  # noqa: B018
            with pytest.raises(ValueError, match="released"):
                view[0] = 0
            with pytest.raises(DoubleRelease):
                buffer.release()
            assert await read(theirs, LARGE) == b"1" * LARGE


async def test_pools_that_only_account_refuse_a_write_and_hold_nothing() -> None:
    with connected() as (ours, _):
        async with (
            BufferPools("1 MiB", [4096], memory=AccountedMemory()) as pools,
            protocol_on(ours, pools) as protocol,
        ):
            buffer = await pools.get(10)
            with pytest.raises(UsageError, match="only accounts"):
                protocol.write(buffer)
            assert (buffer.released, pools.statistics().nout) == (True, 0)
            protocol.write(await pools.get(10), 0)
            assert pools.statistics().nout == 0


@pytest.mark.parametrize("awaited", [False, True])
async def test_one_error_of_a_lost_connection_pins_no_memory(awaited: bool) -> None:
    """The traceback of the error for which a connection was lost has the frames of the transport,
    and they have the memory that was read into, or written."""
    with connected() as (ours, theirs):
        async with four() as pools, protocol_on(ours, pools) as protocol:
            reset(theirs)
            with pytest.raises(anyio.BrokenResourceError):
                for _ in range(100):
                    await give(protocol, await filled(pools, b"lost"), None, awaited)
                    await asyncio.sleep(0)
            await turns()
            with pytest.raises(anyio.BrokenResourceError) as caught:
                await protocol.receive()
            assert isinstance(caught.value.__cause__, OSError)
            assert (pools.statistics().nout, quarantined(pools)) == (0, 0)


async def test_bytes_that_were_received_before_a_lost_connection_can_be_released() -> None:
    with connected() as (ours, theirs):
        async with four() as pools, protocol_on(ours, pools) as protocol:
            theirs.sendall(b"hello")
            await turns()
            reset(theirs)
            await turns()
            buffer, nbytes = await protocol.receive()
            assert bytes(buffer.view[:nbytes]) == b"hello"
            buffer.release()
            assert (pools.statistics().nout, quarantined(pools)) == (0, 0)


# --- TLS


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 with its key, in one file."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no openssl to make a certificate")
    path = tmp_path_factory.mktemp("tls") / "certificate.pem"
    command = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1"
    made = subprocess.run(
        [openssl, *command.split(), "-keyout", path, "-out", path.with_suffix(".crt")],
        capture_output=True,
        check=False,
    )
    if made.returncode:
        pytest.skip("openssl makes no certificate here")
    path.write_bytes(path.read_bytes() + path.with_suffix(".crt").read_bytes())
    return path


def contexts(certificate: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The contexts of a server and of its client."""
    for_server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    for_server.load_cert_chain(certificate)
    for_client = ssl.create_default_context(cafile=str(certificate))
    for_client.check_hostname = False
    return for_server, for_client


async def test_megabytes_go_over_tls_and_back(certificate: Path) -> None:
    data = random.Random(10).randbytes(2 << 20)
    for_server, for_client = contexts(certificate)
    ends: list[Exception] = []
    serving: list[asyncio.Task[None]] = []
    loop = asyncio.get_running_loop()

    async def echo(protocol: PooledBufferedProtocol) -> None:
        async with protocol:
            try:
                while True:
                    await protocol.send(*await protocol.receive())
            except (anyio.EndOfStream, anyio.BrokenResourceError) as error:
                ends.append(error)

    async with checked("256 KiB") as pools:

        def accept() -> PooledBufferedProtocol:
            protocol = PooledBufferedProtocol(pools, 16384)
            serving.append(asyncio.create_task(echo(protocol)))
            return protocol

        async def writing() -> None:
            for start in range(0, len(data), 16384):
                await protocol.send(await filled(pools, data[start : start + 16384]))

        server = await loop.create_server(accept, "127.0.0.1", 0, ssl=for_server)
        address = server.sockets[0].getsockname()
        protocol = PooledBufferedProtocol(pools, 4096)
        await loop.create_connection(lambda: protocol, *address, ssl=for_client)
        async with protocol:
            task = asyncio.create_task(writing())
            got = b""
            while len(got) < len(data):
                got += await received(protocol)
            await task
            with pytest.raises(NotImplementedError):
                protocol.write_eof()
        await asyncio.gather(*serving)
        server.close()
        await server.wait_closed()
    assert got == data
    assert [type(end) for end in ends] == [anyio.EndOfStream]


async def test_over_tls_a_peer_that_does_not_read_costs_less_than_a_buffer_outside_the_limit(
    certificate: Path,
) -> None:
    """Each of the two transports keeps bytes, but not the whole buffer."""
    with connected(**NARROW) as (ours, theirs):
        async with (
            checked("4 MiB", [PoolSpec(MEBIBYTE, items_per_page=1)], debug=False) as pools,
            protocol_on(ours, pools) as client,
            protocol_on(theirs, pools) as server,
        ):
            await start_tls_at_both(server, client, certificate)
            buffer = await pools.get(MEBIBYTE)
            assert server.transport is not None
            server.transport.pause_reading()
            with allocations() as allocated:
                client.write(buffer)
                await turns(50)
            assert pools.statistics().nout
            assert allocated.peak < 4 * SLICE
            for end in (server, client):
                end.abort()
            await turns()  # uvloop exports the memory until then


@asynccontextmanager
async def both_ends(
    pools: BufferPools,
) -> AsyncIterator[tuple[PooledBufferedProtocol, PooledBufferedProtocol]]:
    """A server and a client in this process."""
    with connected() as (ours, theirs):
        async with protocol_on(ours, pools) as client, protocol_on(theirs, pools) as server:
            yield server, client


async def start_tls_at_both(
    server: PooledBufferedProtocol, client: PooledBufferedProtocol, certificate: Path
) -> None:
    for_server, for_client = contexts(certificate)
    accept = asyncio.create_task(server.start_tls(for_server, server_side=True))
    await client.start_tls(for_client, server_hostname="127.0.0.1")
    await accept


async def test_start_tls_gives_the_protocol_its_new_transport(certificate: Path) -> None:
    data = random.Random(11).randbytes(200_000)
    async with checked() as pools, both_ends(pools) as (server, client):
        await client.send(await filled(pools, b"STARTTLS"))
        assert await received(server) == b"STARTTLS"
        plain = client.transport
        await start_tls_at_both(server, client, certificate)
        assert client.transport is not plain
        assert client.transport is not None
        assert client.transport.get_extra_info("cipher") is not None

        async def sending() -> None:
            for start in range(0, len(data), 4096):
                await client.send(await filled(pools, data[start : start + 4096]))
            await client.aclose()

        task = asyncio.create_task(sending())
        got = b""
        with pytest.raises(anyio.EndOfStream):
            while True:
                got += await received(server)
        await task
        assert got == data


async def test_start_tls_comes_after_everything_that_was_written(certificate: Path) -> None:
    for_server, for_client = contexts(certificate)
    with connected(**NARROW) as (ours, theirs):
        async with large() as pools, protocol_on(ours, pools) as server:
            with await pools.get(LARGE) as buffer:
                buffer.view[:] = b"1" * LARGE
                server.write(buffer)
            server.write(await filled(pools, b"2" * LARGE))
            upgrade = asyncio.create_task(server.start_tls(for_server, server_side=True))
            await turns()
            assert not upgrade.done()
            with pytest.raises(UsageError):
                server.write(await filled(pools, b"secret"))
            assert await read(theirs, 2 * LARGE) == b"1" * LARGE + b"2" * LARGE
            async with protocol_on(theirs, pools) as client:
                await client.start_tls(for_client, server_hostname="127.0.0.1")
                await upgrade
                await client.send(await filled(pools, b"secret"))
                assert await received(server) == b"secret"
                assert pools.statistics().nout == 0


async def test_the_hello_of_a_fast_peer_is_not_read_before_the_handshake(
    certificate: Path,
) -> None:
    for_server, for_client = contexts(certificate)
    for _ in range(10):
        async with checked() as pools, both_ends(pools) as (server, client):

            async def client_side(
                client: PooledBufferedProtocol = client,
            ) -> None:
                assert await received(client) == b"go ahead"
                await client.start_tls(for_client, server_hostname="127.0.0.1")

            task = asyncio.create_task(client_side())
            await turns()
            server.write(await filled(pools, b"go ahead"))
            await server.start_tls(for_server, server_side=True)
            await task


async def test_a_start_tls_that_is_cancelled_before_the_handshake_changes_nothing(
    certificate: Path,
) -> None:
    for_server, _ = contexts(certificate)
    with connected(**NARROW) as (ours, theirs):
        async with large() as pools, protocol_on(ours, pools) as server:
            server.write(await filled(pools, b"1" * LARGE))
            upgrade = asyncio.create_task(server.start_tls(for_server, server_side=True))
            await turns()
            upgrade.cancel()
            await asyncio.gather(upgrade, return_exceptions=True)
            server.write(await filled(pools, b"plain"))
            assert await read(theirs, LARGE + 5) == b"1" * LARGE + b"plain"
            theirs.sendall(b"answer")
            assert await received(server) == b"answer"


async def test_a_task_that_waits_in_receive_gets_the_bytes_of_the_new_transport(
    certificate: Path,
) -> None:
    async with checked() as pools, both_ends(pools) as (server, client):
        task = asyncio.create_task(received(server))
        await turns()
        await start_tls_at_both(server, client, certificate)
        assert not task.done()
        await client.send(await filled(pools, b"secret"))
        assert await task == b"secret"


async def test_bytes_that_come_with_the_end_of_the_handshake_are_received(
    certificate: Path,
) -> None:
    """They come before `start_tls` has returned, and more than `read_ahead` allows."""
    data = random.Random(12).randbytes(100_000)
    for_server, for_client = contexts(certificate)
    async with checked() as pools, both_ends(pools) as (server, client):

        async def server_speaks_first() -> None:
            await server.start_tls(for_server, server_side=True)
            for start in range(0, len(data), 4096):
                await server.send(await filled(pools, data[start : start + 4096]))

        task = asyncio.create_task(server_speaks_first())
        await client.start_tls(for_client, server_hostname="127.0.0.1")
        await turns()
        assert pools.statistics().nout <= 4
        got = b""
        while len(got) < len(data):
            got += await received(client)
        await task
        assert got == data


@pytest.mark.parametrize("nbytes", [1, 4096, 3 * 4096])
async def test_start_tls_refuses_bytes_that_were_not_received(
    nbytes: int, certificate: Path
) -> None:
    """Such bytes may come from an attacker between, and would seem to be protected."""
    _, for_client = contexts(certificate)
    with connected() as (ours, theirs):
        async with checked() as pools, protocol_on(ours, pools) as client:
            theirs.sendall(bytes(nbytes))
            await turns()
            with pytest.raises(UsageError, match="without TLS were not received"):
                await client.start_tls(for_client, server_hostname="127.0.0.1")
            assert len(await received(client)) == min(nbytes, 4096)
            await client.send(await filled(pools, b"plain"))
            assert await read(theirs, 5) == b"plain"


async def test_start_tls_refuses_wrong_arguments_and_the_connection_is_as_before() -> None:
    with connected() as (ours, theirs):
        async with checked() as pools, protocol_on(ours, pools) as client:
            with pytest.raises(TypeError):
                await client.start_tls(True)  # type: ignore[arg-type]
            await client.send(await filled(pools, b"plain"))
            assert await read(theirs, 5) == b"plain"
            theirs.sendall(b"answer")
            assert await received(client) == b"answer"


async def test_a_write_during_start_tls_is_refused_and_sends_nothing(certificate: Path) -> None:
    _, for_client = contexts(certificate)
    async with checked() as pools, both_ends(pools) as (server, client):
        upgrade = asyncio.create_task(client.start_tls(for_client, server_hostname="127.0.0.1"))
        await turns()
        for awaited in (False, True):
            with pytest.raises(UsageError, match="another protocol has the transport"):
                await give(client, await filled(pools, b"secret"), None, awaited)
        with pytest.raises(UsageError, match="another protocol has the transport"):
            client.write_eof()
        with pytest.raises(UsageError):
            await client.start_tls(for_client, server_hostname="127.0.0.1")
        server_buffer, nbytes = await server.receive()
        with server_buffer:
            assert b"secret" not in bytes(server_buffer.view[:nbytes])
        upgrade.cancel()
        await asyncio.gather(upgrade, return_exceptions=True)


@pytest.mark.parametrize("how", ["garbage", "end", "reset", "cancel", "close", "abort", "aclose"])
async def test_a_handshake_that_fails_ends_the_connection_and_every_wait(
    how: str, certificate: Path
) -> None:
    """asyncio does not report the end of a connection to the protocol above a TLS handshake."""
    _, for_client = contexts(certificate)
    with connected() as (ours, theirs):
        async with checked() as pools, protocol_on(ours, pools) as client:
            receive = asyncio.create_task(client.receive())
            await turns()
            upgrade = asyncio.create_task(client.start_tls(for_client, server_hostname="127.0.0.1"))
            await turns()
            match how:
                case "garbage":
                    theirs.sendall(b"500 no TLS here\r\n")
                case "end":
                    theirs.close()
                case "reset":
                    reset(theirs)
                case "cancel":
                    upgrade.cancel()
                case "close":
                    client.close()
                case "abort":
                    client.abort()
                case "aclose":
                    await client.aclose()
            (result,) = await asyncio.gather(upgrade, return_exceptions=True)
            expected = {
                "cancel": asyncio.CancelledError,
                "close": anyio.ClosedResourceError,
                "abort": anyio.ClosedResourceError,
                "aclose": anyio.ClosedResourceError,
            }.get(how, anyio.BrokenResourceError)
            assert type(result) is expected
            if how in ("garbage", "reset"):
                assert isinstance(result.__cause__, OSError)
            with pytest.raises((anyio.BrokenResourceError, anyio.ClosedResourceError)):
                await receive
            with pytest.raises((anyio.BrokenResourceError, anyio.ClosedResourceError)):
                await client.send(await filled(pools, b"secret"))
            await client.aclose()
            assert pools.statistics().nout == 0


@pytest.mark.parametrize("state", ["ended by the peer", "ended", "closed", "lost", "unconnected"])
async def test_start_tls_on_a_connection_that_has_ended_is_refused(
    state: str, certificate: Path
) -> None:
    _, for_client = contexts(certificate)
    with connected() as (ours, theirs):
        async with checked() as pools, protocol_on(ours, pools) as client:
            error: type[Exception] = anyio.BrokenResourceError
            match state:
                case "ended by the peer":
                    theirs.shutdown(socket.SHUT_WR)
                case "ended":
                    client.write_eof()
                    error = anyio.ClosedResourceError
                case "closed":
                    client.close()
                    error = anyio.ClosedResourceError
                case "lost":
                    reset(theirs)
                case "unconnected":
                    client = PooledBufferedProtocol(pools, 4096)
                    error = UsageError
            await turns()
            with pytest.raises(error):
                await client.start_tls(for_client, server_hostname="127.0.0.1")


# The loop's own start_tls, which does not give the protocol its new transport.


@pytest.mark.parametrize("queued", [0, 1, 2])
@pytest.mark.parametrize("end", ["close", "abort", "aclose"])
async def test_after_the_start_tls_of_the_loop_nothing_is_sent_in_plaintext(
    end: str, queued: int, certificate: Path
) -> None:
    """What the transport has goes out before the handshake; the rest is dropped at the end."""
    _, for_client = contexts(certificate)
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda *_: None)  # TLS of asyncio asserts that no writing is paused
    with connected(**NARROW) as (ours, theirs):
        async with large() as pools, protocol_on(ours, pools) as client:
            buffers = [await filled(pools, bytes([n + 1]) * LARGE) for n in range(queued)]
            sends = [asyncio.create_task(client.send(buffer)) for buffer in buffers]
            await turns()
            assert client.transport is not None
            upgrade = asyncio.create_task(
                loop.start_tls(client.transport, client, for_client, server_hostname="127.0.0.1")
            )
            await turns()
            for awaited in (False, True):
                buffer = await filled(pools, b"secret")
                with pytest.raises(UsageError, match="await the protocol's own start_tls"):
                    await give(client, buffer, None, awaited)
                assert buffer.released
            seen = b""
            while not (hello := seen.lstrip(b"\1")):
                await anyio.wait_readable(theirs)
                seen += theirs.recv(SLICE)
            assert hello.startswith(b"\x16\x03"), "a record of a TLS handshake"
            slices, rest_of_one = divmod(len(seen) - len(hello), SLICE)
            assert (slices > 0, rest_of_one) == (queued > 0, 0)
            match end:
                case "close":
                    client.close()
                case "abort":
                    client.abort()
                case "aclose":
                    await client.aclose()
            results = await asyncio.gather(*sends, return_exceptions=True)
            assert all(isinstance(result, anyio.BrokenResourceError) for result in results)
            upgrade.cancel()
            await asyncio.gather(upgrade, return_exceptions=True)
            await client.aclose()
            rest = await read(theirs, 3 * LARGE)
            assert b"secret" not in rest
            assert b"\1" * 100 not in rest
            assert b"\2" * 100 not in rest
            await turns()
            assert pools.statistics().nout == 0
    loop.set_exception_handler(None)


async def test_a_new_transport_can_be_given_to_the_protocol_by_hand(certificate: Path) -> None:
    for_server, for_client = contexts(certificate)
    loop = asyncio.get_running_loop()
    async with checked() as pools, both_ends(pools) as (server, client):
        accept = asyncio.create_task(server.start_tls(for_server, server_side=True))
        assert client.transport is not None
        transport = await loop.start_tls(
            client.transport, client, for_client, server_hostname="127.0.0.1"
        )
        await accept
        with pytest.raises(UsageError):
            client.write(await filled(pools, b"secret"))
        assert transport is not None
        client.connection_made(transport)
        await client.send(await filled(pools, b"secret"))
        assert await received(server) == b"secret"


# --- the end of a connection


async def test_after_a_reset_the_bytes_that_arrived_are_received_and_then_the_error() -> None:
    with connected() as (ours, theirs):
        async with checked() as pools, protocol_on(ours, pools) as protocol:
            theirs.sendall(b"hello")
            await turns()
            reset(theirs)
            await turns()
            assert await received(protocol) == b"hello"
            for _ in range(2):
                with pytest.raises(anyio.BrokenResourceError) as caught:
                    await protocol.receive()
                assert isinstance(caught.value.__cause__, ConnectionResetError)
            with await pools.get(10) as buffer, pytest.raises(anyio.BrokenResourceError):
                await protocol.send(buffer)


async def test_a_reset_releases_written_buffers_and_fails_the_waiting_send() -> None:
    with connected(**NARROW) as (ours, theirs):
        async with large() as pools, protocol_on(ours, pools) as protocol:
            buffers = [await filled(pools, bytes(LARGE)) for _ in range(3)]
            protocol.write(buffers[0])
            sends = [asyncio.create_task(protocol.send(buffer)) for buffer in buffers[1:]]
            await turns()
            reset(theirs)
            results = await asyncio.gather(*sends, return_exceptions=True)
            assert [type(result) for result in results] == [anyio.BrokenResourceError] * 2
            assert isinstance(results[0].__cause__, OSError)  # type: ignore[union-attr]
            assert pools.statistics().nout == 0


async def test_a_write_that_fails_at_once_releases_its_buffer_and_fails_the_send() -> None:
    with connected() as (ours, theirs):
        async with checked() as pools, protocol_on(ours, pools) as protocol:
            buffers = [await filled(pools, bytes(100)) for _ in range(2)]
            reset(theirs)
            with pytest.raises(anyio.BrokenResourceError):
                await protocol.send(buffers[0])
            with pytest.raises(anyio.BrokenResourceError):
                protocol.write(buffers[1])
            assert [buffer.released for buffer in buffers] == [True, True]
            assert pools.statistics().nout == 0


async def test_write_eof_to_a_peer_that_is_gone_raises_nothing() -> None:
    with connected() as (ours, theirs):
        async with checked() as pools, protocol_on(ours, pools) as protocol:
            reset(theirs)
            protocol.write_eof()
            await turns()
            with pytest.raises(anyio.BrokenResourceError):
                await protocol.receive()


async def test_an_abort_comes_before_a_scheduled_end() -> None:
    with connected() as (ours, theirs):
        async with checked() as pools, protocol_on(ours, pools) as protocol:
            protocol.write_eof()
            protocol.abort()
            await protocol.aclose()
            assert await read(theirs, 1) == b""


async def test_a_byte_that_arrives_after_the_close_is_dropped() -> None:
    with connected() as (ours, _):
        async with checked() as pools, protocol_on(ours, pools) as protocol:
            protocol.close()
            assert len(protocol.get_buffer(-1)) == 1
            protocol.buffer_updated(1)
            with pytest.raises(anyio.ClosedResourceError):
                await protocol.receive()


async def test_a_close_releases_buffers_that_were_not_received_and_fails_the_next_receive() -> None:
    with connected() as (ours, theirs):
        async with checked() as pools, protocol_on(ours, pools, read_ahead=2) as protocol:
            theirs.sendall(bytes(6000))
            await turns()
            assert pools.statistics().nout == 2
            protocol.close()
            protocol.close()
            assert pools.statistics().nout == 0
            with pytest.raises(anyio.ClosedResourceError):
                await protocol.receive()


async def test_a_close_wakes_a_receive_that_waits_for_bytes() -> None:
    with connected() as (ours, _):
        async with checked() as pools, protocol_on(ours, pools) as protocol:
            task = asyncio.create_task(protocol.receive())
            await turns()
            protocol.close()
            with pytest.raises(anyio.ClosedResourceError, match="on this side"):
                await task


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("granted", ["never", "before", "after"])
async def test_a_close_wakes_a_receive_that_waits_for_the_pools(granted: str, lost: bool) -> None:
    with connected() as (ours, theirs):
        async with four() as pools, protocol_on(ours, pools) as protocol:
            held = holding(pools)
            theirs.sendall(b"hello")
            task = asyncio.create_task(protocol.receive())
            await turns()
            assert pools.statistics().waiting == 1
            if lost:
                assert protocol.transport is not None
                protocol.transport.abort()
                await turns()
            if granted == "before":
                held.pop().release()
            protocol.close()
            if granted == "after":
                held.pop().release()
            with pytest.raises(anyio.ClosedResourceError, match="on this side"):
                await task
            for buffer in held:
                buffer.release()


async def test_nothing_is_read_after_a_close_that_still_writes() -> None:
    content = b"1" * LARGE
    with connected(**NARROW) as (ours, theirs):
        async with large() as pools, protocol_on(ours, pools) as protocol:
            theirs.sendall(b"hello")
            await turns()
            protocol.write(await filled(pools, content))
            protocol.close()
            theirs.sendall(b"too late")
            await turns()
            assert pools.statistics().nout == 1
            assert await read(theirs, LARGE) == content
            await protocol.aclose()


async def test_aclose_waits_until_all_bytes_have_gone() -> None:
    with connected(**NARROW) as (ours, theirs):
        async with large() as pools, protocol_on(ours, pools) as protocol:
            buffers = [await filled(pools, bytes([n]) * LARGE) for n in (1, 2, 3)]
            for buffer in buffers:
                protocol.write(buffer)
            task = asyncio.create_task(protocol.aclose())
            await turns()
            assert not task.done()
            assert pools.statistics().nout == 3
            data = await read(theirs, 3 * LARGE + 1)
            assert data == b"\1" * LARGE + b"\2" * LARGE + b"\3" * LARGE
            await task
            assert pools.statistics().nout == 0


@pytest.mark.parametrize("native", [True, False])
async def test_a_cancelled_aclose_aborts_and_holds_no_buffer(native: bool) -> None:
    with connected(**NARROW) as (ours, theirs):
        async with large() as pools, protocol_on(ours, pools) as protocol:
            protocol.write(await filled(pools, bytes(LARGE)))
            protocol.write(await filled(pools, bytes(LARGE)))
            theirs.sendall(b"hello")
            await turns()
            scope = anyio.CancelScope()

            async def closing() -> None:
                with scope:
                    await protocol.aclose()

            task = asyncio.create_task(closing())
            await turns()
            assert pools.statistics().nout == 2
            if native:
                task.cancel()
            else:
                scope.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert pools.statistics().nout == 0


async def test_a_protocol_closed_before_it_is_connected_ends_the_connection() -> None:
    with connected() as (ours, theirs):
        async with checked() as pools:
            protocol = PooledBufferedProtocol(pools, 4096)
            async with protocol:
                pass
            loop = asyncio.get_running_loop()
            own = ours.dup()
            ours.close()
            await loop.create_connection(lambda: protocol, sock=own)
            assert await read(theirs, 1) == b""
            await protocol.aclose()


async def test_closing_the_pools_wakes_a_receive_that_waits_for_them() -> None:
    with connected() as (ours, theirs):
        before = asyncio.all_tasks()
        body_ended = asyncio.Event()

        async def outer() -> None:
            async with BufferPools(4 * 4096, ONE_A_PAGE) as pools:
                made.append(pools)
                await body_ended.wait()

        made: list[BufferPools] = []
        owner = asyncio.create_task(outer())
        await turns()
        (pools,) = made
        held = holding(pools)
        async with protocol_on(ours, pools) as protocol:
            theirs.sendall(b"hello")
            task = asyncio.create_task(protocol.receive())
            await turns()
            assert pools.statistics().waiting == 1
            body_ended.set()
            with pytest.raises(anyio.ClosedResourceError, match="BufferPools was closed"):
                await task
            with pytest.warns(ResourceWarning, match="was closed with"):
                await owner
            for buffer in held:
                buffer.release()
            with pytest.raises(anyio.ClosedResourceError, match="BufferPools is closed"):
                await protocol.receive()
        assert asyncio.all_tasks() == before
        pools.check()
        assert pools.statistics().nout == 0


# --- making one


async def test_impossible_sizes_are_refused() -> None:
    async with checked() as pools:
        with pytest.raises(OversizeRequest):
            PooledBufferedProtocol(pools, 100_000)
        with pytest.raises(ValueError, match="read_ahead is 0"):
            PooledBufferedProtocol(pools, 4096, read_ahead=0)


async def test_the_repr_says_what_the_protocol_holds() -> None:
    with connected() as (ours, theirs):
        async with checked(name="Relay") as pools, protocol_on(ours, pools) as protocol:
            theirs.sendall(bytes(4100))
            await turns()
            assert repr(protocol) == (
                "<PooledBufferedProtocol of 'Relay', open: 1 full, 4 bytes in the next, "
                "0 to be written>"
            )


def test_outside_asyncio_the_error_says_what_to_use() -> None:
    pools = BufferPools("1 MiB", [4096])
    with pytest.raises(UsageError, match="on trio use recv_into and send_all"):
        PooledBufferedProtocol(pools, 4096)

    async def on_trio() -> None:
        await trio.lowlevel.checkpoint()
        with pytest.raises(UsageError, match="on trio use recv_into and send_all"):
            PooledBufferedProtocol(pools, 4096)

    trio.run(on_trio)
