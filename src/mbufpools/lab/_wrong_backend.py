"""A program that uses asyncio, and is explored on trio: it is refused, with its line.

asyncio finds no event loop there, and says so in many ways, some of which look like a failure of
the program, such as ``'NoneType' object has no attribute 'create_future'``.
"""

from __future__ import annotations

import asyncio
import os
import sys
import traceback
from types import FrameType

from ._frames import is_plumbing, short_path
from ._outcome import leaves, refuse

__all__ = ["is_asked_for_a_loop", "refuse_asyncio", "refuse_if_of_asyncio"]

_ASYNCIO = os.path.join(os.path.dirname(asyncio.__file__), "")


def refuse_asyncio(line: str) -> BaseException:
    """Refuse a program whose line uses asyncio; return the error."""
    return refuse(
        f"the program uses asyncio, at {line}, and is explored on trio; explore it on asyncio "
        f"alone: by backend='asyncio', also in the mark, or for a whole project by "
        f"`explore_backends = asyncio` in the ini file of pytest"
    )


def refuse_if_of_asyncio(error: BaseException | None) -> None:
    """Refuse the program if an error comes from asyncio, which has found no event loop."""
    for leaf in leaves(error):
        frames = traceback.extract_tb(leaf.__traceback__)
        if not frames:
            continue
        if _lacks_a_loop(leaf, frames[-1].filename):
            own = [it for it in frames if not is_plumbing(it.filename)]
            line = f"{short_path(own[-1].filename)}:{own[-1].lineno}" if own else "an unknown line"
            refuse_asyncio(line)
            return


def _lacks_a_loop(error: BaseException, file: str) -> bool:
    """Return True if an error that was raised in `file` comes of an event loop that is not there.
    Other errors of asyncio, such as `QueueEmpty`, are failures on trio, too."""
    said = error.args[0] if error.args and isinstance(error.args[0], str) else ""
    if isinstance(error, RuntimeError):
        return said.startswith(("no running event loop", "There is no current event loop"))
    if isinstance(error, TypeError):  # a task has waited for a future
        return said.startswith("trio.run received") and "like asyncio" in said  # trio's words
    lacks = isinstance(error, AttributeError) and error.obj is None
    return lacks and file.startswith(_ASYNCIO)


def is_asked_for_a_loop() -> bool:
    """Return True if asyncio makes an event loop because there is none, and not the program."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if code.co_name == "get_event_loop" and code.co_filename.startswith(_ASYNCIO):
            return True
        frame = frame.f_back
    return False
