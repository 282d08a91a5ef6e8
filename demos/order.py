"""Order: endless small traffic, and one claim that needs the whole budget

Tasks take small buffers and release them, without end. One task claims the whole budget.
Under `barging`, the kernel's order, a new request takes a free item at once, so some page
is always in use. Under `fifo` no request overtakes. Under `bounded` as many gets may pass
the claim as buffers are out when it comes. The price is a deadlock: a task that holds one
buffer and asks for another (`2 in turn`) waits behind a claim that needs the first.
`get_many` asks for `2 at once` and holds nothing while it waits, so there is no deadlock.
"""

from __future__ import annotations

import random
import textwrap
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product

import anyio

from mbufpools import (
    AccountedMemory,
    BufferPools,
    Event,
    EventKind,
    Order,
    PoolSpec,
    PoolsStatistics,
    Wakeup,
    lab,
)
from mbufpools.demokit import Demo, Options, Report, Table, tell

ITEM, LIMIT = 2048, 65536
TASKS, HALF = 8, 0.5
"""The tasks of the small traffic, and the seconds that it runs before and after the claim comes."""
TAKES = {"1": (1,), "2 in turn": (1, 1), "2 at once": (2,)}
"""How many buffers a task takes with each of its gets."""


@dataclass
class Seen:
    """What happened to the claim, and to the small gets (a `get_many` counts as one)."""

    out: int
    """Small buffers that were out when the claim came."""
    passed: int
    """Gets that were served while the claim waited."""
    releases: int | None
    """Releases while the claim waited, or None if it was never served."""
    during: int
    """Gets a second while the claim waited."""
    after: int | None
    """Gets a second after the claim was released, or None if it was never served."""
    deadlock: bool


async def run(
    policy: Wakeup, order: Order, takes: tuple[int, ...]
) -> tuple[Seen, str, PoolsStatistics]:
    gets, puts = list[float](), list[float]()
    asked, served, released = HALF, 2 * HALF, 0.0

    def observe(event: Event) -> None:
        nonlocal asked, served
        if event.kind is EventKind.PUT:
            puts.append(event.time)
        elif event.kind in (EventKind.GET, EventKind.GRANT) and event.nbytes < LIMIT:
            gets.append(event.time)
        elif event.kind is EventKind.WAIT and event.nbytes == LIMIT:
            asked = event.time
        elif event.kind is EventKind.GRANT:
            served = event.time

    sizes, memory = [PoolSpec(ITEM, name="small")], AccountedMemory()
    pools = BufferPools(
        LIMIT, sizes, wakeup=policy, order=order, debug=True, memory=memory, hook=observe
    )

    async def work(number: int) -> None:
        chance = random.Random(number)
        while True:
            await anyio.sleep(chance.uniform(0.0, 0.001))
            with ExitStack() as held:
                for count in takes:
                    get = pools.get(ITEM) if count == 1 else pools.get_many([ITEM] * count)
                    held.enter_context(await get)
                    await anyio.sleep(chance.uniform(0.001, 0.01))

    async def claim() -> None:
        nonlocal released
        with await pools.get_many([ITEM] * (LIMIT // ITEM)):
            await anyio.sleep(0.02)
        released = anyio.current_time()

    async with pools, anyio.create_task_group() as tasks:
        for number in range(TASKS):
            tasks.start_soon(work, number, name=f"task {number}")
        await anyio.sleep(HALF)
        out = pools.statistics().nout
        tasks.start_soon(claim, name="the claim")
        await anyio.sleep(HALF)
        end, why = pools.statistics(), pools.explain()
        later = sum(time >= released for time in gets)
        passed = sum(asked <= time <= served for time in gets)
        releases = sum(asked <= time <= served for time in puts) if released else None
        after = round(later / (2 * HALF - released)) if released else None
        seen = Seen(out, passed, releases, round(passed / (served - asked)), after, bool(why.stuck))
        tasks.cancel_scope.cancel()
    return seen, str(why).replace(__file__, "order.py"), end


def report(options: Options) -> Report:
    table = Table(
        {
            "policy": "policy",
            "order": "order",
            "takes": "a task\ntakes",
            "out": "out at\narrival",
            "passed": "passed\nit",
            "releases": "releases\nbefore it",
            "during": "gets/s:\nduring",
            "after": "\nafter",
            "deadlock": "dead-\nlock",
        }
    )
    said = Table({"line": "Part of what explain() says of the deadlock under fifo:"})
    told: dict[str, list[tuple[str, str]]] = {takes: [] for takes in TAKES}
    ends, checks = [], list[bool]()
    for policy in options.policies:
        for order, takes in product(Order, TAKES):
            seen, text, end = lab.run(run, policy, order, TAKES[takes], backend=options.backend)
            ends.append(end)
            table.add(policy=policy, order=order, takes=takes, **vars(seen))
            if seen.deadlock:
                happened = "it is in a deadlock"
            else:
                happened = "it starves" if seen.releases is None else "the claim is served"
            told[takes].append((str(order), happened))
            if order is Order.BARGING:
                checks += [seen.releases is None, not seen.deadlock]
            else:
                deadlock = takes == "2 in turn"
                checks += [
                    seen.deadlock == deadlock,
                    (seen.releases is None) == deadlock,
                    (seen.releases or 0) <= seen.out + seen.passed,
                    seen.passed <= (seen.out if order is Order.BOUNDED else 0),
                ]
            if order is Order.FIFO and seen.deadlock:
                for line in in_part(text.splitlines()):
                    said.add(line=line)
    alike: dict[str, list[str]] = {}
    for takes, each in told.items():
        alike.setdefault(tell(dict.fromkeys(each)), []).append(takes)
    verdict = "; ".join(f"taking {' or '.join(takes)}: {what}" for what, takes in alike.items())
    return Report({"policies": table, "explain": said}, f"{verdict}.", all(checks), ends[0])


def in_part(lines: list[str]) -> list[str]:
    """The first two waiters and the conclusion, broken into lines that fit a terminal."""
    second = [number for number, line in enumerate(lines) if line.startswith("#")][1]
    some = [*lines[:4], "    ...", *lines[second : second + 2], "    ...", lines[-1]]
    return [part for line in some for part in textwrap.wrap(line, 78, subsequent_indent=" " * 10)]


DEMO = Demo("order", __doc__, report, policies=[Wakeup.DEFERRED])

if __name__ == "__main__":
    DEMO.run()
