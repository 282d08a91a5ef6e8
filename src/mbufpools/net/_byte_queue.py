"""The queue of `create_byte_stream`: items whose bytes count against the limit of the pools.

A sender that has to wait takes its place in the queue at once. Its item is *ready* when its bytes
are reserved, and can be received when all items before it are ready, too. (The item cannot join the
queue when its sender resumes, because trio resumes tasks that were woken together in any order.)
The bytes are reserved in the order of the pools, so the head is always granted first.

No item is ever handed to a receiver that sleeps: an item stays in the queue until a receiver *runs*
and takes it. A receiver is only woken, and from then on counts as one that will take an item. So a
woken receiver that is cancelled before it runs has nothing to put back. It leaves, and the next one
is woken instead.

Invariants, whatever is cancelled in whatever order:

- Each take is of the oldest item, so the items are received in the order of the sends.
- The stream has ended when no item is in the queue. An item that a woken receiver may still leave
  is in the queue, so no other receiver is told of the end before the last item was received.
- At most as many receivers are woken as items can be received. So a woken receiver that runs finds
  an item; and while a receiver sleeps, each item has a woken receiver.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict, deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Generic, TypeVar

import anyio

from mbufpools import BufferPools, Reservation
from mbufpools._request import Request, RequestQueue

__all__ = ["ByteBoundStreamStatistics", "ByteQueue", "Entry"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ByteBoundStreamStatistics:
    """The state of a stream of `create_byte_stream` at one moment.

    Attributes:
        current_buffer_used: The number of items that were sent and not received.
        current_bytes: The number of bytes of the pools' limit that these items hold.
        open_send_streams: The number of sending ends that are open.
        open_receive_streams: The number of receiving ends that are open.
        tasks_waiting_send: The number of tasks that wait in `send`.
        tasks_waiting_receive: The number of tasks that wait in `receive`.
    """

    current_buffer_used: int
    current_bytes: int
    open_send_streams: int
    open_receive_streams: int
    tasks_waiting_send: int
    tasks_waiting_receive: int


class Entry(Generic[T]):
    """An item in the stream, or an item of a sender that waits."""

    __slots__ = ("error", "item", "nbytes", "ready", "reservation", "waiting")

    def __init__(self, item: T, nbytes: int) -> None:
        self.item: T = item
        self.nbytes: int = nbytes
        self.reservation: Reservation | None = None
        """None before the grant, and for an item of 0 bytes."""
        self.ready: bool = False
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
        self.ready: deque[Entry[T]] = deque()
        """The entries that can be received, in the order of the sends."""
        self.delayed: OrderedDict[Entry[T], None] = OrderedDict()
        """The later entries. The sender of the first one waits."""
        self.parked: RequestQueue[bool] = RequestQueue()
        """The receivers that sleep."""
        self.woken: set[Request[bool]] = set()
        """The receivers that were woken to take an item, and have not run."""
        self.items: int = 0
        """The number of items that were sent and not received."""
        self.bytes: int = 0
        self.senders_open = 0
        self.receivers_open = 0
        self.numbers: itertools.count[int] = itertools.count(1)

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

    def wait(self, entry: Entry[T]) -> None:
        """`entry` takes its place in the queue; its sender waits."""
        self.delayed[entry] = None

    def withdraw(self, entry: Entry[T]) -> None:
        """The sender of `entry` stops waiting; the entries behind it may be ready."""
        if self.delayed.pop(entry, self) is None:
            self._advance()

    def put(self, entry: Entry[T]) -> None:
        """`entry` is sent: it is ready, in its place or at the end of the queue."""
        entry.ready = True
        self.items += 1
        self.bytes += entry.nbytes
        self.delayed.setdefault(entry)
        self._advance()

    def _advance(self) -> None:
        while self.delayed and next(iter(self.delayed)).ready:
            self.ready.append(self.delayed.popitem(last=False)[0])
        self.serve()

    def serve(self) -> None:
        """Wake the receivers that have waited longest: one for each item, or all at the end."""
        while (request := self.parked.head) is not None:
            if self.spare:
                self.woken.add(request)
                self.parked.remove(request)
                request.grant(True)
            elif self.ended:
                self.parked.remove(request)
                request.fail(anyio.EndOfStream())
            else:
                break

    @property
    def spare(self) -> bool:
        """True if there are more items than woken receivers."""
        return len(self.ready) > len(self.woken)

    @property
    def ended(self) -> bool:
        """True if no item can follow. (A waiting sender holds its end open, or is refused.)"""
        return not (self.senders_open or self.ready or self.delayed)

    def take(self) -> T:
        """The oldest item leaves the stream, and its bytes go back to the pools."""
        item = self._drop(self.ready.popleft())
        if not self.ready:
            self.serve()  # it may have been the last item
        return item

    def take_as(self, request: Request[bool]) -> T:
        """As `take`, by the woken receiver of `request`, which runs now."""
        self.woken.remove(request)
        return self.take()

    def leave(self, requests: Collection[Request[bool]]) -> None:
        """The receivers of `requests`, woken or not, will take no item; others may."""
        for request in requests:
            self.parked.remove(request)
            self.woken.discard(request)
        self.serve()

    def _drop(self, entry: Entry[T]) -> T:
        self.items -= 1
        self.bytes -= entry.nbytes
        entry.release()
        return entry.item

    def break_off(self) -> None:
        """No receiver is left: refuse the waiting senders, and drop the items that were sent."""
        entries = [*self.ready, *self.delayed]
        self.ready.clear()
        self.delayed.clear()
        for entry in entries:
            if entry.ready:
                self._drop(entry)
            else:
                entry.refuse(anyio.BrokenResourceError())

    def statistics(self) -> ByteBoundStreamStatistics:
        """A snapshot of the stream."""
        return ByteBoundStreamStatistics(
            current_buffer_used=self.items,
            current_bytes=self.bytes,
            open_send_streams=self.senders_open,
            open_receive_streams=self.receivers_open,
            tasks_waiting_send=sum(not entry.ready for entry in self.delayed),
            tasks_waiting_receive=len(self.parked),
        )
