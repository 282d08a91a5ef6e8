"""The logger of the library, ``mbufpools``.

`logging` is imported by the first message, because the import takes longer than that of all modules
of the core, and most programs never have a message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import logging

__all__ = ["logger"]


def logger() -> logging.Logger:
    """Return the logger."""
    import logging

    return logging.getLogger("mbufpools")
