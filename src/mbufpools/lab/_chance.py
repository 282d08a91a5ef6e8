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

from ._replaced import replaced
from ._running import inside

__all__ = ["restart_chance", "seeded"]

_system = random.Random(0)
"""Stands in for the chance of the operating system."""
_FIRST = random.Random(1).getstate()
_FIRST_OF_SYSTEM = random.Random(2).getstate()

_urandom = os.urandom
_seed: Any = random.Random.seed
_global: Any = random._inst  # the generator behind the module's functions


def _seeded_urandom(size: int, /) -> bytes:
    return _system.randbytes(size) if inside() else _urandom(size)


def _seeded_seed(generator: random.Random, a: Any = None, version: int = 2) -> None:
    if a is None and inside():
        a = _system.getrandbits(64)
    _seed(generator, a, version)


def restart_chance() -> None:
    """Put all chance to its beginning, because an execution begins."""
    _global.setstate(_FIRST)
    _system.setstate(_FIRST_OF_SYSTEM)
    uuid._last_timestamp = None  # type: ignore[attr-defined]  # of the last `uuid1`


@contextmanager
def seeded() -> Iterator[None]:
    """Take the program's chance from seeds. `restart_chance` begins an execution."""
    state = random.getstate()
    seed = _seeded_seed.__get__(_global)
    with replaced(
        [
            (os, "urandom", _seeded_urandom),
            (random, "_urandom", _seeded_urandom),
            (random.Random, "seed", _seeded_seed),
            (random, "seed", seed),
            # With it, `uuid1` asks the operating system for the time.
            (uuid, "_generate_time_safe", None),
        ]
    ):
        try:
            yield
        finally:
            random.setstate(state)
