"""Steal: some other pool grabs the page before the sleeper is woken

The budget is one cluster page of 16 KiB, which is idle. A process sleeps for an mbuf. At
9 s the gc lets the page go. The patch wakes by a task; here another task stands before
it on the queue and takes 0 to 100 ms. From 9 s to 10 s another process tries to get a
2k cluster every millisecond, without waiting, and puts it 5 ms later. Does the sleeper
get the free memory, or does the newcomer, whose page then is idle only after 10 s?
"""

from __future__ import annotations

import anyio

from mbufpools import AccountedMemory, MbufPools, PoolsStatistics, Task, Wakeup, lab
from mbufpools.demokit import Demo, Options, Processes, Report, Table, idle_pages, tell

DELAYS = (0.0, 0.001, 0.01, 0.1)
"""Seconds that the other task takes."""
FREE, QUIET, END = 9.0, 10.0, 40.0
"""Seconds: when the page leaves, when the newcomers end, and when the run ends."""


async def steal(policy: Wakeup, delay: float) -> tuple[float | None, int, PoolsStatistics]:
    """Run the scenario. Returns when the sleeper was served, in seconds, how many tries of the
    newcomer were served, and the end state."""
    async with (
        MbufPools(8, wakeup=policy, memory=AccountedMemory()) as pools,
        Processes() as processes,
        anyio.create_task_group() as tasks,
    ):
        mcl2k = pools.m_clpool(2048)
        idle_pages(mcl2k, 1)
        sleeper = await processes.get(pools.mbpool)
        stolen = 0

        async def try_one() -> None:
            nonlocal stolen
            try:
                buffer = mcl2k.get_nowait()
            except anyio.WouldBlock:
                return
            stolen += 1
            with buffer:
                await anyio.sleep(0.005)

        await anyio.sleep(FREE - 0.5)
        # It is due at the moment of the gc and runs after it, but before the task of the patch.
        pools.taskq.add_later(Task(lambda: anyio.sleep(delay), name="other work"), 0.5)
        await anyio.sleep(FREE + 0.0005 - anyio.current_time())
        while anyio.current_time() < QUIET:
            tasks.start_soon(try_one)
            await anyio.sleep(0.001)
        await anyio.sleep(END - anyio.current_time())
        end = pools.statistics()
    return sleeper.served_at, stolen, end


def report(options: Options) -> Report:
    table = Table(
        {
            "policy": "policy",
            "delay_ms": "other work\n(ms)",
            "taken_by": "page\ntaken by",
            "woke_at": "sleeper\nwoke at (s)",
            "tries": "newcomer's\ntries served",
        }
    )
    outcomes, ends, checks = [], [], list[bool]()
    for policy in options.policies:
        at_once = {Wakeup.DIRECT, Wakeup.WANTED}
        lost: list[tuple[float, float | None]] = []
        for delay in DELAYS:
            woke_at, stolen, end = lab.run(steal, policy, delay, backend=options.backend)
            ends.append(end)
            taken_by = "newcomer" if stolen else "sleeper"
            table.add(
                policy=policy,
                delay_ms=round(1000 * delay),
                taken_by=taken_by,
                woke_at=woke_at,
                tries=stolen,
            )
            if stolen:
                lost.append((delay, woke_at))
            late = policy is Wakeup.NONE or (delay >= 0.001 and policy not in at_once)
            checks.append(taken_by == ("newcomer" if late else "sleeper"))
        happened = "to the sleeper"
        if lost:
            delay, woke_at = lost[0]
            happened = "to the newcomer" + (f" if {1000 * delay:g} ms late" if delay else "")
            happened += ", the sleeper "
            happened += "sleeps on" if woke_at is None else f"wakes at {woke_at:g} s"
        outcomes.append((str(policy), happened))
    return Report({"policies": table}, f"the page goes {tell(outcomes)}.", all(checks), ends[0])


DEMO = Demo("steal", __doc__, report)

if __name__ == "__main__":
    DEMO.run()
