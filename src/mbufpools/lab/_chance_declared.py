"""Declares each draw of chance, for dpor: two steps that draw from one generator depend on each
other, because the first one gets the first number.

While the lab explores by dpor, the methods of `random.Random` by which every other method draws say
that they change their generator. All chance that the lab controls comes from such generators: the
one behind the functions of `random`, that which stands in for the operating system (`_chance`), and
those that the program makes.

Invariant: outside of `declaring_chance` no class is changed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from ._chance import is_undeclared
from ._declare import recorder
from ._redirected import real, redirected
from ._replaced import replaced
from ._running import inside

__all__ = ["declaring_chance"]

_Random: Any = random.Random
_DRAW = ("random", "getrandbits")
"""In C. Every other method draws by them."""
_CHANGE = ("seed", "setstate", "gauss")
"""In Python. `gauss` keeps every second number that it has drawn."""
_READ = ("getstate",)


def _declare(generator: Any, write: bool) -> None:
    if recorder.active and inside() and not is_undeclared(generator):
        recorder.touch(recorder.name(generator), write)


def _declared(function: Any, write: bool) -> Callable[..., Any]:
    """Return a method that does what another one does, and declares it."""

    def method(generator: Any, *args: Any, **options: Any) -> Any:
        _declare(generator, write)
        return function(generator, *args, **options)

    method.__name__ = method.__qualname__ = function.__name__
    return method


def _named_when_made(init: Any) -> Callable[..., None]:
    def __init__(generator: Any, *args: Any, **options: Any) -> None:
        if recorder.active and inside():
            recorder.made(generator, "chance")
        init(generator, *args, **options)

    return __init__


def _of_module(name: str, write: bool) -> Callable[..., Any]:
    """Return what stands in for a function of `random`, which is a method of its generator."""
    function: Any = real(getattr(random, name))

    def stand_in(*args: Any, **options: Any) -> Any:
        _declare(random._inst, write)
        return function(*args, **options)

    stand_in.__name__ = stand_in.__qualname__ = name
    return stand_in


@contextmanager
def declaring_chance() -> Iterator[None]:
    """Make generators declare what changes them."""
    kinds = [(_DRAW, True), (_CHANGE, True), (_READ, False)]
    before = dict(vars(_Random))
    in_module = [
        (random, name, _of_module(name, write)) for names, write in kinds for name in names
    ]
    with ExitStack() as stack:
        stack.enter_context(redirected(in_module[: len(_DRAW)]))
        stack.enter_context(replaced(in_module[len(_DRAW) :]))
        try:
            for names, write in kinds:
                for name in names:
                    setattr(_Random, name, _declared(getattr(_Random, name), write))
            _Random.__init__ = _named_when_made(_Random.__init__)
            yield
        finally:
            for name in (*_DRAW, *_CHANGE, *_READ, "__init__"):
                if name in before:
                    setattr(_Random, name, before[name])
                else:
                    delattr(_Random, name)
