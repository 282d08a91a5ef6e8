"""A proxy whose bytes are in buffers of the pools, beside a proxy of asyncio's streams.

Clients send as fast as they can, each through a connection of its own, to a server behind the
proxy; both are in another process, so the CPU time of this process is that of the proxy.
"""

from __future__ import annotations

import asyncio
import gc
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from typing import NamedTuple

import anyio

from mbufpools import BufferPools
from mbufpools.net import PooledBufferedProtocol

from ._forms import Form
from ._load import HOST, Load, load
from ._rows import Show, compare

__all__ = ["rows"]

BUFFER = 65536
"""Bytes of a buffer, and the most that a read of the streams returns."""
PAGE = 8 * BUFFER
"""Bytes of a page."""
PLENTY = 1 << 28
"""Bytes that the pools may take, which are more than the connections want."""
SCARCE = 16384
"""Bytes for each connection that the pools may take, which are fewer than a buffer."""
STREAMS = "asyncio's streams"


class Proxy(NamedTuple):
    """One way to build the proxy."""

    port: int
    peak: Callable[[], int]
    """The most bytes of the pools that were allocated."""


async def rows(backend: str, form: Form, show: Show) -> None:
    """Measure the CPU time and the memory of the proxy on asyncio and uvloop."""
    if backend == "trio":
        return
    nbytes = form.megabytes * (1 << 20) // form.connections
    async with (
        load() as clients,
        _by_streams(clients) as streams,
        _by_pools(clients, PLENTY) as wet,
        _by_pools(clients, max(PAGE, SCARCE * form.connections)) as dry,
    ):
        proxies = {"streams": streams, "wet": wet, "dry": dry}
        seconds: dict[str, list[float]] = {name: [] for name in proxies}
        for _ in range(form.proxy_rounds):
            for name, proxy in proxies.items():
                gc.collect()
                start = time.process_time()
                await clients.run(proxy.port, form.connections, nbytes)
                seconds[name].append((time.process_time() - start) * 1e3)
        memory = {
            name: await _memory(clients, proxy, form.connections, nbytes)
            for name, proxy in proxies.items()
        }
    for name, pools, goal in (("wet", "not dry", 1.3), ("dry", "dry", 1.5)):
        show(
            compare(
                f"proxy, CPU, pools {pools}",
                backend,
                seconds[name],
                STREAMS,
                seconds["streams"],
                goal,
                unit="ms",
            )
        )
    show(
        compare(
            "proxy, memory, pools dry",
            backend,
            [memory["dry"]],
            STREAMS,
            [memory["streams"]],
            None,
            unit="MiB",
        )
    )


async def _memory(clients: Load, proxy: Proxy, connections: int, nbytes: int) -> float:
    """The most MiB that the proxy takes: Python's own memory, and the pages of the pools."""
    gc.collect()
    tracemalloc.start()
    await clients.run(proxy.port, connections, nbytes)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return (peak + proxy.peak()) / (1 << 20)


@asynccontextmanager
async def _by_streams(clients: Load) -> AsyncIterator[Proxy]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, upstream = await asyncio.open_connection(HOST, clients.port)
        while data := await reader.read(BUFFER):
            upstream.write(data)
            await upstream.drain()
        upstream.close()
        writer.close()

    with closing(await asyncio.start_server(serve, HOST, 0, backlog=1024)) as server:
        yield Proxy(server.sockets[0].getsockname()[1], lambda: 0)


@asynccontextmanager
async def _by_pools(clients: Load, limit: int) -> AsyncIterator[Proxy]:
    loop = asyncio.get_running_loop()

    async def serve(client: PooledBufferedProtocol) -> None:
        upstream = PooledBufferedProtocol(pools, BUFFER)
        async with client:
            await loop.create_connection(lambda: upstream, HOST, clients.port)
            async with upstream:
                try:
                    while True:
                        buffer, nbytes = await client.receive()
                        await upstream.send(buffer, nbytes)
                except anyio.EndOfStream:
                    pass

    def connected() -> PooledBufferedProtocol:
        protocol = PooledBufferedProtocol(pools, BUFFER)
        tasks.start_soon(serve, protocol)
        return protocol

    async with BufferPools(limit, [BUFFER]) as pools, anyio.create_task_group() as tasks:
        with closing(await loop.create_server(connected, HOST, 0, backlog=1024)) as server:
            yield Proxy(server.sockets[0].getsockname()[1], lambda: pools.budget.peak)
