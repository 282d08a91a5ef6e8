"""A line of figures in the log every ten seconds; in virtual time."""

import logging
import sys

import anyio

from mbufpools import BufferPools, lab

log = logging.getLogger("buffers")


async def log_figures(pools, seconds=10):
    while True:
        await anyio.sleep(seconds)
        now = pools.statistics()
        gauges = {"allocated": now.allocated, "out": now.nout, "waiting": now.waits.waiting}
        counters = {"waits": now.waits.waits, "drops": now.drops, "dropped": now.dropped}
        log.info(" ".join(f"{name}={value}" for name, value in {**gauges, **counters}.items()))


async def work(pools):
    with await pools.get(2000):
        await anyio.sleep(4)


async def main():
    async with BufferPools("64 KiB", [2048]) as pools, anyio.create_task_group() as tasks:
        tasks.start_soon(log_figures, pools)
        async with anyio.create_task_group() as workers:
            for _ in range(200):
                workers.start_soon(work, pools)
        tasks.cancel_scope.cancel()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s", stream=sys.stdout)
    lab.run(main)  # as `anyio.run(main)`, but no time passes
