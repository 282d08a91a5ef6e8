"""The buffers that one transport of asyncio has to send, and when each comes home.

After ``transport.write(view)``, asyncio since 3.12 and uvloop keep the memory and not a copy. So a
transport gets one buffer at a time, and a buffer is released when the transport's write buffer is
empty (its high water mark is set to 0, so that the transport says when), or when the connection is
lost and nothing more will be sent. If something exports the memory even then, the item waits in
quarantine: the end of a private lease raises nothing because of an export.

On Python 3.11, and over TLS or on Windows on every release, a transport keeps a copy of what it
could not send, and no pool counts that copy. So a large buffer is given in slices, the next one
when the transport keeps nothing of the last. Then the copy is no larger than a slice, however large
the buffer is. (Over TLS there are two transports, and each keeps bytes.)

Each `Outgoing` holds a private lease, so nothing else can release it. An error at the end of one
lease, or of the transport itself, ends neither the queue nor the wait of a sender.

A transport belongs to another protocol from the moment at which ``set_protocol`` was called on it,
as the loop's ``start_tls`` does. What is written to it then would be sent in plaintext. So nothing
is given to a transport that was taken away.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from mbufpools import Buffer

from ._direction import Direction
from ._owner import Owner
from ._pieces import SLICE, Taken, end_view

__all__ = ["Outgoing", "Writing"]


class Outgoing(Taken):
    """A buffer that has to be sent."""

    __slots__ = ("_end", "_slice", "awaited", "error", "event", "given", "pending", "sent")

    def __init__(self, buffer: Any, nbytes: Any, awaited: bool) -> None:
        super().__init__(buffer, nbytes)
        self.awaited = awaited
        """True if a task gets the error of the release; else the loop's exception handler does."""
        self.given = False
        """True once the transport has got all bytes."""
        self.pending = True
        """True until the lease has ended."""
        self.sent = False
        """True if all bytes have gone."""
        self.error: Exception | None = None
        """The error at the end of the lease."""
        self._end = 0
        """Where the last slice ends that the transport has got, if there are several."""
        self._slice: memoryview | None = None
        """That slice."""
        self.event: asyncio.Event | None = None
        """Set when the lease has ended, if a task waits for that."""

    @property
    def begun(self) -> bool:
        """True if the transport has got a slice, and not all bytes."""
        return self._end > 0

    def give(self, transport: asyncio.Transport) -> None:
        """Give `transport` the next slice, which may be all."""
        data = self.data
        if data is not None and self.nbytes > SLICE:
            self._end_slice()
            begin, self._end = self._end, self._end + SLICE
            data = self._slice = data[begin : self._end]
        self.given = self._end >= self.nbytes or self.nbytes <= SLICE
        if data is not None:
            transport.write(data)

    def gave(self, data: memoryview) -> None:
        """Note that the transport has got all bytes, as `data`."""
        self.given, self._slice = True, data

    def _end_slice(self) -> None:
        part, self._slice = self._slice, None
        if part is not None:
            end_view(part)

    async def wait(self) -> None:
        """Wait until the lease has ended."""
        if self.event is None:
            self.event = asyncio.Event()
        await self.event.wait()

    def end(self, *, sent: bool) -> None:
        """End the lease, and wake the tasks that wait for that."""
        self._end_slice()
        try:
            self.finish()
        except Exception as error:  # noqa: BLE001 - told, or raised to the task that sends
            self.error = error
        finally:
            self.pending, self.sent = False, sent
            if self.event is not None:
                self.event.set()


class Writing:
    """Everything that one transport has to send, in order."""

    def __init__(
        self,
        owner: Owner,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._owner = owner
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        """None before the connection is made, and after it is lost or has failed."""
        self._asked: asyncio.Transport | None = None
        """The transport, if it tells its protocol, until the connection is lost."""
        self._protocol: object = None
        """The protocol of the transport when the connection was made."""
        self.state = Direction.OPEN
        self.queue: deque[Outgoing] = deque()
        """What the kernel does not have yet."""
        self._pumping = False
        """True inside `pump`, which the transport may call again."""
        self._then: Callable[[], object] | None = None

    def __len__(self) -> int:
        return len(self.queue)

    def start(self, transport: asyncio.Transport) -> None:
        """Send through `transport` from now on: it has connected, or speaks TLS now."""
        self._transport = transport
        try:
            self._protocol = transport.get_protocol()
        except NotImplementedError:  # a transport of another library, which has no start_tls
            self._asked = self._protocol = None
        else:
            self._asked = transport
        transport.set_write_buffer_limits(high=0)
        self.pump()

    @property
    def ready(self) -> bool:
        """True if the transport is connected, this protocol has it, and nothing has ended."""
        return self.state is Direction.OPEN and self.has_transport()

    def has_transport(self) -> bool:
        """Return True if this protocol has the transport, and that is open."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return False
        asked = self._asked
        try:  # as `taken_away`, without its call
            return asked is None or asked.get_protocol() is self._protocol
        except AttributeError:
            return True

    @property
    def taken_away(self) -> bool:
        """True if another protocol has the transport now, or got the report that it is lost."""
        asked = self._asked
        try:
            return asked is not None and asked.get_protocol() is not self._protocol
        except AttributeError:  # asyncio's TLS has closed
            return False

    def write_at_once(self, buffer: Buffer, data: memoryview, awaited: bool) -> Outgoing | None:
        """Send `data`, which is a slice at most, and release `buffer`, whose bytes it is. The
        queue is empty, and the caller has asked for `ready`.

        The kernel mostly takes all bytes at once; then the result is None. That saves the private
        lease: until the transport has returned, `data` exports the memory, so that even a release
        by another thread gives it to no other owner. Else the result is in the queue."""
        transport = self._transport
        assert transport is not None
        error: Exception | None = None
        try:
            transport.write(data)
            gone = not (transport.is_closing() or transport.get_write_buffer_size())
        except Exception as raised:  # noqa: BLE001 - the transport's own, whatever it is
            gone, error = False, raised
        if gone:
            end_view(data)
            try:
                buffer.end()
            except Exception as failed:
                if awaited:
                    raise
                self._tell_unreleased(failed)
            return None
        outgoing = Outgoing(buffer, len(data), awaited)
        outgoing.gave(data)
        self.queue.append(outgoing)
        if error is not None:
            self._fail_with(error)
        elif self._transport is None:  # the transport has reported the lost connection inside
            self._end_first(sent=False)
        return outgoing

    def add(self, outgoing: Outgoing) -> None:
        """Send `outgoing` after everything in the queue. The caller has asked for `ready`."""
        self.queue.append(outgoing)
        self.pump(checked=True)

    def then(self, function: Callable[[], object]) -> None:
        """Call `function` when everything has been sent."""
        self._then = function
        self.pump()

    async def sent(self) -> None:
        """Wait until the queue is empty, or the connection is lost."""
        while self.queue:
            await self.queue[-1].wait()

    def pump(self, *, checked: bool = False) -> None:
        """Give the transport one slice after another, until it keeps bytes of one. `checked` says
        that it was not taken away."""
        transport = self._transport
        if transport is None or self._pumping:  # TLS calls `resume_writing` inside `write`
            return
        self._pumping = True
        try:
            while self.queue:
                head = self.queue[0]
                if not head.given:
                    if not checked and self.taken_away:
                        return  # what is written now would be sent in plaintext
                    if head.begun and transport.get_write_buffer_size():
                        return  # it keeps bytes of the last slice, and another write has come
                    checked = False
                    head.give(transport)
                if transport.is_closing():
                    return  # the write failed; `connection_lost` follows
                if transport.get_write_buffer_size():
                    return  # it keeps bytes; `resume_writing` follows
                if head.given:
                    self._end_first(sent=True)
        except Exception as error:  # noqa: BLE001 - the transport's own, whatever it is
            self._fail_with(error)
            return
        finally:
            self._pumping = False
        if self._then is not None:
            # Not called here, because asyncio's transport calls `connection_lost` twice if it is
            # closed inside `resume_writing`.
            self._loop.call_soon(self._then)

    def _fail_with(self, error: Exception) -> None:
        self._transport = None  # nothing more is given to it, nor counts as sent
        owner = self._owner()
        if owner is not None:
            owner._fail(error)

    def lose(self) -> None:
        """The connection is lost and nothing more will be sent: end all leases."""
        self.state = max(self.state, Direction.LOST)
        self._transport = None
        self._asked = self._protocol = self._then = None  # else a cycle would keep them all
        while self.queue:
            self._end_first(sent=False)

    def _end_first(self, *, sent: bool) -> None:
        outgoing = self.queue[0]
        try:
            outgoing.end(sent=sent)
        finally:
            self.queue.popleft()
        if outgoing.error is not None and not outgoing.awaited:
            self._tell_unreleased(outgoing.error)

    def _tell_unreleased(self, error: Exception) -> None:
        owner = self._owner()
        if owner is not None:
            owner._tell("a buffer that was written cannot be released", error)
