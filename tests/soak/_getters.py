"""The tasks of a soak that ask one pool set for something, and may have to wait.

Each can be cancelled at any moment, by its scope or, on asyncio, natively.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from random import Random

import anyio
from anyio.abc import TaskGroup

from mbufpools import ImpossibleRequest
from tests.kit.getter import Getter

from ._counters import Counters
from ._held import HeldLeases, Holding, Lease

__all__ = ["Getters"]


class EndOfBody(Exception):
    """Ends a set: raised by its body, or by a task of its queue, whose waiters fail with it."""


class Getters:
    """All tasks that ask, wait, or hold what they got.

    Args:
        random: the only source of chance.
        counters: where failed requests are counted.
        held: where a lease goes that its task does not hold itself.
        report: called with a sentence for each thing that is wrong.
        most: how many tasks there may be at once.
    """

    def __init__(
        self,
        random: Random,
        counters: Counters,
        held: HeldLeases,
        report: Callable[[str], None],
        most: int,
    ) -> None:
        self._random = random
        self._counters = counters
        self._held = held
        self._report = report
        self._most = most
        self._getters: dict[Getter, Holding | None] = {}
        """Each with what it holds itself, the oldest first."""
        self.closing = False
        """Whether the set may say that it is closed."""

    def __len__(self) -> int:
        return len(self._getters)

    def holdings(self) -> list[Holding]:
        """What tasks hold themselves."""
        return [holding for holding in self._getters.values() if holding is not None]

    def start(
        self, group: TaskGroup, get: Callable[[], Awaitable[Lease]], seconds: float | None
    ) -> bool:
        """Start a task that gets a lease and holds it for `seconds`.

        With None it adds the lease to those that are held by no task. Returns False, and starts
        nothing, if there are too many tasks already.
        """
        if len(self._getters) >= self._most:
            return False
        getter = Getter()
        self._getters[getter] = None
        group.start_soon(self._run, getter, get, seconds)
        return True

    async def _run(
        self, getter: Getter, get: Callable[[], Awaitable[Lease]], seconds: float | None
    ) -> None:
        async def get_and_hold() -> None:
            lease = await get()
            if seconds is None:
                self._held.add(lease)
                return
            with lease:
                holding = self._getters[getter] = self._held.mark(lease)
                await anyio.sleep(seconds)
                self._held.verify(holding)

        try:
            await getter.run(get_and_hold)
        finally:
            del self._getters[getter]
        error, getter.error = getter.error, None  # whose traceback refers to the getter
        if error is not None:
            self._count(error)

    def _count(self, error: Exception) -> None:
        """Count an error that a request may meet, and report any other."""
        match error:
            case ImpossibleRequest():
                self._counters.impossible += 1
            case MemoryError():
                self._counters.no_memory += 1
            case EndOfBody():
                self._counters.closed_on += 1
            case anyio.ClosedResourceError():
                self._counters.closed_on += 1
                if not self.closing:
                    self._report(f"an open set says that it is closed: {error}")
            case _:
                self._report(f"a get raised {error!r}")

    def _draw(self) -> Getter | None:
        """Draw one of the tasks: often the oldest, which is the next to be served."""
        if not self._getters:
            return None
        if self._random.random() < 0.5:
            return next(iter(self._getters))
        return self._random.choice(list(self._getters))

    def cancel(self) -> bool:
        """Cancel a task by its scope. False if there is none, or the one drawn was cancelled."""
        getter = self._draw()
        if getter is None or getter.scope.cancel_called:
            return False
        getter.cancel()
        return True

    def cancel_natively(self) -> bool:
        """Cancel a task as asyncio does. False also on trio."""
        getter = self._draw()
        if getter is None or getter.task is None or getter.natively:
            return False
        getter.cancel_natively()
        return True

    def cancel_all(self) -> None:
        """Cancel every task by its scope, the oldest first."""
        for getter in self._getters:
            getter.cancel()
