"""`PooledBufferedProtocol` on asyncio's own loop and on uvloop."""

from __future__ import annotations

import asyncio
import hashlib
import pickle
import random
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
import trio

from mbufpools import (
    Buffer,
    BufferInUse,
    BufferPools,
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
    checked,
    connected,
    read,
    read_slowly,
    reset,
    turns,
)

pytestmark = pytest.mark.real_time

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


async def test_buffers_that_were_read_ahead_are_held_by_no_task_and_name_the_net_package() -> None:
    with connected() as (ours, theirs):
        async with four() as pools, protocol_on(ours, pools) as protocol:
            theirs.sendall(bytes(2 * 4096))
            await turns()
            held = holding(pools)
            sleeper = asyncio.create_task(pools.get(1))
            await turns()
            (waiter,) = pools.explain().waiters
            ahead = [holder for holder in waiter.holders if holder.task == "no task"]
            assert len(ahead) == 2
            assert all("/net/_reading.py:" in holder.where for holder in ahead)
            assert not waiter.stuck
            for buffer in held:
                buffer.release()
            (await sleeper).release()
            assert len(await received(protocol)) == 4096


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


class ReleasesAtOnce(PooledBufferedProtocol):
    """The planted bug: a buffer is released as soon as the transport has it."""

    def write(self, buffer: Buffer, nbytes: int | None = None) -> None:
        assert self.transport is not None
        self.transport.write(buffer.view[:nbytes])
        buffer.release()


@pytest.mark.parametrize("make", [PooledBufferedProtocol, ReleasesAtOnce])
async def test_the_next_owner_of_the_memory_does_not_write_into_bytes_that_are_still_to_be_sent(
    make: type[PooledBufferedProtocol],
) -> None:
    """asyncio since 3.12 and uvloop keep the memory that was written, not a copy."""
    copies = not on_uvloop() and sys.version_info < (3, 12)
    with connected(**NARROW) as (ours, theirs):
        async with large() as pools, protocol_on(ours, pools, make=make) as protocol:
            protocol.write(await filled(pools, b"1" * LARGE))
            for buffer in holding(pools):
                with buffer:
                    buffer.view[:] = b"\xff" * LARGE
            got = await read(theirs, LARGE)
    assert len(got) == LARGE
    corrupt = got != b"1" * LARGE
    assert corrupt == (make is ReleasesAtOnce and not copies)


async def test_kafka_19012_a_written_buffer_is_not_free_while_the_transport_keeps_it() -> None:
    with connected(**NARROW) as (ours, theirs):
        async with large() as pools, protocol_on(ours, pools) as protocol:
            first = await filled(pools, b"1" * LARGE)
            second = await filled(pools, b"2" * LARGE)
            protocol.write(first)
            protocol.write(second, 100)
            await turns()
            assert [first.released, second.released] == [False, False]
            assert await read(theirs, LARGE + 100) == b"1" * LARGE + b"2" * 100
            await turns()
            assert [first.released, second.released] == [True, True]


async def test_a_send_returns_when_its_bytes_have_gone() -> None:
    with connected(**NARROW) as (ours, theirs):
        async with large() as pools, protocol_on(ours, pools) as protocol:
            buffer = await filled(pools, b"1" * LARGE)
            task = asyncio.create_task(protocol.send(buffer))
            await turns()
            assert not task.done()
            assert await read(theirs, LARGE) == b"1" * LARGE
            await task
            assert buffer.released


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
            assert not any(buffer.released for buffer in buffers)
            assert await read(theirs, 2 * LARGE) == b"\1" * LARGE + b"\2" * LARGE
            await turns()
            assert all(buffer.released for buffer in buffers)


async def test_a_sent_buffer_with_an_exported_view_belongs_to_the_caller_again() -> None:
    with connected(**NARROW) as (ours, theirs):
        async with large() as pools, protocol_on(ours, pools) as protocol:
            buffer = await filled(pools, b"1" * LARGE)
            export = pickle.PickleBuffer(buffer.view)
            task = asyncio.create_task(protocol.send(buffer))
            assert await read(theirs, LARGE) == b"1" * LARGE
            with pytest.raises(BufferInUse):
                await task
            export.release()
            buffer.release()


async def test_a_written_buffer_with_an_exported_view_is_reported_and_stops_nothing() -> None:
    reports: list[dict[str, Any]] = []
    with connected() as (ours, theirs):
        async with checked() as pools, protocol_on(ours, pools) as protocol:
            loop = asyncio.get_running_loop()
            before = loop.get_exception_handler()
            loop.set_exception_handler(lambda loop, context: reports.append(context))
            one, two = await filled(pools, b"one"), await filled(pools, b"two")
            export = pickle.PickleBuffer(one.view)
            protocol.write(one)
            protocol.write(two)
            assert await read(theirs, 6) == b"onetwo"
            assert [one.released, two.released] == [False, True]
            loop.set_exception_handler(before)
            export.release()
            one.release()
    assert [type(report["exception"]) for report in reports] == [BufferInUse]
    assert reports[0]["protocol"] is protocol


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


async def test_a_buffer_that_cannot_be_written_still_belongs_to_the_caller() -> None:
    with connected(**NARROW) as (ours, theirs):
        async with large() as pools:
            with await pools.get_many([LARGE, LARGE]) as (buffer, released):
                released.release()
                unconnected = PooledBufferedProtocol(pools, 4096)
                with pytest.raises(UsageError, match="not connected"):
                    unconnected.write(buffer)
                async with protocol_on(ours, pools) as protocol:
                    wrong: list[tuple[Any, Any, type[Exception]]] = [
                        (b"bytes", None, TypeError),
                        (buffer, "1", TypeError),
                        (buffer, LARGE + 1, ValueError),
                        (released, None, UseAfterRelease),
                    ]
                    for what, nbytes, error in wrong:
                        with pytest.raises(error):
                            protocol.write(what, nbytes)
                    protocol.write(buffer)
                    with pytest.raises(ValueError, match="being written already"):
                        protocol.write(buffer)
                    await read(theirs, LARGE)
                    protocol.write_eof()
                    with await pools.get(10) as buffer:
                        with pytest.raises(anyio.ClosedResourceError, match="write_eof"):
                            protocol.write(buffer)
                        protocol.close()
                        with pytest.raises(anyio.ClosedResourceError, match="on this side"):
                            protocol.write(buffer)
                        with pytest.raises(anyio.ClosedResourceError, match="on this side"):
                            await protocol.send(buffer)
                        with pytest.raises(anyio.ClosedResourceError):
                            protocol.write_eof()


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


async def test_megabytes_go_over_tls_and_back(certificate: Path) -> None:
    data = random.Random(10).randbytes(2 << 20)
    for_server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    for_server.load_cert_chain(certificate)
    for_client = ssl.create_default_context(cafile=str(certificate))
    for_client.check_hostname = False
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
            assert all(buffer.released for buffer in buffers)


async def test_a_write_that_fails_at_once_releases_its_buffer_and_fails_the_send() -> None:
    with connected() as (ours, theirs):
        async with checked() as pools, protocol_on(ours, pools) as protocol:
            buffers = [await filled(pools, bytes(100)) for _ in range(2)]
            reset(theirs)
            with pytest.raises(anyio.BrokenResourceError):
                await protocol.send(buffers[0])
            with pytest.raises(anyio.BrokenResourceError):
                protocol.write(buffers[1])
            assert [buffer.released for buffer in buffers] == [True, False]
            buffers[1].release()


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
            assert not any(buffer.released for buffer in buffers)
            data = await read(theirs, 3 * LARGE + 1)
            assert data == b"\1" * LARGE + b"\2" * LARGE + b"\3" * LARGE
            await task
            assert all(buffer.released for buffer in buffers)


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
