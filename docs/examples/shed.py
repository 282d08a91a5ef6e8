"""The echo server, which tells a client that it is busy if there is no memory for one more."""

import socket
from contextlib import suppress

import anyio
from echo import ask, echo

from mbufpools import BufferPools, PoolSpec

PER_CONNECTION = 16384  # bytes of the kernel, as you have bounded or measured them
SIZES = [PoolSpec(4096, min_items=8)]  # memory that no reservation takes


async def connection(accepted, pools):
    with accepted:
        try:
            reservation = pools.reserve_nowait(PER_CONNECTION)
        except anyio.WouldBlock:
            with suppress(OSError):  # the client has gone
                accepted.send(b"busy\n")  # does not wait: nothing was sent before
            return
        with reservation:
            await echo(accepted, pools)


async def serve(listener, pools):
    async with anyio.create_task_group() as tasks:
        while True:
            await anyio.wait_readable(listener)
            accepted, _ = listener.accept()
            accepted.setblocking(False)
            tasks.start_soon(connection, accepted, pools)


async def stay(address, answers, everyone):
    async with await anyio.connect_tcp(*address) as stream:
        await stream.send(b"hello")
        answers.append(await stream.receive())
        if len(answers) == 20:
            everyone.set()
        await everyone.wait()  # a client that has its answer stays, so the next one is too many


async def main():
    answers, later = [], []
    with socket.create_server(("127.0.0.1", 0), backlog=20) as listener:
        listener.setblocking(False)
        address = listener.getsockname()
        async with BufferPools("128 KiB", SIZES) as pools, anyio.create_task_group() as tasks:
            tasks.start_soon(serve, listener, pools)
            everyone = anyio.Event()
            async with anyio.create_task_group() as clients:
                for _ in range(20):
                    clients.start_soon(stay, address, answers, everyone)
            while pools.statistics().reserved:
                await anyio.sleep(0.01)  # the server sees that they have left
            await ask(address, b"hello", later)
            tasks.cancel_scope.cancel()
    print(f"of 20 clients {answers.count(b'hello')} got their own words back")
    print(f"and {sum(b'busy' in answer for answer in answers)} were told that the server is busy")
    print(f"served when they had left: {later == [True]}")


if __name__ == "__main__":
    anyio.run(main)
