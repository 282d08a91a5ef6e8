"""The logger of the library, ``mbufpools``.

`logging` is imported when the first pool set or task queue is entered, and not with the package, so
that the import of the package stays fast; the benchmarks have a row for it. From then on the logger
is at hand, even while the interpreter shuts down and can import nothing.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import logging

__all__ = ["logger"]


@cache
def logger() -> logging.Logger:
    """Return the logger."""
    import logging

    return logging.getLogger("mbufpools")
