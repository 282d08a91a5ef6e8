"""Sending buffers through a socket; each is released when the kernel has its last byte.

The call takes the buffers over first, so no other task can release one of them during the call.

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

from mbufpools import Buffer

from ._pieces import (
    ALL_RELEASED,
    SLICE,
    Piece,
    Taken,
    check_piece,
    give_up,
    named,
    note_release,
    split,
)
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
            f"({reason}); all buffers were released"
        )
        self.sent: int = sent
        """The number of bytes that the kernel took. The peer may have received fewer."""
        self.nbytes: int = nbytes
        """The number of bytes that had to be sent."""


class _Queue:
    """The buffers that are not sent yet, and the number of bytes that the kernel has."""

    def __init__(self, pieces: Iterable[Piece]) -> None:
        self.taken: deque[Taken] = deque()
        self.sent = 0
        self._offset = 0
        """The number of bytes of the first one that the kernel has."""
        self._error: Exception | None = None
        given: list[Piece] = []
        try:
            if isinstance(pieces, Buffer):
                given.append(pieces)
                raise TypeError(
                    f"expected buffers to send, one after another; got {named(pieces)}; put it in "
                    f"a list, send_all(sock, [buffer]); {ALL_RELEASED}"
                )
            try:
                iterator = iter(pieces)
            except TypeError:
                raise TypeError(
                    f"expected buffers to send, one after another; got {pieces!r}; the call is "
                    f"send_all(sock, [buffer, ...])"
                ) from None
            given.extend(iterator)
            pairs = [split(piece) for piece in given]
            for buffer, nbytes in pairs:
                check_piece(buffer, nbytes)
            if len({id(buffer) for buffer, _ in pairs}) < len(pairs):
                raise ValueError(
                    f"a buffer cannot be sent twice, because it is released after the first time; "
                    f"{ALL_RELEASED}"
                )
            for buffer, nbytes in pairs:
                self.taken.append(Taken(buffer, nbytes))
        except BaseException as error:
            self.close()
            for piece in given:
                give_up(piece)
            if given:
                note_release(error)
            raise
        self.nbytes = sum(taken.nbytes for taken in self.taken)

    def slices(self, stack: ExitStack) -> list[memoryview]:
        """Views of the bytes for one system call; `stack` releases them."""
        views, offset = [], self._offset
        for taken in islice(self.taken, IOV_MAX):
            if taken.data is not None:
                views.append(stack.enter_context(taken.data[offset:]))
            offset = 0
        return views

    def gone(self, count: int) -> None:
        """The kernel has taken `count` more bytes: end the leases whose bytes are sent."""
        self.sent += count
        self._offset += count
        while self.taken and self._offset >= self.taken[0].nbytes:
            self._offset -= self.taken[0].nbytes
            self._end_first()

    def close(self) -> None:
        """Nothing more will be sent: end all leases."""
        while self.taken:
            self._end_first()

    def _end_first(self) -> None:
        try:
            self.taken.popleft().finish()
        except Exception as error:  # noqa: BLE001 - raised when the others are sent
            self._error = self._error or error

    def raise_error(self) -> None:
        """Raise the first error at the end of a lease, if there was one."""
        if self._error is not None:
            note_release(self._error)
            raise self._error


async def send_all(
    sock: socket.socket | trio.SocketStream | trio.socket.SocketType | ByteSendStream,
    buffers: Iterable[Piece],
) -> None:
    """Take `buffers`, and send them in their order.

    Each is a `Buffer`, of which all bytes are sent, or a pair ``(buffer, nbytes)``, of which the
    first `nbytes` bytes are sent::

        nbytes = await recv_into(source, buffer)
        await send_all(sink, [header, (buffer, nbytes)])

    The call takes all buffers also if it raises. From then on the caller's buffers are released
    and their views revoked: the end of ``with buffer:`` does nothing, and `release` raises
    `DoubleRelease`. The memory of each buffer comes home as soon as ``sendmsg`` has taken its last
    byte, and never earlier, while the rest still waits for the peer. If something still exports it
    then, it waits in quarantine.

    ``sendmsg`` gathers the buffers without a copy. `sock` is any socket or stream that `recv_into`
    accepts. The bytes of an anyio byte stream are copied, at most 64 KiB at a time, because on
    asyncio such a stream keeps the rest of a cancelled send and would continue to send it. The
    limit of the pools does not count the copy.

    Blocks until the kernel has all bytes, which takes as long as the peer makes no room. So give it
    a deadline, ``with anyio.fail_after(30):``, or a peer that does not read keeps the buffers.
    Always a checkpoint.

    After a cancellation or an error no more is sent, and all buffers are released. One of them may
    be sent in part; then the connection is of no further use.

    Only one task at a time can send to a socket.

    Raises:
        SendFailed: the connection failed; an `anyio.BrokenResourceError` with the number of bytes
            that the kernel took.
        anyio.ClosedResourceError: the socket is closed on this side.
        anyio.BusyResourceError: another task sends to the socket. Nothing was sent.
        TypeError, ValueError: `sock` is no such socket, or it blocks; or `buffers` holds something
            else, or a buffer twice. Nothing was sent.
        UseAfterRelease: a buffer was released, or was given to another call that sends. Nothing was
            sent.
        RuntimeError: from asyncio, if one of its transports writes to the socket.
    """
    queue = _Queue(buffers)
    try:
        if isinstance(sock, ByteSendStream):
            await _copy_and_send(sock, queue)
        else:
            await _send(socket_of(sock), queue)
    except Exception as error:
        note_release(error)
        raise
    finally:
        queue.close()
    queue.raise_error()


async def _send(sock: object, queue: _Queue) -> None:
    _sending.enter(sock)
    try:
        await checkpoint()
        queue.gone(0)
        while queue.taken:
            count = _try_send(sock, queue)
            if count is None:
                await anyio.wait_writable(sock)  # type: ignore[arg-type]  # it is a socket
            else:
                queue.gone(count)
    finally:
        _sending.leave(sock)


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
    while queue.taken:
        with ExitStack() as stack:
            first = queue.slices(stack)[0]
            data = bytes(stack.enter_context(first[:SLICE]))
        try:
            await stream.send(data)
        except (anyio.BrokenResourceError, OSError) as error:
            raise SendFailed(queue.sent, queue.nbytes, error) from error
        queue.gone(len(data))
