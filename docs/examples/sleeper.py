"""The stall in twenty lines: process 2 sleeps although nothing is in use any more."""

import anyio

from mbufpools import MbufPools, lab


async def second_process(pools):
    with await pools.mbpool.get():  # MGET(m, M_WAIT): sleeps, and is woken by a put of an mbuf
        print(f"  {anyio.current_time():g} s: process 2 has its mbuf")


async def program(wakeup):
    async with MbufPools(8, wakeup=wakeup) as pools, anyio.create_task_group() as tasks:
        cluster = await pools.m_clpool(2048).get()  # takes the page, which is all there is
        tasks.start_soon(second_process, pools)
        await anyio.sleep(0.1)
        cluster.release()  # a put into another pool
        await anyio.sleep(60)  # the gc lets the idle page go meanwhile
        print(f"  60 s: {pools.budget.allocated} of {pools.budget.limit} bytes are allocated")
        print(f"  {pools.explain()}")
        tasks.cancel_scope.cancel()


for wakeup in ("none", "deferred"):
    print(f"wakeup={wakeup!r}:")
    lab.run(program, wakeup)  # in virtual time: the minute takes no time
