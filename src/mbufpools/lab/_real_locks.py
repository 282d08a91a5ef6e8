"""The methods of real locks, for the lab's own threads and for what stands in for the program's.

A test may patch ``threading.Lock.acquire``, as the package blockbuster does, which raises an error
if the loop's thread would block; and the lab itself replaces it (`_locks`). These functions are
what the methods were when the lab was imported; the lock is their first argument.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

__all__ = ["give_back_really", "make_lock", "take_really"]

make_lock: Callable[[], Any] = threading.Lock
"""Makes a real lock, also while the lab replaces ``threading.Lock``."""
_methods = vars(type(make_lock()))
take_really: Callable[..., bool] = _methods["acquire"]
"""Takes a lock, or waits in real time; the arguments are those of ``threading.Lock.acquire``."""
give_back_really: Callable[[Any], None] = _methods["release"]
"""Releases a lock."""
