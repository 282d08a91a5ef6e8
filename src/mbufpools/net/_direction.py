"""The state of one direction of a connection: of what is received, or of what is sent."""

from __future__ import annotations

import enum

__all__ = ["Direction"]


class Direction(enum.IntEnum):
    """A direction moves only to a higher state, and its state decides which error is raised.

    ======  =============================  ==============================
    state   a receive that finds no bytes  a send
    ======  =============================  ==============================
    OPEN    waits                          is queued
    LOST    `anyio.BrokenResourceError`    `anyio.BrokenResourceError`
    ENDED   `anyio.EndOfStream`            `anyio.ClosedResourceError`
    CLOSED  `anyio.ClosedResourceError`    `anyio.ClosedResourceError`
    ======  =============================  ==============================
    """

    OPEN = 0
    LOST = 1
    """The transport has lost the connection."""
    ENDED = 2
    """No more bytes follow: the peer has sent its end, or `write_eof` was called on this side."""
    CLOSED = 3
    """The connection was closed on this side."""
