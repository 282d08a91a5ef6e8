"""Receiving from a socket into a buffer."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import anyio
from anyio.abc import ByteReceiveStream
from anyio.lowlevel import checkpoint

from mbufpools import Buffer

from ._sockets import Busy, attempt, socket_of

if TYPE_CHECKING:
    import trio

__all__ = ["recv_into"]

_receiving = Busy("receiving from")


async def recv_into(
    sock: socket.socket | trio.SocketStream | trio.socket.SocketType | ByteReceiveStream,
    buffer: Buffer,
    start: int = 0,
) -> int:
    """Receive bytes into `buffer`, beginning at its byte `start`; return how many.

    The result is 0 at the end of the stream. It may be less than the room in the buffer, as with
    ``socket.recv_into``. The socket and the buffer still belong to the caller.

    `sock` may be a connected, non-blocking stream socket of the standard library, a trio socket or
    a `trio.SocketStream`; then the kernel writes directly into the buffer. It may also be any anyio
    byte stream, including TLS. Such a stream does its own reading (anyio's asyncio sockets read
    ahead), so its bytes arrive in a `bytes` object, at most as long as the room in the buffer, and
    are copied.

    Blocks until at least one byte has arrived, or the peer has sent its end. Always a checkpoint.

    A cancelled call has received nothing, by a cancel scope and by asyncio's ``Task.cancel()``.
    While the call waits, nothing exports the buffer's view, so the buffer can be released at any
    time; if another task releases it, this call fails.

    Only one task at a time can receive from a socket.

    The call holds the buffer while it waits. If many connections are idle, wait first, and take a
    buffer afterwards::

        await anyio.wait_readable(sock)
        with await pools.get(4096) as buffer:
            nbytes = await recv_into(sock, buffer)

    Raises:
        anyio.BrokenResourceError: the connection failed. The cause is the socket's OSError.
        anyio.ClosedResourceError: the socket is closed on this side. (If the close comes during
            the wait, call ``anyio.notify_closing(sock)``; trio's sockets do so themselves.)
        anyio.BusyResourceError: another task receives from the socket.
        UseAfterRelease: the buffer was released before the call or during its wait.
        TypeError, ValueError: `sock` is no such socket, or it blocks, or `start` is outside the
            buffer.
        RuntimeError: from asyncio, if one of its transports reads from the socket.
    """
    if not isinstance(buffer, Buffer):
        raise TypeError(f"cannot receive into {buffer!r}; expected a Buffer")
    if not 0 <= start < len(buffer.view):
        raise ValueError(f"start is {start}; expected 0 to {buffer.nbytes - 1}, inside {buffer!r}")
    if isinstance(sock, ByteReceiveStream):
        return await _receive_and_copy(sock, buffer, start)
    ours = socket_of(sock)
    _receiving.enter(ours)
    try:
        # All waiting comes before the system call. An exception from a checkpoint after it, such
        # as asyncio's Task.cancel(), would lose the bytes.
        await checkpoint()
        while (nbytes := _try_recv_into(ours, buffer, start)) is None:
            await anyio.wait_readable(ours)
        return nbytes
    finally:
        _receiving.leave(ours)


def _try_recv_into(sock: object, buffer: Buffer, start: int) -> int | None:
    with buffer.view[start:] as room:  # a slice would outlive a release, so none is kept
        try:
            return attempt(sock, lambda sock: sock.recv_into(room))
        except OSError as error:
            raise anyio.BrokenResourceError(f"cannot receive: {error}") from error


async def _receive_and_copy(stream: ByteReceiveStream, buffer: Buffer, start: int) -> int:
    try:
        data = await stream.receive(buffer.nbytes - start)
    except anyio.EndOfStream:
        return 0
    buffer.view[start : start + len(data)] = data
    return len(data)
