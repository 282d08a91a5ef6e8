"""What the pools tell: counters, the time that requests waited, and events; in virtual time."""

from collections import Counter

import anyio

from mbufpools import BufferPools, PoolSpec, lab

events = Counter()


def hook(event):
    events[event.kind] += 1  # it may count and write; it must not call the pools


async def work(pools, seconds):
    with await pools.get(2000):
        await anyio.sleep(seconds)


async def main():
    async with BufferPools("64 KiB", [PoolSpec(2048, name="small")], hook=hook) as pools:
        async with anyio.create_task_group() as tasks:
            for number in range(100):
                tasks.start_soon(work, pools, 0.01 * (1 + number % 3))
        now = pools.statistics()
        print(f"allocated {now.allocated} of {now.limit} bytes, {now.peak} at most")
        small = now.pools["small"]
        print(f"small: {small.nget} gets, {small.nout} out, {small.waiting} waiting")
        print(f"waited: {now.waits.waits}, cancelled: {now.waits.cancellations}")
        for seconds, count in now.waits.histogram:
            print(f"  at most {seconds * 1000:.0f} ms: {count}")
    print(", ".join(f"{count} {kind}" for kind, count in sorted(events.items())))


if __name__ == "__main__":
    lab.run(main)  # as `anyio.run(main)`, but no time passes
