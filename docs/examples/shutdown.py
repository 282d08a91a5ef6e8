"""A server that ends on Ctrl-C and SIGTERM, and gives its connections some seconds to end."""

import asyncio
import signal

import anyio
from transport import converse

from mbufpools import BufferPools
from mbufpools.net import PooledBufferedProtocol

GRACE = 5
"""Seconds that the open connections get."""


async def serve(pools, stop):
    async with anyio.create_task_group() as tasks:

        def connection():
            protocol = PooledBufferedProtocol(pools, 4096)
            tasks.start_soon(converse, protocol)
            return protocol

        loop = asyncio.get_running_loop()
        server = await loop.create_server(connection, "127.0.0.1", 0)
        print("serves at port", server.sockets[0].getsockname()[1], flush=True)
        try:
            await stop.wait()
        finally:
            server.close()  # accept no more
        tasks.cancel_scope.deadline = anyio.current_time() + GRACE  # then abort the connections


async def main():
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with BufferPools("64 KiB", [4096]) as pools:
        await serve(pools, stop)
        print("has ended;", pools.statistics().nout, "buffers are out")


if __name__ == "__main__":
    asyncio.run(main())
