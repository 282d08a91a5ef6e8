"""Receiving from a socket into a buffer. Uses `_sockets`."""

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
    """Receive into `buffer`, from its byte `start` on; return how many bytes came, 0 at the end.

    The socket stays the caller's, and so does the buffer. It may be a connected, non-blocking
    stream socket of the standard library, a trio socket or `trio.SocketStream`: then the kernel
    writes into the buffer itself. Or any anyio byte stream, TLS included: those do their own
    reading (anyio's asyncio sockets read ahead), so the bytes come through a `bytes` object of
    at most the buffer's length, and are copied.

    Blocks until at least one byte came, or the peer's end. Always a checkpoint. What came may be
    less than the buffer takes, as with ``socket.recv_into``.

    A cancelled call has received nothing, whether a cancel scope did it or asyncio's
    ``Task.cancel()``. While it waits nothing exports the view, so the buffer can be released at
    any moment; its own release by another task makes this call fail.

    A buffer is held while it waits. Where many connections are idle, wait first and take a
    buffer then::

        await anyio.wait_readable(sock)
        with await pools.get(4096) as buffer:
            nbytes = await recv_into(sock, buffer)

    Raises:
        anyio.BrokenResourceError: the connection failed; its cause is the socket's OSError.
        anyio.ClosedResourceError: the socket is closed on this side. (One that waits hears of
            that from ``anyio.notify_closing(sock)``; trio's sockets tell by themselves.)
        anyio.BusyResourceError: another task receives from it.
        UseAfterRelease: the buffer was released, before or meanwhile.
        TypeError, ValueError: not such a socket, one that blocks, or a `start` outside of the
            buffer.
        RuntimeError: asyncio's, for a socket that one of its transports reads from.
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
        # All waiting comes before the bytes do: an exception out of a checkpoint behind them,
        # such as asyncio's Task.cancel(), would lose them.
        await checkpoint()
        while (nbytes := _try_recv_into(ours, buffer, start)) is None:
            await anyio.wait_readable(ours)
        return nbytes
    finally:
        _receiving.leave(ours)


def _try_recv_into(sock: object, buffer: Buffer, start: int) -> int | None:
    with buffer.view[start:] as room:  # a slice would survive a release, so none is kept
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
