"""Which sockets `recv_into` and `send_all` accept, and how one system call is tried on them.

Nothing here waits, and nothing keeps a view. A system call is tried at once; if the socket is not
ready, the caller waits for it while nothing exports a view.
"""

from __future__ import annotations

import socket
import ssl
import sys
from collections.abc import Callable
from typing import Any

import anyio

__all__ = ["Busy", "attempt", "socket_of"]

ACCEPTED = (
    "a connected stream socket that does not block (socket.socket), a trio socket or "
    "trio.SocketStream, or an anyio byte stream"
)


def socket_of(sock: Any) -> Any:
    """Return the socket that `sock` is or wraps: one of the standard library, or one of trio.

    Raises:
        TypeError: there is no such socket, or it is not a stream socket.
        ValueError: the socket blocks.
    """
    trio = sys.modules.get("trio")
    if trio is not None and isinstance(sock, trio.SocketStream):
        sock = sock.socket
    if isinstance(sock, ssl.SSLSocket):
        raise TypeError(
            f"an ssl.SSLSocket cannot be waited for like a plain socket; expected {ACCEPTED} "
            f"(such as anyio.streams.tls.TLSStream)"
        )
    if isinstance(sock, socket.socket):
        if sock.fileno() >= 0 and sock.gettimeout() != 0:
            raise ValueError(
                "the socket blocks, which would stop the event loop; call setblocking(False)"
            )
    elif trio is None or not isinstance(sock, trio.socket.SocketType):
        raise TypeError(
            f"{sock!r} is not a socket that can be used here; expected {ACCEPTED} "
            f"(for asyncio's transports there is PooledBufferedProtocol)"
        )
    if sock.fileno() >= 0 and sock.type != socket.SOCK_STREAM:
        raise TypeError(f"the socket is of {sock.type!r}; expected {ACCEPTED}")
    return sock


def attempt(sock: Any, call: Callable[[socket.socket], int]) -> int | None:
    """Try a system call on `sock`; return its result, or None if the socket is not ready.

    A trio socket has no call that only tries, so a plain socket borrows its descriptor during the
    call. (Not longer: when the owner has closed it, the number may belong to another socket.)

    Raises:
        anyio.ClosedResourceError: the socket was closed on this side.
        OSError: from the system call.
    """
    if sock.fileno() < 0:
        raise anyio.ClosedResourceError("the socket is closed")
    try:
        if isinstance(sock, socket.socket):
            return call(sock)
        borrowed = socket.socket(sock.family, sock.type, sock.proto, sock.fileno())
        try:
            borrowed.setblocking(False)
            return call(borrowed)
        finally:
            borrowed.detach()
    except (BlockingIOError, InterruptedError):
        return None


class Busy:
    """Lets one task at a time use a socket in one direction.

    The bytes of two concurrent sends would be mixed, and the kernel would report no error.
    """

    def __init__(self, doing: str) -> None:
        self._doing = doing
        self._sockets: set[int] = set()

    def enter(self, sock: object) -> None:
        """Begin to use `sock`. Raises BusyResourceError if another task uses it."""
        if id(sock) in self._sockets:
            raise anyio.BusyResourceError(self._doing)
        self._sockets.add(id(sock))

    def leave(self, sock: object) -> None:
        """Stop using `sock`."""
        self._sockets.discard(id(sock))
