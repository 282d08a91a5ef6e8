"""A TCP server that sends back what it reads, with all its connections within 64 KiB."""

import socket
from contextlib import suppress

import anyio

from mbufpools import BufferPools
from mbufpools.net import recv_into, send_all


async def echo(connection, pools):
    with connection, suppress(anyio.BrokenResourceError, TimeoutError):  # gone, or does not read
        while True:
            await anyio.wait_readable(connection)  # an idle connection holds no buffer
            with await pools.get(4096) as buffer:  # none is free: wait here, and read no more
                nbytes = await recv_into(connection, buffer)
                if not nbytes:
                    return
                with anyio.fail_after(30):  # a client that does not read would keep the buffer
                    await send_all(connection, [(buffer, nbytes)])


async def serve(listener, pools):
    async with anyio.create_task_group() as tasks:
        while True:
            await anyio.wait_readable(listener)
            connection, _ = listener.accept()
            connection.setblocking(False)
            tasks.start_soon(echo, connection, pools)


async def ask(address, question, answers):
    async with await anyio.connect_tcp(*address) as stream:
        await stream.send(question)
        answers.append(await stream.receive() == question)


async def main():
    answers = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        async with BufferPools("64 KiB", [4096]) as pools:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(serve, listener, pools)
                async with anyio.create_task_group() as clients:
                    for number in range(100):
                        question = b"question %d" % number
                        clients.start_soon(ask, listener.getsockname(), question, answers)
                tasks.cancel_scope.cancel()
            peak = pools.statistics().peak
    print(f"{sum(answers)} of 100 clients got their own words back")
    print(f"within the limit: {peak <= 64 * 1024}")


if __name__ == "__main__":
    anyio.run(main)
