"""Bytes are read from the socket of a transport while the pools are dry, or bytes come fast."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import anyio
import pytest

from mbufpools import Buffer, BufferPools, PoolSpec
from mbufpools.net import PooledBufferedProtocol
from mbufpools.net._direct import Direct, direct
from tests.kit.network import ASYNCIO_LOOPS, checked, connected, reset, send, turns

pytestmark = pytest.mark.real_time

SIZE = 4096


@pytest.fixture(params=ASYNCIO_LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


class Dry(NamedTuple):
    """A connection that has received its first buffer after waiting for it."""

    protocol: PooledBufferedProtocol
    theirs: socket.socket
    pools: BufferPools
    held: list[Buffer]
    """All buffers of the pools; the pools are dry."""

    @property
    def reading(self) -> bool:
        assert self.protocol.transport is not None
        return self.protocol.transport.is_reading()

    async def received(self) -> bytes:
        buffer, nbytes = await self.protocol.receive()
        with buffer:
            return bytes(buffer.view[:nbytes])


@asynccontextmanager
async def dry(first: bytes, **options: Any) -> AsyncIterator[Dry]:
    """The connection has sent `first`, of which one buffer was received; the pools are dry."""
    specs = [PoolSpec(SIZE, items_per_page=1)]
    with connected() as (ours, theirs):
        async with checked(2 * SIZE, specs, **options) as pools:
            protocol = PooledBufferedProtocol(pools, SIZE)
            own = ours.dup()
            own.setblocking(False)
            await asyncio.get_running_loop().create_connection(lambda: protocol, sock=own)
            held = [pools.get_nowait(SIZE), pools.get_nowait(SIZE)]
            try:
                receiving = asyncio.create_task(protocol.receive())
                await send(theirs, first)
                await turns(20)
                assert not receiving.done()
                held.pop().release()
                buffer, nbytes = await receiving
                assert buffer.view[:nbytes] == first[:SIZE]
                held.append(buffer)
                yield Dry(protocol, theirs, pools, held)
            finally:
                for buffer in held:
                    buffer.end()
                protocol.abort()
                await protocol.aclose()


async def test_bytes_that_have_arrived_are_received_without_the_transport() -> None:
    data = random.Random(3).randbytes(3 * SIZE)
    async with dry(data) as connection:
        assert not connection.reading
        connection.held.pop().release()
        assert await connection.received() == data[SIZE : 2 * SIZE]
        assert not connection.reading
        assert await connection.received() == data[2 * SIZE :]


async def test_the_end_is_received_while_no_memory_is_free() -> None:
    async with dry(bytes(SIZE)) as connection:
        connection.theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(anyio.EndOfStream):
            await connection.protocol.receive()


async def test_a_connection_without_bytes_waits_for_them_and_not_for_memory() -> None:
    async with dry(bytes(SIZE)) as connection:
        receiving = asyncio.create_task(connection.received())
        await turns(20)
        assert connection.reading
        assert connection.pools.explain().waiters == ()
        await send(connection.theirs, b"later")
        await turns(20)
        assert len(connection.pools.explain().waiters) == 1
        connection.held.pop().release()
        assert await receiving == b"later"


async def test_a_reset_fails_the_receive_while_no_memory_is_free() -> None:
    async with dry(bytes(SIZE)) as connection:
        reset(connection.theirs)
        with pytest.raises(anyio.BrokenResourceError) as caught:
            await connection.protocol.receive()
        assert isinstance(caught.value.__cause__, ConnectionResetError)


async def test_an_error_of_the_direct_read_breaks_the_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(self: Direct, room: memoryview) -> int:
        raise ConnectionResetError("the peer is gone")

    async with dry(bytes(2 * SIZE)) as connection:
        monkeypatch.setattr(Direct, "read", fails)
        connection.held.pop().release()
        with pytest.raises(anyio.BrokenResourceError) as caught:
            await connection.protocol.receive()
        assert str(caught.value.__cause__) == "the peer is gone"
        assert len(connection.held) == connection.pools.statistics().nout


async def test_a_connection_that_is_lost_during_the_wait_for_memory_takes_none() -> None:
    async with dry(bytes(2 * SIZE)) as connection:
        receiving = asyncio.create_task(connection.protocol.receive())
        await turns(20)
        assert len(connection.pools.explain().waiters) == 1
        assert connection.protocol.transport is not None
        connection.protocol.transport.abort()
        await turns()
        connection.held.pop().release()
        with pytest.raises(anyio.BrokenResourceError):
            await receiving
        assert connection.pools.statistics().nout == len(connection.held)


async def test_a_close_ends_the_wait_for_memory_and_takes_none() -> None:
    async with dry(bytes(2 * SIZE)) as connection:
        receiving = asyncio.create_task(connection.protocol.receive())
        await turns(20)
        connection.protocol.close()
        connection.held.pop().release()
        with pytest.raises(anyio.ClosedResourceError):
            await receiving


@pytest.mark.parametrize("closed_first", [False, True])
async def test_a_cancellation_beside_a_close_is_not_taken_for_the_close(
    closed_first: bool,
) -> None:
    async with dry(bytes(2 * SIZE)) as connection:
        receiving = asyncio.create_task(connection.protocol.receive())
        await turns(20)
        if closed_first:
            connection.protocol.close()
        receiving.cancel()
        connection.protocol.close()
        with pytest.raises(asyncio.CancelledError):
            await receiving
        connection.held.pop().release()
        assert connection.pools.statistics().nout == len(connection.held)


async def test_a_close_during_the_wait_for_memory_leaves_no_cancellation_behind() -> None:
    async with dry(bytes(2 * SIZE)) as connection:

        async def receive() -> int:
            with pytest.raises(anyio.ClosedResourceError):
                await connection.protocol.receive()
            task = asyncio.current_task()
            assert task is not None
            await asyncio.sleep(0)
            return task.cancelling()

        receiving = asyncio.create_task(receive())
        await turns(20)
        connection.protocol.close()
        assert await receiving == 0


async def test_while_memory_is_plenty_one_read_of_the_transport_fills_all_buffers() -> None:
    asked = 0

    class Counting(PooledBufferedProtocol):
        def get_buffer(self, sizehint: int) -> memoryview | bytearray:
            nonlocal asked
            asked += 1
            return super().get_buffer(sizehint)

    data = random.Random(4).randbytes(3 * SIZE + 1)
    with connected() as (ours, theirs):
        async with checked(64 * SIZE, [PoolSpec(SIZE, items_per_page=1)]) as pools:
            protocol = Counting(pools, SIZE, read_ahead=3)
            own = ours.dup()
            own.setblocking(False)
            theirs.sendall(data)
            await asyncio.get_running_loop().create_connection(lambda: protocol, sock=own)
            await turns(20)
            assert (asked, pools.statistics().nout) == (1, 3)
            got = bytearray()
            while len(got) < len(data):
                buffer, nbytes = await protocol.receive()
                with buffer:
                    got += buffer.view[:nbytes]
            assert got == data
            await protocol.aclose()


async def test_each_direct_receive_is_a_checkpoint() -> None:
    async with dry(bytes(4 * SIZE), fast_acquire=True) as connection:
        connection.held.pop().release()
        turned = 0

        async def turn() -> None:
            nonlocal turned
            while True:
                turned += 1
                await asyncio.sleep(0)

        turning = asyncio.create_task(turn())
        for number in range(3):
            await connection.received()
            assert turned >= number
        turning.cancel()


async def test_a_transport_that_another_protocol_has_is_not_read_from() -> None:
    async with dry(bytes(2 * SIZE)) as connection:
        transport = connection.protocol.transport
        assert transport is not None
        connection.held.pop().release()
        transport.set_protocol(asyncio.Protocol())
        with anyio.move_on_after(0.05):
            await connection.received()
            pytest.fail("bytes of the other protocol were received")
        transport.set_protocol(connection.protocol)


class Socket:
    """What a transport tells as its socket."""

    def fileno(self) -> int:
        return 0


@pytest.mark.parametrize(
    ("extra", "why"),
    [
        ({}, "it has no socket"),
        ({"socket": Socket()}, "it is not asyncio's"),
        ({"socket": Socket(), "sslcontext": object()}, "it is secure"),
    ],
)
def test_only_plain_transports_of_asyncio_and_uvloop_are_read_from(
    extra: dict[str, Any], why: str
) -> None:
    class Transport(asyncio.Transport):
        def get_extra_info(self, name: str, default: Any = None) -> Any:
            return extra.get(name, default)

    assert direct(Transport()) is None, why
    Transport.__module__ = "asyncio.selector_events"
    assert (direct(Transport()) is not None) == (why == "it is not asyncio's")
