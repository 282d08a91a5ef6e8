"""nmbclust: the limit is raised and lowered while processes sleep

Process 1 takes a 2k cluster, which uses the whole budget; process 2 sleeps for an mbuf.
At 1 s the limit is raised from 8 to 10 clusters. At 2 s it is lowered to 4, which is
less than what is in use. Process 3 sleeps for a 4k cluster. Processes 1 and 2 put. At
12 s three things happen together: the limit is raised to 16 clusters, and the two pages
leave. That is just the memory that process 3 needs. How often are the pools woken?
"""

from __future__ import annotations

import anyio

from mbufpools import AccountedMemory, MbufPools, PoolsStatistics, Task, Wakeup, lab
from mbufpools.demokit import Demo, Options, Processes, Report, Table, left_asleep, plural, tell

AT_ONCE = (Wakeup.DIRECT, Wakeup.WANTED)
"""The policies under which each page that leaves wakes process 3, which wants one."""


async def nmbclust(policy: Wakeup) -> tuple[dict[str, int | float | None], PoolsStatistics]:
    """Run the scenario; return the cells of a row, and the end state."""
    async with (
        MbufPools(8, wakeup=policy, memory=AccountedMemory()) as pools,
        Processes() as processes,
    ):
        first = await processes.get(pools.m_clpool(2048))
        second = await processes.get(pools.mbpool)
        await anyio.sleep(1)
        pools.nmbclust_update(10)
        await anyio.sleep(1)
        pools.nmbclust_update(4)
        used_percent = pools.m_pool_used()
        third = await processes.get(pools.m_clpool(4096))
        await anyio.sleep(1)
        first.put()
        if second.buffer is not None:
            second.put()
        # It is due at the same moment as the gc, but was scheduled earlier, so it runs first.
        sysctl = Task(lambda: pools.nmbclust_update(16), name="sysctl")
        pools.taskq.add_later(sysctl, 9)
        await anyio.sleep(8.5)
        before = pools.statistics()
        await anyio.sleep(60)
        end = pools.statistics()
    refused = end.drops - before.drops
    return {
        "raised_at": second.served_at,
        "used_percent": used_percent,
        "freed": sum(pool.npagefree for pool in end.pools.values()),
        # each time, process 3 is refused a page or served
        "wakeups": refused + (third.served_at is not None),
        "refused": refused,
        "woke_at": third.served_at,
    }, end


def report(options: Options) -> Report:
    table = Table(
        {
            "policy": "policy",
            "raised_at": "raised: process\n2 woke at (s)",
            "used_percent": "lowered:\nused (%)",
            "freed": "pages freed\nat 12 s",
            "wakeups": "wakeups\nat 12 s",
            "refused": "failed\ntries",
            "woke_at": "process 3\nwoke at (s)",
        }
    )
    outcomes, ends, checks = [], [], list[bool]()
    for policy in options.policies:
        row, end = lab.run(nmbclust, policy, backend=options.backend)
        ends.append(end)
        table.add(policy=policy, **row)
        woke_at, free = row["woke_at"], end.limit - end.allocated
        happened = f"{plural(int(row['wakeups'] or 0), 'wakeup')}, process 3 "
        if woke_at is not None:
            happened += f"wakes at {woke_at:g} s"
        else:
            happened += f"{'is left asleep' if left_asleep(end) else 'sleeps'}, {free} bytes free"
        outcomes.append((str(policy), happened))
        checks += [
            row["raised_at"] == 1.0,
            row["used_percent"] == 250,
            row["freed"] == 2,
            row["wakeups"] == (3 if policy in AT_ONCE else 1),  # with that of the limit
            woke_at == (None if policy is Wakeup.NONE else 12.0),
        ]
    return Report({"policies": table}, f"{tell(outcomes)}.", all(checks), ends[0])


DEMO = Demo("nmbclust", __doc__, report)

if __name__ == "__main__":
    DEMO.run()
