"""nmbclust: the limit is raised and lowered while processes sleep

Process 1 takes a 2k cluster, the whole budget; process 2 sleeps for an mbuf. At 1 s
the limit is raised from 8 to 10 clusters, at 2 s lowered to 4, below what is in use.
Process 3 sleeps for a 4k cluster. The first two put, and at 12 s three things fall
together: the limit is raised to 16 clusters, and the two pages leave, which is just
what process 3 needs. How often are the pools woken, and does process 3 hear of it?
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


@dataclass
class Outcome:
    raised_at: float | None
    """When process 2 was served, in seconds. The limit was raised at 1 s."""
    used_percent: int
    """Once the limit was lowered."""
    freed: int
    """Pages that left at 12 s."""
    wakeups: int
    """How often the pools were woken then: each time process 3 is refused a page, or served."""
    refused: int
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
        # Due at the same moment as the gc, and set up earlier: so it has its turn first.
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
            "refused": "tries\nin vain",
            "woke_at": "process 3\nwoke at (s)",
        }
    )
    outcomes, ends, ok = [], [], True
    for policy in options.policies:
        outcome, end = lab.run(nmbclust, policy, backend=options.backend)
        ends.append(end)
        table.add(policy=policy, **vars(outcome))
        happened = f"a limit and {outcome.freed} pages make {plural(outcome.wakeups, 'wakeup')}, "
        if outcome.woke_at is not None:
            happened += f"and process 3 wakes at {outcome.woke_at:g} s"
        else:
            happened += "and process 3 sleeps " + ("for ever" if sleeps_for_ever(end) else "on")
            happened += f" beside {end.limit - end.allocated} free bytes"
        outcomes.append((str(policy), happened))
        ok &= outcome.raised_at == 1.0 and outcome.used_percent == 250 and outcome.freed == 2
        ok &= outcome.wakeups == (outcome.freed + 1 if policy is Wakeup.DIRECT else 1)
        ok &= outcome.woke_at == (None if policy is Wakeup.NONE else 12.0)
    limits = try_limits()
    refused = [row["nmbclust"] for row in limits.rows if row["result"] == "ERANGE"]
    ok &= refused == [-1, 0, LONG_MAX // MCLBYTES + 1]
    return Report(
        {"policies": table, "limits": limits},
        f"{tell(outcomes)}. ERANGE refuses {', '.join(map(str, refused))}.",
        ok,
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
    raise SystemExit(DEMO.main())
