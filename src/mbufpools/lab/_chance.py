"""Chance: what Python takes from the operating system is the same in every execution.

Before each execution the state of `random` is put to the same beginning, and so is a source that
stands in for the chance of the operating system (`os.urandom`, `os.getrandom`, `ssl.RAND_bytes`),
from which `secrets` and `uuid` draw, too. A `random.Random()` without a seed takes one from that
source. At the end of the exploration `random` and `uuid` are as they were.

What Python makes once in a process, and keeps, must not draw from this source in the first
execution alone: the rest of that execution would draw other numbers than a repetition of it. So
the names of `tempfile` come from a generator of the lab, by real chance, so that no execution finds
the temporary file of an earlier one. The node of `uuid.getnode`, which may be drawn, is drawn
beside the others.

What a library keeps of its own, such as NumPy's global generator, is not seeded.
"""

from __future__ import annotations

import ctypes
import os
import random
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ._redirected import real
from ._running import inside

try:
    import ssl as _ssl
except ImportError:  # of a Python that was built without it
    _ssl = None  # type: ignore[assignment]

__all__ = ["CHANCE", "SYSTEM_CHANCE", "chance_is_kept", "is_undeclared", "restart_chance"]

_system = random.Random(0)
"""Stands in for the chance of the operating system."""
_first = random.Random(1)
_FIRST = _first.getstate()
_FIRST_OF_SYSTEM = random.Random(2).getstate()

_seed: Any = random.Random.seed
_global: Any = random._inst  # the generator behind the module's functions
_uuid: Any = uuid
_getnode = uuid.getnode
_LAST_IDS = {
    name: first
    for name, first in {
        "_last_timestamp": None,
        "_last_timestamp_v6": None,
        "_last_timestamp_v7": None,
        "_last_counter_v7": 0,
    }.items()
    if hasattr(uuid, name)
}
"""What `uuid` keeps of the last one that it made, and what it was before."""
_names = random.Random()
"""The names of `tempfile` are drawn from it."""

_drawn = True
"""Whether something was taken from `_system` since its beginning."""


def _draw_from_system() -> random.Random:
    global _drawn
    _drawn = True
    return _system


def _seeded(source: Callable[..., bytes]) -> Callable[..., bytes]:
    """Return what stands in for a function that returns bytes by chance. Errors are its own."""
    source = real(source)

    def stand_in(*args: Any, **options: Any) -> bytes:
        drawn = source(*args, **options)
        return _draw_from_system().randbytes(len(drawn)) if inside() else drawn

    return stand_in


def _seeded_seed(generator: random.Random, a: Any = None, version: int = 2) -> None:
    if a is None and inside():
        a = _draw_from_system().getrandbits(64)
    _seed(generator, a, version)


def _undrawn_getnode() -> int:
    """Stand in for `uuid.getnode`, which may draw from `random`, but in its first call only."""
    if _uuid._node is not None or not inside():
        return _getnode()
    state = _global.getstate()
    try:
        return _getnode()
    finally:
        _global.setstate(state)


SYSTEM_CHANCE: list[tuple[Any, str, Any]] = [
    (module, name, _seeded(getattr(module, name)))
    for module, name in ((os, "urandom"), (os, "getrandom"), (_ssl, "RAND_bytes"))
    if hasattr(module, name)
]
"""The functions of C that return chance, each with what is called in its place (`redirected`).

A source that is a function of C belongs here, and not to `CHANCE`: the function itself is changed,
so also a copy that the program holds, such as ``functools.partial(os.getrandom, 8)``, is seeded.
"""
CHANCE: list[tuple[Any, str, Any]] = [
    (random.Random, "seed", _seeded_seed),
    (random, "seed", _seeded_seed.__get__(_global)),
    (uuid, "getnode", _undrawn_getnode),
    (tempfile._RandomNameSequence, "rng", property(lambda sequence: _names)),  # type: ignore[attr-defined]  # its own
    # With it, `uuid1` asks the operating system for the time.
    (uuid, "_generate_time_safe", None),
]
"""What else takes chance from the operating system, and what is to stand in its place. These are
written in Python: a name of a module or a class is replaced, and the copies that modules hold
(`replaced`). A copy elsewhere, such as in an instance or in ``functools.partial``, is not."""
if hasattr(_ssl, "RAND_pseudo_bytes"):  # until Python 3.11
    _pseudo_bytes = real(_ssl.RAND_pseudo_bytes)

    def _seeded_pseudo_bytes(size: int, /) -> tuple[bytes, bool]:
        drawn, is_strong = _pseudo_bytes(size)
        return (_draw_from_system().randbytes(len(drawn)) if inside() else drawn), is_strong

    SYSTEM_CHANCE.append((_ssl, "RAND_pseudo_bytes", _seeded_pseudo_bytes))
if random._urandom is not os.urandom:  # type: ignore[attr-defined]  # its own
    CHANCE.append((random, "_urandom", _seeded(os.urandom)))


def is_undeclared(generator: random.Random) -> bool:
    """Return True for the generator whose draws no execution repeats, so that none depends on
    another."""
    return generator is _names


_CPYTHON = sys.implementation.name == "cpython"
_begin, _end = object.__basicsize__, random.Random.__base__.__basicsize__  # type: ignore[union-attr]  # it has one


def _memory(generator: random.Random) -> bytes:
    """Return the state of a generator as it lies in memory."""
    return ctypes.string_at(id(generator) + _begin, _end - _begin)


_FIRST_IN_MEMORY = _memory(_first) if _CPYTHON else b""


def _is_at_first() -> bool:
    """Return True if nothing was drawn from `random`, which most programs do not use. To look at
    the memory is cheaper by far than to set the state, or to get it."""
    return _CPYTHON and _global.gauss_next is None and _memory(_global) == _FIRST_IN_MEMORY


def restart_chance() -> None:
    """Put all chance to its beginning, because an execution begins."""
    global _drawn
    if not _is_at_first():
        _global.setstate(_FIRST)
    vars(uuid).update(_LAST_IDS)
    if _drawn:
        _system.setstate(_FIRST_OF_SYSTEM)
        _drawn = False


@contextmanager
def chance_is_kept() -> Iterator[None]:
    """Put `random` and `uuid` back at the end to where they were at the beginning."""
    _names.seed()  # by real chance, also in a process that was forked
    state, ids = random.getstate(), {name: getattr(uuid, name) for name in _LAST_IDS}
    try:
        yield
    finally:
        random.setstate(state)
        vars(uuid).update(ids)
