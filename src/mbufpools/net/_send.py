"""Sending buffers through a socket, each released when the kernel has its last byte.

The invariant, learned from Kafka's KAFKA-19012: a buffer is given back only after the system call
that took its last byte has returned. An earlier release hands memory to the next owner that is
still to be sent, and the peer receives the next owner's bytes. Uses `_pieces`, `_sockets`.
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
        return max(16, os.sysconf("SC_IOV_MAX"))  # -1 is "no limit known"; POSIX grants 16
    except (AttributeError, ValueError, OSError):  # pragma: no cover - not on this system
        return 16


IOV_MAX = _iov_max()
"""Buffers that one call of ``sendmsg`` takes."""


class SendFailed(anyio.BrokenResourceError):
    """The connection failed in the middle of a `send_all`. Its cause is the socket's OSError."""

    def __init__(self, sent: int, nbytes: int, reason: object) -> None:
        super().__init__(
            f"the connection failed after {sent} of {nbytes} bytes were handed to the kernel "
            f"({reason}); the buffers that are not released yet are still the caller's"
        )
        self.sent = sent
        """Bytes handed to the kernel. Whether the peer received them, nobody can say."""
        self.nbytes = nbytes
        """Bytes that were to be sent."""


class _Queue:
    """What is still to be sent, and how many bytes have gone."""

    def __init__(self, pieces: Iterable[Piece]) -> None:
        self.buffers: deque[tuple[Buffer, int]] = deque(map(check_piece, pieces))
        if len({id(buffer) for buffer, _ in self.buffers}) < len(self.buffers):
            raise ValueError("one of the buffers is to be sent twice; it is released after once")
        self.nbytes = sum(nbytes for _, nbytes in self.buffers)
        self.sent = 0
        self._offset = 0
        """Bytes of the first buffer that have gone."""
        self._refused: BufferInUse | None = None

    def slices(self, stack: ExitStack) -> list[memoryview]:
        """Views of what one call may take, to be released by `stack`."""
        views, offset = [], self._offset
        for buffer, nbytes in islice(self.buffers, IOV_MAX):
            if buffer.released:
                raise UseAfterRelease(
                    f"a buffer of pool {buffer.pool.name!r} was released by somebody else while "
                    f"it was sent; {self.sent} of {self.nbytes} bytes had gone"
                )
            views.append(stack.enter_context(buffer.view[offset:nbytes]))
            offset = 0
        return views

    def gone(self, count: int) -> None:
        """`count` more bytes are the kernel's: release the buffers that are through."""
        self.sent += count
        self._offset += count
        while self.buffers and self._offset >= self.buffers[0][1]:
            buffer, nbytes = self.buffers.popleft()
            self._offset -= nbytes
            try:
                buffer.release()
            except BufferInUse as error:  # its owner's mistake, and no reason to stop midway
                self._refused = self._refused or error

    def end(self) -> None:
        """Raise what a release has refused."""
        if self._refused is not None:
            raise self._refused


async def send_all(
    sock: socket.socket | trio.SocketStream | trio.socket.SocketType | ByteSendStream,
    buffers: Iterable[Piece],
) -> None:
    """Send `buffers` in their order, and release each once its last byte is the kernel's.

    Each is a `Buffer`, of which all `nbytes` are sent, or a pair ``(buffer, nbytes)``, of which
    the first `nbytes` are::

        nbytes = await recv_into(source, buffer)
        await send_all(sink, [header, (buffer, nbytes)])

    They are gathered by ``sendmsg``, without a copy. `sock` is what `recv_into` takes; the bytes
    of an anyio byte stream are copied, one buffer at a time, since on asyncio such a stream keeps
    what a cancelled send has left, and would go on to send it.

    Blocks until all is handed to the kernel, as the peer makes room. Always a checkpoint. A
    buffer is never released before ``sendmsg`` has taken its last byte, and never kept for
    longer: memory comes back while the rest is still waiting for the peer.

    After an error or a cancellation the buffers whose bytes have all gone are released, and the
    others are still the caller's, so that he can send them elsewhere. One of them may have gone
    in part; the connection is then of no more use. ``with buffer:`` around the call, or around
    the `Buffers` of a ``get_many``, releases just those that are left.

    Raises:
        SendFailed: an `anyio.BrokenResourceError` that tells how many bytes had gone.
        anyio.ClosedResourceError: the socket is closed on this side.
        anyio.BusyResourceError: another task sends to it. Nothing was sent.
        TypeError, ValueError, UseAfterRelease: not such a socket, or one that blocks; not such
            buffers, or one of them twice. Nothing was sent.
        BufferInUse: something exports the view of one. All bytes have gone; that buffer is still
            the caller's.
        RuntimeError: asyncio's, for a socket that one of its transports writes to.
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
