"""A connection of asyncio whose bytes arrive and leave in buffers of the pools.

`PooledBufferedProtocol` joins two halves: `Reading` holds what the transport has read, `Writing`
what it has to send. Each half has a `Direction`, its state, and releases its own buffers. The
protocol itself has the life of the connection: made, lost, closed.
"""

from __future__ import annotations

import asyncio
import ssl
import weakref
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self, cast

import anyio

from mbufpools import Buffer, BufferPools, UsageError
from mbufpools._waits import turn

from ._direction import Direction
from ._owner import Owner
from ._peer import Peer
from ._pieces import SLICE, note_release
from ._reading import Reading
from ._writing import Outgoing, Writing

__all__ = ["PooledBufferedProtocol"]


class PooledBufferedProtocol(asyncio.BufferedProtocol):
    """An `asyncio.BufferedProtocol` that reads into buffers of `pools` and writes from them.

    It works on asyncio's own loop and on uvloop. Create it before the connection, and return it
    from the protocol factory::

        protocol = PooledBufferedProtocol(pools, 16384)
        await loop.create_connection(lambda: protocol, host, port)
        async with protocol:
            while True:
                buffer, nbytes = await protocol.receive()
                async with asyncio.timeout(30):             # the peer may not read
                    await protocol.send(buffer, nbytes)     # takes the buffer, also if it fails

    It reads ahead until `read_ahead` full buffers wait to be received. Then it pauses reading, and
    TCP makes the peer wait. It also pauses when the pools have no memory; then `receive` waits for
    a buffer in the order of the pools, and reading resumes with that buffer. An idle connection
    holds no buffer. A connection whose bytes no task receives holds at most `read_ahead` buffers.

    A peer that does not read keeps these buffers, and the one that is sent. So give each send a
    deadline. The end of the block waits for the peer, as `aclose` does; but it aborts the
    connection if a cancellation or a TimeoutError leaves the block. If you catch that inside, call
    `abort`.

    Close it before its pools: buffers that it still holds then are reported as a leak. A server
    calls ``server.close()``, cancels the task of each connection, which aborts it, and then leaves
    the pools. It does not await ``server.wait_closed()`` before these tasks have ended, because on
    Python 3.12 and later that waits for the connections.

    Args:
        pools: the set that gives the buffers. It belongs to the same event loop.
        nbytes: the bytes of each buffer. Several reads fill one buffer, until it is received. A
            buffer costs CPU time whatever its size, so take 65536 for bulk data.
        read_ahead: the number of full buffers that may wait to be received.

    Raises:
        UsageError: no asyncio loop is running. On trio use `recv_into` and `send_all`.
        RequestError: the pools have no items of `nbytes` bytes.
        ValueError: `read_ahead` is below 1.
    """

    def __init__(self, pools: BufferPools, nbytes: int, *, read_ahead: int = 2) -> None:
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            raise UsageError(
                "PooledBufferedProtocol needs a running asyncio loop; create it inside a "
                "coroutine, and on trio use recv_into and send_all"
            ) from None
        if read_ahead < 1:
            raise ValueError(f"read_ahead is {read_ahead}; expected at least 1 buffer")
        self._pools = pools
        self._transport: asyncio.Transport | None = None
        self._peer = None if pools._state.tracker is None else Peer()
        owner: Owner = weakref.ref(self)
        self._writing = Writing(owner, self._loop)
        self._reading = Reading(
            self._loop,
            pools,
            nbytes,
            read_ahead,
            self._writing,
            owner,
            self._peer,
        )
        self._over_tls = False
        self._starting_tls = False
        self._lost = False
        self._awaiting_loss: list[asyncio.Future[None]] = []
        """The futures of the tasks that wait until the connection is lost. (An `asyncio.Event` for
        each connection would cost time and memory.)"""
        self._error: Exception | None = None
        """The reason for which the connection was lost."""

    @property
    def _closed(self) -> bool:
        return self._writing.state is Direction.CLOSED

    # Receiving

    def receive(self) -> Coroutine[Any, Any, tuple[Buffer, int]]:
        """Return a buffer, and the number of its first bytes that were received: at least one.

        The buffer belongs to the caller, which must release it, or give it to `send` or `write`.
        Bytes keep their order. A boundary between two buffers has no meaning.

        Blocks until bytes have arrived. If the pools have no memory, it also blocks until they
        grant a buffer of `nbytes` bytes. Always a checkpoint.

        A cancelled receive has taken nothing: the next one returns the same bytes.

        Fairness: it waits for the pools in their order, as every `BufferPools.get`.

        Raises:
            anyio.EndOfStream: the peer has sent its last byte, and all bytes were received.
            anyio.BrokenResourceError: the connection was lost, and all bytes that had arrived
                were received. The cause is the OSError.
            anyio.ClosedResourceError: the connection was closed on this side, or the pools were.
            anyio.BusyResourceError: another task is in `receive`.
            ImpossibleRequest, MemoryError: as from `BufferPools.get`.
        """
        return self._reading.receive()  # and no coroutine around it, which would cost time

    # What the transport calls for reading

    def get_buffer(self, sizehint: int) -> memoryview | bytearray:
        """Return the memory that the transport reads into. Not for applications."""
        return self._reading.get_buffer()

    def buffer_updated(self, nbytes: int) -> None:
        """The transport has read `nbytes` bytes. Not for applications."""
        self._reading.updated(nbytes)

    def eof_received(self) -> bool:
        """The peer will send no more bytes; this side still may. Not for applications."""
        self._reading.end()
        return not self._over_tls  # TLS closes in any case, and warns if it is asked not to

    # Writing

    def write(self, buffer: Buffer, nbytes: int | None = None) -> None:
        """Take `buffer`, and send its first `nbytes` bytes (by default all).

        The call takes the buffer also if it raises. From then on the caller's `buffer` is released
        and its view revoked: the end of ``with buffer:`` does nothing, and `release` raises
        `DoubleRelease`. The memory comes home when the kernel has its last byte, or when the
        connection is lost. If something still exports it then, it waits in quarantine.

        Never blocks, so the only backpressure is the buffers that it keeps; `send` waits. Writes
        go out in the order of the calls.

        The transport gets at most 64 KiB at a time, because some transports copy what they cannot
        send (those of Python 3.11, and TLS), and the limit of the pools does not count that copy.

        Raises:
            anyio.ClosedResourceError: the connection was closed on this side, or `write_eof` was
                called.
            anyio.BrokenResourceError: the connection was lost.
            TypeError, ValueError: `buffer` or `nbytes` cannot be sent.
            UseAfterRelease: `buffer` was released, or was given to another call that sends.
            UsageError: the protocol is not connected yet, or another protocol has its transport
                now (see `start_tls`); or the pools are a simulation without memory.
        """
        self._write(buffer, nbytes, awaited=False)

    async def send(self, buffer: Buffer, nbytes: int | None = None) -> None:
        """Take `buffer`, send its first `nbytes` bytes (by default all), and wait until they have
        gone.

        The call takes the buffer as `write` does, also if it raises. Blocks until the kernel has
        the last byte, which takes as long as the peer makes no room. Over TLS the loop may then
        still have the last of them, less than 256 KiB, encrypted, in buffers of its own. Always a
        checkpoint.

        A cancelled send only stops waiting. A transport cannot take back its bytes, so they still
        go out, and the memory comes home afterwards. (`send_all` stops sending.) So call `abort`
        after a send that timed out: `aclose`, and the usual end of ``async with protocol:``, would
        wait for the same peer.

        Fairness: writes go out in the order of the calls.

        Raises:
            anyio.BrokenResourceError: the connection was lost before all bytes had gone. The
                cause is the OSError.
            anyio.ClosedResourceError, TypeError, ValueError, UseAfterRelease, UsageError: as from
                `write`.
        """
        outgoing = self._write(buffer, nbytes, awaited=True)
        if outgoing is None:
            await turn()
            return
        if outgoing.pending:
            await outgoing.wait()
        else:
            await turn()
        if outgoing.error is not None:
            note_release(outgoing.error)
            raise outgoing.error
        if not outgoing.sent:
            raise anyio.BrokenResourceError(
                "the connection was lost before all bytes were sent; the buffer was released"
            ) from self._error

    def write_eof(self) -> None:
        """Announce the end of the stream to the peer, after all bytes that were written.

        Never blocks. Receiving continues. A second call does nothing.

        Raises:
            anyio.ClosedResourceError: the connection was closed on this side.
            UsageError: the protocol is not connected yet.
            NotImplementedError: the connection uses TLS, which cannot end one direction alone.
        """
        transport = self._connected()
        if self._writing.state is not Direction.ENDED:
            if not transport.can_write_eof():
                raise NotImplementedError("this transport cannot end one direction alone")
            self._writing.state = Direction.ENDED
            self._writing.then(self._end_writing)

    def _connected(self) -> asyncio.Transport:
        if self._closed:
            raise anyio.ClosedResourceError("the connection was closed on this side")
        if self._transport is None:
            raise UsageError(
                "the protocol is not connected yet; await the loop's create_connection "
                "(or wait for a client) first"
            )
        if self._starting_tls or (not self._transport.is_closing() and self._writing.taken_away):
            raise UsageError(
                "another protocol has the transport now, so what is sent here would bypass it; "
                "for TLS, await the protocol's own start_tls, not the loop's, before the next write"
            )
        return self._transport

    def _open(self) -> asyncio.Transport:
        """Return the transport if something can be written to it now, else raise the reason."""
        transport = self._connected()
        if self._writing.state is Direction.ENDED:
            raise anyio.ClosedResourceError("write_eof was called, so nothing more can be written")
        if self._lost or transport.is_closing():
            raise anyio.BrokenResourceError("the connection was lost") from self._error
        return transport

    def _write(self, buffer: Buffer, nbytes: int | None, *, awaited: bool) -> Outgoing | None:
        """Send `buffer`; return None if the kernel has all bytes and the buffer is released."""
        if nbytes is None and isinstance(buffer, Buffer):
            nbytes = buffer.nbytes
        writing = self._writing
        if (
            # In debug mode it is of another class, and its holder is noted below.
            type(buffer) is Buffer
            and type(nbytes) is int
            and 0 < nbytes <= SLICE
            and nbytes <= buffer.nbytes
            and not (writing.queue or self._starting_tls or buffer.released)
            and writing.ready
        ):
            try:
                return writing.write_at_once(buffer, buffer.view[:nbytes], awaited)
            except BaseException as error:
                buffer.end()
                note_release(error)
                raise
        outgoing = Outgoing(buffer, nbytes, awaited)
        try:
            if self._starting_tls or not writing.ready:
                self._open()  # raises the reason
            if self._peer is not None:
                self._peer.send(outgoing.lease)
        except BaseException as error:
            outgoing.finish()  # its view, too, which an error that is kept would keep alive
            note_release(error)
            raise
        try:
            writing.add(outgoing)
        except BaseException:
            outgoing.lease.end()
            raise
        return outgoing

    def _end_writing(self) -> None:
        transport = self._transport
        if transport is None or self._lost:
            return
        if self._closed:
            self._close(transport)
        elif not self._writing.taken_away:
            try:
                transport.write_eof()
            except OSError:  # the connection is lost, and the receiver will get the error
                pass

    def _tell(self, message: str, error: Exception) -> None:
        self._loop.call_exception_handler(
            {"message": message, "exception": error, "protocol": self}
        )

    def _fail(self, error: Exception) -> None:
        """The transport has raised `error`, so nothing more can be sent."""
        self._tell("the transport has refused to write, and the connection is aborted", error)
        self._error = error
        self._loop.call_soon(self._give_up)

    def _break_off(self, error: OSError) -> None:
        """A read has failed with `error`, so the connection is lost."""
        self._error = error
        if self._transport is not None:
            self._transport.abort()

    def _give_up(self) -> None:
        try:
            if self._transport is not None and not self._lost:
                self._transport.abort()
        finally:
            # A transport that refuses to write may be unable to report the lost connection, too.
            self.connection_lost(self._error)

    # What the transport calls for writing

    def pause_writing(self) -> None:
        """The transport holds bytes to send. Not for applications."""

    def resume_writing(self) -> None:
        """The transport holds no more bytes to send. Not for applications."""
        self._writing.pump()

    # Life

    @property
    def transport(self) -> asyncio.Transport | None:
        """The transport once there is a connection, else None: for its ``get_extra_info``."""
        return self._transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is made, or has a new transport. Not for applications."""
        self._transport = transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self._over_tls = transport.get_extra_info("sslcontext") is not None
        if self._peer is not None:
            self._peer.start(transport)
        self._reading.start(transport)
        self._writing.start(transport)
        if self._closed:
            # One turn later, because uvloop has not taken over the socket yet.
            self._loop.call_soon(transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is lost, and the transport sends nothing more. Not for applications."""
        if self._lost:
            return
        self._error = exc if self._error is None else self._error
        self._lost = True
        for waiter in self._awaiting_loss:
            if not waiter.done():
                waiter.set_result(None)
        self._awaiting_loss.clear()
        try:
            self._writing.lose()
        finally:
            self._reading.lose(self._error)

    async def start_tls(
        self,
        sslcontext: ssl.SSLContext,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> None:
        """Speak TLS from now on: all later bytes go through it, in both directions.

        The arguments are those of asyncio's ``loop.start_tls``, which must not be called for this
        protocol itself: it does not give the protocol its new transport. If it was called, `write`
        and `send` raise `UsageError` instead of sending in plaintext.

        Blocks until the bytes that were written before have gone, and the handshake is complete.
        Always a checkpoint. A write during the call raises `UsageError`. If the handshake fails or
        is cancelled, the connection is aborted.

        Nothing is read between the call and the handshake. So a server writes its consent by
        `write`, which lets no other task run, and then calls `start_tls`; the first bytes of the
        peer's handshake cannot come between.

        Raises:
            UsageError: bytes have arrived that were not received. They were not protected, so they
                must not be taken for bytes of the TLS connection. Or as from `write`.
            anyio.BrokenResourceError: the connection was lost, or the peer has ended it, or the
                handshake failed. The cause is the OSError.
            anyio.ClosedResourceError: the connection was closed on this side, before the call or
                during it; or `write_eof` was called.
            TypeError, ValueError: as from ``loop.start_tls``; the connection is as before.
        """
        transport = self._open()
        timeouts = {"ssl_handshake_timeout": ssl_handshake_timeout}
        if ssl_shutdown_timeout is not None:
            timeouts["ssl_shutdown_timeout"] = ssl_shutdown_timeout
        secured: asyncio.Transport | None = None
        failure: Exception | None = None
        self._starting_tls = True
        self._reading.leave()
        try:
            await turn()
            await self._writing.sent()
            if not (self._closed or self._lost):
                self._refuse_unread()
                secured = await self._loop.start_tls(
                    transport,
                    self,
                    sslcontext,
                    server_side=server_side,
                    server_hostname=server_hostname,
                    **timeouts,
                )
        except OSError as error:
            failure = error
        finally:
            self._starting_tls = False
            if secured is not None and not (self._closed or self._lost):
                self.connection_made(secured)
            elif not self._lost:
                if self._writing.taken_away:
                    (secured or transport).abort()
                    self.connection_lost(failure)
                else:
                    self._reading.come_back(transport)
        if self._closed:
            raise anyio.ClosedResourceError("the connection was closed on this side") from failure
        if self._lost:
            raise anyio.BrokenResourceError("TLS could not be started") from self._error

    def _refuse_unread(self) -> None:
        if self._reading.unread:
            raise UsageError(
                "bytes that arrived without TLS were not received; receive them before start_tls"
            )
        if self._reading.state is not Direction.OPEN:
            raise anyio.BrokenResourceError("the peer has ended the connection") from self._error

    def close(self) -> None:
        """Close the connection after all bytes that were written have gone. Never blocks.

        Buffers that were read and not received are released at once; a task in `receive` gets
        `anyio.ClosedResourceError`. Buffers that were written come home when their bytes have
        gone, or when the connection is lost; `aclose` waits for that. A second call does nothing.
        """
        if self._closed:
            return
        self._writing.state = Direction.CLOSED
        self._reading.close()
        if self._transport is not None and not self._lost:
            if self._writing.taken_away:
                self._close(self._transport)
            else:
                self._writing.then(self._end_writing)

    def abort(self) -> None:
        """Close the connection at once. Never blocks.

        As `close`, but bytes that were written and have not gone are dropped. Their buffers come
        home when asyncio reports the lost connection, in one of the next turns of the loop.
        """
        self.close()
        if self._transport is not None and not self._lost:  # asyncio's fails on a lost one
            self._expect_no_report()
            self._transport.abort()

    def _close(self, transport: asyncio.Transport) -> None:
        self._expect_no_report()
        transport.close()

    def _expect_no_report(self) -> None:
        """If another protocol has the transport, it may keep the report of the lost connection for
        itself. Then this protocol takes the connection as lost in the next turn of the loop."""
        if self._writing.taken_away:
            self._loop.call_soon(self.connection_lost, None)

    async def aclose(self) -> None:
        """Close the connection, and wait until it is gone; then the protocol holds no buffer.

        Blocks until the peer has taken the bytes that were written. Always a checkpoint. If it is
        cancelled, it aborts the connection: bytes that have not gone are dropped.
        """
        self.close()
        try:
            if self._transport is None or self._lost:
                await turn()
            await self._until_gone()
        except BaseException:
            self.abort()
            with anyio.CancelScope(shield=True):
                await self._until_gone()
            raise

    async def _until_gone(self) -> None:
        if self._transport is not None and not self._lost:
            waiter = self._loop.create_future()
            self._awaiting_loss.append(waiter)
            await waiter

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc is not None and (isinstance(exc, TimeoutError) or not isinstance(exc, Exception)):
            # A deadline has passed, perhaps because the peer does not read. `aclose` would wait for
            # that peer: asyncio cancels a task once, and the body has had that.
            self.abort()
        await self.aclose()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "lost" if self._lost else "open"
        return (
            f"<PooledBufferedProtocol of {self._pools.name!r}, {state}: {self._reading!r}, "
            f"{len(self._writing)} to be written>"
        )
