"""Coalescing: many pages leave in one run of the gc, and the pools are woken once

Seven cluster pools, 2k to 16k, hold four idle pages each; together these are the whole
budget. Each run of the gc frees one page of each pool, so four runs free 28 pages. Two
processes sleep: one needs an mbuf, one a 64k cluster, which takes 512 KiB at once. The
patch wakes them by a task on the queue of the gc. The reviewer asked why not directly
in the page free. What does each cost, and does the task make a process wait longer?
"""

from __future__ import annotations

import anyio

from mbufpools import AccountedMemory, Event, EventKind, MbufPools, PoolsStatistics, Wakeup, lab
from mbufpools.demokit import Demo, Options, Processes, Report, Table, idle_pages, plural, tell
from mbufpools.mbufs import MCLBYTES

IDLE = MbufPools().mclpools[:-1]
"""The pools with idle pages: all cluster pools but the one of 64k."""
PAGES = 4
"""Idle pages of each of these pools."""
WAKEUPS = {
    Wakeup.NONE: {0},
    Wakeup.DEFERRED: {PAGES},  # once for each run of the gc
    Wakeup.DIRECT: {len(IDLE) * PAGES},  # once for each page
    Wakeup.WANTED: {len(IDLE)},  # once for each page, until no process sleeps for one
    Wakeup.NEAR_LIMIT: set(range(1, PAGES + 1)),  # less often, once the limit is far away
}
"""How often the wakeup should run under each policy."""


async def coalesce(policy: Wakeup) -> tuple[dict[str, int | float | None], PoolsStatistics]:
    """Run the scenario; return the cells of a row, and the end state."""
    page_outs: list[float] = []

    def observe(event: Event) -> None:
        if event.kind is EventKind.PAGE_OUT:
            page_outs.append(event.time)

    nmbclust = PAGES * sum(pool.page_size for pool in IDLE) // MCLBYTES
    async with (
        MbufPools(nmbclust, wakeup=policy, memory=AccountedMemory(), hook=observe) as pools,
        Processes() as processes,
    ):
        for pool in pools.mclpools[: len(IDLE)]:
            idle_pages(pool, PAGES)
        mbuf = await processes.get(pools.mbpool)
        cluster = await processes.get(pools.m_clpool(65536))
        drops = pools.budget.drops
        await anyio.sleep(60.5)
        end = pools.statistics()
        row = {
            "gc_runs": len(set(page_outs)),
            "pages": len(page_outs),
            "wakeups": end.wakeup_runs,
            "coalesced": end.taskq.coalesced,
            "refused": end.drops - drops,
            "mbuf_at": mbuf.served_at,
            "cluster_at": cluster.served_at,
        }
    return row, end


def report(options: Options) -> Report:
    table = Table(
        {
            "policy": "policy",
            "gc_runs": "gc\nruns",
            "pages": "pages\nfreed",
            "wakeups": "wakeup\nruns",
            "coalesced": "adds\ncoalesced",
            "refused": "failed\ntries",
            "mbuf_at": "mbuf\nat (s)",
            "cluster_at": "64k cluster\nat (s)",
        }
    )
    wakeups, outcomes, ends, checks = list[str](), [], [], list[bool]()
    for policy in options.policies:
        row, end = lab.run(coalesce, policy, backend=options.backend)
        ends.append(end)
        table.add(policy=policy, **row)
        wakeups.append(f"{row['wakeups']} ({policy})")
        times = sorted({f"{at:g} s" for at in (row["mbuf_at"], row["cluster_at"]) if at})
        happened = f"both wake at {' and '.join(times)}" if times else "both sleep on"
        outcomes.append((str(policy), happened))
        checks += [
            row["pages"] == len(IDLE) * PAGES,
            row["wakeups"] in WAKEUPS[policy],
            row["mbuf_at"] == row["cluster_at"] == (None if policy is Wakeup.NONE else 9.0),
        ]
    pages = plural(int(row["pages"] or 0), "page free")
    verdict = f"{pages} cause {', '.join(wakeups)} wakeups; {tell(outcomes)}."
    return Report({"policies": table}, verdict, all(checks), ends[0])


DEMO = Demo("coalesce", __doc__, report)

if __name__ == "__main__":
    DEMO.run()
