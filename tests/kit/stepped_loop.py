"""A pool set on an event loop of its own, driven step by step from plain code.

A state machine of Hypothesis is plain code, and a pool set needs a running loop. So the loop runs
in a thread of its own, in virtual time, and the two take turns: the loop stands still until it is
given a step, takes it, lets everything happen that can happen without time passing, looks at the
pools, answers, and stands still again. The two never run at once, so a run on asyncio repeats
itself, and so does one on trio, whose scheduler Hypothesis seeds.
"""

from __future__ import annotations

import asyncio
import inspect
import queue
import threading
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any, Generic, NamedTuple, TypeVar

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from mbufpools import (
    AccountedMemory,
    Block,
    BufferPools,
    Event,
    EventKind,
    Explanation,
    MappedMemory,
    Memory,
    PoolsStatistics,
    lab,
)
from tests.kit.getter import Getter

__all__ = ["BACKENDS", "RefusingMemory", "Seen", "World", "settle"]

BACKENDS = ["asyncio", "trio"]
PATIENCE = 60.0
"""Seconds of real time that a step may take; it takes a few milliseconds."""

Pools = TypeVar("Pools", bound=BufferPools)
Step = tuple[Callable[[], Any] | None, "Future[Any]"]


class RefusingMemory:
    """Memory of which the system has none while `refuses` is set."""

    def __init__(self, *, mapped: bool = False) -> None:
        self.refuses = False
        self._memory: Memory = MappedMemory() if mapped else AccountedMemory()

    def allocate(self, nbytes: int) -> Block:
        if self.refuses:
            raise MemoryError(f"no page of {nbytes} bytes")
        return self._memory.allocate(nbytes)


class Seen(NamedTuple):
    """An event of the hook, the getter that it concerns, and the budget at that moment."""

    event: Event
    who: str
    allocated: int
    limit: int


class World(Generic[Pools]):
    """An entered pool set, the tasks that take from it, and what the hook saw.

    Args:
        backend: ``"asyncio"`` or ``"trio"``.
        make: makes the pools; called with ``hook=``.
    """

    def __init__(self, backend: str, make: Callable[..., Pools]) -> None:
        self.pools = make(hook=self._observe)
        self.backend = backend
        self.statistics: PoolsStatistics
        """As of the end of the last step."""
        self.explanation: Explanation
        """As of the end of the last step."""
        self._seen: list[Seen] = []
        self._asking = ""
        self.numbers: dict[int, str] = {}
        """Who made the request of that number; only those that parked."""
        self._tasks: TaskGroup
        self._steps: queue.SimpleQueue[Step] = queue.SimpleQueue()
        self._answer: Future[Any]
        """To the step that is being taken."""
        self._over = False
        self._catch = warnings.catch_warnings(record=True)
        self._thread = threading.Thread(target=self._run, name=f"world on {backend}", daemon=True)
        self.steps = 0
        """How many were taken."""
        warned = self._catch.__enter__()
        assert warned is not None
        self._warned = warned
        warnings.simplefilter("always", ResourceWarning)
        self._thread.start()
        self.do(lambda: None)

    def _observe(self, event: Event) -> None:
        who = ""
        if event.kind is EventKind.GET:
            who = self._asking
        elif event.kind is EventKind.WAIT:
            who = self.numbers[event.request] = self._asking
        elif event.kind in (EventKind.GRANT, EventKind.CANCEL):
            who = self.numbers[event.request]
        elif event.kind not in (EventKind.PUT, EventKind.PAGE_IN, EventKind.PAGE_OUT):
            return
        budget = self.pools.budget
        self._seen.append(Seen(event, who, budget.allocated, budget.limit))

    def news(self) -> list[Seen]:
        """What the hook was told since the last look."""
        seen, self._seen = self._seen, []
        return seen

    def warnings(self) -> list[str]:
        """The ResourceWarnings since the last look, of these pools and what was taken from them.

        (Those of others are only heard here: when garbage is collected is chance.)
        """
        told = [str(warning.message) for warning in self._warned if self._is_ours(warning.source)]
        self._warned.clear()
        return told

    def _is_ours(self, source: object) -> bool:
        return source in (self.pools, self.pools._state, *self.pools.pools.values())

    # Steps

    def do(self, step: Callable[[], Any]) -> Any:
        """Take a step: call a plain or an async function. Return its result, or raise what it
        raised, once nothing more can happen without time passing."""
        return self._ask(step)

    def take(self, names: Iterable[str], take: Callable[..., Any], *args: Any) -> dict[str, Getter]:
        """Start tasks that take, one after the other: each is served, has failed, or waits
        before the next comes."""

        async def step() -> dict[str, Getter]:
            takings = {}
            for self._asking in names:
                takings[self._asking] = Getter.started(self._tasks, take, *args)
                await settle()
            return takings

        takings: dict[str, Getter] = self.do(step)
        return takings

    def take_and_cancel(self, name: str, how: str, take: Callable[..., Any], *args: Any) -> Getter:
        """Start a task that takes, and cancel it as soon as it has begun."""

        async def step() -> Getter:
            self._asking = name
            taking = Getter.started(self._tasks, take, *args)
            while not taking.task_id:  # noqa: ASYNC110 - takes no time; it waits for a step
                await checkpoint()
            taking.cancel(how)
            return taking

        taking: Getter = self.do(step)
        return taking

    def take_nowait(
        self, names: Iterable[str], take: Callable[..., Any], *args: Any
    ) -> dict[str, Getter]:
        """Take without waiting, one after the other, until one is refused."""

        def step() -> dict[str, Getter]:
            taken = {}
            for self._asking in names:
                taken[self._asking] = Getter.without_waiting(self._asking, take, *args)
                if taken[self._asking].error is not None:
                    break
            return taken

        taken: dict[str, Getter] = self.do(step)
        return taken

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.do(lambda: anyio.sleep(seconds))

    def close(self) -> None:
        """Leave the ``async with`` of the pools."""
        self._ask(None)

    def end(self) -> None:
        """Leave the world, in whatever state it is; then raise what went wrong on the way."""
        errors = []
        try:
            while not self._over:  # first the pools are closed, then all is left
                try:
                    self._ask(None)
                except TimeoutError:
                    raise
                except Exception as error:  # noqa: BLE001 - raised below
                    errors.append(error)
            self._thread.join()
        finally:
            self._catch.__exit__(None, None, None)
        if errors:
            raise errors[0]

    def _ask(self, step: Callable[[], Any] | None) -> Any:
        self.steps += 1
        answer: Future[Any] = Future()
        self._steps.put((step, answer))
        return answer.result(PATIENCE)

    # In the thread

    def _run(self) -> None:
        name, options = lab.backend_options(self.backend)
        try:
            anyio.run(self._live, backend=name, backend_options=options)
        except BaseException as error:  # noqa: BLE001, ASYNC103 - raised in the other thread
            self._over = True
            self._answer.set_exception(error)
        else:
            self._over = True
            self._answer.set_result(None)

    async def _live(self) -> None:
        async with anyio.create_task_group() as self._tasks:
            async with self.pools:
                await self._take_steps()
            await self._take(lambda: None)
            await self._take_steps()
            self._tasks.cancel_scope.cancel()

    async def _take_steps(self) -> None:
        """Take steps until there is none."""
        while True:
            step, self._answer = self._steps.get()  # blocks: the loop must stand still until then
            if step is None:
                return
            await self._take(step)

    async def _take(self, step: Callable[[], Any]) -> None:
        error: Exception | None = None
        result: Any = None
        try:
            result = step()
            if inspect.isawaitable(result):
                result = await result
        except Exception as raised:  # noqa: BLE001 - raised in the other thread
            error = raised
        try:
            await settle()
            self._look()
        except Exception as raised:  # noqa: BLE001 - raised in the other thread
            error = raised
        if error is None:
            self._answer.set_result(result)
        else:
            self._answer.set_exception(error)

    def _look(self) -> None:
        self.pools.check()
        self.statistics = self.pools.statistics()
        self.explanation = self.pools.explain()


async def settle() -> None:
    """Return when no other task can run before time passes."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        import trio.testing

        await trio.testing.wait_all_tasks_blocked()
    else:
        ready = loop._ready  # type: ignore[attr-defined]  # asyncio's own queue
        while ready:
            await asyncio.sleep(0)
