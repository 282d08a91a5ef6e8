"""Why does it wait? A task that holds one buffer and asks for another; in virtual time."""

import anyio

from mbufpools import BufferPools, PoolSpec, lab


async def copy(pools):
    with await pools.get(8192):
        await anyio.sleep(1)
        with await pools.get(8192):  # it should ask for both at once, with get_many
            await anyio.sleep(1)


async def main():
    size = PoolSpec(8192, name="large", items_per_page=1)
    async with BufferPools("16 KiB", [size], debug=True) as pools:
        async with anyio.create_task_group() as tasks:
            for number in range(2):  # 16 KiB are two buffers: each task holds one
                tasks.start_soon(copy, pools, name=f"copy {number}")
            await anyio.sleep(5)
            print(pools.explain())
            tasks.cancel_scope.cancel()


if __name__ == "__main__":
    lab.run(main)  # as `anyio.run(main)`, but no time passes
