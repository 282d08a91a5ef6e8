"""The queue of `create_byte_stream`: items whose bytes count against the limit of the pools.

A sender that has to wait takes its place in the queue at once. Its item is *ready* when its bytes
are reserved, and only a ready item at the head can be received. (The item cannot join the queue
when its sender resumes, because trio resumes tasks that were woken together in any order.) The
bytes are reserved in the order of the pools, so the head is always granted first.

A parked receiver is handed an item. If it cannot take the item, the item goes back to the head.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import anyio

from mbufpools import BufferPools, Reservation
from mbufpools._request import RequestQueue

__all__ = ["ByteBoundStreamStatistics", "ByteQueue", "Entry"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ByteBoundStreamStatistics:
    """The state of a stream of `create_byte_stream` at one moment."""

    current_buffer_used: int
    """The number of items that can be received, or were handed to a receiver that has not run."""
    current_bytes: int
    """The number of bytes of the pools' limit that these items hold."""
    open_send_streams: int
    open_receive_streams: int
    tasks_waiting_send: int
    tasks_waiting_receive: int


class Entry(Generic[T]):
    """An item in the stream, or an item of a sender that waits."""

    __slots__ = ("error", "item", "nbytes", "ready", "reservation", "waiting")

    def __init__(self, item: T, nbytes: int) -> None:
        self.item = item
        self.nbytes = nbytes
        self.reservation: Reservation | None = None
        """None before the grant, and for an item of 0 bytes."""
        self.ready = False
        self.error: Exception | None = None
        """The reason for which the item will not be sent."""
        self.waiting: anyio.CancelScope | None = None
        """The scope of the sender that waits."""

    def refuse(self, error: Exception) -> None:
        """End the wait of the sender with `error`."""
        assert self.waiting is not None
        self.error = error
        self.waiting.cancel()

    def release(self) -> None:
        """Give the reserved bytes back."""
        if self.reservation is not None:
            self.reservation.release()
            self.reservation = None


class ByteQueue(Generic[T]):
    """The queue of one stream; all ends of the stream share it."""

    def __init__(self, pools: BufferPools, size: Callable[[T], int]) -> None:
        self.pools = pools
        self.size = size
        self.entries: OrderedDict[Entry[T], None] = OrderedDict()
        """All entries, in the order of the sends."""
        self.unready: set[Entry[T]] = set()
        """The entries whose senders wait."""
        self.receivers: RequestQueue[Entry[T]] = RequestQueue()
        self.items = 0
        """The number of ready items that are in the queue or handed to a receiver."""
        self.bytes = 0
        self.senders_open = 0
        self.receivers_open = 0
        self.numbers = itertools.count(1)

    def nbytes(self, item: T) -> int:
        """The size of `item` in bytes. Raises TypeError or ValueError if it is not one."""
        nbytes = self.size(item)
        if isinstance(nbytes, bool) or not isinstance(nbytes, int):
            raise TypeError(f"the size of an item is {nbytes!r}; expected an integer of bytes")
        if nbytes < 0:
            raise ValueError(f"the size of an item is {nbytes} bytes; expected at least 0")
        return nbytes

    async def reserve(self, entry: Entry[T]) -> Reservation | None:
        """Wait until the bytes of `entry` are granted."""
        return await self.pools.reserve(entry.nbytes) if entry.nbytes else None

    def head(self) -> Entry[T] | None:
        """The next item, if it is ready."""
        entry = next(iter(self.entries), None)
        return entry if entry is not None and entry.ready else None

    def wait(self, entry: Entry[T]) -> None:
        """`entry` takes its place in the queue."""
        self.entries[entry] = None
        self.unready.add(entry)

    def withdraw(self, entry: Entry[T]) -> None:
        """The sender of `entry` stops waiting; the entries behind it may be ready."""
        if entry in self.unready:
            self.unready.remove(entry)
            del self.entries[entry]
            self.serve()

    def put(self, entry: Entry[T]) -> None:
        """`entry` is ready, in its place or at the end of the queue: serve the receivers."""
        entry.ready = True
        self.unready.discard(entry)
        self.entries.setdefault(entry)
        self.items += 1
        self.bytes += entry.nbytes
        self.serve()

    def take(self, entry: Entry[T]) -> T:
        """The item of `entry` leaves the stream, and its bytes go back to the pools."""
        self.items -= 1
        self.bytes -= entry.nbytes
        entry.release()
        return entry.item

    def serve(self) -> None:
        """Hand the oldest items to the receivers that have waited longest, or end their wait."""
        while (request := self.receivers.head) is not None:
            entry = self.head()
            if entry is not None:
                self.receivers.remove(request)
                del self.entries[entry]
                request.grant(entry)
            elif self.ended:
                self.receivers.remove(request)
                request.fail(anyio.EndOfStream())
            else:
                break

    @property
    def ended(self) -> bool:
        """True if no item can follow. (A waiting sender holds its end open, or is refused.)"""
        return not self.senders_open and not self.entries

    def give_back(self, entry: Entry[T]) -> None:
        """A receiver cannot take the `entry` that it was handed: it becomes the next item again."""
        if not self.receivers_open:
            self.take(entry)
            return
        self.entries[entry] = None
        self.entries.move_to_end(entry, last=False)
        self.serve()

    def break_off(self) -> None:
        """No receiver is left: refuse the waiting senders, and drop the items that were sent."""
        entries, self.entries = self.entries, OrderedDict()
        self.unready.clear()
        for entry in entries:
            if entry.ready:
                self.take(entry)
            else:
                entry.refuse(anyio.BrokenResourceError())

    def statistics(self) -> ByteBoundStreamStatistics:
        """A snapshot of the stream."""
        return ByteBoundStreamStatistics(
            current_buffer_used=self.items,
            current_bytes=self.bytes,
            open_send_streams=self.senders_open,
            open_receive_streams=self.receivers_open,
            tasks_waiting_send=len(self.unready),
            tasks_waiting_receive=len(self.receivers),
        )
