"""Reading from the socket of a transport, without the transport.

A transport reads nothing while it is paused, and while its call of `buffer_updated` lasts. So its
socket can be read from directly, with one system call and no turn of the loop, and the transport
goes on afterwards where this has ended. That holds for the plain transports of asyncio and uvloop
only: TLS keeps bytes of its own, and what a transport of another library does with the bytes is not
known.
"""

from __future__ import annotations

import asyncio
import os
import sys

if sys.platform != "win32":
    import fcntl
    import termios

__all__ = ["Direct", "direct"]


class Direct:
    """The socket of one transport."""

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def waiting(self) -> int:
        """Return how many bytes have arrived. It is 0 before the end and before an error, too, of
        which the transport must hear."""
        assert sys.platform != "win32"
        answer = fcntl.ioctl(self._descriptor, termios.FIONREAD, bytes(4))
        return int.from_bytes(answer, sys.byteorder)

    def read(self, room: memoryview) -> int:
        """Read into `room` what has arrived; return how many bytes, 0 if none.

        Raises:
            OSError: the connection has failed. The kernel tells it once.
        """
        assert sys.platform != "win32"
        try:
            return os.readv(self._descriptor, [room])
        except BlockingIOError:
            return 0


def direct(transport: asyncio.Transport) -> Direct | None:
    """Return the socket of `transport`, or None if it must be read by the transport."""
    plain = type(transport).__module__.partition(".")[0] in ("asyncio", "uvloop")
    socket = transport.get_extra_info("socket")
    secure = transport.get_extra_info("sslcontext") is not None
    if sys.platform == "win32" or socket is None or secure or not plain:
        return None
    return Direct(socket.fileno())
