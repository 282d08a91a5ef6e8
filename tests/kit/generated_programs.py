"""Small programs made from a seed: tasks that share variables, primitives and scopes.

What they do does not matter; that they do it in different orders does. Each operation is legal at
any time, so that a program can stall, but not fail.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import anyio
from anyio.lowlevel import checkpoint

from mbufpools import lab

__all__ = ["NATIVE", "PLAIN", "WITH_CANCELLATION", "Generated", "generate"]

PLAIN = ("read", "write", "pass", "lock", "unlock", "wait", "set", "semaphore", "spawn", "sleep")
WITH_CANCELLATION = (
    *("read", "write", "pass", "lock", "wait", "set", "timeout", "sleep"),
    *("cancel", "shield", "limit", "send", "receive", "notify", "await notice"),
)
NATIVE = (
    *("read", "write", "pass", "put", "get", "join", "future", "resolve", "look", "own lock"),
    *("own set", "own clear", "own wait", "gather", "wait for", "own group"),
)
"""asyncio's own primitives."""


@dataclass(frozen=True)
class Generated:
    """A program, and what it consists of."""

    seed: int
    tasks: list[list[tuple[str, int]]]
    program: Callable[[], Awaitable[None]]
    log: list[Any]
    """What the last execution saw, in its order, for each task."""


def generate(seed: int, operations: tuple[str, ...]) -> Generated:
    """Make the program of a seed: two or three tasks of two to four operations."""
    source = random.Random(seed)
    count = source.choice([2, 2, 3])
    tasks = [
        [
            (source.choice(operations), source.randrange(2))
            for _ in range(source.randint(2, 4 if count == 2 else 3))
        ]
        for _ in range(count)
    ]
    log: list[Any] = []

    async def program() -> None:
        log.clear()
        log.extend([] for _ in range(count + 1))
        world = _World(count, operations)
        try:
            async with anyio.create_task_group() as world.group:
                for number, todo in enumerate(tasks):
                    world.group.start_soon(world.task, number, todo, log[number])
        finally:
            for send, receive in world.streams:
                send.close()
                receive.close()
        log[count] = [shared.value for shared in world.shared]

    return Generated(seed, tasks, program, log)


class _World:
    def __init__(self, count: int, operations: tuple[str, ...]) -> None:
        self.group: Any = None
        self.shared = [lab.Shared(0), lab.Shared(0)]
        self.locks = [anyio.Lock(), anyio.Lock()]
        self.events = [anyio.Event(), anyio.Event()]
        self.semaphores = [anyio.Semaphore(1), anyio.Semaphore(1)]
        self.limiters = [anyio.CapacityLimiter(1), anyio.CapacityLimiter(1)]
        self.conditions = [anyio.Condition(), anyio.Condition()]
        self.streams = [anyio.create_memory_object_stream[int](n) for n in range(2)]
        self.native = operations is NATIVE
        if self.native:
            self.queues: list[asyncio.Queue[int]] = [asyncio.Queue(1), asyncio.Queue()]
            self.futures = [asyncio.get_running_loop().create_future() for _ in range(2)]
            self.own_locks = [asyncio.Lock(), asyncio.Lock()]
            self.own_events = [asyncio.Event(), asyncio.Event()]
        self.scopes = [anyio.CancelScope() for _ in range(count)]

    async def task(self, number: int, operations: list[tuple[str, int]], log: list[Any]) -> None:
        held: set[int] = set()
        try:
            with self.scopes[number % len(self.scopes)] if number < 10 else anyio.CancelScope():
                for name, which in operations:
                    log.append(await self.do(name, which, number, held))
        finally:
            for which in held:
                self.locks[which].release()

    async def do(self, name: str, which: int, number: int, held: set[int]) -> Any:
        match name:
            case "read":
                return self.shared[which].value
            case "write":
                self.shared[which].value = number + 1
            case "pass":
                await checkpoint()
            case "sleep":
                await anyio.sleep(which)
            case "lock" if which not in held:
                await self.locks[which].acquire()
                held.add(which)
            case "unlock" if which in held:
                self.locks[which].release()
                held.remove(which)
            case "wait":
                await self.events[which].wait()
            case "set":
                self.events[which].set()
            case "semaphore":
                async with self.semaphores[which]:
                    await checkpoint()
            case "limit":
                async with self.limiters[which]:
                    await checkpoint()
            case "spawn":
                small = [("write", 0), ("pass", 0), ("read", 1)]
                self.group.start_soon(self.task, number * 10 + 10, small, [])
            case "timeout":
                with anyio.move_on_after(1) as scope:
                    await self.events[which].wait()
                return scope.cancelled_caught
            case "cancel":
                self.scopes[which].cancel()
            case "shield":
                with anyio.CancelScope(shield=True):
                    await checkpoint()
            case "send":
                with anyio.move_on_after(1):
                    await self.streams[which][0].send(number)
            case "receive":
                with anyio.move_on_after(1):
                    return await self.streams[which][1].receive()
            case "notify":
                async with self.conditions[which]:
                    self.conditions[which].notify()
            case "await notice":
                with anyio.move_on_after(1):
                    async with self.conditions[which]:
                        await self.conditions[which].wait()
            case _:
                return await self.do_natively(name, which)
        return None

    async def do_natively(self, name: str, which: int) -> Any:
        match name:
            case "put":
                await self.queues[which].put(which)
            case "get":
                try:
                    return await asyncio.wait_for(self.queues[which].get(), 1)
                except TimeoutError:
                    return "nothing"
            case "join" if not which:
                await self.queues[1].join()
            case "future":
                done, _ = await asyncio.wait([self.futures[which]], timeout=1)
                return len(done)
            case "resolve" if not self.futures[which].done():
                self.futures[which].set_result(which)
            case "look":
                return self.futures[which].done()
            case "own lock":
                async with self.own_locks[which]:
                    await checkpoint()
            case "own set":
                self.own_events[which].set()
            case "own clear":
                self.own_events[which].clear()
            case "own wait":
                try:
                    async with asyncio.timeout(1):
                        await self.own_events[which].wait()
                except TimeoutError:
                    return "not set"
            case "gather":
                return await asyncio.gather(self.child(which), self.child(which))
            case "own group":
                async with asyncio.TaskGroup() as group:
                    group.create_task(self.child(which))
                    group.create_task(self.child(0))
            case "wait for":
                return await asyncio.wait_for(self.child(which), 5)
        return None

    async def child(self, which: int) -> int:
        value = self.shared[which].value
        await checkpoint()
        self.shared[which].value = value + 1
        return value
