"""Backlog: slow work on the task queue delays the wakeup

Eight processes hold all 4k clusters and sleep for an mbuf, as a long write does in the
kernel's m_getuio. Every 10 ms another one comes and sleeps for a 4k cluster, so the
sleepers hold what the others need. At 8.9 s slow work is added to the queue of the gc
(`systqmp`). At 9 s memory becomes free: a put lets a page go, the gc should let one go,
or nmbclust is raised. The patch wakes by a task, which is queued behind the slow work.
`direct` wakes in the page free, `none` (before the patch) only in nmbclust_update.
"""

from __future__ import annotations

import anyio

from mbufpools import (
    AccountedMemory,
    Event,
    EventKind,
    MbufPools,
    PoolsStatistics,
    Task,
    Wakeup,
    lab,
)
from mbufpools.demokit import Demo, Options, Processes, Report, Table

SLOW = (0.0, 1.0, 5.0)
"""Seconds that the slow work takes."""
WAYS = ("put", "gc", "nmbclust")
"""The ways in which memory becomes free."""
BEGIN, FREE, END = 8.9, 9.0, 20.0
"""Seconds: when the slow work is added, when memory becomes free, and when the run ends. The last
new process comes five seconds before the end."""


async def backlog(
    policy: Wakeup, way: str, slow: float
) -> tuple[float | None, int, PoolsStatistics]:
    """Run the scenario. Returns the seconds from the free memory to the first grant (None without
    one), the most processes that slept at one time, and the end state."""
    grants: list[float] = []

    def observe(event: Event) -> None:
        if event.kind is EventKind.GRANT:
            grants.append(event.time)

    # Two pages of 2k clusters, one of 4k clusters: 16 KiB each, and 32 KiB.
    async with (
        MbufPools(32, wakeup=policy, memory=AccountedMemory(), hook=observe) as pools,
        Processes() as processes,
        anyio.create_task_group() as tasks,
    ):
        mcl2k, mcl4k = pools.m_clpool(2048), pools.m_clpool(4096)
        mcl2k.set_high_water(0)
        first = [await processes.get(mcl2k) for _ in range(mcl2k.items_per_page)]
        last = await processes.get(mcl2k)

        async def work() -> None:
            with await mcl4k.get(), await pools.mbpool.get():
                await anyio.sleep(0.01)

        async def arrive() -> None:
            for number in range(mcl4k.items_per_page + round(100 * (END - 5 - BEGIN))):
                tasks.start_soon(work)
                await anyio.sleep(0 if number < mcl4k.items_per_page else 0.01)

        await anyio.sleep(0 if way == "gc" else BEGIN - 1.2)
        if way != "nmbclust":
            for process in first:
                process.put()  # their page is idle until the gc or the put of `last`
        await anyio.sleep(BEGIN - anyio.current_time())
        pools.taskq.add(Task(lambda: anyio.sleep(slow), name="slow work"))
        await anyio.sleep(0.005)
        tasks.start_soon(arrive)
        await anyio.sleep(FREE - anyio.current_time())
        if way == "put":
            last.put()
        elif way == "nmbclust":
            pools.nmbclust_update(pools.nmbclust + 2)
        await anyio.sleep(END - FREE)
        end = pools.statistics()
        late = round(grants[0] - FREE, 3) if grants else None
        tasks.cancel_scope.cancel()
    return late, end.waits.peak_waiting, end


def report(options: Options) -> Report:
    table = Table(
        {
            "policy": "policy",
            "slow": "slow\nwork (s)",
            **{f"{way}_late": "late (s):\n" * (way == "put") + way for way in WAYS},
            **{f"{way}_asleep": "most asleep:\n" * (way == "put") + way for way in WAYS},
        }
    )
    told, ends, checks = list[str](), [], list[bool]()
    for policy in options.policies:
        for slow in SLOW:
            late, asleep = dict[str, float | None](), dict[str, int]()
            for way in WAYS:
                late[way], asleep[way], end = lab.run(
                    backlog, policy, way, slow, backend=options.backend
                )
                ends.append(end)
                checks.append(late[way] == expected(policy, way, slow))
            table.add(
                policy=policy,
                slow=slow,
                **{f"{way}_late": late[way] for way in WAYS},
                **{f"{way}_asleep": asleep[way] for way in WAYS},
            )
        cells = ["never" if late[way] is None else f"{late[way]:g}" for way in WAYS]
        told.append(f"{policy} {'/'.join(cells)}")
    verdict = f"behind {SLOW[-1]:g} s of slow work the first sleeper is late, in seconds, by "
    verdict += f"{'/'.join(WAYS)}: {', '.join(told)}."
    return Report({"policies": table}, verdict, all(checks), ends[0])


def expected(policy: Wakeup, way: str, slow: float) -> float | None:
    """How many seconds late the first sleeper should get memory; None if never."""
    if policy is Wakeup.NONE and way != "nmbclust":
        return None
    if way != "gc" and policy in (Wakeup.NONE, Wakeup.DIRECT, Wakeup.WANTED):
        return 0.0
    return round(max(0.0, BEGIN + slow - FREE), 3)  # queued behind the slow work, as the gc is


DEMO = Demo("backlog", __doc__, report, policies=[Wakeup.NONE, Wakeup.DEFERRED, Wakeup.DIRECT])

if __name__ == "__main__":
    DEMO.run()
