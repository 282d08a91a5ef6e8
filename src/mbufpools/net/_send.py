"""Sending buffers through a socket; each is released when the kernel has its last byte.

The invariant comes from Kafka's bug KAFKA-19012: a buffer is released only after the system call
that took its last byte has returned. After an earlier release, the next owner writes into memory
that is still to be sent, and the peer receives the next owner's bytes.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Iterable
from contextlib import ExitStack
from itertools import islice
from typing import TYPE_CHECKING

import anyio
from anyio.abc import ByteSendStream
from anyio.lowlevel import checkpoint

from mbufpools import Buffer, BufferInUse, UseAfterRelease

from ._pieces import Piece, check_piece
from ._sockets import Busy, attempt, socket_of

if TYPE_CHECKING:
    import trio

__all__ = ["SendFailed", "send_all"]

_sending = Busy("sending to")


def _iov_max() -> int:
    try:
        return max(16, os.sysconf("SC_IOV_MAX"))  # -1 means no known limit; POSIX guarantees 16
    except (AttributeError, ValueError, OSError):  # pragma: no cover - not on this system
        return 16


IOV_MAX = _iov_max()
"""The most buffers that one call of ``sendmsg`` takes."""


class SendFailed(anyio.BrokenResourceError):
    """The connection failed during a `send_all`. The cause is the socket's OSError."""

    def __init__(self, sent: int, nbytes: int, reason: object) -> None:
        super().__init__(
            f"the connection failed after {sent} of {nbytes} bytes were handed to the kernel "
            f"({reason}); the buffers that are not released still belong to the caller"
        )
        self.sent = sent
        """The number of bytes that the kernel took. The peer may have received fewer."""
        self.nbytes = nbytes
        """The number of bytes that had to be sent."""


class _Queue:
    """The buffers that are not sent yet, and the number of bytes that the kernel has."""

    def __init__(self, pieces: Iterable[Piece]) -> None:
        self.buffers: deque[tuple[Buffer, int]] = deque(map(check_piece, pieces))
        if len({id(buffer) for buffer, _ in self.buffers}) < len(self.buffers):
            raise ValueError(
                "a buffer cannot be sent twice, because it is released after the first time"
            )
        self.nbytes = sum(nbytes for _, nbytes in self.buffers)
        self.sent = 0
        self._offset = 0
        """The number of bytes of the first buffer that the kernel has."""
        self._refused: BufferInUse | None = None

    def slices(self, stack: ExitStack) -> list[memoryview]:
        """Views of the bytes for one system call; `stack` releases them."""
        views, offset = [], self._offset
        for buffer, nbytes in islice(self.buffers, IOV_MAX):
            if buffer.released:
                raise UseAfterRelease(
                    f"a buffer of pool {buffer.pool.name!r} was released by another task while it "
                    f"was sent; {self.sent} of {self.nbytes} bytes had gone"
                )
            views.append(stack.enter_context(buffer.view[offset:nbytes]))
            offset = 0
        return views

    def gone(self, count: int) -> None:
        """The kernel has taken `count` more bytes: release the buffers that are sent."""
        self.sent += count
        self._offset += count
        while self.buffers and self._offset >= self.buffers[0][1]:
            buffer, nbytes = self.buffers.popleft()
            self._offset -= nbytes
            try:
                buffer.release()
            except BufferInUse as error:  # the exporter's mistake; the others are still sent
                self._refused = self._refused or error

    def end(self) -> None:
        """Raise the first error of a release, if there was one."""
        if self._refused is not None:
            raise self._refused


async def send_all(
    sock: socket.socket | trio.SocketStream | trio.socket.SocketType | ByteSendStream,
    buffers: Iterable[Piece],
) -> None:
    """Send `buffers` in their order, and release each when the kernel has its last byte.

    Each is a `Buffer`, of which all bytes are sent, or a pair ``(buffer, nbytes)``, of which the
    first `nbytes` bytes are sent::

        nbytes = await recv_into(source, buffer)
        await send_all(sink, [header, (buffer, nbytes)])

    ``sendmsg`` gathers the buffers without a copy. `sock` is any socket or stream that `recv_into`
    accepts. The bytes of an anyio byte stream are copied, one buffer at a time, because on asyncio
    such a stream keeps the rest of a cancelled send and would continue to send it.

    A buffer is released as soon as ``sendmsg`` has taken its last byte, and never earlier: memory
    comes back while the rest still waits for the peer.

    Blocks until the kernel has all bytes, which takes as long as the peer makes no room. Always a
    checkpoint.

    After a cancellation or an error, the buffers whose bytes have all gone are released. The others
    still belong to the caller, which can send them elsewhere. One of them may be sent in part; then
    the connection is of no further use. ``with buffer:`` around the call, or around the `Buffers`
    of a ``get_many``, releases exactly the buffers that are left.

    Only one task at a time can send to a socket.

    Raises:
        SendFailed: the connection failed; an `anyio.BrokenResourceError` with the number of bytes
            that the kernel took.
        anyio.ClosedResourceError: the socket is closed on this side.
        anyio.BusyResourceError: another task sends to the socket. Nothing was sent.
        TypeError, ValueError, UseAfterRelease: `sock` is no such socket, or it blocks; or `buffers`
            holds something else, or a buffer twice. Nothing was sent.
        UseAfterRelease: also if another task releases a buffer during the call; then some bytes
            may have gone.
        BufferInUse: something exports the view of a buffer. All bytes have gone; that buffer still
            belongs to the caller.
        RuntimeError: from asyncio, if one of its transports writes to the socket.
    """
    queue = _Queue(buffers)
    if isinstance(sock, ByteSendStream):
        await _copy_and_send(sock, queue)
        queue.end()
        return
    ours = socket_of(sock)
    _sending.enter(ours)
    try:
        await checkpoint()
        queue.gone(0)
        while queue.buffers:
            count = _try_send(ours, queue)
            if count is None:
                await anyio.wait_writable(ours)
            else:
                queue.gone(count)
    finally:
        _sending.leave(ours)
    queue.end()


def _try_send(sock: object, queue: _Queue) -> int | None:
    with ExitStack() as stack:
        views = queue.slices(stack)
        try:
            return attempt(sock, lambda sock: sock.sendmsg(views))
        except OSError as error:
            raise SendFailed(queue.sent, queue.nbytes, error) from error


async def _copy_and_send(stream: ByteSendStream, queue: _Queue) -> None:
    await checkpoint()
    queue.gone(0)
    while queue.buffers:
        with ExitStack() as stack:
            data = bytes(queue.slices(stack)[0])
        try:
            await stream.send(data)
        except (anyio.BrokenResourceError, OSError) as error:
            raise SendFailed(queue.sent, queue.nbytes, error) from error
        queue.gone(len(data))
