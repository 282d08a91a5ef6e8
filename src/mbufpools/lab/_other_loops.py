"""Objects of asyncio that belong to another event loop than that of the execution.

Each execution has an event loop of its own, and the program cannot run another one. So an object
that is bound to another loop has survived an earlier execution, or is older than the exploration.
asyncio raises an error then, which would look like a failure of the program. The lab refuses the
program instead, since in a fresh process it has no such error.
"""

from __future__ import annotations

import asyncio.events
import asyncio.mixins
from typing import Any

from ._outcome import NotFresh, describe, leaves, refuse
from ._running import inside

__all__ = ["LOOP_BOUND", "OLDER", "is_of_other_loop"]

OLDER = (
    "is bound to the event loop of an earlier execution, or of before the exploration; it has to "
    "be made anew for each execution"
)
"""What the lab says of an object of another loop."""

TOLD = ("attached to a different loop", "belongs to a different loop than the one specified")
"""What asyncio says of a future of another loop, in errors of its task and of `gather`."""

_bound: Any = asyncio.mixins._LoopBoundMixin
_get_loop = _bound._get_loop


def _get_own_loop(primitive: Any) -> Any:
    """Return the loop of a lock, an event or a queue, as asyncio does, or refuse the program.

    asyncio takes a lock for that. The program's threads need none, as one of them runs at a time.
    """
    if not inside():
        return _get_loop(primitive)
    loop, bound = asyncio.events._get_running_loop(), primitive._loop
    if bound is None:
        primitive._loop = loop
    elif bound is not loop:
        raise refuse(
            f"the program uses an asyncio {type(primitive).__name__} that {OLDER}",
            NotFresh,
        )
    return loop


LOOP_BOUND: list[tuple[Any, str, Any]] = [(_bound, "_get_loop", _get_own_loop)]
"""How a primitive of asyncio finds its loop, and what is to stand in its place."""


def is_of_other_loop(error: BaseException | None) -> bool:
    """Return True if asyncio raised an error because a future belongs to another event loop."""
    return any(
        isinstance(it, RuntimeError | ValueError) and any(told in describe(it) for told in TOLD)
        for it in leaves(error)
    )
