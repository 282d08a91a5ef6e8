"""The echo server on asyncio's transports: they read into buffers of the pools."""

import asyncio

import anyio

from mbufpools import BufferPools
from mbufpools.net import PooledBufferedProtocol


async def converse(protocol):
    async with protocol:
        try:
            while True:
                buffer, nbytes = await protocol.receive()
                async with asyncio.timeout(30):
                    await protocol.send(buffer, nbytes)  # takes the buffer, also if it raises
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass  # the peer has sent its end, or is gone; or this side has closed
        except TimeoutError:
            protocol.abort()  # the peer does not read, and would keep the buffers


async def serve(pools, *, task_status=anyio.TASK_STATUS_IGNORED):
    """Serve until it is cancelled, which also aborts every connection."""
    async with anyio.create_task_group() as tasks:

        def connection():
            protocol = PooledBufferedProtocol(pools, 4096)
            tasks.start_soon(converse, protocol)
            return protocol

        loop = asyncio.get_running_loop()
        server = await loop.create_server(connection, "127.0.0.1", 0)
        try:
            task_status.started(server.sockets[0].getsockname())
            await anyio.sleep_forever()
        finally:
            server.close()  # accept no more; the end of the group then ends the connections


async def main():
    async with BufferPools("64 KiB", [4096]) as pools, anyio.create_task_group() as tasks:
        address = await tasks.start(serve, pools)
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"hello")
        writer.write_eof()
        print(await reader.read())
        writer.close()
        await writer.wait_closed()
        tasks.cancel_scope.cancel()


if __name__ == "__main__":
    asyncio.run(main())
