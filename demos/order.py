"""Order: endless small traffic, and one claim that needs the whole budget

Tasks take small buffers and release them, without end. Somebody asks for all that
the budget holds, at once. Where newcomers help themselves (`barging`, the kernel's
order) some page is always in use. `fifo` lets nobody overtake; `bounded` lets as many
gets pass the claim as buffers are out when it comes. The price is the knot: a task
that holds one buffer and asks for another (`2 in turn`), behind a claim that needs the
first. `get_many` unties it: it asks for `2 at once`, and holds nothing while it waits.
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
"""Of the small traffic, and the seconds that it goes on before and after the claim comes."""
TAKES = {"1": (1,), "2 in turn": (1, 1), "2 at once": (2,)}
"""Buffers that a task takes by each of its gets."""


@dataclass
class Seen:
    """What became of the claim, and of the gets (a `get_many` is one)."""

    out: int
    passed: int
    releases: int | None
    during: int
    after: int | None
    knot: bool


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
        end, knot, said = pools.statistics(), pools.explain().stuck, str(pools.explain())
        later = sum(time >= released for time in gets)
        passed = sum(asked <= time <= served for time in gets)
        releases = sum(asked <= time <= served for time in puts) if released else None
        after = round(later / (2 * HALF - released)) if released else None
        seen = Seen(out, passed, releases, round(passed / (served - asked)), after, knot)
        tasks.cancel_scope.cancel()
    return seen, said.replace(__file__, "order.py"), end


def report(options: Options) -> Report:
    table = Table(
        {
            "policy": "policy",
            "order": "order",
            "takes": "a task\ntakes",
            "out": "out as\nit came",
            "passed": "passed\nit",
            "releases": "releases\nuntil it",
            "during": "gets/s:\nduring",
            "after": "\nafter",
            "knot": "knot",
        }
    )
    said = Table({"line": "What explain() says of the knot under fifo, in part:"})
    told: dict[str, list[tuple[str, str]]] = {takes: [] for takes in TAKES}
    ends, ok = [], True
    for policy in options.policies:
        for order, takes in product(Order, TAKES):
            seen, text, end = lab.run(run, policy, order, TAKES[takes], backend=options.backend)
            ends.append(end)
            table.add(policy=policy, order=order, takes=takes, **vars(seen))
            if seen.knot:
                happened = f"it is in a knot, after {seen.passed} passed it"
            elif seen.releases is None:
                happened = f"it starves, as {seen.passed} pass it in {HALF} s"
            else:
                happened = f"it is served after {seen.releases} releases, {seen.passed} past it"
            told[takes].append((str(order), happened))
            if order is Order.BARGING:
                ok &= seen.releases is None and not seen.knot
            else:
                ok &= seen.passed <= (seen.out if order is Order.BOUNDED else 0)
                ok &= seen.knot is (takes == "2 in turn") is (seen.releases is None)
                ok &= (seen.releases or 0) <= seen.out + seen.passed
            if order is Order.FIFO and seen.knot:
                for line in in_part(text.splitlines()):
                    said.add(line=line)
    verdict = "; ".join(f"where a task takes {takes}, {tell(each)}" for takes, each in told.items())
    return Report({"policies": table, "explain": said}, f"the claim: {verdict}.", ok, ends[0])


def in_part(lines: list[str]) -> list[str]:
    second = [number for number, line in enumerate(lines) if line.startswith("#")][1]
    some = [*lines[:4], "    ...", *lines[second : second + 2], "    ...", lines[-1]]
    return [part for line in some for part in textwrap.wrap(line, 78, subsequent_indent=" " * 10)]


DEMO = Demo("order", __doc__, report, policies=[Wakeup.DEFERRED])

if __name__ == "__main__":
    raise SystemExit(DEMO.main())
