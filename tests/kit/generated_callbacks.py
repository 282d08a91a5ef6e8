"""Small programs made from a seed, whose tasks use asyncio's futures, callbacks, timers and groups,
and cancel each other natively.

No operation fails: what differs from one order to another is what the program has seen.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from mbufpools import lab

__all__ = ["Callbacks", "generate"]

OPERATIONS = (
    *("read", "write", "call", "call later", "resolve", "look", "cancel future", "watch", "spawn"),
    *("gather", "wait for", "group", "shield", "cancel", "wait", "in order", "sleep", "pass_"),
)


@dataclass
class Callbacks:
    """A program, and what it has seen."""

    tasks: list[list[tuple[str, int]]]
    trace: list[Any] = field(default_factory=list)
    """What the tasks and callbacks of the last execution did, in its order."""
    seen: str = ""
    """What each task of the last execution saw, and the shared values at its end."""

    async def program(self) -> None:
        """Run the tasks."""
        self.trace.clear()
        world = _World(self, len(self.tasks))
        world.tasks = [asyncio.create_task(world.run(it)) for it in range(len(self.tasks))]
        await asyncio.wait(world.tasks)
        for task in world.spawned.value:
            await asyncio.wait([task])
        await asyncio.sleep(0.003)
        values = [shared.value for shared in world.shared]
        self.seen = repr((values, world.called.value, world.logs))


def generate(seed: int) -> Callbacks:
    """Make the program of a seed: two tasks of one to three operations, or three of one or two."""
    source = random.Random(seed)
    count = source.choice([2, 2, 3])
    most = 3 if count == 2 else 2
    return Callbacks(
        [
            [
                (source.choice(OPERATIONS), source.randrange(2))
                for _ in range(source.randint(1, most))
            ]
            for _ in range(count)
        ]
    )


class _World:
    def __init__(self, callbacks: Callbacks, count: int) -> None:
        loop = asyncio.get_running_loop()
        self.callbacks = callbacks
        self.shared = [lab.Shared(0), lab.Shared(0)]
        self.called: lab.Shared[tuple[int, ...]] = lab.Shared(())
        self.spawned: lab.Shared[tuple[asyncio.Task[int], ...]] = lab.Shared(())
        self.futures: list[asyncio.Future[int]] = [loop.create_future() for _ in range(2)]
        self.logs: list[list[Any]] = [[] for _ in range(count)]
        self.tasks: list[asyncio.Task[None]] = []

    def change(self, which: int, value: int) -> int:
        self.callbacks.trace.append((which, value))
        self.shared[which].update(lambda it: it * 7 + value)
        return value

    async def child(self, which: int, value: int) -> int:
        return self.change(which, value)

    def children(self, which: int, value: int) -> list[asyncio.Task[int]]:
        return [asyncio.create_task(self.child(which, value + it)) for it in range(2)]

    async def run(self, me: int) -> None:
        for at, (name, which) in enumerate(self.callbacks.tasks[me]):
            self.callbacks.trace.append((me, at, name))
            operation: Callable[..., Awaitable[Any]] = getattr(self, name.replace(" ", "_"))
            try:
                self.logs[me].append(await operation(which, me * 3 + at + 1, me))
            except asyncio.CancelledError:  # noqa: ASYNC103 - another task has cancelled it
                self.logs[me].append("cancelled")

    # The operations

    async def read(self, which: int, _value: int, _me: int) -> Any:
        return self.shared[which].value

    async def write(self, which: int, value: int, _me: int) -> Any:
        self.shared[which].value = value

    async def call(self, which: int, value: int, _me: int) -> Any:
        loop = asyncio.get_running_loop()
        loop.call_soon(loop.call_soon, self.change, which, value)

    async def call_later(self, which: int, value: int, _me: int) -> Any:
        loop = asyncio.get_running_loop()
        loop.call_later(which / 1000, self.change, which, value)
        loop.call_soon(self.change, which, value + 1)

    async def resolve(self, which: int, value: int, _me: int) -> Any:
        if not self.futures[which].done():
            self.futures[which].set_result(value)
        return await self.futures[which]

    async def look(self, which: int, _value: int, _me: int) -> Any:
        return self.futures[which].done()

    async def cancel_future(self, which: int, _value: int, _me: int) -> Any:
        return self.futures[which].cancel()

    async def watch(self, which: int, value: int, _me: int) -> Any:
        self.futures[which].add_done_callback(
            lambda _: self.called.update(lambda it: (*it, self.change(which, value)))
        )

    async def spawn(self, which: int, value: int, _me: int) -> Any:
        task = asyncio.create_task(self.child(which, value))
        self.spawned.update(lambda it: (*it, task))

    async def gather(self, which: int, value: int, _me: int) -> Any:
        return await asyncio.gather(*self.children(which, value))

    async def wait_for(self, which: int, _value: int, _me: int) -> Any:
        try:
            return await asyncio.wait_for(asyncio.shield(self.futures[which]), 0.001)
        except TimeoutError:
            return "late"

    async def group(self, which: int, value: int, _me: int) -> Any:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.child(which, value))
            group.create_task(self.child(which, value + 1))

    async def shield(self, which: int, value: int, _me: int) -> Any:
        return await asyncio.shield(self.child(which, value))

    async def cancel(self, _which: int, _value: int, me: int) -> Any:
        return self.tasks[(me + 1) % len(self.tasks)].cancel()

    async def wait(self, which: int, value: int, _me: int) -> Any:
        done, _ = await asyncio.wait(
            self.children(which, value), return_when=asyncio.FIRST_COMPLETED
        )
        return len(done)

    async def in_order(self, which: int, value: int, _me: int) -> Any:
        return [await it for it in asyncio.as_completed(self.children(which, value))]

    async def sleep(self, which: int, _value: int, _me: int) -> Any:
        await asyncio.sleep(which / 1000)

    async def pass_(self, which: int, _value: int, _me: int) -> Any:
        for _ in range(which + 1):
            await asyncio.sleep(0)
