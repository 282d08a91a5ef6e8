"""A producer that is faster than its consumer, and a stream that holds 16 KiB at most."""

import anyio

from mbufpools import BufferPools, lab
from mbufpools.net import create_byte_stream


async def produce(send):
    async with send:
        for number in range(10):
            await send.send(bytes(6000))  # waits until the limit has room for it
            print(f"{anyio.current_time():.1f} s: sent item {number}")


async def main():
    async with BufferPools("16 KiB", [2048]) as pools, anyio.create_task_group() as tasks:
        send, receive = create_byte_stream[bytes](pools)
        tasks.start_soon(produce, send)
        async with receive:
            async for _ in receive:
                await anyio.sleep(0.1)  # the work with the item


if __name__ == "__main__":
    lab.run(main)  # as `anyio.run(main)`, but no time passes
