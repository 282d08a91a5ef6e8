"""Incident: peers stop reading, and afterwards one pool has no memory

The budget is 1 MiB, on 4 CPUs with per-CPU caches. From 1 s to 5 s peers do not read, so
2k clusters fill the budget; then they are put in any order, on any CPU. Receive rings
try to get clusters without waiting (2k2), senders wait for a cluster (2k), and every
2 s a process waits for a 9k cluster, whose pool is empty. What happens until 29 s under
the kernel as it is, with the patch, with the curpage line, if caches and depots are
drained while a process waits, and with both of these (drained + curpage)?
"""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine
from typing import Any

import anyio

from mbufpools import (
    AccountedMemory,
    Buffer,
    CurPage,
    Drain,
    Event,
    EventKind,
    MbufPools,
    Pool,
    PoolsStatistics,
    Wakeup,
    lab,
)
from mbufpools.demokit import Demo, Options, Report, Table, conjunction

NMBCLUST, CPUS = 512, 4
FULL, READ, END = 1.0, 5.0, 29.5
"""Seconds: when the peers stop reading, when they read again, and when the run ends."""
KERNELS = {
    "as it is": (CurPage.STALE, Drain.NEVER),
    "curpage line": (CurPage.REFRESHED, Drain.NEVER),
    "drained": (CurPage.STALE, Drain.CACHES),
    "drained + curpage": (CurPage.REFRESHED, Drain.CACHES),
}
Call = Callable[[random.Random], Coroutine[Any, Any, None]]
"""What a process does. Its chances are its own: tasks of one moment may run in any order."""
Row = dict[str, int | float | None]


async def incident(policy: Wakeup, curpage: CurPage, drain: Drain) -> tuple[Row, PoolsStatistics]:
    """Run the scenario; return the cells of a row, counted from `READ` on, and the end state."""
    waits, tried, refused, waited_9k, served_9k, page_outs = list[float](), 0, 0, 0, 0, 0

    def observe(event: Event) -> None:
        nonlocal page_outs
        page_outs += event.kind is EventKind.PAGE_OUT and event.time >= READ

    pools = MbufPools(
        NMBCLUST,
        wakeup=policy,
        curpage=curpage,
        caches=CPUS,
        drain=drain,
        memory=AccountedMemory(),
        hook=observe,
    )
    mcl2k, mcl2k2, mcl9k = (pools.m_clpool(nbytes) for nbytes in (2048, 2050, 9216))

    async def hold(chance: random.Random, buffer: Buffer, seconds: float) -> None:
        await anyio.sleep(chance.expovariate(1 / seconds))
        pools.pools[buffer.pool.name].put(buffer, cpu=chance.randrange(CPUS))

    async def receive(chance: random.Random) -> None:
        nonlocal tried, refused
        late = anyio.current_time() >= READ
        tried += late
        try:
            buffer = mcl2k2.get_nowait(cpu=chance.randrange(CPUS))
        except anyio.WouldBlock:
            refused += late
        else:
            await hold(chance, buffer, 0.005)

    async def send(chance: random.Random) -> None:
        asked = anyio.current_time()
        buffer = await mcl2k.get(cpu=chance.randrange(CPUS))
        if asked >= READ:
            waits.append(anyio.current_time() - asked)
        await hold(chance, buffer, 0.03)

    async def movein(chance: random.Random) -> None:
        nonlocal waited_9k, served_9k
        waited_9k += 1
        buffer = await mcl9k.get(cpu=chance.randrange(CPUS))
        served_9k += 1
        await hold(chance, buffer, 0.005)

    async def hog(chance: random.Random) -> None:
        held = list[Buffer]()
        while (buffer := try_get(mcl2k)) is not None:
            held.append(buffer)
        await anyio.sleep(READ - FULL)
        chance.shuffle(held)
        for buffer in held:
            mcl2k.put(buffer, cpu=chance.randrange(CPUS))
            await anyio.sleep(1 / len(held))

    async with pools, anyio.create_task_group() as tasks:

        async def every(seconds: float, start: float, call: Call) -> None:
            await anyio.sleep(start)
            number = 0
            while anyio.current_time() < END - 2:
                tasks.start_soon(call, random.Random(f"{start} {number}"))
                await anyio.sleep(seconds)
                number += 1

        tasks.start_soon(every, END, FULL + 0.0007, hog)
        # No two of them come at the same moment.
        tasks.start_soon(every, 0.05, 0.5003, receive)
        tasks.start_soon(every, 0.1, 0.5107, send)
        tasks.start_soon(every, 2.0, FULL + 1.5211, movein)
        await anyio.sleep(END)
        end = pools.statistics()
        row: Row = {
            "refused": round(100 * refused / tried, 1),
            "wait_ms": round(1000 * sum(waits) / len(waits)) if waits else None,
            "pages": page_outs,
            "served_9k": served_9k,
            "waited_9k": waited_9k,
        }
        tasks.cancel_scope.cancel()
    return row, end


def try_get(pool: Pool) -> Buffer | None:
    try:
        return pool.get_nowait()
    except anyio.WouldBlock:
        return None


def report(options: Options) -> Report:
    table = Table(
        {
            "policy": "policy",
            "kernel": "kernel",
            "refused": "tries re-\nfused (%)",
            "wait_ms": "mean wait\n(ms)",
            "pages": "pages\nfreed",
            "served_9k": "9k:\nserved",
            "waited_9k": "\nasked",
        }
    )
    ends, checks = [], list[bool]()
    told: dict[str, dict[Wakeup, str]] = {kernel: {} for kernel in KERNELS}
    for policy in options.policies:
        for kernel, rules in KERNELS.items():
            row, end = lab.run(incident, policy, *rules, backend=options.backend)
            ends.append(end)
            table.add(policy=policy, kernel=kernel, **row)
            served = row["waited_9k"] if Drain.CACHES in rules else 0
            checks.append(row["served_9k"] == served)
            share = f"{row['served_9k']} of {row['waited_9k']}"
            told[kernel][policy] = f"{share} ({row['refused']:g} %)"
    return Report({"kernels": table}, verdict(told), all(checks), ends[0])


def verdict(told: dict[str, dict[Wakeup, str]]) -> str:
    """Name the kernels together under which the same happened; a policy only if it matters."""
    alike: dict[str, list[str]] = {}
    for kernel, by_policy in told.items():
        for policy, happened in by_policy.items():
            name = kernel if len({*by_policy.values()}) == 1 else f"{kernel} ({policy})"
            names = alike.setdefault(happened, [])
            if name not in names:
                names.append(name)
    what = "; ".join(f"{conjunction(names)} {happened}" for happened, names in alike.items())
    return f"9k gets served, and tries refused, from {READ:g} s on: {what}."


DEMO = Demo("incident", __doc__, report, policies=[Wakeup.NONE, Wakeup.DEFERRED])

if __name__ == "__main__":
    DEMO.run()
