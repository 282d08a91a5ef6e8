"""What a task can do instead of waiting for ever: give up at once, or after a time."""

import anyio

from mbufpools import BufferPools


async def at_once(pools):
    try:
        buffer = pools.get_nowait(1500)
    except anyio.WouldBlock:
        return "503 busy"
    with buffer:
        return "200 OK"


async def within(pools, seconds):
    with anyio.move_on_after(seconds):
        with await pools.get(1500):
            return "200 OK"
    return "503 busy"  # the get was cancelled, which has no effect on the pools


async def main():
    async with BufferPools("16 KiB", [2048]) as pools:
        print("free:", await at_once(pools), "-", await within(pools, 0.1))
        with await pools.get_many([1500] * 8):  # all that there is
            print("full:", await at_once(pools), "-", await within(pools, 0.1))
        print("free:", await at_once(pools), "-", await within(pools, 0.1))


if __name__ == "__main__":
    anyio.run(main)
