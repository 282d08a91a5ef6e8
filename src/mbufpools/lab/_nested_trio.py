"""A run of trio inside of the program, which is refused; and an exploration inside of such a run.

`trio.run` goes through all of its tasks within one step of the program, so the lab would see none
of their choices. trio is looked up in `sys.modules`, because a program on asyncio may do without.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ._lockstep import program_line
from ._outcome import LabError, refuse
from ._running import inside

__all__ = ["is_trio_loaded", "refuse_inside_trio", "refusing_trio_runs"]

_RUN = "trio._core._run"


def is_trio_loaded() -> bool:
    """Return True if anything has imported trio."""
    return _RUN in sys.modules


def refuse_inside_trio() -> None:
    """Raise LabError if the caller is inside of a run of trio."""
    if is_trio_loaded() and hasattr(sys.modules[_RUN].GLOBAL_RUN_CONTEXT, "runner"):
        raise LabError(
            "the lab runs event loops of its own, so it cannot be called inside a run of trio; "
            "call it from a plain function or test"
        )


@contextmanager
def refusing_trio_runs() -> Iterator[None]:
    """Refuse each run of trio that the program begins, also one in a thread; trio is loaded."""
    module: Any = sys.modules[_RUN]
    set_up = module.setup_runner

    def refuse_run(*args: Any, **options: Any) -> Any:
        if inside():
            raise refuse(
                f"the program runs trio itself, at {program_line()}; the lab explores one event "
                f"loop, so explore what trio runs as a program of its own, with backend='trio'"
            )
        return set_up(*args, **options)

    module.setup_runner = refuse_run
    try:
        yield
    finally:
        module.setup_runner = set_up
