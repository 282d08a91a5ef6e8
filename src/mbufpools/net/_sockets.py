"""Which sockets `recv_into` and `send_all` take, and how one system call is tried on them.

Nothing here waits, and nothing keeps a view: a call is tried at once, and whoever finds it not
ready waits for readiness with nothing exported. Uses `_errors` of the core.
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
    """Return the socket that `sock` is or wraps: of the standard library, or trio's.

    Raises:
        TypeError: it is neither, or no stream socket.
        ValueError: it blocks.
    """
    trio = sys.modules.get("trio")
    if trio is not None and isinstance(sock, trio.SocketStream):
        sock = sock.socket
    if isinstance(sock, ssl.SSLSocket):
        raise TypeError(
            f"an ssl.SSLSocket cannot be waited for as a plain socket; expected {ACCEPTED} "
            f"(such as anyio.streams.tls.TLSStream)"
        )
    if isinstance(sock, socket.socket):
        if sock.fileno() >= 0 and sock.gettimeout() != 0:
            raise ValueError("the socket blocks, and would stop the event loop; setblocking(False)")
    elif trio is None or not isinstance(sock, trio.socket.SocketType):
        raise TypeError(f"{sock!r} is no socket that can be used here; expected {ACCEPTED}")
    if sock.fileno() >= 0 and sock.type != socket.SOCK_STREAM:
        raise TypeError(f"the socket is of {sock.type!r}; expected {ACCEPTED}")
    return sock


def attempt(sock: Any, call: Callable[[socket.socket], int]) -> int | None:
    """Try a system call on `sock`; return what it returned, or None if it is not ready.

    A trio socket gives no way to try, so an ordinary one borrows its descriptor for the time of
    the call. (Not for longer: once the owner has closed it, the number may be somebody else's.)

    Raises:
        anyio.ClosedResourceError: the socket was closed on this side.
        OSError: as the call.
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

    Two that send at once would mix their bytes, and the kernel would not mind.
    """

    def __init__(self, doing: str) -> None:
        self._doing = doing
        self._sockets: set[int] = set()

    def enter(self, sock: object) -> None:
        """Begin. Raises BusyResourceError if another task has not ended."""
        if id(sock) in self._sockets:
            raise anyio.BusyResourceError(self._doing)
        self._sockets.add(id(sock))

    def leave(self, sock: object) -> None:
        """End."""
        self._sockets.discard(id(sock))
