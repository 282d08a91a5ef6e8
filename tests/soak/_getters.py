"""The tasks of a soak that ask one pool set for something, and perhaps have to wait.

Each may be cancelled at any moment, by its scope or, on asyncio, natively. Uses `_stock` and
`_tally`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

import anyio
from anyio.abc import TaskGroup

from mbufpools import ImpossibleRequest

from ._counters import Tally
from ._held import Holding, Lease, Stock

__all__ = ["Crowd"]


class _Asker:
    """A task that asks for something."""

    __slots__ = ("holding", "natively", "scope", "task")

    def __init__(self) -> None:
        self.scope = anyio.CancelScope()
        self.task: asyncio.Task[Any] | None = None
        """On asyncio, once it runs."""
        self.natively = False
        """It was cancelled as asyncio does."""
        self.holding: Holding | None = None
        """What it holds itself, for a time."""


class Crowd:
    """All tasks that ask now.

    Args:
        dice: the only source of chance.
        tally: where failed requests are counted.
        stock: where what is granted goes.
        blame: called with what is wrong.
        most: how many may ask at once.
    """

    def __init__(
        self, dice: Random, tally: Tally, stock: Stock, blame: Callable[[str], None], most: int
    ) -> None:
        self._dice = dice
        self._tally = tally
        self._stock = stock
        self._blame = blame
        self._most = most
        self._askers: dict[_Asker, None] = {}
        self.closing = False
        """Whether the set may say that it is closed."""

    def __len__(self) -> int:
        return len(self._askers)

    def holdings(self) -> list[Holding]:
        """What tasks hold themselves."""
        return [asker.holding for asker in self._askers if asker.holding is not None]

    def ask(
        self, group: TaskGroup, ask: Callable[[], Awaitable[Lease]], seconds: float | None
    ) -> bool:
        """Start a task that asks, and then holds what it got for so long, or puts it in stock.

        False if there are too many already.
        """
        if len(self._askers) >= self._most:
            return False
        asker = _Asker()
        self._askers[asker] = None
        group.start_soon(self._run, asker, ask, seconds)
        return True

    async def _run(
        self, asker: _Asker, ask: Callable[[], Awaitable[Lease]], seconds: float | None
    ) -> None:
        try:
            asker.task = asyncio.current_task()
        except RuntimeError:  # trio
            asker.task = None
        try:
            with asker.scope:
                lease = await ask()
                if seconds is None:
                    self._stock.add(lease)
                    return
                with lease:
                    asker.holding = self._stock.mark(lease)
                    await anyio.sleep(seconds)
                    self._stock.verify(asker.holding)
        except anyio.get_cancelled_exc_class():  # noqa: ASYNC103 - natively, and only this task
            if not asker.natively:
                raise
        except ImpossibleRequest:
            self._tally.impossible += 1
        except MemoryError:
            self._tally.no_memory += 1
        except anyio.ClosedResourceError as error:
            self._tally.closed_on += 1
            if not self.closing:
                self._blame(f"an open set says that it is closed: {error}")
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a fault
            self._blame(f"a task that asked met {error!r}")
        finally:
            del self._askers[asker]

    def _some_asker(self) -> _Asker | None:
        """Draw one of the tasks: often the oldest, who is the next to be served."""
        if not self._askers:
            return None
        if self._dice.random() < 0.5:
            return next(iter(self._askers))
        return self._dice.choice(list(self._askers))

    def cancel(self) -> bool:
        """Cancel a task by its scope. False if there is none, or the one drawn was cancelled."""
        asker = self._some_asker()
        if asker is None or asker.scope.cancel_called:
            return False
        asker.scope.cancel()
        return True

    def cancel_natively(self) -> bool:
        """Cancel a task as asyncio does. False also on trio."""
        asker = self._some_asker()
        if asker is None or asker.task is None or asker.natively:
            return False
        asker.natively = True
        asker.task.cancel()
        return True

    def cancel_all(self) -> None:
        """Cancel every task by its scope, the oldest first."""
        for asker in self._askers:
            asker.scope.cancel()
