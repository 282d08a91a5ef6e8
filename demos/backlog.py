"""Backlog: slow work on the task queue delays the wakeup

Eight processes hold all 4k clusters and sleep for an mbuf. Every 10 ms another process
comes and sleeps for a 4k cluster, so the sleepers hold what the others need. At 8.9 s
slow work is added to the queue of the gc (`systqmp`). At 9 s memory becomes free in one
of three ways: a put lets a page go, the gc should let one go, or nmbclust is raised.
The patch wakes by a task, which is queued behind the slow work. `direct` wakes in the
page free. `none`, the kernel before the patch, wakes only in nmbclust_update.
"""

from __future__ import annotations

from dataclasses import dataclass

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
from mbufpools.demokit import Demo, Options, Processes, Report, Table, tell

SLOW = (0.0, 1.0, 5.0)
"""Seconds that the slow work takes."""
WAYS = {
    "put": "when a put lets a page go",
    "gc": "when the gc should let a page go",
    "nmbclust": "when nmbclust is raised",
}
"""The ways in which memory becomes free."""
BEGIN, FREE, END = 8.9, 9.0, 20.0
"""Seconds: when the slow work is added, when memory becomes free, and when the run ends. The last
new process comes five seconds before the end."""


@dataclass
class Outcome:
    late: float | None
    """Seconds from the moment when memory became free to the first grant; None without a grant."""
    asleep: int
    """The highest number of processes that slept at one time."""


async def backlog(policy: Wakeup, way: str, slow: float) -> tuple[Outcome, PoolsStatistics]:
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

        async def slow_work() -> None:
            await anyio.sleep(slow)

        async def arrive() -> None:
            for number in range(mcl4k.items_per_page + round(100 * (END - 5 - BEGIN))):
                tasks.start_soon(work)
                await anyio.sleep(0 if number < mcl4k.items_per_page else 0.01)

        if way == "gc":
            for process in first:
                process.put()
        await anyio.sleep(BEGIN - 1.2)
        if way == "put":
            for process in first:
                process.put()  # their page is idle until the put of `last`
        await anyio.sleep(1.2)
        pools.taskq.add(Task(slow_work, name="slow work"))
        await anyio.sleep(0.005)
        tasks.start_soon(arrive)
        await anyio.sleep(FREE - anyio.current_time())
        if way == "put":
            last.put()
        elif way == "nmbclust":
            pools.nmbclust_update(pools.nmbclust + 2)
        await anyio.sleep(END - FREE)
        end = pools.statistics()
        outcome = Outcome(
            late=round(grants[0] - FREE, 3) if grants else None, asleep=end.waits.peak_waiting
        )
        tasks.cancel_scope.cancel()
    return outcome, end


def report(options: Options) -> Report:
    table = Table(
        {
            "policy": "policy",
            "slow": "slow\nwork (s)",
            "put_late": "late (s):\nput",
            "gc_late": "\ngc",
            "nmbclust_late": "\nnmbclust",
            "put_asleep": "most asleep:\nput",
            "gc_asleep": "\ngc",
            "nmbclust_asleep": "\nnmbclust",
        }
    )
    told: dict[str, list[tuple[str, str]]] = {way: [] for way in WAYS}
    ends, worst, checks = [], dict[tuple[Wakeup, str], Outcome](), list[bool]()
    for policy in options.policies:
        for slow in SLOW:
            for way in WAYS:
                outcome, end = lab.run(backlog, policy, way, slow, backend=options.backend)
                ends.append(end)
                worst[policy, way] = outcome
                checks.append(outcome.late == expected(policy, way, slow))
            table.add(
                policy=policy,
                slow=slow,
                **{f"{way}_late": worst[policy, way].late for way in WAYS},
                **{f"{way}_asleep": worst[policy, way].asleep for way in WAYS},
            )
        for way, outcomes in told.items():
            late, asleep = worst[policy, way].late, worst[policy, way].asleep
            if late is None:
                woke = "no process wakes"
            else:
                woke = f"the first wakes {late:g} s late" if late else "the first wakes at once"
            outcomes.append((str(policy), f"{woke}, and {asleep} sleep"))
    verdict = [f"{WAYS[way]}, {tell(outcomes)}" for way, outcomes in told.items()]
    prices = []
    for way, other in (("put", Wakeup.DIRECT), ("gc", Wakeup.DIRECT), ("nmbclust", Wakeup.NONE)):
        if {(other, way), (Wakeup.DEFERRED, way)} <= worst.keys():
            now, then = worst[Wakeup.DEFERRED, way], worst[other, way]
            late = (now.late or 0.0) - (then.late or 0.0)
            prices.append(
                f"{late:g} s and {now.asleep - then.asleep} sleepers more than {other} ({way})"
            )
    if prices:
        verdict.append(f"in this run deferred costs {', '.join(prices)}")
    said = f"behind {SLOW[-1]:g} s of slow work: {'; '.join(verdict)}."
    return Report({"policies": table}, said, all(checks), ends[0])


def expected(policy: Wakeup, way: str, slow: float) -> float | None:
    """How many seconds late the first sleeper should get memory; None if never."""
    if policy is Wakeup.NONE and way != "nmbclust":
        return None
    if way != "gc" and policy in (Wakeup.NONE, Wakeup.DIRECT, Wakeup.WANTED):
        return 0.0
    return round(
        max(0.0, BEGIN + slow - FREE), 3
    )  # queued behind the slow work, as the gc itself is


DEMO = Demo("backlog", __doc__, report, policies=[Wakeup.NONE, Wakeup.DEFERRED, Wakeup.DIRECT])

if __name__ == "__main__":
    DEMO.run()
