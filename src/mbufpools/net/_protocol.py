"""A connection of asyncio whose bytes come in and go out in buffers of the pools.

asyncio reads by itself and asks for memory when it has no time to wait: ``get_buffer`` is a plain
function, and must return room for one byte at least. So memory comes in two ways. As long as the
pools have some it is taken in ``get_buffer``, when bytes are there, and a connection that is idle
holds none. When the pools are dry, ``get_buffer`` lends a *spare byte* instead; reading pauses,
and it is the caller of `receive` who waits for the pools, in the order of everybody, where
`explain` shows him. His buffer begins with the spare byte, and reading goes on into the rest.
No task runs in the background, so none can be left behind.

uvloop asks for a buffer speculatively, when the last one came back full, and then may find
nothing to put into it; so may anybody at a connection's end. A buffer that got no byte is given
back at the loop's next turn. (uvloop must not be told to pause inside ``get_buffer``: libuv would
call a null pointer. It pauses in ``buffer_updated``, which follows a byte that is read.)

Uses `_pieces` and `_writing`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType
from typing import Self, cast

import anyio
from anyio.lowlevel import checkpoint

from mbufpools import Buffer, BufferPools, RequestError, UsageError

from ._pieces import check_piece
from ._writing import Outgoing, Writing

__all__ = ["PooledBufferedProtocol"]

REFUSED = (anyio.WouldBlock, anyio.ClosedResourceError, RequestError, MemoryError)
"""Why there may be no buffer now. `receive` will wait for one, or raise the same to its caller."""


class PooledBufferedProtocol(asyncio.BufferedProtocol):
    """An `asyncio.BufferedProtocol` that reads into buffers of `pools`, and writes from them.

    For asyncio's own loop and for uvloop, made where a protocol factory is wanted::

        protocol = PooledBufferedProtocol(pools, 16384)
        await loop.create_connection(lambda: protocol, host, port)
        async with protocol:
            while True:
                buffer, nbytes = await protocol.receive()
                await protocol.send(buffer, nbytes)     # and it releases the buffer

    It reads ahead, up to `read_ahead` buffers that nobody has received yet; then it pauses
    reading, and TCP holds the peer back. So it does when the pools have no buffer; then `receive`
    waits for one in its turn, and reading resumes with it. A connection that is idle holds no
    buffer, and one whose bytes nobody receives at most `read_ahead`.

    Close it before its pools: what it still holds then is reported as a leak, as with any owner.

    Args:
        pools: the set that gives the buffers; of the same event loop.
        nbytes: bytes of each buffer. A buffer is filled from several reads, as long as nobody
            receives it.
        read_ahead: buffers that may be waiting to be received.

    Raises:
        UsageError: no asyncio loop is running. On trio use `recv_into` and `send_all`.
        RequestError: `nbytes` is no size that the pools have.
        ValueError: `read_ahead` is below 1.
    """

    def __init__(self, pools: BufferPools, nbytes: int, *, read_ahead: int = 2) -> None:
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            raise UsageError(
                "PooledBufferedProtocol is asyncio's way to do it, and no asyncio loop is running "
                "here; make it inside of a coroutine, and on trio use recv_into and send_all"
            ) from None
        pools.pool_for(nbytes)
        if read_ahead < 1:
            raise ValueError(f"read_ahead is {read_ahead}; expected at least 1 buffer")
        self._pools = pools
        self._nbytes = nbytes
        self._read_ahead = read_ahead
        self._transport: asyncio.Transport | None = None
        self._over_tls = False
        self._closed = False
        self._lost = False
        self._error: Exception | None = None
        """Why the connection was lost."""
        self._gone = asyncio.Event()

        self._full: deque[Buffer] = deque()
        self._filling: Buffer | None = None
        """Where the next bytes go; those there are can be received."""
        self._filled = 0
        """Bytes in it."""
        self._spare = bytearray(1)
        self._lent = False
        """The transport has the spare byte to read into, and no buffer."""
        self._carry = bytearray()
        """Bytes read into the spare one. While there are some, reading is paused."""
        self._returning = False
        self._eof = False
        self._receiving = anyio.ResourceGuard("receiving from")
        self._news = asyncio.Event()
        """Set when something changes for the receiver."""
        self._waiting: anyio.CancelScope | None = None
        """Of a receiver that waits for the pools."""

        self._writing = Writing(self._loop, self)
        self._no_more = False
        """Nothing will be written after what is in `_writing`."""

    # Receiving

    async def receive(self) -> tuple[Buffer, int]:
        """Return a buffer and how many of its first bytes came in, at least one.

        The buffer is the receiver's, who releases it (`send` does). Bytes come in their order;
        where one buffer ends and the next begins says nothing.

        Blocks until there are bytes, and for the pools when they are dry, in the order of all
        who want a buffer. Always a checkpoint. A cancelled receive has taken nothing.

        Raises:
            anyio.EndOfStream: the peer has sent its last byte, and all was received.
            anyio.BrokenResourceError: the connection was lost, and all that had come was
                received. The cause is the OSError.
            anyio.ClosedResourceError: it was closed on this side, or the pools were.
            anyio.BusyResourceError: another task receives.
            ImpossibleRequest, MemoryError: as `BufferPools.get`.
        """
        with self._receiving:
            await checkpoint()
            while (received := self._take()) is None:
                if self._carry:
                    await self._wait_for_the_pools()
                else:
                    self._raise_the_end()
                    self._news.clear()
                    await self._news.wait()
            return received

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
        self._read_on()
        return received

    def _raise_the_end(self) -> None:
        if self._eof:
            raise anyio.EndOfStream
        if self._lost:
            raise anyio.BrokenResourceError("the connection was lost") from self._error

    async def _wait_for_the_pools(self) -> None:
        try:
            with anyio.CancelScope() as self._waiting:
                buffer = await self._pools.get(self._nbytes)
                if self._closed:
                    buffer.release()
                else:
                    self._adopt(buffer)
        finally:
            self._waiting = None
        self._read_on()
        # The kernel most likely has more than the spare byte: let the loop read it first. It
        # looks at the sockets in the first turn, and may run tasks before readers in each.
        for _ in range(2):
            if self._filled > 1 or self._closed:
                break
            await checkpoint()

    def _adopt(self, buffer: Buffer) -> None:
        """Go on with `buffer`, which begins with the bytes that were carried."""
        count = min(len(self._carry), buffer.nbytes)
        buffer.view[:count] = self._carry[:count]
        del self._carry[:count]
        self._filling, self._filled = buffer, count
        self._put_by_if_full()

    def _put_by_if_full(self) -> None:
        if self._filling is not None and self._filled == self._filling.nbytes:
            self._full.append(self._filling)
            self._filling, self._filled = None, 0

    def _read_on(self) -> None:
        """Resume reading if there may be more in hand, and where to put it."""
        if self._transport is None or self._lost or self._closed:
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

    def _release_received(self) -> None:
        for buffer in self._full:
            buffer.release()
        self._full.clear()
        if self._filling is not None:
            self._filling.release()
        self._filling, self._filled = None, 0
        self._carry.clear()

    # What the transport calls for reading

    def get_buffer(self, sizehint: int) -> memoryview | bytearray:
        """Return where the transport shall read to. Not for applications."""
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
        # A slice: uvloop exports it until its callback has returned.
        return self._filling.view[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        """The transport has read so many bytes. Not for applications."""
        if self._lent:
            if not self._closed:
                self._carry += self._spare
        else:
            self._filled += nbytes
            self._put_by_if_full()
        if self._transport is not None and not self._may_read():
            self._transport.pause_reading()
        self._news.set()

    def eof_received(self) -> bool:
        """The peer will send no more; this side still may. Not for applications."""
        self._eof = True
        self._news.set()
        return not self._over_tls  # TLS closes in any case, and warns if it is told not to

    def _return_unused(self) -> None:
        self._returning = False
        if self._filling is not None and not self._filled:
            self._filling.release()
            self._filling = None

    # Writing

    def write(self, buffer: Buffer, nbytes: int | None = None) -> None:
        """Have the first `nbytes` of `buffer` sent, all of them by default, and release it then.

        From this call on the buffer is the protocol's, unless the call raises. It is released
        once its last byte was handed to the kernel, or when the connection is lost.

        Never blocks, so it holds nobody back but by the buffers that it keeps: `send` is the one
        that waits. Writes go out in the order of the calls. A buffer that cannot be released then,
        because something exports its view, is reported to the loop's exception handler.

        Raises:
            anyio.ClosedResourceError: closed on this side, or `write_eof` was called.
            anyio.BrokenResourceError: the connection was lost.
            TypeError, ValueError, UseAfterRelease: not a buffer that can be sent.
            UsageError: not connected yet.
        """
        self._write(buffer, nbytes, awaited=False)

    async def send(self, buffer: Buffer, nbytes: int | None = None) -> None:
        """As `write`, and wait until the kernel has the last byte; then the buffer is released.

        Blocks as long as the peer makes no room. Always a checkpoint.

        A cancelled send is only a wait that ended: a transport cannot take back what it was
        given, so the bytes go out all the same, and the buffer is released then. (`send_all` gives
        nothing away before the kernel takes it, and so can leave the rest with its caller.)

        Raises:
            anyio.BrokenResourceError: the connection was lost before; its cause is the OSError.
            BufferInUse: something exports the view. The bytes have gone; the buffer is the
                caller's again.
            anyio.ClosedResourceError, TypeError, ValueError, UseAfterRelease, UsageError: as
                `write`; then the buffer is still the caller's.
        """
        outgoing = self._write(buffer, nbytes, awaited=True)
        if outgoing.pending:
            outgoing.event = asyncio.Event()
            await outgoing.event.wait()
        else:
            await checkpoint()
        if outgoing.refused is not None:
            raise outgoing.refused
        if not outgoing.sent:
            raise anyio.BrokenResourceError(
                "the connection was lost before all was sent"
            ) from self._error

    def write_eof(self) -> None:
        """Tell the peer that no more will be sent, after all that was written. Never blocks.

        Receiving goes on. Called twice it does nothing; over TLS it cannot be done.

        Raises:
            anyio.ClosedResourceError, UsageError: as `write`.
            NotImplementedError: asyncio's, over TLS.
        """
        transport = self._connected()
        if not self._no_more:
            if not transport.can_write_eof():
                raise NotImplementedError("this transport cannot end one direction alone")
            self._no_more = True
            self._writing.then(self._end_writing)

    def _connected(self) -> asyncio.Transport:
        if self._closed:
            raise anyio.ClosedResourceError("the connection was closed on this side")
        if self._transport is None:
            raise UsageError("the protocol is not connected yet; await the loop's create_ first")
        return self._transport

    def _write(self, buffer: Buffer, nbytes: int | None, *, awaited: bool) -> Outgoing:
        buffer, nbytes = check_piece(buffer if nbytes is None else (buffer, nbytes))
        transport = self._connected()
        if self._no_more:
            raise anyio.ClosedResourceError("write_eof was called; nothing can be written any more")
        if self._lost or transport.is_closing():
            raise anyio.BrokenResourceError("the connection was lost") from self._error
        return self._writing.add(buffer, nbytes, awaited=awaited)

    def _end_writing(self) -> None:
        transport = self._transport
        if transport is None or self._lost:
            return
        if self._closed:
            transport.close()
        else:
            try:
                transport.write_eof()
            except OSError:  # the connection is lost, as the receiver will hear
                pass

    # What the transport calls for writing

    def pause_writing(self) -> None:
        """The transport keeps some bytes. Not for applications."""

    def resume_writing(self) -> None:
        """The transport keeps none any more. Not for applications."""
        self._writing.pump()

    # Life

    @property
    def transport(self) -> asyncio.Transport | None:
        """The transport, once connected: for its ``get_extra_info``."""
        return self._transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The transport is there. Not for applications."""
        self._transport = transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self._over_tls = transport.get_extra_info("sslcontext") is not None
        self._writing.start(transport)
        if self._closed:
            # One turn later: uvloop has not yet taken over the socket.
            self._loop.call_soon(transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport has gone, and will send nothing any more. Not for applications."""
        self._lost = True
        self._error = exc
        self._writing.drop()
        self._return_unused()
        self._news.set()
        self._gone.set()

    def close(self) -> None:
        """Close the connection, once all that was written has gone. Never blocks.

        What was received and nobody took is released at once; a task in `receive` gets
        `anyio.ClosedResourceError`. What was written is released as it goes, or when the
        connection is lost; `aclose` waits for that.
        """
        if self._closed:
            return
        self._closed = True
        self._release_received()
        self._news.set()
        if self._waiting is not None:
            self._waiting.cancel()
        if self._transport is not None and not self._lost:
            self._transport.pause_reading()
            self._writing.then(self._end_writing)

    def abort(self) -> None:
        """Close the connection at once. Never blocks.

        As `close`, but what was written and has not gone is dropped; its buffers are released
        when asyncio reports the connection as lost, in one of the loop's next turns.
        """
        self.close()
        if self._transport is not None and not self._lost:  # asyncio's fails on a lost one
            self._transport.abort()

    async def aclose(self) -> None:
        """`close`, and wait until the connection has gone; then no buffer is held any more.

        Blocks as long as the peer does not take what was written. Always a checkpoint. If it is
        cancelled it aborts the connection, and drops what has not gone.
        """
        self.close()
        try:
            await checkpoint()
            await self._until_gone()
        except BaseException:
            self.abort()
            with anyio.CancelScope(shield=True):
                await self._until_gone()
            raise

    async def _until_gone(self) -> None:
        if self._transport is not None:
            await self._gone.wait()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "lost" if self._lost else "open"
        return (
            f"<PooledBufferedProtocol of {self._pools.name!r}, {state}: {len(self._full)} full, "
            f"{self._filled} bytes in the next, {len(self._writing)} to be written>"
        )
