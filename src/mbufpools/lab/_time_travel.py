"""The package time-machine, whose travels move the clocks of the whole process, beside the lab's.

time-machine finds `time.time`, `datetime.now` and others by their names when a travel begins, and
writes functions of its own into the `PyMethodDef` of each. It must not find there what the lab has
put in their place, which has another layout. So the lab puts the clocks back for as long as
time-machine patches or unpatches them. Between, the lab's clocks ask the real ones while a travel
is under way (`travels`), and so tell its time, which is right in the program, too.

A travel may tick. It then adds the real time that has passed since its begin, which it asks
`original_time_ns` for. This is the virtual time that has passed in the execution, while the lab
explores; outside of the program it stands still, so that it is the same for each execution.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

from ._replaced import replaced

__all__ = ["beside_time_machine", "note_travel", "travels"]

_PATCH = ("patch", "unpatch", "patch_if_needed")
"""What patches the clocks in the module `_time_machine`; the last one in older releases."""


def travels() -> bool:
    """Return True if a travel of time-machine is under way."""
    module: Any = sys.modules.get("time_machine")
    return module is not None and bool(module.escape_hatch.is_travelling())


def note_travel() -> None:
    """Let a travel that is under way tick from here on, since an execution begins. It does so from
    the first time that it is asked for."""
    if travels():
        time.time()


@contextmanager
def beside_time_machine(
    replace: Callable[[], AbstractContextManager[None]], passed: Callable[[], int]
) -> Iterator[None]:
    """Replace the clocks, but for the moments in which time-machine patches them.

    Args:
        replace: makes a context manager that replaces them.
        passed: returns the nanoseconds that have passed in the execution, 0 outside of it.
    """
    with ExitStack() as clocks:

        def without_the_lab(patch: Callable[[], Any]) -> Callable[[], Any]:
            def patch_really() -> Any:
                clocks.close()
                try:
                    return patch()
                finally:
                    clocks.enter_context(replace())

            return patch_really

        try:  # the program may import time-machine later, so it has to be now
            module = importlib.import_module("_time_machine")
        except ImportError:
            clocks.enter_context(replace())
            yield
            return
        begin = module.original_time_ns() if travels() else time.time_ns()
        replacements: list[tuple[Any, str, Any]] = [
            (module, name, without_the_lab(getattr(module, name)))
            for name in _PATCH
            if hasattr(module, name)
        ]
        replacements.append((module, "original_time_ns", lambda: begin + passed()))
        with replaced(replacements, copies=False):
            clocks.enter_context(replace())
            yield
