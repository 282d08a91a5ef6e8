"""Two hundred uploads, and never more than 64 KiB of buffers."""

import anyio

from mbufpools import BufferPools


async def upload(pools):
    with await pools.get(1500) as buffer:  # waits while every buffer is out
        buffer.view[:5] = b"hello"  # a writable memoryview of 1500 bytes
        await anyio.sleep(0.01)  # the work with it, such as a write to a disk


async def main():
    async with BufferPools("64 KiB", [2048]) as pools:
        async with anyio.create_task_group() as tasks:
            for _ in range(200):
                tasks.start_soon(upload, pools)
        statistics = pools.statistics()
    print(f"{statistics.peak} bytes at most, of {statistics.limit}")
    print(f"{statistics.waits.waits} of 200 uploads had to wait for a buffer")


if __name__ == "__main__":
    anyio.run(main)  # or backend="trio"
