"""Hold and wait: nfsm_reqhead has an mbuf, and sleeps for a cluster

The budget is 10 clusters: one page of 16 mbufs and one page of 8 clusters of 2k. Each
process takes an mbuf, is preempted for 1 ms, and waits for a cluster while it holds the
mbuf, as the kernel's nfsm_reqhead, sockargs and others do. With both it works for 10 ms.
With 17 processes, a second page of mbufs takes the memory that every cluster needs.
`BufferPools.get_many` takes both at once, and holds nothing while it waits.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product

import anyio

from mbufpools import (
    AccountedMemory,
    BufferPools,
    Explanation,
    MbufPools,
    PoolSpec,
    PoolsStatistics,
    Wakeup,
    lab,
)
from mbufpools.demokit import Demo, Options, Report, Table, conjunction
from mbufpools.mbufs import MCLBYTES, MSIZE

NMBCLUST = 10
ENOUGH = MbufPools().mbpool.items_per_page + 1
"""The number of processes whose mbufs need a second page."""
TAKES = ("nfsm_reqhead", "get_many")


@dataclass
class Outcome:
    through: int
    """Processes that got both items and put them."""
    in_order: bool | None
    """True if they got both in the order in which they came; None if no process did."""
    last_at: float | None
    """When the last of these processes put, in milliseconds."""
    mbufs: int
    """Mbufs that are held at the end."""
    short: int
    """Bytes that the budget lacks for the first process that waits."""
    deadlock: bool
    """True if every process that holds an item also waits."""


async def hold_and_wait(
    policy: Wakeup, takes: str, processes: int
) -> tuple[Outcome, Explanation, PoolsStatistics]:
    served: list[int] = []
    put_at: list[float] = []
    sizes = [PoolSpec(MSIZE, name="mbufpl"), PoolSpec(MCLBYTES, name="mcl2k")]
    memory = AccountedMemory()
    if takes == "nfsm_reqhead":
        pools: BufferPools = MbufPools(NMBCLUST, wakeup=policy, debug=True, memory=memory)
    else:
        pools = BufferPools(NMBCLUST * MCLBYTES, sizes, wakeup=policy, debug=True, memory=memory)

    async def process(number: int) -> None:
        await anyio.sleep(number / 1_000_000)  # the processes come one after the other
        with ExitStack() as held:
            if takes == "nfsm_reqhead":
                held.enter_context(await pools.get(MSIZE))
                await anyio.sleep(0.001)
                held.enter_context(await pools.get(MCLBYTES))
            else:
                await anyio.sleep(0.001)
                held.enter_context(await pools.get_many([MSIZE, MCLBYTES]))
            served.append(number)
            await anyio.sleep(0.01)
        put_at.append(anyio.current_time())

    async with pools, anyio.create_task_group() as tasks:
        for number in range(1, processes + 1):
            tasks.start_soon(process, number, name=f"process {number}")
        await anyio.sleep(600)
        end, why = pools.statistics(), pools.explain()
        tasks.cancel_scope.cancel()
    outcome = Outcome(
        through=len(put_at),
        in_order=served == list(range(1, len(served) + 1)) if served else None,
        last_at=round(1000 * put_at[-1], 1) if put_at else None,
        mbufs=end.pools["mbufpl"].nout,
        short=why.waiters[0].short if why.waiters else 0,
        deadlock=bool(why.stuck),
    )
    return outcome, why, end


def report(options: Options) -> Report:
    table = Table(
        {
            "policy": "policy",
            "takes": "takes",
            "processes": "pro-\ncesses",
            "through": "got\nthrough",
            "in_order": "in\norder",
            "last_at": "last\n(ms)",
            "mbufs": "mbufs\nheld",
            "short": "short of\n(bytes)",
            "deadlock": "dead-\nlock",
        }
    )
    who = Table(
        {"process": "process", "holds": "holds", "wants": "waits for", "seconds": "since (s)"},
        title=f"Three of the {ENOUGH} at the end, with nfsm_reqhead (the others are like them):",
    )
    told: dict[str, list[tuple[str, str]]] = {takes: [] for takes in TAKES}
    ends, checks = [], list[bool]()
    for takes, policy in product(TAKES, options.policies):
        first = policy is options.policies[0]
        for processes in (ENOUGH, ENOUGH - 1, 100) if first else (ENOUGH,):
            outcome, why, end = lab.run(
                hold_and_wait, policy, takes, processes, backend=options.backend
            )
            table.add(policy=policy, takes=takes, processes=processes, **vars(outcome))
            deadlock = takes == "nfsm_reqhead" and processes >= ENOUGH
            checks += [
                outcome.deadlock is deadlock,
                outcome.in_order is (None if deadlock else True),
                outcome.through == (0 if deadlock else processes),
            ]
            if processes != ENOUGH:
                continue
            ends.append(end)
            happened = f"{outcome.through} of {processes} processes get through"
            if outcome.deadlock:
                happened += f", for each of {outcome.mbufs} mbufs waits for a cluster"
            told[takes].append((str(policy), happened))
            if not who.rows:
                show_three(why, who)
    verdict = "; ".join(
        f"with {takes} {conjunction([*dict.fromkeys(happened for _, happened in each)])}"
        for takes, each in told.items()
    )
    return Report({"policies": table, "who": who}, verdict + ".", all(checks), ends[0])


def show_three(why: Explanation, who: Table) -> None:
    """Add the first two waiters and the last, each with what it holds itself."""
    for waiter in (*why.waiters[:2], *why.waiters[-1:]):
        own = [held for held in waiter.holders if held.task == waiter.task]
        who.add(
            process=waiter.task,
            holds=", ".join(f"{held.nbytes} bytes of {held.pool}" for held in own),
            wants=f"{waiter.nbytes} bytes of {waiter.wants}",
            seconds=round(waiter.seconds),
        )


DEMO = Demo("hold-and-wait", __doc__, report)

if __name__ == "__main__":
    DEMO.run()
