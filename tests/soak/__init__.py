"""The soak: a great many random operations on many pool sets, to see that nothing breaks.

`python -m tests.soak` runs a million operations; `make soak` does so on each backend.
"""

from __future__ import annotations

from ._soak import OPERATIONS, Soak, soak

__all__ = ["OPERATIONS", "Soak", "soak"]
