"""A stream of objects that is bounded by their bytes, which count against the pools' limit.

The semantics are those of `anyio.create_memory_object_stream`, but it is not built on one: there
an item that was handed to a waiting receiver is lost if asyncio's ``Task.cancel()`` reaches him
before he runs, and its bytes with it. Here a receiver gives back what he cannot take.

Uses `_byte_queue`, and of the core its public names and `_request`.
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
    """What the two ends have in common: they are cloned and closed."""

    _closed = False

    @abstractmethod
    def close(self) -> None:
        """Close this end."""

    async def aclose(self) -> None:
        """As `close`, and a checkpoint."""
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
    """The sending end. Made by `create_byte_stream` and by `clone`."""

    def __init__(self, queue: ByteQueue[Any]) -> None:
        self._queue = queue
        self._waiting: set[Entry[Any]] = set()
        queue.senders_open += 1

    async def send(self, item: T_contra) -> None:
        """Put `item` into the stream, once its bytes are reserved.

        Blocks until the pools grant ``size(item)`` bytes, in the order of everybody who waits
        for memory there; items keep the order of the calls. Always a checkpoint. A cancelled
        send has sent nothing and holds nothing.

        Raises:
            ImpossibleRequest: the item is larger than the pools could ever grant; at once.
            anyio.BrokenResourceError: every receiving end is closed, now or while waiting.
            anyio.ClosedResourceError: this end is closed, or the pools are.
            TypeError, ValueError: `size` gave no integer of bytes, or a negative one.
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
                entry.release()
                raise entry.error
        except BaseException:
            queue.withdraw(entry)
            raise
        finally:
            self._waiting.discard(entry)
        queue.put(entry)

    def send_nowait(self, item: T_contra) -> None:
        """Put `item` into the stream at once, or raise `anyio.WouldBlock`. Never blocks.

        Raises:
            anyio.WouldBlock: its bytes are not free, or a sender waits who came first.
            ImpossibleRequest, anyio.BrokenResourceError, anyio.ClosedResourceError, TypeError,
                ValueError: as `send`.
        """
        if not self._send_at_once(self._entry(item)):
            raise anyio.WouldBlock

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
        if queue.unready:  # somebody was granted his bytes, and has not run since
            entry.release()
            return False
        queue.put(entry)
        return True

    def clone(self) -> Self:
        """Return another sending end of the same stream, to be closed by itself.

        Raises:
            anyio.ClosedResourceError: this end is closed.
        """
        if self._closed:
            raise anyio.ClosedResourceError
        return type(self)(self._queue)

    def close(self) -> None:
        """Close this end; who waits in a `send` of it gets `anyio.ClosedResourceError`.

        What was sent can still be received. Once every sending end is closed, a receiver that
        finds nothing gets `anyio.EndOfStream`. Never blocks; a second time it does nothing.
        """
        if self._closed:
            return
        self._closed = True
        queue = self._queue
        queue.senders_open -= 1
        for entry in self._waiting:
            queue.withdraw(entry)
            entry.refuse(anyio.ClosedResourceError())
        queue.serve()

    def statistics(self) -> ByteBoundStreamStatistics:
        """Return a snapshot of the whole stream."""
        return self._queue.statistics()


class ByteBoundReceiveStream(_End, ObjectReceiveStream[T_co]):
    """The receiving end; also an async iterator. Made by `create_byte_stream` and by `clone`."""

    def __init__(self, queue: ByteQueue[Any]) -> None:
        self._queue = queue
        self._waiting: set[Request[Any]] = set()
        queue.receivers_open += 1

    async def receive(self) -> T_co:
        """Return the next item, whose bytes are the pools' again from then on.

        Blocks until there is one; those who wait are served in the order of their calls. Always
        a checkpoint. A cancelled receive has taken nothing: an item that was handed to it at
        that moment is the next one again.

        Raises:
            anyio.EndOfStream: every sending end is closed, and all was received.
            anyio.ClosedResourceError: this end is closed, now or while waiting.
        """
        await checkpoint()
        try:
            return self.receive_nowait()
        except anyio.WouldBlock:
            pass
        queue = self._queue
        request: Request[Entry[Any]] = Request(next(queue.numbers), 0, 0)
        queue.receivers.append(request)
        self._waiting.add(request)
        try:
            entry = await request.park()
        except BaseException:
            queue.receivers.remove(request)
            if request.granted is not None:
                queue.give_back(request.granted)
            raise
        finally:
            self._waiting.discard(request)
        item: T_co = queue.take(entry)
        return item

    def receive_nowait(self) -> T_co:
        """Return the next item at once, or raise `anyio.WouldBlock`. Never blocks.

        Raises:
            anyio.WouldBlock: there is none; nor is one for a sender that waits for memory.
            anyio.EndOfStream, anyio.ClosedResourceError: as `receive`.
        """
        if self._closed:
            raise anyio.ClosedResourceError
        queue = self._queue
        entry = queue.head()
        if entry is not None:
            del queue.entries[entry]
            item: T_co = queue.take(entry)
            return item
        if queue.ended:
            raise anyio.EndOfStream
        raise anyio.WouldBlock

    def clone(self) -> Self:
        """Return another receiving end of the same stream, to be closed by itself.

        Raises:
            anyio.ClosedResourceError: this end is closed.
        """
        if self._closed:
            raise anyio.ClosedResourceError
        return type(self)(self._queue)

    def close(self) -> None:
        """Close this end; who waits in a `receive` of it gets `anyio.ClosedResourceError`.

        Once every receiving end is closed, what is in the stream is dropped and gives its bytes
        back, and senders get `anyio.BrokenResourceError`. Never blocks; a second time it does
        nothing.
        """
        if self._closed:
            return
        self._closed = True
        queue = self._queue
        for request in self._waiting:
            if queue.receivers.remove(request):
                request.fail(anyio.ClosedResourceError())
        queue.receivers_open -= 1
        if not queue.receivers_open:
            queue.break_off()

    def statistics(self) -> ByteBoundStreamStatistics:
        """Return a snapshot of the whole stream."""
        return self._queue.statistics()


class create_byte_stream(  # a function that can be subscripted, as anyio's
    tuple[ByteBoundSendStream[T], ByteBoundReceiveStream[T]]
):
    """Make a stream of objects whose bytes count against the limit of `pools`.

    Called as a function, and subscripted for type checkers, as anyio's
    ``create_memory_object_stream``::

        send, receive = create_byte_stream[bytes](pools)

    Each item holds ``size(item)`` bytes of the pools' budget from its send until it is received,
    beside the pages of the pools and in one order with those who wait for them. What a receiver
    does with an item then is his own affair. By default that is the item's ``len``, right
    for `bytes`; an item of no bytes is never held up by the limit, but keeps its place.

    Close both ends before the pools: what is still in the stream is reported as a leak then.

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
