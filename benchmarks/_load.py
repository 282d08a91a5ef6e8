"""The clients of a proxy, and the server behind it, in a process of their own.

A run is told by a line of standard input: the proxy's port, the connections, and the bytes of each.
All clients connect, and then send at once. The line ``done`` follows when the server has all bytes
of all connections.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["HOST", "Load", "load"]

HOST = "127.0.0.1"
CHUNK = bytes(65536)


class Load:
    """Steers the other process."""

    def __init__(self, process: anyio.abc.Process) -> None:
        self._process = process
        self.port = 0
        """The port of the server behind the proxy."""

    async def answer(self) -> str:
        """Return the next line that the process writes."""
        assert self._process.stdout is not None
        line = b""
        while not line.endswith(b"\n"):
            line += await self._process.stdout.receive()
        return line.decode().strip()

    async def run(self, port: int, connections: int, nbytes: int) -> None:
        """Send `nbytes` bytes through each of `connections` connections to the proxy at `port`."""
        assert self._process.stdin is not None
        await self._process.stdin.send(f"{port} {connections} {nbytes}\n".encode())
        answer = await self.answer()
        if answer != "done":
            raise RuntimeError(f"the process with the clients says {answer!r}")


@asynccontextmanager
async def load() -> AsyncIterator[Load]:
    """Start the process; it ends with the block."""
    command = [sys.executable, "-m", __name__]
    async with await anyio.open_process(command, stderr=None) as process:
        made = Load(process)
        made.port = int(await made.answer())
        yield made
        assert process.stdin is not None
        await process.stdin.aclose()
        await process.wait()


class _Server(asyncio.BufferedProtocol):
    """Receives the bytes of one connection and counts them."""

    _memory = memoryview(bytearray(1 << 18))
    received = 0
    ended = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The proxy has connected."""

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return the memory that all connections share."""
        return self._memory

    def buffer_updated(self, nbytes: int) -> None:
        """Count the bytes."""
        _Server.received += nbytes

    def connection_lost(self, exc: Exception | None) -> None:
        """The proxy has closed the connection."""
        _Server.ended += 1


async def _client(port: int, nbytes: int, connected: asyncio.Barrier) -> None:
    _, writer = await asyncio.open_connection(HOST, port)
    await connected.wait()
    for start in range(0, nbytes, len(CHUNK)):
        writer.write(CHUNK[: nbytes - start])
        await writer.drain()
    writer.write_eof()
    await writer.drain()
    await _until_closed(writer)


async def _until_closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    try:
        await writer.wait_closed()
    except OSError:  # the proxy has closed it first
        pass


async def main() -> None:
    """Do what standard input says, until it ends."""
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(
            await loop.create_server(_Server, HOST, 0, backlog=1024)
        )
        print(server.sockets[0].getsockname()[1], flush=True)
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            port, connections, nbytes = map(int, line.split())
            _Server.received = _Server.ended = 0
            connected = asyncio.Barrier(connections)
            await asyncio.gather(*(_client(port, nbytes, connected) for _ in range(connections)))
            while _Server.ended < connections:
                await asyncio.sleep(0.001)
            lost = connections * nbytes - _Server.received
            print(f"lost {lost} bytes" if lost else "done", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
