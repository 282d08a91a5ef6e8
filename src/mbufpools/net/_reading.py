"""The buffers that one transport of asyncio reads into, until a task receives them.

asyncio reads by itself, and asks for memory when it cannot wait: ``get_buffer`` is a plain function
and must return room for at least one byte. So memory comes in two ways.

- While the pools have memory, ``get_buffer`` takes a buffer when bytes have arrived. An idle
  connection holds none.
- When the pools have no memory, ``get_buffer`` lends a *spare byte* instead, and reading pauses
  once that byte is read. Then the caller of `receive` waits for the pools, in their order, where
  `explain` shows it. Its buffer begins with the spare byte, and reading continues into the rest.

No background task is needed, so none can be left behind.

While the pools are dry, each buffer would cost a spare byte, a pause and a resume. So a buffer that
was waited for is filled by one system call, and the reading is *hungry* from then on: the transport
stays paused, and the next call of `receive` asks the kernel whether bytes have arrived. If so, it
waits for a buffer and fills that in the same way. If not, the transport reads again. (This is done
for plain sockets only, because TLS keeps bytes of its own.)

While memory is plenty, each buffer that the transport fills is followed by such a direct read,
until `read_ahead` buffers are full: bytes that come fast cost one turn of the loop for several
buffers.

uvloop asks for a buffer speculatively if the last one came back full, and may then find no bytes.
The same happens on every loop at the end of a connection. A buffer that got no byte is released at
the next turn of the loop. (uvloop must not pause inside ``get_buffer``, because libuv would call a
null pointer. So reading pauses in ``buffer_updated``, which follows every read.)
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import anyio

from mbufpools import Buffer, BufferPools, RequestError
from mbufpools._buffer import hold_by_task
from mbufpools._waits import turn

from ._direct import Direct, direct
from ._direction import Direction
from ._owner import Owner
from ._peer import Peer
from ._pieces import end_view
from ._writing import Writing

__all__ = ["Reading"]


REFUSED = (anyio.WouldBlock, anyio.ClosedResourceError, RequestError, MemoryError)
"""The reasons for having no buffer now. `receive` waits for one, or raises the reason."""


class Reading:
    """Everything that one transport has read and no task has received."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        pools: BufferPools,
        nbytes: int,
        read_ahead: int,
        writing: Writing,
        owner: Owner,
        peer: Peer | None,
    ) -> None:
        self._loop = loop
        self._pool = pools.pool_for(nbytes)
        self._budget = pools.budget
        self._writing = writing
        """Tells whether the protocol still has the transport, and the transport is open."""
        self._owner = owner
        self._peer = peer
        """Learns which buffers are read ahead; None without debug mode."""
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
        self._paused = False
        """True if the transport was told to pause."""
        self._returning = False
        """True if `_return_unused` is scheduled."""
        self._direct: Direct | None = None
        """The transport's socket, if it can be read from beside the transport; see `_socket`."""
        self._asked_for_direct = False
        """True if `_direct` is known. Most connections do not need it."""
        self._hungry = False
        """True if bytes were read while the transport was paused, and it still is."""
        self._receiving = False
        """True while a task is in `receive`."""
        self._news: asyncio.Future[None] | None = None
        """Awaited by the receiver until something changes for it."""
        self._waiting: asyncio.Task[Any] | None = None
        """The receiver that waits for the pools."""

    def __repr__(self) -> str:
        return f"{len(self._full)} full, {self._filled} bytes in the next"

    def start(self, transport: asyncio.Transport) -> None:
        """Control the reading of `transport` from now on: it has connected, or speaks TLS now."""
        self._transport = transport
        self._direct, self._asked_for_direct = None, False
        self._hungry = False
        self._paused = False
        if not (self._closed or self._may_read()):
            self._pause(transport)

    def leave(self) -> None:
        """Pause reading, until the next `start` or `come_back`."""
        transport, self._transport = self._transport, None
        self._hungry = False
        if transport is not None:
            self._pause(transport)

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
        if self._room is not None:
            self._end_room()
        filling = self._filling
        if filling is None:
            if self._may_read():
                try:
                    self._filling = filling = self._pool.get_nowait(self._nbytes)
                except REFUSED:
                    pass
                else:
                    if self._peer is not None:
                        self._peer.read_ahead(filling)
                    if not self._returning:
                        self._returning = True
                        self._loop.call_soon(self._return_unused)
            if filling is None:
                self._lent = True
                return self._spare
        self._lent = False
        # A slice, because uvloop exports it until its callback has returned.
        self._room = room = filling.view[self._filled :]
        return room

    def updated(self, nbytes: int) -> None:
        """The transport has read `nbytes` bytes into the memory of `get_buffer`."""
        self._room = None
        if self._lent:
            if not self._closed:
                self._carry += self._spare
        else:
            self._filled += nbytes
            if self._filled < self._nbytes:  # which changes nothing but that there is news
                if self._news is not None:
                    self._tell()
                return
            self._queue_if_full()
            self._read_on()
        if self._transport is not None and not self._may_read():
            self._pause(self._transport)
        if self._news is not None:
            self._tell()

    def end(self) -> None:
        """The peer has sent its last byte."""
        self.state = max(self.state, Direction.ENDED)
        self._tell()

    def lose(self, error: Exception | None) -> None:
        """The transport has lost the connection; what it has read can still be received."""
        self.state = max(self.state, Direction.LOST)
        self._error = error
        self._transport = None
        self._hungry = False
        self._end_room()
        self._return_unused()
        self._tell()

    def _return_unused(self) -> None:
        """Release the buffer that the transport asked for and read nothing into."""
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
        if self._receiving:
            raise anyio.BusyResourceError("receiving from")
        self._receiving = True
        try:
            # One checkpoint before bytes are taken. If there are none, the wait for them is one.
            if self._paused or self._full or self._filled or self.state is not Direction.OPEN:
                await turn()
            while (received := self._take()) is None:
                if self._carry or self._hungry:
                    self._resume()  # a buffer may have come back since
                if self._full or self._filled:
                    continue
                if self._carry or self._hungry:
                    await self._wait_for_the_pools()
                else:
                    self._raise_the_end()
                    await self._wait_for_news()
            return received
        finally:
            self._receiving = False

    def close(self) -> None:
        """Stop reading, release what was read, and end the wait of a receiver."""
        self.state = Direction.CLOSED
        unread = [*self._full, *([] if self._filling is None else [self._filling])]
        self._full.clear()
        self._filling, self._filled = None, 0
        self._carry.clear()
        self._hungry = False
        self._tell()
        if self._waiting is not None:
            self._waiting.cancel()
        self._end_room()
        for buffer in unread:
            buffer.end()

    @property
    def _closed(self) -> bool:
        return self.state is Direction.CLOSED

    def _take(self) -> tuple[Buffer, int] | None:
        if self.state is Direction.CLOSED:
            raise anyio.ClosedResourceError("the connection was closed on this side")
        if self._full:
            received = self._full.popleft(), self._nbytes
        elif self._filling is not None and self._filled:
            received = self._filling, self._filled
            self._filling, self._filled = None, 0
            if self._room is not None:  # which the transport got, and then found no bytes
                self._end_room()
        else:
            return None
        if self._peer is not None:
            hold_by_task(received[0])
        if self._paused and not self._hungry:
            self._resume()
        return received

    def _raise_the_end(self) -> None:
        if self.state is Direction.ENDED:
            raise anyio.EndOfStream
        if self.state is Direction.LOST:
            raise anyio.BrokenResourceError("the connection was lost") from self._error

    async def _wait_for_news(self) -> None:
        self._news = self._loop.create_future()
        try:
            await self._news
        finally:
            self._news = None

    def _tell(self) -> None:
        """Wake the receiver."""
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    async def _wait_for_the_pools(self) -> None:
        self._waiting = task = asyncio.current_task()
        assert task is not None
        cancels = task.cancelling()
        try:
            buffer = await self._pool.get(self._nbytes)
        except asyncio.CancelledError:
            # `close` has cancelled the task, as the end of an `asyncio.timeout` does. (A cancel
            # scope of anyio takes more calls.) Perhaps something else has cancelled it, too.
            if self._closed and task.uncancel() <= cancels:
                return  # noqa: ASYNC104 - `close` has asked for this alone
            raise
        finally:
            self._waiting = None
        self._adopt(buffer, waited=True)
        if self._hungry:
            return  # the next receive looks for more
        self._resume()
        if self._socket() is not None:
            return
        # The kernel probably has more than the spare byte, so the loop gets time to read it. The
        # loop polls the sockets in the first turn, and in each turn may run tasks before readers.
        for _ in range(2):
            if self._filled > 1 or self._closed:
                break
            await turn()

    def _adopt(self, buffer: Buffer, *, waited: bool) -> None:
        """Read into `buffer` from now on; it begins with the bytes that were carried, and goes on
        with those that have arrived. `waited` says that there was no memory for it at first."""
        if self._peer is not None:
            self._peer.read_ahead(buffer)
        count = 0
        if self._carry:
            count = min(len(self._carry), self._nbytes)
            buffer.view[:count] = self._carry[:count]
            del self._carry[:count]
        self._filling, self._filled = buffer, count
        more = self._read_directly() if count < self._nbytes else 0
        self._filled += more
        # Memory that was not waited for may be there for the transport, too.
        self._hungry = more > 0 and (waited or self._filled == self._nbytes)
        self._queue_if_full()
        if not self._filled:
            self._return_unused()

    def _read_directly(self) -> int:
        """Read what has arrived into the rest of the buffer, while the transport is paused."""
        socket = self._socket()
        if socket is None or not self._writing.has_transport():
            return 0
        assert self._filling is not None
        try:
            with self._filling.view[self._filled :] as room:
                return socket.read(room)
        except OSError as error:
            owner = self._owner()
            if owner is not None:
                owner._break_off(error)
            return 0

    def _read_on(self) -> None:
        """The transport has filled a buffer, so more has probably arrived. Read it at once: that
        saves a turn of the loop for each buffer, and reading goes on by itself if this fills one,
        too. If memory is scarce, the first buffer of another connection goes before."""
        budget = self._budget
        while (
            len(self._full) < self._read_ahead
            and 2 * budget.available >= budget.limit
            and self._filling is None
            and not self._closed
            and self._bytes_wait()
        ):
            try:
                self._adopt(self._pool.get_nowait(self._nbytes), waited=False)
            except REFUSED:
                return

    def _bytes_wait(self) -> bool:
        """Return True if bytes have arrived that can be read beside the transport."""
        socket = self._socket()
        return socket is not None and self._writing.has_transport() and socket.waiting() > 0

    def _socket(self) -> Direct | None:
        if not self._asked_for_direct and self._transport is not None:
            self._direct, self._asked_for_direct = direct(self._transport), True
        return None if self._transport is None else self._direct

    def _queue_if_full(self) -> None:
        if self._filling is not None and self._filled == self._nbytes:
            self._full.append(self._filling)
            self._filling, self._filled = None, 0

    def _resume(self) -> None:
        """Resume reading if there is memory for the next bytes, and fewer than `read_ahead`
        buffers are full."""
        if self._transport is None or self._closed:
            return
        if self._hungry:
            self._hungry = self._bytes_wait()
        wants = (self._carry or self._hungry) and self._filling is None
        if wants and len(self._full) < self._read_ahead:
            try:
                self._adopt(self._pool.get_nowait(self._nbytes), waited=False)
            except REFUSED:
                return
        if self._may_read():
            self._paused = False
            self._transport.resume_reading()

    def _pause(self, transport: asyncio.Transport) -> None:
        self._paused = True
        transport.pause_reading()

    def _may_read(self) -> bool:
        return not (
            self.state is Direction.CLOSED
            or self._carry
            or self._hungry
            or len(self._full) >= self._read_ahead
        )
