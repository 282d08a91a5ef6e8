"""The echo server on asyncio's transports, which also counts and bounds what the kernel keeps."""

import asyncio
import socket

import anyio
from transport import converse

from mbufpools import BufferPools, PoolSpec
from mbufpools.net import PooledBufferedProtocol

PER_CONNECTION = 65536  # bytes of the kernel, as you have bounded or measured them
SIZES = [PoolSpec(4096, min_items=8)]  # memory that no reservation takes


def listener():
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
    sock.bind(("127.0.0.1", 0))
    sock.listen(100)
    sock.setblocking(False)
    return sock


async def connection(sock, pools, *, task_status):
    async with pools.reserve(PER_CONNECTION):  # before the accept: it holds no buffer yet
        loop = asyncio.get_running_loop()
        accepted, _ = await loop.sock_accept(sock)
        protocol = PooledBufferedProtocol(pools, 4096)
        await loop.connect_accepted_socket(lambda: protocol, accepted)
        task_status.started()
        await converse(protocol)


async def serve(sock, pools):
    async with anyio.create_task_group() as tasks:
        while True:
            await tasks.start(connection, sock, pools)


async def ask(address, answers):
    async with await anyio.connect_tcp(*address) as stream:
        await stream.send(b"hello")
        answers.append(await stream.receive())


async def main():
    answers = []
    with listener() as sock:
        async with BufferPools("1 MiB", SIZES) as pools, anyio.create_task_group() as tasks:
            tasks.start_soon(serve, sock, pools)
            async with anyio.create_task_group() as clients:
                for _ in range(60):
                    clients.start_soon(ask, sock.getsockname(), answers)
            tasks.cancel_scope.cancel()
    print(f"{answers.count(b'hello')} of 60 clients got their own words back")


if __name__ == "__main__":
    asyncio.run(main())
