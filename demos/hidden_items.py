"""Hidden items: a process sleeps although its pool has free items

Eight 2k clusters come from one page, which is the whole budget. A ninth process sleeps.
Then the clusters are put back, one a second. In the kernel, a put that makes a full
page partial does not update the pool's current page (`stale`). So the pool asks for
another page, and is refused, until its own page is entirely empty. Two lines of code
cure it (`refreshed`). Do the wakeup policies cure it too?
"""

from __future__ import annotations

from dataclasses import dataclass

import anyio

from mbufpools import AccountedMemory, CurPage, MbufPools, PoolsStatistics, Wakeup, lab
from mbufpools.demokit import (
    Demo,
    Options,
    Processes,
    Report,
    Table,
    conjunction,
    plural,
    tell,
)


@dataclass
class Put:
    """The state after a put."""

    asleep: bool
    """True if the ninth process still sleeps."""
    free: int
    """Free items of the pool that the ninth process waits for."""
    drops: int
    """Page requests that the budget has refused."""


async def hidden_items(
    policy: Wakeup, curpage: CurPage, nmbclust: int
) -> tuple[list[Put], PoolsStatistics]:
    async with (
        MbufPools(nmbclust, wakeup=policy, curpage=curpage, memory=AccountedMemory()) as pools,
        Processes() as processes,
    ):
        mcl2k = pools.m_clpool(2048)
        pages = nmbclust // mcl2k.items_per_page
        holders = [await processes.get(mcl2k) for _ in range(pages * mcl2k.items_per_page)]
        ninth = await processes.get(mcl2k)
        puts = []
        for holder in holders[: mcl2k.items_per_page]:  # those of one page
            await anyio.sleep(0.5)
            holder.put()
            await anyio.sleep(0.5)
            now = mcl2k.statistics()
            free = now.npages * now.items_per_page - now.nout
            puts.append(Put(ninth.served_at is None, free, pools.budget.drops))
        end = pools.statistics()
    return puts, end


def report(options: Options) -> Report:
    wakers = Table(
        {
            "policy": "policy",
            "curpage": "curpage",
            "woken_by": "woken by\nput",
            "beside": "asleep beside\nfree items",
            "drops": "drops",
        }
    )
    history = Table(
        {
            "put": "put",
            "stale_free": "stale:\nfree items",
            "stale_asleep": "\nasleep",
            "stale_drops": "\ndrops",
            "refreshed_free": "refreshed:\nfree items",
            "refreshed_asleep": "\nasleep",
            "refreshed_drops": "\ndrops",
        },
        title=f"Put by put, under {options.policies[0]}:",
    )
    outcomes, runs, ends, checks = [], [], [], list[bool]()
    for policy in options.policies:
        told: list[str] = []
        for curpage in (CurPage.STALE, CurPage.REFRESHED):
            puts, end = lab.run(
                hidden_items, policy, curpage, options.nmbclust, backend=options.backend
            )
            runs.append(puts)
            ends.append(end)
            slept = [put for put in puts if put.asleep]
            woken_by = len(slept) + 1 if len(slept) < len(puts) else None
            beside = max((put.free for put in slept), default=0)
            wakers.add(
                policy=policy, curpage=curpage, woken_by=woken_by, beside=beside, drops=end.drops
            )
            waker = "no put" if woken_by is None else f"put {woken_by}"
            told.append(f"{waker} with curpage {curpage} (beside {plural(beside, 'free item')})")
            checks.append((woken_by, beside) == ((8, 7) if curpage is CurPage.STALE else (1, 0)))
        outcomes.append((str(policy), f"the process is woken by {conjunction(told)}"))
    for number, (stale, refreshed) in enumerate(zip(runs[0], runs[1], strict=True), 1):
        history.add(
            put=number,
            **{f"stale_{name}": value for name, value in vars(stale).items()},
            **{f"refreshed_{name}": value for name, value in vars(refreshed).items()},
        )
    verdict = f"{tell(outcomes)}."
    return Report({"wakers": wakers, "puts": history}, verdict, all(checks), ends[0])


DEMO = Demo("hidden-items", __doc__, report, nmbclust=(8, 4096))

if __name__ == "__main__":
    DEMO.run()
