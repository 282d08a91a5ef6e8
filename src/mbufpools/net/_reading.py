"""The buffers that one transport of asyncio reads into, until a task receives them.

asyncio reads by itself, and asks for memory when it cannot wait: ``get_buffer`` is a plain function
and must return room for at least one byte. So memory comes in two ways.

- While the pools have memory, ``get_buffer`` takes a buffer when bytes have arrived. An idle
  connection holds none.
- When the pools have no memory, ``get_buffer`` lends a *spare byte* instead, and reading pauses
  once that byte is read. Then the caller of `receive` waits for the pools, in their order, where
  `explain` shows it. Its buffer begins with the spare byte, and reading continues into the rest.

No background task is needed, so none can be left behind.

uvloop asks for a buffer speculatively if the last one came back full, and may then find no bytes.
The same happens on every loop at the end of a connection. A buffer that got no byte is released at
the next turn of the loop. (uvloop must not pause inside ``get_buffer``, because libuv would call a
null pointer. So reading pauses in ``buffer_updated``, which follows every read.)
"""

from __future__ import annotations

import asyncio
from collections import deque

import anyio
from anyio.lowlevel import checkpoint

from mbufpools import Buffer, BufferPools, RequestError

from ._direction import Direction
from ._pieces import end_view

__all__ = ["Reading"]

REFUSED = (anyio.WouldBlock, anyio.ClosedResourceError, RequestError, MemoryError)
"""The reasons for having no buffer now. `receive` waits for one, or raises the reason."""


class Reading:
    """Everything that one transport has read and no task has received."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, pools: BufferPools, nbytes: int, read_ahead: int
    ) -> None:
        self._loop = loop
        self._pools = pools
        self._nbytes = nbytes
        self._read_ahead = read_ahead
        self._transport: asyncio.Transport | None = None
        """None before the connection is made, and after it is lost."""
        self.state = Direction.OPEN
        self._error: Exception | None = None
        """The reason for which the connection was lost."""
        self._full: deque[Buffer] = deque()
        self._filling: Buffer | None = None
        """The buffer that gets the next bytes. The bytes that it has can be received."""
        self._filled = 0
        """The number of bytes in `_filling`."""
        self._room: memoryview | None = None
        """The part of `_filling` that the transport was lent last."""
        self._spare = bytearray(1)
        self._lent = False
        """True if the transport reads into the spare byte, because it got no buffer."""
        self._carry = bytearray()
        """Bytes that were read into the spare byte. Reading is paused while there are any."""
        self._returning = False
        """True if `_return_unused` is scheduled."""
        self._guard = anyio.ResourceGuard("receiving from")
        self._news = asyncio.Event()
        """Set when something changes for the receiver."""
        self._waiting: anyio.CancelScope | None = None
        """The scope of a receiver that waits for the pools."""

    def __repr__(self) -> str:
        return f"{len(self._full)} full, {self._filled} bytes in the next"

    def start(self, transport: asyncio.Transport) -> None:
        """Control the reading of `transport` from now on: it has connected, or speaks TLS now."""
        self._transport = transport
        if not (self._closed or self._may_read()):
            transport.pause_reading()

    def leave(self) -> None:
        """Pause reading, until the next `start` or `come_back`."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.pause_reading()

    def come_back(self, transport: asyncio.Transport) -> None:
        """Control the reading of `transport` again, after `leave`."""
        self._transport = transport
        self._resume()

    @property
    def unread(self) -> bool:
        """True if bytes have arrived that no task has received."""
        return bool(self._full or self._filled or self._carry)

    # What the transport calls

    def get_buffer(self) -> memoryview | bytearray:
        """Return memory for the next bytes: the rest of a buffer, or the spare byte."""
        self._end_room()
        if self._filling is None and self._may_read():
            try:
                self._filling = self._pools.get_nowait(self._nbytes)
            except REFUSED:
                pass
            else:
                if not self._returning:
                    self._returning = True
                    self._loop.call_soon(self._return_unused)
        self._lent = self._filling is None
        if self._filling is None:
            return self._spare
        # A slice, because uvloop exports it until its callback has returned.
        self._room = self._filling.view[self._filled :]
        return self._room

    def updated(self, nbytes: int) -> None:
        """The transport has read `nbytes` bytes into the memory of `get_buffer`."""
        self._room = None
        if self._lent:
            if not self._closed:
                self._carry += self._spare
        else:
            self._filled += nbytes
            self._queue_if_full()
        if self._transport is not None and not self._may_read():
            self._transport.pause_reading()
        self._news.set()

    def end(self) -> None:
        """The peer has sent its last byte."""
        self.state = max(self.state, Direction.ENDED)
        self._news.set()

    def lose(self, error: Exception | None) -> None:
        """The transport has lost the connection; what it has read can still be received."""
        self.state = max(self.state, Direction.LOST)
        self._error = error
        self._transport = None
        self._end_room()
        self._return_unused()
        self._news.set()

    def _return_unused(self) -> None:
        self._returning = False
        if self._filling is not None and not self._filled:
            unused, self._filling = self._filling, None
            self._end_room()
            unused.end()

    def _end_room(self) -> None:
        room, self._room = self._room, None
        if room is not None:
            end_view(room)

    # What the receiver calls

    async def receive(self) -> tuple[Buffer, int]:
        """Return a buffer and the number of its bytes; see `PooledBufferedProtocol.receive`."""
        with self._guard:
            await checkpoint()
            while (received := self._take()) is None:
                if self._carry:
                    await self._wait_for_the_pools()
                else:
                    self._raise_the_end()
                    self._news.clear()
                    await self._news.wait()
            return received

    def close(self) -> None:
        """Stop reading, release what was read, and end the wait of a receiver."""
        self.state = Direction.CLOSED
        unread = [*self._full, *([] if self._filling is None else [self._filling])]
        self._full.clear()
        self._filling, self._filled = None, 0
        self._carry.clear()
        self._news.set()
        if self._waiting is not None:
            self._waiting.cancel()
        try:
            if self._transport is not None:
                self._transport.pause_reading()
        finally:
            self._end_room()
            for buffer in unread:
                buffer.end()

    @property
    def _closed(self) -> bool:
        return self.state is Direction.CLOSED

    def _take(self) -> tuple[Buffer, int] | None:
        if self._closed:
            raise anyio.ClosedResourceError("the connection was closed on this side")
        if self._full:
            buffer = self._full.popleft()
            received = buffer, buffer.nbytes
        elif self._filling is not None and self._filled:
            received = self._filling, self._filled
            self._filling, self._filled = None, 0
        else:
            return None
        self._resume()
        return received

    def _raise_the_end(self) -> None:
        if self.state is Direction.ENDED:
            raise anyio.EndOfStream
        if self.state is Direction.LOST:
            raise anyio.BrokenResourceError("the connection was lost") from self._error

    async def _wait_for_the_pools(self) -> None:
        try:
            with anyio.CancelScope() as self._waiting:
                buffer = await self._pools.get(self._nbytes)
                if self._closed:
                    buffer.end()
                else:
                    self._adopt(buffer)
        finally:
            self._waiting = None
        self._resume()
        # The kernel probably has more than the spare byte, so the loop gets time to read it. The
        # loop polls the sockets in the first turn, and in each turn may run tasks before readers.
        for _ in range(2):
            if self._filled > 1 or self._closed:
                break
            await checkpoint()

    def _adopt(self, buffer: Buffer) -> None:
        """Read into `buffer` from now on; it begins with the bytes that were carried."""
        count = min(len(self._carry), buffer.nbytes)
        buffer.view[:count] = self._carry[:count]
        del self._carry[:count]
        self._filling, self._filled = buffer, count
        self._queue_if_full()

    def _queue_if_full(self) -> None:
        if self._filling is not None and self._filled == self._filling.nbytes:
            self._full.append(self._filling)
            self._filling, self._filled = None, 0

    def _resume(self) -> None:
        """Resume reading if there is memory for the next bytes, and fewer than `read_ahead`
        buffers are full."""
        if self._transport is None or self._closed:
            return
        if self._carry and self._filling is None and len(self._full) < self._read_ahead:
            try:
                self._adopt(self._pools.get_nowait(self._nbytes))
            except REFUSED:
                return
        if self._may_read():
            self._transport.resume_reading()

    def _may_read(self) -> bool:
        return not (self._closed or self._carry or len(self._full) >= self._read_ahead)
