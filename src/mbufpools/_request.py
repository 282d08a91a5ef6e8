"""A pool's condition variable: the FIFO of parked requests, each handed what it asked for.

Models ``struct pool_request`` and the sleep in subr_pool.c:pool_get. The task that frees an item
allocates it on behalf of the task that waits; no sleeper is woken to try again.

The race that a request guards is the grant that meets a cancellation: the task is woken, and it is
cancelled before it runs. So a wait is judged by what the request *holds*, never by whether it was
woken, and a task that wakes with an exception must release what its request holds.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterator
from typing import Any, Generic, TypeVar

from ._waits import Waits, current_waits, name_of

__all__ = ["Request", "RequestQueue"]

T = TypeVar("T")


class Request(Generic[T]):
    """One getter that waits for its turn."""

    __slots__ = (
        "_sleeper",
        "after",
        "before",
        "error",
        "granted",
        "nbytes",
        "number",
        "parked",
        "pass_limit",
        "passes_before",
        "since",
        "task",
        "where",
    )

    def __init__(self, number: int, nbytes: int, since: float) -> None:
        self.number: int = number
        """Counted from 1 in a pool set; the older request has the smaller number."""
        self.nbytes: int = nbytes
        """Bytes asked for."""
        self.since: float = since
        """Seconds of the loop's clock when it was made."""
        self.parked: bool = False
        """It could not be served at once."""
        self.task: Any = None
        """The backend's task that parked. Its name is looked up only for a report."""
        self.where: str = ""
        """File and line of the call, in debug mode."""
        self.passes_before: int = 0
        """How many had passed a claim when it was made."""
        self.pass_limit: int | None = None
        """If it is a claim: the number of passes from which no request passes it."""
        self.granted: T | None = None
        """What it was granted."""
        self.error: BaseException | None = None
        """Why it never will be."""
        self._sleeper: Any = None
        self.before: Any = None
        """The next older request in its queue, or the queue; None if it is in no queue."""
        self.after: Any = None
        """The next newer request in its queue, or the queue; None if it is in no queue."""

    @property
    def task_name(self) -> str:
        """The name of the task that parked, or an empty string."""
        return "" if self.task is None else name_of(self.task)

    @property
    def task_id(self) -> int:
        """The id of the task that parked, as anyio tells it, or 0."""
        return 0 if self.task is None else id(self.task)

    @property
    def settled(self) -> bool:
        """Granted or failed."""
        return self.granted is not None or self.error is not None

    def grant(self, granted: T) -> None:
        """Hand over what was asked for, and wake the task."""
        self.granted = granted
        self.wake()

    def fail(self, error: BaseException) -> None:
        """Wake the task with `error`."""
        self.error = error
        self.wake()

    def wake(self) -> None:
        """Wake the task if it sleeps."""
        sleeper = self._sleeper
        if sleeper is not None and not sleeper.done():
            sleeper.set_result(None)

    def sleeper(self, waits: Waits) -> Awaitable[object]:
        """Return what the task is to await once; then `result` tells the outcome.

        On any exception out of the sleep the request may hold something all the same; the caller
        takes it back.
        """
        if self.granted is not None or self.error is not None:
            return waits.checkpoint()
        sleeper: Awaitable[object] = waits.sleeper()
        self._sleeper = sleeper
        return sleeper

    async def park(self) -> T:
        """Sleep until settled; return what was granted, or raise the error."""
        await self.sleeper(current_waits())
        return self.result()

    def result(self) -> T:
        """What was granted, or the error; the request must be settled."""
        if self.error is not None:
            raise self.error
        assert self.granted is not None
        return self.granted


class RequestQueue(Generic[T]):
    """Requests in the order of their arrival; any may leave in constant time.

    A ring of the requests themselves, closed by the queue: an entry of an `OrderedDict` would be
    more memory for each waiter. Each change is one step, which no exception can interrupt.
    """

    __slots__ = ("after", "before", "count")

    def __init__(self) -> None:
        self.after: Any = self
        """The oldest request, or the queue itself if there is none."""
        self.before: Any = self
        """The newest request, or the queue itself if there is none."""
        self.count: int = 0
        """How many wait."""

    @property
    def head(self) -> Request[T] | None:
        """The oldest request."""
        return self.after if self.count else None

    def append(self, request: Request[T]) -> None:
        """Add the newest request."""
        last = self.before
        request.before = last; request.after = self; last.after = self.before = request; self.count += 1  # noqa: E501, E702 - one step  # fmt: skip

    def remove(self, request: Request[T]) -> bool:
        """Take a request out, wherever it stands. False if it had left."""
        before, after = request.before, request.after
        if after is None:
            return False
        before.after = after; after.before = before; request.before = request.after = None; self.count -= 1  # noqa: E501, E702 - one step  # fmt: skip
        return True

    def __iter__(self) -> Iterator[Request[T]]:
        request = self.after
        while request is not self:
            yield request
            request = request.after

    def __contains__(self, request: Request[T]) -> bool:
        return request.after is not None  # a request is in one queue only

    def __len__(self) -> int:
        return self.count
