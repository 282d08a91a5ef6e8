"""What the two halves of a connection ask of the protocol that they belong to.

They know it by a weak reference. So a connection that has ended, with its buffers' windows and its
transport, goes at once, and not when the garbage collector finds a cycle; that costs a program with
many connections more than the reference does.
"""

from __future__ import annotations

import weakref
from typing import Protocol

__all__ = ["Owner"]


class _Connection(Protocol):
    def _tell(self, message: str, error: Exception) -> None:
        """Tell an error that no task gets."""

    def _fail(self, error: Exception) -> None:
        """End the connection, because the transport has raised an error."""

    def _break_off(self, error: OSError) -> None:
        """End the connection, because a read has failed."""


Owner = weakref.ref[_Connection]
"""Returns the protocol, or None if it is gone, and with it everybody who would hear of it."""
