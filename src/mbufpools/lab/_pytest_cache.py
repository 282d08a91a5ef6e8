"""The schedules that failed, which are kept in pytest's cache and run first the next time.

Each call of an exploration in each test has an entry of its own. ``pytest --cache-clear`` forgets
all; without pytest's plugin of the cache none is kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import pytest

__all__ = ["keep", "kept"]


def kept(item: pytest.Item, call: int) -> list[str]:
    """Return the tokens of the schedules that failed the last time in a call of a test."""
    cache = getattr(item.config, "cache", None)
    entry = cache.get(_key(item, call), None) if cache is not None else None
    tokens = entry.get("tokens") if isinstance(entry, dict) else None
    return [it for it in tokens if isinstance(it, str)] if isinstance(tokens, list) else []


def keep(item: pytest.Item, call: int, tokens: Iterable[str]) -> None:
    """Keep the tokens of the schedules that failed, or forget those that do not fail any more."""
    cache = getattr(item.config, "cache", None)
    tokens = list(tokens)
    if cache is not None and (tokens or cache.get(_key(item, call), None)):
        cache.set(_key(item, call), {"test": f"{item.nodeid}, call {call}", "tokens": tokens})


def _key(item: pytest.Item, call: int) -> str:
    name = hashlib.sha1(f"{item.nodeid}#{call}".encode(), usedforsecurity=False).hexdigest()
    return f"explore/{name[:20]}"
