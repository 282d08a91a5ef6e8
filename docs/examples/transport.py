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
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            pass  # the peer has sent its end, or is gone
        except TimeoutError:
            protocol.abort()  # the peer does not read, and would keep the buffers


async def serve(pools, tasks):
    def connection():
        protocol = PooledBufferedProtocol(pools, 4096)
        tasks.create_task(converse(protocol))
        return protocol

    return await asyncio.get_running_loop().create_server(connection, "127.0.0.1", 0)


async def main():
    async with BufferPools("64 KiB", [4096]) as pools, asyncio.TaskGroup() as tasks:
        async with await serve(pools, tasks) as server:
            address = server.sockets[0].getsockname()
            reader, writer = await asyncio.open_connection(*address)
            writer.write(b"hello")
            writer.write_eof()
            print(await reader.read())
            writer.close()
            await writer.wait_closed()


if __name__ == "__main__":
    asyncio.run(main())
