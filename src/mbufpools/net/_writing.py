"""The buffers that one transport of asyncio has to send, and when each may be released.

After ``transport.write(view)``, asyncio since 3.12 and uvloop keep the memory and not a copy, and
CPython does not show that. A release at once would let the next owner of the memory write into
bytes that are still to be sent. So a transport gets one buffer at a time. A buffer is released
only when the transport's write buffer is empty (its high water mark is set to 0, so that the
transport says when), or when the connection is lost and nothing more will be sent.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from mbufpools import Buffer, BufferInUse

from ._direction import Direction

__all__ = ["Outgoing", "Writing"]


class Outgoing:
    """A buffer that has to be sent."""

    __slots__ = ("awaited", "buffer", "event", "given", "nbytes", "pending", "refused", "sent")

    def __init__(self, buffer: Buffer, nbytes: int, awaited: bool) -> None:
        self.buffer = buffer
        self.nbytes = nbytes
        self.awaited = awaited
        """True if a task gets the error of the release; else the loop's exception handler does."""
        self.given = False
        """True once the transport has the bytes."""
        self.pending = True
        """True until the buffer is released."""
        self.sent = False
        """True if all bytes have gone."""
        self.refused: BufferInUse | None = None
        """The reason for which the buffer could not be released."""
        self.event: asyncio.Event | None = None

    def end(self, *, sent: bool) -> None:
        """Release the buffer, and wake the task that waits for that."""
        self.pending, self.sent = False, sent
        try:
            self.buffer.release()
        except BufferInUse as error:
            self.refused = error
        if self.event is not None:
            self.event.set()


class Writing:
    """Everything that one transport has to send, in order."""

    def __init__(self, loop: asyncio.AbstractEventLoop, owner: object) -> None:
        self._loop = loop
        self._owner = owner
        self._transport: asyncio.Transport | None = None
        """None before the connection is made, and after it is lost."""
        self.state = Direction.OPEN
        self._queue: deque[Outgoing] = deque()
        self._buffers: set[Buffer] = set()
        """The buffers in `_queue`."""
        self._pumping = False
        """True inside `pump`, which the transport may call again."""
        self._then: Callable[[], object] | None = None

    def __len__(self) -> int:
        return len(self._queue)

    def start(self, transport: asyncio.Transport) -> None:
        """Send through `transport`, which has connected."""
        self._transport = transport
        transport.set_write_buffer_limits(high=0)

    def add(self, buffer: Buffer, nbytes: int, *, awaited: bool) -> Outgoing:
        """Send the first `nbytes` bytes of `buffer` after everything in the queue.

        Raises:
            ValueError: the buffer is in the queue already.
        """
        if buffer in self._buffers:
            raise ValueError(f"{buffer!r} is being written already, and is released after that")
        outgoing = Outgoing(buffer, nbytes, awaited)
        self._queue.append(outgoing)
        self._buffers.add(buffer)
        self.pump()
        return outgoing

    def then(self, function: Callable[[], object]) -> None:
        """Call `function` when everything has been sent."""
        self._then = function
        self.pump()

    def pump(self) -> None:
        """Give the transport one buffer after another, until it keeps bytes of one."""
        transport = self._transport
        if transport is None or self._pumping:  # TLS calls `resume_writing` inside `write`
            return
        self._pumping = True
        try:
            while self._queue:
                head = self._queue[0]
                if not head.given:
                    head.given = True
                    transport.write(head.buffer.view[: head.nbytes])
                if transport.is_closing():
                    return  # the write failed; `connection_lost` follows
                if transport.get_write_buffer_size():
                    return  # it keeps bytes; `resume_writing` follows
                self._end_first(sent=True)
        finally:
            self._pumping = False
        if self._then is not None:
            # Not called here, because asyncio's transport calls `connection_lost` twice if it is
            # closed inside `resume_writing`.
            self._loop.call_soon(self._then)

    def lose(self) -> None:
        """The connection is lost and nothing more will be sent: release all buffers."""
        self.state = max(self.state, Direction.LOST)
        self._transport = None
        while self._queue:
            self._end_first(sent=False)

    def _end_first(self, *, sent: bool) -> None:
        outgoing = self._queue.popleft()
        self._buffers.discard(outgoing.buffer)
        outgoing.end(sent=sent)
        if outgoing.refused is not None and not outgoing.awaited:
            self._loop.call_exception_handler(
                {
                    "message": "a buffer that was written cannot be released",
                    "exception": outgoing.refused,
                    "protocol": self._owner,
                }
            )
