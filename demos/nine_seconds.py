"""Nine seconds is the best case: idle pages leave slowly, one a second

All of the budget is pages of mbufs, and every mbuf is free: no byte is in use. A
process asks for a 64k cluster, whose page takes 512 KiB. The gc lets a page go once it
has been idle for more than 8 s, and only one page of each pool a second. The kernel
does not let idle pages go because a process waits for them; the rows with a `reclaim`
show what that would save. These pools have no per-CPU caches. A multiprocessor kernel
has them, and they keep pages from becoming idle, so there the wait can only be longer.
"""

from __future__ import annotations

from dataclasses import dataclass

import anyio

from mbufpools import AccountedMemory, Event, EventKind, MbufPools, PoolsStatistics, Wakeup, lab
from mbufpools.demokit import (
    Demo,
    Options,
    Processes,
    Report,
    Table,
    idle_pages,
    left_asleep,
    tell,
)


@dataclass
class Outcome:
    first_page_at: float
    """When the first page left, in seconds."""
    pages: int
    """Pages that left while the process slept."""
    gc_runs: int
    """Runs of the gc in which they left."""
    drops: int
    """Page requests that the budget has refused."""
    woke_at: float | None
    left_asleep: bool


async def nine_seconds(
    policy: Wakeup, reclaim: bool, nmbclust: int
) -> tuple[Outcome, list[float], PoolsStatistics]:
    """Run the scenario; return what happened, when each page left, and the end state."""
    page_outs: list[float] = []

    def observe(event: Event) -> None:
        if event.kind is EventKind.PAGE_OUT:
            page_outs.append(event.time)

    async with (
        MbufPools(nmbclust, wakeup=policy, memory=AccountedMemory(), hook=observe) as pools,
        Processes() as processes,
    ):
        pages = pools.budget.limit // pools.mbpool.page_size
        idle_pages(pools.mbpool, pages)
        process = await processes.get(pools.m_clpool(65536))
        reclaimed = pools.mbpool.reclaim() if reclaim else 0
        await anyio.sleep(60.5 + pages)
        woke_at, end = process.served_at, pools.statistics()
        left = [time for time in page_outs if woke_at is None or time <= woke_at]
    outcome = Outcome(
        first_page_at=left[0],
        pages=len(left),
        gc_runs=len(set(left[reclaimed:])),
        drops=end.drops,
        woke_at=woke_at,
        left_asleep=left_asleep(end),
    )
    return outcome, left, end


def report(options: Options) -> Report:
    table = Table(
        {
            "policy": "policy",
            "reclaim": "reclaim",
            "first_page_at": "first page\nleft at (s)",
            "pages": "pages\nfreed",
            "gc_runs": "in runs\nof the gc",
            "drops": "drops",
            "woke_at": "woke at\n(s)",
            "left_asleep": "left\nasleep",
        }
    )
    outcomes, trickles, ends, checks = [], [], [], list[bool]()
    for policy in options.policies:
        told: list[str] = []
        for reclaim in (False, True):
            outcome, left, end = lab.run(
                nine_seconds, policy, reclaim, options.nmbclust, backend=options.backend
            )
            ends.append(end)
            if not reclaim:
                trickles.append(left)
            table.add(policy=policy, reclaim=reclaim, **vars(outcome))
            if outcome.woke_at is None:
                told.append("is left asleep" if outcome.left_asleep else "sleeps on")
            else:
                told.append(f"wakes at {outcome.woke_at:g} s")
            if policy is Wakeup.NONE:
                checks.append(outcome.left_asleep)
            else:
                expected = (0.0, 0) if reclaim else (136.0, 128)
                checks.append((outcome.woke_at, outcome.gc_runs) == expected)
        outcomes.append((str(policy), f"the process {told[0]}, with a reclaim it {told[1]}"))
    return Report(
        {"policies": table, "trickle": trickle(trickles[-1])},
        f"{tell(outcomes)}.",
        all(checks),
        ends[0],
    )


def trickle(page_outs: list[float]) -> Table:
    """Make a table of when some of the pages left."""
    table = Table(
        {"page": "page", "at": "left at (s)", "nbytes": "bytes returned", "percent": "wanted (%)"},
        title="How the pages leave, without a reclaim:",
    )
    size, wanted = MbufPools().mbpool.page_size, MbufPools().m_clpool(65536).page_size
    last = len(page_outs)
    for page in (1, 2, last // 4, last // 2, last * 3 // 4, last - 1, last):
        returned = page * size
        table.add(
            page=page, at=page_outs[page - 1], nbytes=returned, percent=100 * returned // wanted
        )
    return table


DEMO = Demo("nine-seconds", __doc__, report, nmbclust=(256, 4096))

if __name__ == "__main__":
    DEMO.run()
