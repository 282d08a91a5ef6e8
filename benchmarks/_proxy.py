"""A proxy whose bytes are in buffers of the pools, beside a proxy of asyncio's streams.

Clients send as fast as they can, each through a connection of its own, to a server behind the
proxy; both are in another process, so the CPU time of this process is that of the proxy.

asyncio's transport reads up to 256 KiB for the streams at once, which they then return in pieces. A
transport that reads into a buffer reads at most what the buffer holds, and each buffer costs a turn
of the loop. So the size of the buffers decides what the proxy costs, and each row names it.
"""

from __future__ import annotations

import asyncio
import gc
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, closing
from typing import NamedTuple

import anyio

from mbufpools import BufferPools
from mbufpools.net import PooledBufferedProtocol

from ._forms import Form
from ._load import HOST, Load, load
from ._rows import Show, compare

__all__ = ["rows"]

LARGE = 65536
"""Bytes of a buffer, and the most that a read of the streams returns."""
SMALL = 4096
"""The same for short messages."""
PART = 4
"""So many times fewer bytes go through a proxy with small buffers, which takes longer for each."""
PAGE = 8 * LARGE
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
    async with load() as clients:
        await _large(backend, form, show, clients, nbytes)
        await _small(backend, form, show, clients, nbytes // PART)


async def _large(backend: str, form: Form, show: Show, clients: Load, nbytes: int) -> None:
    async with (
        _by_streams(clients, LARGE) as streams,
        _by_pools(clients, LARGE, PLENTY) as wet,
        _by_pools(clients, LARGE, max(PAGE, SCARCE * form.connections)) as dry,
    ):
        proxies = {"streams": streams, "wet": wet, "dry": dry}
        milliseconds = await _cpu(clients, proxies, form, nbytes)
        memory = {
            name: await _memory(clients, proxy, form.connections, nbytes)
            for name, proxy in proxies.items()
        }
    for name, pools, goal in (("wet", "not dry", 1.3), ("dry", "dry", 1.5)):
        show(
            compare(
                f"proxy, CPU, 64 KiB buffers, pools {pools}",
                backend,
                milliseconds[name],
                STREAMS,
                milliseconds["streams"],
                goal,
                unit="ms",
            )
        )
    show(
        compare(
            "proxy, memory, 64 KiB buffers, pools dry",
            backend,
            [memory["dry"]],
            STREAMS,
            [memory["streams"]],
            None,
            unit="MiB",
        )
    )


async def _small(backend: str, form: Form, show: Show, clients: Load, nbytes: int) -> None:
    async with (
        _by_streams(clients, SMALL) as streams,
        _by_pools(clients, SMALL, PLENTY) as pools,
        _by_pools(clients, SMALL, PLENTY, debug=True) as debug,
    ):
        proxies = {"streams": streams, "pools": pools, "debug": debug}
        milliseconds = await _cpu(clients, proxies, form, nbytes)
    name = "proxy, CPU, 4 KiB buffers"
    for what, ours, peer, theirs in (
        (name, "pools", f"{STREAMS}, 4 KiB reads", "streams"),
        (f"{name}, debug=True", "debug", "the same without debug", "pools"),
    ):
        show(compare(what, backend, milliseconds[ours], peer, milliseconds[theirs], unit="ms"))


async def _cpu(
    clients: Load, proxies: Mapping[str, Proxy], form: Form, nbytes: int
) -> dict[str, list[float]]:
    """Milliseconds of CPU time of each proxy in each round, in turn."""
    milliseconds: dict[str, list[float]] = {name: [] for name in proxies}
    for _ in range(form.proxy_rounds):
        for name, proxy in proxies.items():
            gc.collect()
            start = time.process_time()
            await clients.run(proxy.port, form.connections, nbytes)
            milliseconds[name].append((time.process_time() - start) * 1e3)
    return milliseconds


async def _memory(clients: Load, proxy: Proxy, connections: int, nbytes: int) -> float:
    """The most MiB that the proxy takes: Python's own memory, and the pages of the pools."""
    gc.collect()
    tracemalloc.start()
    await clients.run(proxy.port, connections, nbytes)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return (peak + proxy.peak()) / (1 << 20)


@asynccontextmanager
async def _by_streams(clients: Load, size: int) -> AsyncIterator[Proxy]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, upstream = await asyncio.open_connection(HOST, clients.port)
        while data := await reader.read(size):
            upstream.write(data)
            await upstream.drain()
        upstream.close()
        writer.close()

    with closing(await asyncio.start_server(serve, HOST, 0, backlog=1024)) as server:
        yield Proxy(server.sockets[0].getsockname()[1], lambda: 0)


@asynccontextmanager
async def _by_pools(
    clients: Load, size: int, limit: int, *, debug: bool = False
) -> AsyncIterator[Proxy]:
    loop = asyncio.get_running_loop()

    async def serve(client: PooledBufferedProtocol) -> None:
        upstream = PooledBufferedProtocol(pools, size)
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
        protocol = PooledBufferedProtocol(pools, size)
        tasks.create_task(serve(protocol))
        return protocol

    async with (
        BufferPools(limit, [size], debug=debug) as pools,
        asyncio.TaskGroup() as tasks,  # the streams have asyncio's tasks, too
    ):
        with closing(await loop.create_server(connected, HOST, 0, backlog=1024)) as server:
            yield Proxy(server.sockets[0].getsockname()[1], lambda: pools.budget.peak)
