"""A stream of objects bounded by their bytes, which count against the limit of the pools.

The semantics are those of `anyio.create_memory_object_stream`, but the stream is not built on one.
There, an item that was handed to a waiting receiver is lost if asyncio's ``Task.cancel()`` reaches
the receiver before it runs. Here an item stays in the stream until a receiver runs and takes it.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeVar

import anyio
from anyio.abc import ObjectReceiveStream, ObjectSendStream
from anyio.lowlevel import checkpoint

from mbufpools import BufferPools
from mbufpools._request import Request

from ._byte_queue import ByteBoundStreamStatistics, ByteQueue, Entry

__all__ = [
    "ByteBoundReceiveStream",
    "ByteBoundSendStream",
    "create_byte_stream",
]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
T_contra = TypeVar("T_contra", contravariant=True)


class _End(ABC):
    """The common part of both ends: they are closed, and warn if they were not."""

    _closed = False

    @abstractmethod
    def close(self) -> None:
        """Close this end."""

    async def aclose(self) -> None:
        """Close this end as `close` does. A checkpoint; a cancelled one has closed it too."""
        self.close()
        await checkpoint()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if not self._closed:
            warnings.warn(
                f"Unclosed <{type(self).__name__} at {id(self):x}>",
                ResourceWarning,
                stacklevel=1,
                source=self,
            )


class ByteBoundSendStream(_End, ObjectSendStream[T_contra]):
    """The sending end of a stream. `create_byte_stream` and `clone` make it."""

    def __init__(self, queue: ByteQueue[Any]) -> None:
        self._queue = queue
        self._waiting: set[Entry[Any]] = set()
        queue.senders_open += 1

    async def send(self, item: T_contra) -> None:
        """Put `item` into the stream when its bytes are reserved.

        Blocks until the pools grant ``size(item)`` bytes. Always a checkpoint. A cancelled send has
        sent nothing and holds nothing.

        Fairness: the bytes are granted in the order of all requests that wait for memory in these
        pools. Items keep the order of the calls.

        Raises:
            ImpossibleRequest: the item is larger than the pools could ever grant; raised at once.
            anyio.BrokenResourceError: every receiving end is closed, before the call or during it.
            anyio.ClosedResourceError: this end is closed, before the call or during it; or the
                pools are closed.
            TypeError, ValueError: `size` returned something else than an integer of bytes, or a
                negative one.
        """
        await checkpoint()
        queue, entry = self._queue, self._entry(item)
        if self._send_at_once(entry):
            return
        queue.wait(entry)
        self._waiting.add(entry)
        try:
            with anyio.CancelScope() as entry.waiting:
                entry.reservation = await queue.reserve(entry)
            if entry.error is not None:
                raise entry.error
        except BaseException:
            entry.release()
            queue.withdraw(entry)
            raise
        finally:
            self._waiting.discard(entry)
        queue.put(entry)

    def send_nowait(self, item: T_contra) -> None:
        """Put `item` into the stream at once. Never blocks; not a checkpoint.

        Raises:
            anyio.WouldBlock: the bytes are not free, or an earlier sender waits.
            ImpossibleRequest, anyio.BrokenResourceError, anyio.ClosedResourceError, TypeError,
                ValueError: as from `send`.
        """
        entry = self._entry(item)
        if not self._send_at_once(entry):
            raise anyio.WouldBlock(
                f"the stream cannot take an item of {entry.nbytes} bytes now (they are not free, "
                f"or older requests wait); `await send` waits for them"
            )

    def _entry(self, item: T_contra) -> Entry[T_contra]:
        if self._closed:
            raise anyio.ClosedResourceError
        if not self._queue.receivers_open:
            raise anyio.BrokenResourceError
        return Entry(item, self._queue.nbytes(item))

    def _send_at_once(self, entry: Entry[T_contra]) -> bool:
        queue = self._queue
        if entry.nbytes:
            try:
                entry.reservation = queue.pools.reserve_nowait(entry.nbytes)
            except anyio.WouldBlock:
                return False
        if queue.delayed:  # an earlier sender was granted its bytes and has not run yet
            entry.release()
            return False
        queue.put(entry)
        return True

    def clone(self) -> Self:
        """Return another sending end of the same stream, which must be closed separately.

        Never blocks.

        Raises:
            anyio.ClosedResourceError: this end is closed.
        """
        if self._closed:
            raise anyio.ClosedResourceError
        return type(self)(self._queue)

    def close(self) -> None:
        """Close this end. A task that waits in its `send` gets `anyio.ClosedResourceError`.

        Items that were sent can still be received. When every sending end is closed, a receiver
        that finds no item gets `anyio.EndOfStream`. Never blocks. A second call does nothing.
        """
        if self._closed:
            return
        self._closed = True
        queue = self._queue
        queue.senders_open -= 1
        for entry in self._waiting:
            entry.refuse(anyio.ClosedResourceError())
            queue.withdraw(entry)
        queue.serve()

    def statistics(self) -> ByteBoundStreamStatistics:
        """Return a snapshot of the whole stream, in items and bytes. Never blocks."""
        return self._queue.statistics()


class ByteBoundReceiveStream(_End, ObjectReceiveStream[T_co]):
    """The receiving end of a stream, and an async iterator of its items.

    `create_byte_stream` and `clone` make it.
    """

    def __init__(self, queue: ByteQueue[Any]) -> None:
        self._queue = queue
        self._waiting: set[Request[bool]] = set()
        queue.receivers_open += 1

    async def receive(self) -> T_co:
        """Return the next item, and give its bytes back to the pools.

        Blocks until there is an item. Always a checkpoint. A cancelled receive has taken nothing:
        the item that it was woken for is still the next one, and the next receiver is woken.

        Items are received in the order of the sends, whatever is cancelled: of several receivers,
        the one that runs first takes the oldest item.

        Fairness: receivers are woken in the order of their calls, one for each item. (asyncio runs
        them in that order, trio in any.)

        Raises:
            anyio.EndOfStream: every sending end is closed, and all items were received.
            anyio.ClosedResourceError: this end is closed, before the call or during it.
        """
        await checkpoint()
        try:
            return self.receive_nowait()
        except anyio.WouldBlock:
            pass
        queue = self._queue
        request: Request[bool] = Request(next(queue.numbers), 0, 0)
        queue.parked.append(request)
        self._waiting.add(request)
        try:
            await request.park()
        except BaseException:
            queue.leave([request])
            raise
        finally:
            self._waiting.discard(request)
        item: T_co = queue.take_as(request)
        return item

    def receive_nowait(self) -> T_co:
        """Return the next item at once, and give its bytes back. Never blocks; not a checkpoint.

        Raises:
            anyio.WouldBlock: no item is ready (the item of a sender that waits for memory is not),
                or a receiver was woken for each.
            anyio.EndOfStream, anyio.ClosedResourceError: as from `receive`.
        """
        if self._closed:
            raise anyio.ClosedResourceError
        queue = self._queue
        if queue.spare:
            item: T_co = queue.take()
            return item
        if queue.ended:
            raise anyio.EndOfStream
        raise anyio.WouldBlock(
            "the stream has no item to receive now; `await receive` waits for one"
        )

    def clone(self) -> Self:
        """Return another receiving end of the same stream, which must be closed separately.

        Never blocks.

        Raises:
            anyio.ClosedResourceError: this end is closed.
        """
        if self._closed:
            raise anyio.ClosedResourceError
        return type(self)(self._queue)

    def close(self) -> None:
        """Close this end. A task that waits in its `receive` gets `anyio.ClosedResourceError`.

        When every receiving end is closed, the items in the stream are dropped and give their
        bytes back, and senders get `anyio.BrokenResourceError`. Never blocks. A second call does
        nothing.
        """
        if self._closed:
            return
        self._closed = True
        queue = self._queue
        queue.receivers_open -= 1
        for request in self._waiting:
            request.fail(anyio.ClosedResourceError())
        queue.leave(self._waiting)
        if not queue.receivers_open:
            queue.break_off()

    def statistics(self) -> ByteBoundStreamStatistics:
        """Return a snapshot of the whole stream, in items and bytes. Never blocks."""
        return self._queue.statistics()


class create_byte_stream(  # a function that can be subscripted, like anyio's
    tuple[ByteBoundSendStream[T], ByteBoundReceiveStream[T]]
):
    """Make a stream of objects whose bytes count against the limit of `pools`.

    Call it as a function; subscript it for type checkers, like anyio's
    ``create_memory_object_stream``::

        send, receive = create_byte_stream[bytes](pools)

    Each item holds ``size(item)`` bytes of the pools' budget from its send until it is received,
    in addition to the pages of the pools. Senders wait in the same order as requests for pages. By
    default `size` is ``len``, which is right for `bytes`. The limit never delays an item of 0
    bytes, but the item keeps its place in the queue.

    Making a stream never blocks. Close both ends before the pools: items that are still in the
    stream then are reported as a leak.

    Returns:
        A pair (`ByteBoundSendStream`, `ByteBoundReceiveStream`).
    """

    def __new__(  # type: ignore[misc]  # it returns the pair that it describes
        cls,
        pools: BufferPools,
        *,
        size: Callable[[T], int] = len,  # type: ignore[assignment]
    ) -> tuple[ByteBoundSendStream[T], ByteBoundReceiveStream[T]]:
        queue: ByteQueue[T] = ByteQueue(pools, size)
        return ByteBoundSendStream(queue), ByteBoundReceiveStream(queue)
