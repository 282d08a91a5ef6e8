"""What every lease has in common: it is a context manager that yields itself, and that releases at
its end what is still held.

The end of a ``with`` block never raises because of an export, and so never replaces the exception
of its body; only an explicit `release` does.
"""

from __future__ import annotations

from typing import Self

__all__ = ["Releasable"]


class Releasable:
    """A context manager that yields itself, and releases at its end what is still held."""

    __slots__ = ()

    @property
    def released(self) -> bool:
        """True once nothing is held any more."""
        raise NotImplementedError

    def release(self) -> None:
        """Give back what is held."""
        raise NotImplementedError

    def end(self) -> None:
        """Give back what is still held, and raise no error because of an export."""
        if not self.released:
            self.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.end()
