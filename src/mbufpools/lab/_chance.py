"""Chance: `random`, `secrets`, `uuid` and `os.urandom` give the same in every execution.

Before each execution the state of `random` is put to the same beginning, and so is a source that
stands in for the one of the operating system. A `random.Random()` without a seed takes one from
that source. At the end of the exploration `random` is as it was. What a library keeps of its own,
such as NumPy's global generator, is not seeded.
"""

from __future__ import annotations

import os
import random
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ._redirected import real
from ._running import inside

__all__ = ["CHANCE", "SYSTEM_CHANCE", "chance_is_kept", "restart_chance"]

_system = random.Random(0)
"""Stands in for the chance of the operating system."""
_FIRST = random.Random(1).getstate()
_FIRST_OF_SYSTEM = random.Random(2).getstate()

_urandom = real(os.urandom)
_seed: Any = random.Random.seed
_global: Any = random._inst  # the generator behind the module's functions


_drawn = True
"""Whether something was taken from `_system` since its beginning."""


def _draw_from_system() -> random.Random:
    global _drawn
    _drawn = True
    return _system


def _seeded_urandom(size: int, /) -> bytes:
    return _draw_from_system().randbytes(size) if inside() else _urandom(size)


def _seeded_seed(generator: random.Random, a: Any = None, version: int = 2) -> None:
    if a is None and inside():
        a = _draw_from_system().getrandbits(64)
    _seed(generator, a, version)


SYSTEM_CHANCE: list[tuple[Any, str, Any]] = [(os, "urandom", _seeded_urandom)]
"""The function that asks the operating system for chance, and its target (`redirected`)."""
CHANCE: list[tuple[Any, str, Any]] = [
    (random.Random, "seed", _seeded_seed),
    (random, "seed", _seeded_seed.__get__(_global)),
    # With it, `uuid1` asks the operating system for the time.
    (uuid, "_generate_time_safe", None),
]
"""What else takes chance from the operating system, and what is to stand in its place."""
if random._urandom is not os.urandom:  # type: ignore[attr-defined]  # its own
    CHANCE.append((random, "_urandom", _seeded_urandom))


def restart_chance() -> None:
    """Put all chance to its beginning, because an execution begins."""
    global _drawn
    _global.setstate(_FIRST)
    if _drawn:
        _system.setstate(_FIRST_OF_SYSTEM)
        uuid._last_timestamp = None  # type: ignore[attr-defined]  # of the last `uuid1`
        _drawn = False


@contextmanager
def chance_is_kept() -> Iterator[None]:
    """Put `random` back at the end to where it was at the beginning."""
    state = random.getstate()
    try:
        yield
    finally:
        random.setstate(state)
