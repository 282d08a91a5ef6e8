"""A queue of buffers between tasks: the limit of the pools bounds it; in virtual time."""

import math

import anyio

from mbufpools import BufferPools, PoolSpec, lab


async def produce(pools, send):
    async with send:
        for number in range(6):
            buffer = await pools.get(2048)  # waits while all of the memory is in use
            buffer.view[0] = number
            await send.send(buffer)
            print(f"{anyio.current_time():.0f} s: item {number} is in the queue")


async def work(receive):
    async for buffer in receive:
        with buffer:  # from here on the worker holds it
            await anyio.sleep(1)
            print(f"{anyio.current_time():.0f} s: item {buffer.view[0]} is done")


async def main():
    size = PoolSpec(2048, items_per_page=1)
    async with BufferPools("6 KiB", [size]) as pools, anyio.create_task_group() as tasks:
        send, receive = anyio.create_memory_object_stream(max_buffer_size=math.inf)
        tasks.start_soon(produce, pools, send)
        async with receive:
            await work(receive)


if __name__ == "__main__":
    lab.run(main)  # as `anyio.run(main)`, but no time passes
