"""Helpers for the tests of sockets, protocols and streams: loops, connections, checked pools.

The sockets are real ones on 127.0.0.1, so these tests run in real time. Each ends within seconds.
"""

from __future__ import annotations

import importlib.util
import random
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mbufpools import Buffer, BufferPools, PoolSpec

NO_UVLOOP = pytest.mark.skipif(
    importlib.util.find_spec("uvloop") is None, reason="uvloop is not installed"
)
ASYNCIO_LOOPS = [
    pytest.param(("asyncio", {}), id="asyncio"),
    pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop", marks=NO_UVLOOP),
]
LOOPS = [*ASYNCIO_LOOPS, pytest.param(("trio", {}), id="trio")]

NARROW = {"SO_SNDBUF": 16384, "SO_RCVBUF": 16384}
"""Socket options that make the kernel take few bytes of a connection."""
LARGE = 1 << 18
"""More bytes than the kernel takes of a narrow connection that no task reads."""
SLICE = 65536
"""The most bytes that a transport or a stream gets at once, as docs/howto/sockets.md says."""


@asynccontextmanager
async def checked(
    limit: int | str = "1 MiB", sizes: Sequence[int | PoolSpec] | None = None, **options: Any
) -> AsyncIterator[BufferPools]:
    """Pools in debug mode. At the end nothing may be out, and the block has 10 seconds."""
    if sizes is None:
        sizes = [PoolSpec(4096), PoolSpec(16384, items_per_page=1)]
    options = {"debug": True, **options}
    with anyio.fail_after(10):
        async with BufferPools(limit, sizes, **options) as pools:
            yield pools
            pools.check()
            end = pools.statistics()
            assert (end.nout, end.reserved, end.waiting) == (0, 0, 0)


@contextmanager
def connected(**options: int) -> Iterator[tuple[socket.socket, socket.socket]]:
    """The two ends of a TCP connection; `options` are socket options such as ``SO_SNDBUF``."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for option, value in options.items():
            listener.setsockopt(socket.SOL_SOCKET, getattr(socket, option), value)
        ours = socket.socket()
        for option, value in options.items():
            ours.setsockopt(socket.SOL_SOCKET, getattr(socket, option), value)
        ours.connect(listener.getsockname())
        theirs, _ = listener.accept()
    with ours, theirs:
        for end in (ours, theirs):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            end.setblocking(False)
        yield ours, theirs


def reset(sock: socket.socket) -> None:
    """Close `sock` so that the other end sees a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


async def read(sock: socket.socket, nbytes: int) -> bytes:
    """Read `nbytes` bytes from a plain socket, or fewer if the stream ends."""
    data = bytearray()
    while len(data) < nbytes:
        await anyio.wait_readable(sock)
        more = sock.recv(nbytes - len(data))
        if not more:
            break
        data += more
    return bytes(data)


async def read_slowly(sock: socket.socket, take: Callable[[bytes], object]) -> None:
    """Read to the end in chunks of many sizes, with pauses; pass each chunk to `take`."""
    chance = random.Random(4)
    await anyio.sleep(0.02)
    while True:
        await anyio.wait_readable(sock)
        data = sock.recv(chance.choice([100, 5000, 70000]))
        if not data:
            break
        take(data)
        if chance.random() < 0.05:
            await anyio.sleep(0.002)


async def send(sock: socket.socket, data: bytes) -> None:
    """Send all of `data` through a plain socket."""
    view = memoryview(data)
    while view:
        await anyio.wait_writable(sock)
        view = view[sock.send(view) :]


async def turns(count: int = 5) -> None:
    """Let the loop run until ready sockets and tasks have had their turn."""
    for _ in range(count):
        await checkpoint()
    await anyio.sleep(0.002)


def fail_at_the_end_of_a_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the next end of a lease raise an error, after the item has gone home."""
    end = Buffer.end

    def fails_once(lease: Buffer) -> None:
        monkeypatch.setattr(Buffer, "end", end)
        end(lease)
        raise MemoryError("planted")

    monkeypatch.setattr(Buffer, "end", fails_once)
