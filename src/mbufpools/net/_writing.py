"""The buffers that one transport of asyncio is to send, and when each may be released.

After ``transport.write(view)`` asyncio since 3.12 and uvloop keep the memory and not a copy, and
CPython does not show it: a release at once lets the next owner write into what is still to be
sent. So a transport is given one buffer at a time, and a buffer is released only when the
transport's write buffer is empty (its high water is set to 0, so that it tells), or when the
connection is lost and nothing will be sent any more. Uses the public names of the core.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from mbufpools import Buffer, BufferInUse

__all__ = ["Outgoing", "Writing"]


class Outgoing:
    """A buffer that is to be sent."""

    __slots__ = ("awaited", "buffer", "event", "given", "nbytes", "pending", "refused", "sent")

    def __init__(self, buffer: Buffer, nbytes: int, awaited: bool) -> None:
        self.buffer = buffer
        self.nbytes = nbytes
        self.awaited = awaited
        """Somebody will be told what came of it."""
        self.given = False
        """The transport has it."""
        self.pending = True
        self.sent = False
        self.refused: BufferInUse | None = None
        """Why it could not be released."""
        self.event: asyncio.Event | None = None

    def end(self, *, sent: bool) -> None:
        """Release the buffer, and wake who waits for that."""
        self.pending, self.sent = False, sent
        try:
            self.buffer.release()
        except BufferInUse as error:
            self.refused = error
        if self.event is not None:
            self.event.set()


class Writing:
    """All that one transport is to send, in order."""

    def __init__(self, loop: asyncio.AbstractEventLoop, owner: object) -> None:
        self._loop = loop
        self._owner = owner
        self._transport: asyncio.Transport | None = None
        self._queue: deque[Outgoing] = deque()
        self._buffers: set[Buffer] = set()
        """Those in `_queue`."""
        self._pumping = False
        self._then: Callable[[], object] | None = None

    def __len__(self) -> int:
        return len(self._queue)

    def start(self, transport: asyncio.Transport) -> None:
        """Send through `transport`."""
        self._transport = transport
        transport.set_write_buffer_limits(high=0)

    def add(self, buffer: Buffer, nbytes: int, *, awaited: bool) -> Outgoing:
        """Send the first `nbytes` of `buffer` after all others.

        Raises:
            ValueError: it is in the queue already.
        """
        if buffer in self._buffers:
            raise ValueError(f"{buffer!r} is being written already; it is released after once")
        outgoing = Outgoing(buffer, nbytes, awaited)
        self._queue.append(outgoing)
        self._buffers.add(buffer)
        self.pump()
        return outgoing

    def then(self, function: Callable[[], object]) -> None:
        """Have `function` called when all has been sent."""
        self._then = function
        self.pump()

    def pump(self) -> None:
        """Give the transport one buffer after another, as long as it keeps nothing of them."""
        transport = self._transport
        if transport is None or self._pumping:  # TLS calls `resume_writing` inside of `write`
            return
        self._pumping = True
        try:
            while self._queue:
                head = self._queue[0]
                if not head.given:
                    head.given = True
                    transport.write(head.buffer.view[: head.nbytes])
                if transport.is_closing():
                    return  # it failed: `connection_lost` follows
                if transport.get_write_buffer_size():
                    return  # it keeps some: `resume_writing` follows
                self._end_first(sent=True)
        finally:
            self._pumping = False
        if self._then is not None:
            # Not here: asyncio's transport calls `connection_lost` twice if it is closed inside
            # of `resume_writing`.
            self._loop.call_soon(self._then)

    def drop(self) -> None:
        """Nothing more will be sent: release all."""
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
