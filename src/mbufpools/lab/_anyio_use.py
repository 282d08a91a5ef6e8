"""Does the program use anyio? It is asked while it runs, since it may import anyio in a function.

Each function of anyio that needs the event loop looks up the backend in one table. While the lab
explores without cancellations by a scope, the table notes that a program has looked.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from anyio._core import _eventloop

from ._running import inside

__all__ = ["anyio_was_used", "noting_anyio"]

_used = False


class _Backends(dict[str, Any]):
    """The backends of anyio that were loaded, by name."""

    def __getitem__(self, name: str) -> Any:
        global _used
        _used = _used or inside()
        return super().__getitem__(name)


def anyio_was_used() -> bool:
    """Return True if the program has used anyio since the last `noting_anyio` was entered."""
    return _used


@contextmanager
def noting_anyio() -> Iterator[None]:
    """Note inside the ``with`` block whether the program uses anyio."""
    global _used
    _used = False
    module: Any = _eventloop
    before = module.loaded_backends
    noting = module.loaded_backends = _Backends(before)
    try:
        yield
    finally:
        module.loaded_backends = before
        before.update(noting)
