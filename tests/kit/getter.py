"""One task that gets something from a pool set, as a test sees it.

A test starts a getter, follows it until it holds a lease, waits or has failed, and may cancel it:
by its scope or, on asyncio, natively. What came of the get stays on the getter, so a get that
fails or is cancelled does not end the task group of the test.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
from anyio.abc import TaskGroup

__all__ = ["Getter"]


class Getter:
    """A get, the task that runs it, and what came of it."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.lease: Any = None
        """What the get returned; None until then."""
        self.error: Exception | None = None
        """What the get raised, other than its cancellation."""
        self.cancelled = False
        """True once the get has ended by its cancellation."""
        self.served_at = -1.0
        """Seconds of the loop's clock when the task went on with its lease."""
        self.task_id = 0
        """The id that `anyio.get_current_task` gives the task; 0 until the task has begun to run.
        """
        self.ended = anyio.Event()
        """Set once the get has returned, raised, or was cancelled."""
        self.scope = anyio.CancelScope()
        self.natively = False
        """True once `cancel_natively` was called."""
        self.task: asyncio.Task[Any] | None = None
        """The task on asyncio, once it runs."""

    @classmethod
    def started(cls, tasks: TaskGroup, get: Callable[..., Awaitable[Any]], *args: Any) -> Getter:
        """Start a task in `tasks` that awaits ``get(*args)``."""
        getter = cls(f"gets {args}")
        tasks.start_soon(getter.run, get, *args, name=getter.name)
        return getter

    @classmethod
    def without_waiting(cls, name: str, get: Callable[..., Any], *args: Any) -> Getter:
        """Call ``get(*args)``, which does not wait, and keep what came of it in the same way."""
        getter = cls(name)
        try:
            getter.lease = get(*args)
        except Exception as error:  # noqa: BLE001 - the test looks at it
            getter.error = error
        getter.ended.set()
        return getter

    async def run(self, get: Callable[..., Awaitable[Any]], *args: Any) -> None:
        """Await ``get(*args)`` in the current task. Does not raise what the get raises."""
        self.task_id = anyio.get_current_task().id
        try:
            self.task = asyncio.current_task()
        except RuntimeError:  # trio
            self.task = None
        try:
            with self.scope:
                self.lease = await get(*args)
                self.served_at = anyio.current_time()
            self.cancelled = self.scope.cancelled_caught
        except anyio.get_cancelled_exc_class():  # noqa: ASYNC103 - as follows
            # A native cancellation concerns this task alone; uncaught, it would cancel the group.
            self.cancelled = True
            if self.task is None:
                raise
        except Exception as error:  # noqa: BLE001 - the test looks at it
            self.error = error
        finally:
            self.ended.set()

    @property
    def waits(self) -> bool:
        """True until the get has ended, also before its task has begun to run."""
        return not self.ended.is_set()

    def has_ended(self) -> bool:
        """True once the get has returned, raised, or was cancelled."""
        return self.ended.is_set()

    def holds(self) -> bool:
        """True from the moment when the task goes on with its lease, to the lease's release."""
        leases = self.lease if isinstance(self.lease, tuple) else (self.lease,)
        return self.lease is not None and not all(lease.released for lease in leases)

    def release(self) -> None:
        """Release the lease."""
        assert self.lease is not None, f"{self.name} holds nothing"
        self.lease.release()

    def cancel(self, how: str = "by scope") -> None:
        """Cancel the get ``by scope``, or ``natively``; `ended` is set when that has happened."""
        if how == "by scope":
            self.scope.cancel()
        else:
            self.cancel_natively()

    def cancel_natively(self) -> None:
        """Cancel the task as asyncio does."""
        assert self.task is not None, "only on asyncio, and once the task runs"
        self.natively = True
        self.task.cancel()
