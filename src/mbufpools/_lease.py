"""What every lease has in common: it is entered, released at the end, and reported if dropped.

`Releasable` is the context manager: it yields itself, and its end releases what is still held.
`Lease` adds the report of a lease that is dropped without a release.

Invariant: ``__del__`` may run at any moment, even in the middle of a get or a put of the same
pool, so `Lease._drop` may only enqueue what is to be done. What it returns names the lease in the
warning.
"""

from __future__ import annotations

import warnings
from typing import Self

__all__ = ["Lease", "Releasable"]


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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if not self.released:
            self.release()


class Lease(Releasable):
    """Something that is held until its release, and reported if it is dropped without one."""

    __slots__ = ("__weakref__",)

    def _drop(self) -> str:
        """Have what is held taken back, later; return what the warning calls it.

        Called from ``__del__``, so it may only enqueue. It must mark the lease as released,
        because a warning that is kept keeps its source alive, and that source dies again later.
        """
        raise NotImplementedError

    def __del__(self) -> None:
        try:
            released = self.released
        except AttributeError:  # an exception ended `__init__` before anything was held
            return
        if not released:
            warnings.warn(
                f"{self._drop()} was dropped without a release",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )
