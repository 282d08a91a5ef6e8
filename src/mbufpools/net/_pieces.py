"""A piece: the first bytes of a buffer, which a send takes over.

The rule of this package is that a call that sends *takes* its buffers, also if it fails. The item
moves in one step from the caller's `Buffer` into a private lease. So the end of the caller's
``with buffer:``, or a release by another task, does nothing to bytes that are still to be sent; and
a call that fails leaves nothing behind that the caller would have to release. Each error of such a
call says so, because its caller may believe that it still has the buffer.
"""

from __future__ import annotations

from typing import Any

from mbufpools import Buffer, UseAfterRelease
from mbufpools._buffer import move

__all__ = [
    "ALL_RELEASED",
    "SLICE",
    "Piece",
    "Taken",
    "check_piece",
    "end_view",
    "give_up",
    "named",
    "note_release",
    "split",
]

Piece = Buffer | tuple[Buffer, int]
"""A buffer, for all its bytes, or a pair of a buffer and the number of its first bytes."""

ALL_RELEASED = "all buffers of the call were released"
"""How the error of a wrong argument of `send_all` ends."""

A_PAIR = (
    "expected a Buffer, or a pair of a Buffer and how many of its bytes to send: "
    f"[buffer] or [(buffer, nbytes)]; {ALL_RELEASED}"
)

SLICE = 65536
"""The most bytes that a transport or a stream gets at once, because it may copy them, and no pool
counts the copy. asyncio's transports ask their users by default to pause at as many bytes."""


class Taken:
    """The first `nbytes` bytes of a buffer, which was taken over.

    If this raises, the buffer is released.

    Raises:
        TypeError, ValueError: as from `check_piece`.
        UseAfterRelease: the buffer was released, or given to another call that sends.
        UsageError: the pools are a simulation without memory.
    """

    __slots__ = ("data", "lease", "nbytes")

    def __init__(self, buffer: Any, nbytes: Any) -> None:
        if not (type(buffer) is Buffer and type(nbytes) is int and 0 <= nbytes <= buffer.nbytes):
            try:
                check_piece(buffer, nbytes, _two_arguments(buffer))
            except BaseException:
                give_up(buffer)
                raise
        lease = move(buffer, Buffer)
        if lease is None:
            raise UseAfterRelease(
                f"a buffer of pool {buffer.pool.name!r} cannot be sent after its release, and a "
                f"send releases it"
            )
        self.lease = lease
        self.nbytes: int = nbytes
        self.data: memoryview | None = None
        """The bytes, or None if there are none or the lease has ended."""
        if nbytes:
            try:
                view = lease.view  # the one that the caller knows
                self.data = view[:nbytes]
                end_view(view)
            except BaseException as error:
                self.finish()
                note_release(error)
                raise

    def finish(self) -> None:
        """End the lease. If something exports the memory, the item waits in quarantine."""
        data, self.data = self.data, None
        if data is not None:
            end_view(data)
        self.lease.end()


def split(piece: Any) -> tuple[Any, Any]:
    """Return what should be the buffer of `piece`, and the number of its first bytes.

    Raises:
        TypeError: `piece` is neither a buffer nor a pair.
    """
    if isinstance(piece, Buffer):
        return piece, piece.nbytes
    if isinstance(piece, tuple) and len(piece) == 2:
        return piece
    raise TypeError(f"cannot send {named(piece)}; {A_PAIR}")


def check_piece(buffer: Any, nbytes: Any, expected: str = A_PAIR) -> None:
    """Check that `nbytes` bytes of `buffer` can be sent, if it is not released; `expected` is what
    the error says of the right arguments.

    Raises:
        TypeError: `buffer` is none, or `nbytes` is no number.
        ValueError: the number is negative, or larger than the buffer.
    """
    if not (isinstance(buffer, Buffer) and isinstance(nbytes, int)) or isinstance(nbytes, bool):
        count = "" if nbytes is None else f"{named(nbytes)} bytes of "
        raise TypeError(f"cannot send {count}{named(buffer)}; {expected}")
    if not 0 <= nbytes <= buffer.nbytes:
        raise ValueError(
            f"cannot send {nbytes} bytes of {named(buffer)}; expected 0 to {buffer.nbytes}; the "
            f"send has released it all the same"
        )


def _two_arguments(buffer: Any) -> str:
    """Return what the error says of the arguments of a call that sends one buffer."""
    holds = any(isinstance(each, Buffer) for each in _each(buffer))
    return (
        "expected a Buffer, and how many of its bytes to send, as two arguments: "
        "send(buffer, nbytes) or write(buffer, nbytes)"
    ) + ("; the buffer was released" if holds else "")


def named(piece: Any) -> str:
    """Return `piece` for an error. Its buffers are named without their state, which will have
    changed when the error is read."""
    if isinstance(piece, Buffer):
        return f"<Buffer of {piece.nbytes} bytes from pool {piece.pool.name!r}>"
    if type(piece) is tuple:
        return f"({', '.join(map(named, piece))})"
    if type(piece) is list:
        return f"[{', '.join(map(named, piece))}]"
    return repr(piece)


def note_release(error: BaseException) -> None:
    """Add to an `error` of a send that the buffers were released, if its text does not say so."""
    if isinstance(error, Exception) and "released" not in str(error):
        error.add_note("the send has released its buffers, as every send does, also if it fails")


def give_up(piece: Any) -> None:
    """Release every buffer of something that was given to be sent, and cannot be: of a buffer, or
    of a pair or list of which some are buffers."""
    for buffer in _each(piece):
        if isinstance(buffer, Buffer):
            buffer.end()


def _each(piece: Any) -> tuple[Any, ...]:
    return tuple(piece) if isinstance(piece, (tuple, list)) else (piece,)


def end_view(view: memoryview) -> None:
    """End `view`, which was lent to a transport, if nothing exports it. A transport's frame, and
    with it the view, lives on in the traceback of the error for which a connection was lost."""
    try:
        view.release()
    except BufferError:  # uvloop exports it until its callback has returned
        pass
