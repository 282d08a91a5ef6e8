"""A piece: the first bytes of a buffer, which is what a receive fills and a send takes.

Uses the public names of the core.
"""

from __future__ import annotations

from typing import Any

from mbufpools import Buffer, UseAfterRelease

__all__ = ["Piece", "check_piece"]

Piece = Buffer | tuple[Buffer, int]
"""A buffer with all its bytes, or a pair of it and how many of its first bytes are meant."""


def check_piece(piece: Any) -> tuple[Buffer, int]:
    """Return the buffer of `piece`, and how many bytes of it are meant.

    Raises:
        TypeError: it is none.
        ValueError: fewer than none, or more than the buffer has.
        UseAfterRelease: the buffer was released.
    """
    match piece:
        case Buffer():
            buffer, nbytes = piece, piece.nbytes
        case (Buffer(), int()) if not isinstance(piece[1], bool):
            buffer, nbytes = piece
        case _:
            raise TypeError(
                f"cannot send {piece!r}; expected a Buffer, or a pair of a Buffer and how many "
                f"bytes of it are to be sent"
            )
    if not 0 <= nbytes <= buffer.nbytes:
        raise ValueError(f"cannot send {nbytes} bytes of {buffer!r}, which has {buffer.nbytes}")
    if buffer.released:
        raise UseAfterRelease(
            f"a buffer of pool {buffer.pool.name!r} cannot be sent after its release"
        )
    return buffer, nbytes
