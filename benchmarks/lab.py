"""How many executions to a failure, and to a proof? Our lab and detangle, on the same programs.

Two or more pools share a budget of one page. Each of several tasks takes an item of its own pool,
passes a checkpoint and puts the item back. There are three variants:

- *stall*: a task that puts a page back wakes only the waiters of its own pool;
- *race*: a task that finds no page passes a checkpoint before it enqueues, and may miss the wakeup;
- *correct*: neither of these bugs.

The programs are written for asyncio alone, and for anyio, which runs on asyncio and on trio. The
counts are the same on every machine; the rates are not::

    python benchmarks/lab.py            # both tables
    python benchmarks/lab.py --counts   # executions to the failure, and to the proof
    python benchmarks/lab.py --rates    # executions a second

detangle (0.1, asyncio only) runs in the same process, in turn, if it is installed: `pip install
detangle`. `--only lab` leaves it out.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import anyio
from anyio.lowlevel import checkpoint

from mbufpools import lab
from mbufpools.lab import BackendName, StrategyName

try:
    import detangle
    from detangle.strategies import DFS
except ImportError:
    detangle = None

Program = Callable[[], Awaitable[None]]
Event = tuple[Callable[[], None], Callable[[], Awaitable[None]]]
"""A function that sets an event, and a function that waits for it."""

PLACES: tuple[tuple[str, BackendName], ...] = (
    ("asyncio", "asyncio"),
    ("anyio", "asyncio"),
    ("anyio", "trio"),
)
"""The library of the program, and the backend."""
LIMIT = 20_000
"""Executions after which a proof counts as unfinished."""
ROUNDS = 5


# --- the programs


class Pools:
    """Pools with a budget of one page. All state that they share is declared."""

    def __init__(self, kind: str, event: Callable[[], Event], pause: Callable[[], Any]) -> None:
        self.kind = kind
        self.event = event
        self.pause = pause
        self.free = lab.Shared(1)
        self.waiting: lab.Shared[tuple[tuple[int, Callable[[], None]], ...]] = lab.Shared(())

    async def get(self, pool: int) -> None:
        """Take the page, or wait until it is handed over."""
        if self.free.value:
            self.free.value = 0
            return
        if self.kind == "race":
            await self.pause()
        wake, wait = self.event()
        self.waiting.update(lambda waiting: (*waiting, (pool, wake)))
        await wait()

    def put(self, pool: int) -> None:
        """Hand the page to the first waiter, or return it to the budget."""
        waiting = self.waiting.value
        if self.kind == "stall":
            waiting = tuple(each for each in waiting if each[0] == pool)
        if waiting:
            first = waiting[0]
            self.waiting.update(lambda all_: tuple(each for each in all_ if each is not first))
            first[1]()
        else:
            self.free.value = 1


def asyncio_event() -> Event:
    future = asyncio.get_running_loop().create_future()

    async def wait() -> None:
        await future

    return lambda: future.set_result(None), wait


def anyio_event() -> Event:
    event = anyio.Event()
    return event.set, event.wait


def make(kind: str, users: int, library: str) -> Program:
    """The program of one variant, with `users` tasks."""

    async def on_asyncio() -> None:
        pools = Pools(kind, asyncio_event, lambda: asyncio.sleep(0))
        await asyncio.gather(*(asyncio.create_task(use(pools, n)) for n in range(users)))

    async def on_anyio() -> None:
        pools = Pools(kind, anyio_event, checkpoint)
        async with anyio.create_task_group() as tasks:
            for number in range(users):
                tasks.start_soon(use, pools, number)

    async def use(pools: Pools, number: int) -> None:
        await pools.get(number)
        await pools.pause()
        pools.put(number)

    return on_asyncio if library == "asyncio" else on_anyio


# --- the tools


@dataclass(frozen=True, slots=True)
class Found:
    """The result of a tool for one program."""

    executions: int
    failed: bool
    complete: bool
    seconds: float


Explore = Callable[[Program, BackendName, int], Found]


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool with one of its strategies."""

    name: str
    strategy: str
    backends: tuple[BackendName, ...]
    explore: Explore
    whole: bool = True
    """True if a proof covers all schedules, not only those within a bound."""


def by_lab(strategy: StrategyName, max_preemptions: int | None) -> Explore:
    def explore(program: Program, backend: BackendName, limit: int) -> Found:
        found = lab.explore(
            program,
            backend=backend,
            strategy=strategy,
            max_preemptions=max_preemptions,
            max_executions=limit,
        )
        stalled = any(failure.kind == "stall" for failure in found.failures)
        if found.failures and not stalled:
            raise RuntimeError(f"not the failure that is there:\n{found.failures[0]}")
        return Found(found.executions, stalled, found.complete, found.seconds)

    return explore


def by_detangle(program: Program, backend: BackendName, limit: int) -> Found:
    """Explore by detangle's depth-first search, without a bound on the delays."""
    begin = time.perf_counter()
    strategy = DFS(max_delays=10**9, max_branch=10**9)
    try:
        stats = detangle.explore(program, strategy=strategy, runs=limit, database=False)
    except detangle.BugFound as bug:
        if bug.report.failure.kind != "deadlock":
            raise
        return Found(bug.report.runs, True, False, time.perf_counter() - begin)
    return Found(stats.runs, False, stats.exhausted, time.perf_counter() - begin)


LAB: tuple[BackendName, ...] = ("asyncio", "trio")
OURS = (
    Tool("lab", "dpor", LAB, by_lab("dpor", None)),
    Tool("lab", "exhaustive, 2 preemptions", LAB, by_lab("exhaustive", 2), whole=False),
    Tool("lab", "exhaustive", LAB, by_lab("exhaustive", None)),
)
PEER = Tool("detangle", "depth first", ("asyncio",), by_detangle)


# --- the tables


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Align the first three columns to the left, and the numbers to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if number < 3 else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def place(library: str, backend: str) -> str:
    return library if library == backend else f"{library} on {backend}"


def rows_of(tools: Sequence[Tool]) -> list[tuple[Tool, str, BackendName]]:
    return [
        (tool, library, backend)
        for library, backend in PLACES
        for tool in tools
        if backend in tool.backends
    ]


Counts = dict[tuple[Tool, str, BackendName], list[Found]]
"""For each line of the table: the results for stall, race, and correct by number of tasks."""


def count(tools: Sequence[Tool], users: Sequence[int], limit: int) -> Counts:
    """Explore each program with each tool."""
    programs = [("stall", 2), ("race", 2), *(("correct", number) for number in users)]
    counts: Counts = {}
    for tool, library, backend in rows_of(tools):
        found = [
            tool.explore(make(kind, number, library), backend, limit) for kind, number in programs
        ]
        if any(each.failed for each in found[2:]):
            raise RuntimeError(f"a false alarm: {tool.name}, {tool.strategy}, {library}")
        counts[tool, library, backend] = found
    return counts


def show_counts(counts: Counts, users: Sequence[int], limit: int) -> str:
    """The table of executions until the failure was found, and until no schedule was left."""
    proofs = [f"{number} tasks" for number in users]
    rows = [
        [
            place(library, backend),
            tool.name,
            tool.strategy,
            *(f"{each.executions}" if each.failed else "not found" for each in found[:2]),
            *(f"{'' if each.complete else '> '}{each.executions}" for each in found[2:]),
        ]
        for (tool, library, backend), found in counts.items()
    ]
    shown = (
        f"Executions to the failure, with 2 tasks; and to the proof that there is none (of the\n"
        f"bound, if there is one), at most {limit}\n\n"
        + table(["program", "tool", "strategy", "stall", "race", *proofs], rows)
    )
    ratios = [
        [
            place(library, backend),
            tool.name,
            tool.strategy,
            *map(_ratio, theirs[2:], found[2:]),
        ]
        for (peer, *there), theirs in counts.items()
        if peer.name != "lab"
        for (tool, library, backend), found in counts.items()
        if tool.name == "lab" and tool.whole and [library, backend] == there
    ]
    if ratios:
        shown += "\n\n\ndetangle's executions to the proof, in ours\n\n" + table(
            ["program", "tool", "strategy", *proofs], ratios
        )
    return shown


def _ratio(theirs: Found, ours: Found) -> str:
    if not ours.complete:
        return "?"
    return f"{'' if theirs.complete else '> '}{theirs.executions / ours.executions:.1f}"


def rates(tools: Sequence[Tool], users: int, executions: int, rounds: int) -> str:
    """The table of executions a second of the correct program, with the ratio to detangle's."""
    lines = rows_of(tools)
    measured: list[list[float]] = [[] for _ in lines]
    for _ in range(rounds):
        for (tool, library, backend), rate in zip(lines, measured, strict=True):
            found = tool.explore(make("correct", users, library), backend, executions)
            rate.append(found.executions / found.seconds)
    medians = {line: statistics.median(rate) for line, rate in zip(lines, measured, strict=True)}
    peers = {
        (library, backend): median
        for (tool, library, backend), median in medians.items()
        if tool.name != "lab"
    }
    rows = []
    for (tool, library, backend), median in medians.items():
        peer = peers.get((library, backend))
        ratio = f"{median / peer:.2f}" if peer is not None else ""
        rows.append([place(library, backend), tool.name, tool.strategy, f"{median:.0f}", ratio])
    return (
        f"Executions a second of the correct program with {users} tasks: medians of {rounds} "
        f"rounds\n\n" + table(["program", "tool", "strategy", "a second", "of detangle's"], rows)
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--counts", action="store_true", help="only the table of counts")
    parser.add_argument("--rates", action="store_true", help="only the table of rates")
    parser.add_argument("--only", choices=["lab", "detangle"], help="one tool")
    parser.add_argument("--users", type=int, nargs="+", default=[2, 3, 4], metavar="N")
    parser.add_argument("--limit", type=int, default=LIMIT, metavar="N", help="executions, at most")
    arguments = parser.parse_args(argv)
    if arguments.only == "detangle" and detangle is None:
        parser.error("detangle is not installed: pip install detangle")
    peer = () if detangle is None or arguments.only == "lab" else (PEER,)
    tools = (*(() if arguments.only == "detangle" else OURS), *peer)
    both = arguments.counts == arguments.rates
    parts = []
    if both or arguments.counts:
        counts = count(tools, arguments.users, arguments.limit)
        parts.append(show_counts(counts, arguments.users, arguments.limit))
    if both or arguments.rates:
        executions = min(arguments.limit, 1000)
        parts.append(rates(tools, max(arguments.users), executions, ROUNDS))
    print("\n\n\n".join(parts))


if __name__ == "__main__":
    main()
