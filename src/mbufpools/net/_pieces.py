"""A piece: the first bytes of a buffer, which a receive fills and a send takes."""

from __future__ import annotations

from typing import Any

from mbufpools import Buffer, UseAfterRelease

__all__ = ["Piece", "check_piece"]

Piece = Buffer | tuple[Buffer, int]
"""A buffer, for all its bytes, or a pair of a buffer and the number of its first bytes."""


def check_piece(piece: Any) -> tuple[Buffer, int]:
    """Return the buffer of `piece`, and the number of its first bytes that are meant.

    Raises:
        TypeError: `piece` is not a piece.
        ValueError: the number is negative, or larger than the buffer.
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
                f"of its bytes to send"
            )
    if not 0 <= nbytes <= buffer.nbytes:
        raise ValueError(f"cannot send {nbytes} bytes of {buffer!r}, which has {buffer.nbytes}")
    if buffer.released:
        raise UseAfterRelease(
            f"a buffer of pool {buffer.pool.name!r} cannot be sent after its release"
        )
    return buffer, nbytes
