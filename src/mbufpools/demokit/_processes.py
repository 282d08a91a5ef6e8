"""Processes that ask pools for memory: the actors of a scenario.

A scenario fixes the order of things that happen at one moment, but tasks that are ready at one
moment may run in any order. So `Processes.get` starts a get and returns only once that get holds
its item or sleeps; then the scenario continues.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

import anyio
from anyio.abc import TaskGroup

from mbufpools import Buffer, Pool, PoolsStatistics

__all__ = ["Process", "Processes", "idle_pages", "left_asleep"]


class Process:
    """A process that has asked a pool for one item. Made by `Processes.get`."""

    def __init__(self, pool: Pool) -> None:
        self.pool: Pool = pool
        self.buffer: Buffer | None = None
        """The item that the process holds, from the grant to the put."""
        self.asked_at: float = anyio.current_time()
        """Seconds of the loop's clock."""
        self.served_at: float | None = None
        """Seconds of the loop's clock, or None as long as the process sleeps."""
        self._asked, self._served = anyio.Event(), anyio.Event()

    async def _run(self) -> None:
        self._asked.set()  # from here until the get sleeps, no other task runs
        self.buffer = await self.pool.get()
        self.served_at = anyio.current_time()
        self._served.set()

    def put(self) -> None:
        """Give the item back. Never blocks. Raises ValueError if the process holds none."""
        if self.buffer is None:
            raise ValueError(f"this process holds no item of pool {self.pool.name!r}")
        buffer, self.buffer = self.buffer, None
        buffer.release()


class Processes:
    """A group of processes.

    An async context manager. At its end every process that sleeps is cancelled, and every item
    that a process holds is put.
    """

    def __init__(self) -> None:
        self._all: list[Process] = []
        self._group: TaskGroup | None = None

    async def get(self, pool: Pool) -> Process:
        """Start a process that gets an item of `pool`; return once it holds the item or sleeps.

        Takes no virtual time. Raises RuntimeError outside ``async with``.
        """
        if self._group is None:
            raise RuntimeError("these processes are not entered; use `async with Processes()`")
        process = Process(pool)
        self._all.append(process)
        waits = pool.statistics().nwait
        self._group.start_soon(process._run, name=f"process {len(self._all)}")
        await process._asked.wait()
        if pool.statistics().nwait == waits:
            await process._served.wait()
        return process

    async def __aenter__(self) -> Self:
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        group, self._group = self._group, None
        assert group is not None
        group.cancel_scope.cancel()
        try:
            if isinstance(exc, Exception):  # the body's exception passes unwrapped, not in a group
                await group.__aexit__(None, None, None)  # noqa: ASYNC102 - it only cancels
                return None
            return await group.__aexit__(exc_type, exc, traceback)  # noqa: ASYNC102 - likewise
        finally:
            for process in self._all:
                if process.buffer is not None:
                    process.put()


def idle_pages(pool: Pool, pages: int) -> None:
    """Give `pool` so many idle pages: take all their items, and put them back.

    Raises anyio.WouldBlock if the budget has no room for them.
    """
    for buffer in [pool.get_nowait() for _ in range(pages * pool.items_per_page)]:
        buffer.release()


def left_asleep(statistics: PoolsStatistics) -> bool:
    """True if a process sleeps, and nothing that these pools still do could wake it.

    The counters prove it: no item is out, so no put will come; no pool has a page, so no page
    will leave; no task is queued, and only the gc is scheduled, which can do nothing but let
    pages leave. It holds only as long as nothing comes from outside: another process that puts an
    item of that pool ends it, and a new limit does.
    """
    return (
        statistics.waiting > 0
        and statistics.nout == 0
        and all(pool.npages == 0 for pool in statistics.pools.values())
        and statistics.taskq.queued == 0
        and statistics.taskq.scheduled <= 1
    )
