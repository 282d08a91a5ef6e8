"""The stall: a page returns to the budget, but the waiting pool is not told

The budget holds 8 clusters of 2k, which is one page of 16 KiB. Process 1 takes a
cluster, and with it the page. Process 2 asks for an mbuf and sleeps. Process 1 puts
its cluster back. The page is now idle, until the pools' gc lets it go. Then the whole
budget is free: is process 2 woken? `none` is the kernel without the patch, `deferred`
is the patch, `direct` and `near-limit` are from the mail thread about it, `wanted` is
what a comment of 2007 in the kernel describes. The drops are the pages that the
budget refused: process 2 asks for one, and once more before it sleeps.
"""

from __future__ import annotations

import anyio

from mbufpools import AccountedMemory, MbufPools, PoolsStatistics, Wakeup, lab
from mbufpools.demokit import Demo, Options, Processes, Report, Table, left_asleep, plural, tell
from mbufpools.mbufs import MCLBYTES

WANTED = MbufPools().mbpool.page_size
"""A margin for near-limit that looks large enough: the page that process 2 wants."""
PAGE = MbufPools().m_clpool(2048).page_size
ENOUGH = WANTED + PAGE
"""A margin that is large enough: that page and the page that leaves."""
SMALLEST = PAGE // MCLBYTES
"""The smallest limit with a page of clusters."""


async def stall(
    policy: Wakeup, margin: int | None, nmbclust: int
) -> tuple[float | None, PoolsStatistics]:
    """Run the scenario; return when process 2 was served, and the end state."""
    async with (
        MbufPools(
            nmbclust, wakeup=policy, near_limit_margin=margin, memory=AccountedMemory()
        ) as pools,
        Processes() as processes,
    ):
        mcl2k = pools.m_clpool(2048)
        first = []
        while pools.budget.available >= mcl2k.page_size:  # once, if nmbclust is 8
            first.append(await processes.get(mcl2k))
        second = await processes.get(pools.mbpool)
        for process in first:
            process.put()
        # The gc lets one page go a second, the first at 9 s. Wait until long after the last.
        await anyio.sleep(60.5 + mcl2k.statistics().npages)
        end = pools.statistics()
    return second.served_at, end


def report(options: Options) -> Report:
    table = Table(
        {
            "policy": "policy",
            "margin": "margin\n(bytes)",
            "woke_at": "woke at\n(s)",
            "free": "free\n(bytes)",
            "pages": "pages\nheld",
            "wakeup_runs": "wakeup\nruns",
            "drops": "drops",
            "left_asleep": "left\nasleep",
        }
    )
    outcomes, ends, checks, notes = [], [], list[bool](), []
    for policy in options.policies:
        for margin in (WANTED, ENOUGH) if policy is Wakeup.NEAR_LIMIT else (None,):
            woke_at, end = lab.run(stall, policy, margin, options.nmbclust, backend=options.backend)
            ends.append(end)
            free, asleep = end.limit - end.allocated, left_asleep(end)
            table.add(
                policy=policy,
                margin=margin,
                woke_at=woke_at,
                free=free,
                pages=sum(pool.npages for pool in end.pools.values()),
                wakeup_runs=end.wakeup_runs,
                drops=end.drops,
                left_asleep=asleep,
            )
            if asleep:
                happened = f"process 2 is left asleep, {free} of {end.limit} bytes free"
            elif woke_at:
                happened = f"process 2 wakes at {woke_at:g} s"
            else:
                happened = "process 2 did not have to sleep"
            outcomes.append((str(policy) if margin is None else f"{policy} {margin}", happened))
            if policy is Wakeup.NONE or margin == WANTED:
                checks.append(asleep and free == end.limit)
            else:
                checks.append(woke_at == 9.0)

    if any(row["left_asleep"] for row in table.rows):
        notes.append(
            "Left asleep: no item is out, so no put will come. No pool has a page, so no page will "
            "leave. Only the gc is left to run, and all it can do is let pages leave. It ends when "
            "another process gets and puts an mbuf, or when the limit is raised."
        )
    if Wakeup.NEAR_LIMIT in options.policies:
        notes.append(
            f"near-limit checks the limit after the page has left. With a margin of {WANTED} bytes "
            f"the limit then seems far away. The margin must cover the page that leaves and the "
            f"page that is wanted: {ENOUGH} bytes."
        )
    if not all(checks):
        notes.append(
            f"Process 2 sleeps only if less than a page of mbufs ({WANTED} bytes) is left beside "
            f"whole pages of clusters: if --nmbclust is a multiple of {SMALLEST}, or one more."
        )
    return Report({"policies": table}, tell(outcomes) + ".", all(checks), ends[0], notes)


def text(options: Options) -> str:
    """Return the docstring's text, with the limit of the run."""
    told = " ".join((__doc__ or "").partition("\n\n")[2].split())
    if options.nmbclust == SMALLEST:
        return told
    pages, rest = divmod(options.nmbclust * MCLBYTES, PAGE)
    holds = f"{options.nmbclust} clusters of 2k, which are {plural(pages, 'page')} of 16 KiB"
    for one, several in (
        (
            "8 clusters of 2k, which is one page of 16 KiB",
            f"{holds} and {rest} bytes" if rest else holds,
        ),
        (
            "Process 1 takes a cluster, and with it the page",
            "Other processes take clusters, until no page is left for more",
        ),
        (
            "Process 1 puts its cluster back. The page is",
            "The others put theirs back. The pages are",
        ),
        ("gc lets it go", "gc lets them go"),
    ):
        told = told.replace(one, several)
    return told


DEMO = Demo("stall", __doc__, report, text=text, nmbclust=(SMALLEST, 4096))

if __name__ == "__main__":
    DEMO.run()
