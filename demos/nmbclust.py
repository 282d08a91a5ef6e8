"""nmbclust: the limit is raised and lowered while processes sleep

Process 1 takes a 2k cluster, which uses the whole budget; process 2 sleeps for an mbuf.
At 1 s the limit is raised from 8 to 10 clusters. At 2 s it is lowered to 4, which is
less than what is in use. Process 3 sleeps for a 4k cluster. Processes 1 and 2 put. At
12 s three things happen together: the limit is raised to 16 clusters, and the two pages
leave. That is just the memory that process 3 needs. How often are the pools woken, and
is process 3 served?
"""

from __future__ import annotations

import errno
from dataclasses import dataclass

import anyio

from mbufpools import (
    AccountedMemory,
    LimitRangeError,
    MbufPools,
    PoolsStatistics,
    Task,
    Wakeup,
    lab,
)
from mbufpools.demokit import Demo, Options, Processes, Report, Table, plural, sleeps_for_ever, tell
from mbufpools.mbufs import LONG_MAX, MCLBYTES

AT_ONCE = (Wakeup.DIRECT, Wakeup.WANTED)
"""The policies under which each page that leaves wakes process 3, which wants one."""


@dataclass
class Outcome:
    raised_at: float | None
    """When process 2 was served, in seconds. The limit was raised at 1 s."""
    used_percent: int
    """How much of the limit was used after it was lowered, in percent."""
    freed: int
    """Pages that left at 12 s."""
    wakeups: int
    """How often the pools were woken then: each time process 3 is refused a page, or served."""
    refused: int
    """How often process 3 was refused a page then."""
    woke_at: float | None
    """When process 3 was served, in seconds."""


async def nmbclust(policy: Wakeup) -> tuple[Outcome, PoolsStatistics]:
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
    outcome = Outcome(
        raised_at=second.served_at,
        used_percent=used_percent,
        freed=sum(pool.npagefree for pool in end.pools.values()),
        wakeups=refused + (third.served_at is not None),
        refused=refused,
        woke_at=third.served_at,
    )
    return outcome, end


def report(options: Options) -> Report:
    table = Table(
        {
            "policy": "policy",
            "raised_at": "raised: process\n2 woke at (s)",
            "used_percent": "lowered:\nused (%)",
            "freed": "pages left\nat 12 s",
            "wakeups": "wakeups\nat 12 s",
            "refused": "failed\ntries",
            "woke_at": "process 3\nwoke at (s)",
        }
    )
    outcomes, ends, checks = [], [], list[bool]()
    for policy in options.policies:
        outcome, end = lab.run(nmbclust, policy, backend=options.backend)
        ends.append(end)
        table.add(policy=policy, **vars(outcome))
        wakeups = plural(outcome.wakeups, "wakeup")
        happened = f"a new limit and {outcome.freed} freed pages cause {wakeups}, "
        if outcome.woke_at is not None:
            happened += f"and process 3 wakes at {outcome.woke_at:g} s"
        else:
            happened += "and process 3 sleeps " + ("for ever" if sleeps_for_ever(end) else "on")
            happened += f", with {end.limit - end.allocated} bytes free"
        outcomes.append((str(policy), happened))
        checks += [
            outcome.raised_at == 1.0,
            outcome.used_percent == 250,
            outcome.freed == 2,
            outcome.wakeups == (outcome.freed + 1 if policy in AT_ONCE else 1),
            outcome.woke_at == (None if policy is Wakeup.NONE else 12.0),
        ]
    limits = try_limits()
    refused = [row["nmbclust"] for row in limits.rows if row["result"] == "ERANGE"]
    checks.append(refused == [-1, 0, LONG_MAX // MCLBYTES + 1])
    return Report(
        {"policies": table, "limits": limits},
        f"{tell(outcomes)}. nmbclust_update refuses {', '.join(map(str, refused))} with ERANGE.",
        all(checks),
        ends[0],
    )


def try_limits() -> Table:
    """Try to set limits around both ends of the range."""
    table = Table(
        {"nmbclust": "nmbclust", "result": "result"},
        title="What nmbclust_update accepts, and what it refuses:",
    )
    for limit in (-1, 0, 1, LONG_MAX // MCLBYTES, LONG_MAX // MCLBYTES + 1):
        pools = MbufPools()
        try:
            pools.nmbclust_update(limit)
        except LimitRangeError as error:
            table.add(nmbclust=limit, result=errno.errorcode[error.errno])
        else:
            table.add(nmbclust=limit, result="accepted")
    return table


DEMO = Demo("nmbclust", __doc__, report)

if __name__ == "__main__":
    DEMO.run()
