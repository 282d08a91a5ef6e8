"""Hidden items: a pool sleeps beside free items of its own

Eight 2k clusters come out of one page, which is the whole budget; a ninth process
sleeps. Then the clusters are put back, one a second. In the kernel a put that makes
a full page partial does not tell the pool where its next item now is (`stale`), so
the pool asks for another page, and is refused, until its page is entirely empty. One
line cures it (`refreshed`). Do the wakeups?
"""

from __future__ import annotations

from dataclasses import dataclass

import anyio

from mbufpools import AccountedMemory, CurPage, MbufPools, PoolsStatistics, Wakeup, lab
from mbufpools.demokit import Demo, Options, Processes, Report, Table, tell


@dataclass
class Put:
    """How things stand after a put."""

    asleep: bool
    """Whether the ninth process still sleeps."""
    free: int
    """Free items of its own pool."""
    drops: int


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
    outcomes: dict[CurPage, list[tuple[str, str]]] = {CurPage.STALE: [], CurPage.REFRESHED: []}
    runs, ends, ok = [], [], True
    for policy in options.policies:
        for curpage, told in outcomes.items():
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
            told.append((str(policy), f"put {woken_by} wakes it, beside {beside} free items"))
            ok &= (woken_by, beside) == ((8, 7) if curpage is CurPage.STALE else (1, 0))
    for number, (stale, refreshed) in enumerate(zip(runs[0], runs[1], strict=True), 1):
        history.add(
            put=number,
            **{f"stale_{name}": value for name, value in vars(stale).items()},
            **{f"refreshed_{name}": value for name, value in vars(refreshed).items()},
        )
    verdict = "; ".join(f"curpage {curpage}: {tell(told)}" for curpage, told in outcomes.items())
    return Report({"wakers": wakers, "puts": history}, verdict + ".", ok, ends[0])


DEMO = Demo("hidden-items", __doc__, report, nmbclust=(8, 4096))

if __name__ == "__main__":
    raise SystemExit(DEMO.main())
