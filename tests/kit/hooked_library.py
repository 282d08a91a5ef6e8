"""A small library that tells the lab about itself, as any library can.

It has a `Desk` that lends one book, and a service that ticks for ever. `install` puts it among the
imported modules under a name of its own; `hooks` is what `mbufpools.lab.hooks` describes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType, ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest

from mbufpools.lab import _hooks
from mbufpools.lab.hooks import CHANGED, VALUE, State, Wait

__all__ = ["SOURCE", "forget", "install"]

SOURCE = '''
import anyio

class Desk:
    """Lends one book."""

    def __init__(self):
        self.reader = None
        self.readers = []

    async def borrow(self, reader):
        while self.reader is not None:
            event = anyio.Event()
            self.readers.append(event)
            await event.wait()
        self.reader = reader

    def give_back(self):
        self.reader = None
        if self.readers:
            self.readers.pop(0).set()

class Counter:
    """Two increments at once lose one."""

    def __init__(self):
        self.value = 0

    async def increment(self):
        value = self.value
        await anyio.lowlevel.checkpoint()
        self.value = value + 1

async def tick():
    while True:
        await anyio.sleep(1)
'''


class _HooksModule(ModuleType):
    STATE: ClassVar[State] = {
        "desks": {"Desk": {"reader": VALUE, "readers": CHANGED}, "Counter": {"value": VALUE}}
    }

    def is_service(self, name: str) -> bool:
        return name == "desks ticker"

    def only_ticks(self, coroutine: Any) -> bool:
        return True

    def waits_for(self, frame: FrameType) -> Wait | None:
        if frame.f_code.co_qualname != "Desk.borrow":
            return None
        return Wait("the book of a desk", frame.f_locals["self"], id(frame.f_locals["reader"]))

    def holders(self, resource: Any, names: Mapping[int, str]) -> Iterable[str]:
        yield "desk:"
        yield f"{resource.reader} has the book; {', '.join(sorted(names.values()))} waits"


@contextmanager
def install(monkeypatch: pytest.MonkeyPatch, *, hooked: bool = True) -> Iterator[SimpleNamespace]:
    """Import the library as ``desks``, with or without its hooks; forget it at the end."""
    library = ModuleType("desks")
    exec(compile(SOURCE, "desks.py", "exec"), vars(library))
    monkeypatch.setitem(sys.modules, "desks", library)
    if hooked:
        vars(library)["__lab_hooks__"] = "desks_lab_hooks"
        monkeypatch.setitem(sys.modules, "desks_lab_hooks", _HooksModule("desks_lab_hooks"))
    try:
        yield SimpleNamespace(**vars(library))
    finally:
        forget("desks")


def forget(package: str) -> None:
    """Make the lab forget the hooks of a package, which is no longer imported."""
    _hooks._found.pop(package, None)
    _hooks._modules_seen = 0
