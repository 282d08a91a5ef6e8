"""Tasks that wait, as many as are wanted: the backend's own, without a task group of anyio around
them; and the barest way to park and wake them, which is the peer of the pools."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

from anyio.lowlevel import checkpoint

__all__ = ["Bare", "Crowd", "Wait", "crowd_of", "settle"]

Wait = Callable[[], Coroutine[Any, Any, Any]]


class Bare:
    """Parks tasks and wakes them, without anything else."""

    def __init__(self, backend: str) -> None:
        self._parked: list[Any] = []
        self.wait: Wait = self._on_trio if backend == "trio" else self._on_asyncio
        self._wake: Callable[[Any], None] = self._future_wakes
        if backend == "trio":
            import trio

            self._wake = trio.lowlevel.reschedule

    async def _on_asyncio(self) -> None:
        future = asyncio.get_running_loop().create_future()
        self._parked.append(future)
        await future

    async def _on_trio(self) -> None:
        import trio

        self._parked.append(trio.lowlevel.current_task())
        await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.SUCCEEDED)

    @staticmethod
    def _future_wakes(future: asyncio.Future[None]) -> None:
        future.set_result(None)

    def wake_all(self) -> None:
        """Wake all tasks, the first one first."""
        parked, self._parked = self._parked, []
        for each in parked:
            self._wake(each)


class Crowd:
    """Tasks that wait, each in a scope of its own, and how many of them have gone on."""

    def __init__(self) -> None:
        self.ended = 0
        self.results: list[Any] = []
        """What the tasks got that were not cancelled."""
        self.cancels: list[Callable[[], object]] = []
        """Cancels one task, in the order in which they were started."""

    async def waits(self, wait: Wait) -> None:
        """Wait, as one of the tasks."""
        try:
            self.results.append(await wait())
        finally:
            self.ended += 1

    def cancel_all(self) -> None:
        """Cancel all tasks, the first one first."""
        for cancel in self.cancels:
            cancel()

    async def until_ended(self, count: int) -> None:
        """Wait until `count` tasks have gone on."""
        while self.ended < count:  # noqa: ASYNC110 - an event would be part of what is measured
            await checkpoint()


@asynccontextmanager
async def crowd_of(backend: str, waits: Sequence[Wait]) -> AsyncIterator[Crowd]:
    """Start a task for each of `waits`, and let all begin to wait."""
    crowd = Crowd()
    if backend == "trio":
        import trio

        async def in_a_scope(wait: Wait) -> None:
            with trio.CancelScope() as scope:
                crowd.cancels.append(scope.cancel)
                await crowd.waits(wait)

        async with trio.open_nursery() as nursery:
            for wait in waits:
                nursery.start_soon(in_a_scope, wait)
            await settle()
            yield crowd
    else:
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(crowd.waits(wait)) for wait in waits]
        crowd.cancels = [task.cancel for task in tasks]
        await settle()
        yield crowd
        await asyncio.wait(tasks)


async def settle() -> None:
    """Let the tasks that were started run until they wait."""
    for _ in range(3):
        await checkpoint()
