"""One run of a program in virtual time, on either backend.

Uses `_virtual_time`; `_virtual_clock` only when trio is asked for.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar, TypeVarTuple

import anyio

from ._virtual_time import VirtualTimeLoop

__all__ = ["backend_options", "run"]

Args = TypeVarTuple("Args")
Result = TypeVar("Result")


def backend_options(backend: str, *, patience: float = 1.0) -> tuple[str, dict[str, Any]]:
    """Give what anyio needs to run in virtual time: the backend and its options.

    It is what an `anyio_backend` fixture returns, and, split in two, what `anyio.run` takes
    as `backend` and `backend_options`. Each run started with it has a clock that begins at 0.0.
    A stall ends the run with `Stalled`; on trio, where nurseries wrap what they raise, perhaps
    in an exception group.

    Args:
        backend: ``"asyncio"`` or ``"trio"``.
        patience: real seconds to wait for I/O or a thread when nothing is scheduled.

    Raises:
        ValueError: no such backend.
        ImportError: trio is asked for and not installed.
    """
    if backend == "asyncio":
        return backend, {"loop_factory": partial(VirtualTimeLoop, patience)}
    if backend != "trio":
        raise ValueError(f"no backend {backend!r}: expected 'asyncio' or 'trio'")
    if importlib.util.find_spec("trio") is None:
        raise ImportError("the trio backend needs trio: pip install mbufpools[trio]")
    from ._virtual_clock import VirtualClock

    return backend, {"clock": VirtualClock(patience)}


def run(
    program: Callable[[*Args], Awaitable[Result]],
    *args: *Args,
    backend: str = "asyncio",
    patience: float = 1.0,
) -> Result:
    """Run ``program(*args)`` once, in virtual time, and return its result.

    Blocks the calling thread until the program has ended; sleeps and timeouts of the program
    take no real time. Its clock (`anyio.current_time`) starts at 0.0 seconds. Real I/O and
    threads work but take no virtual time: a timer beats a thread that is still at work.

    When every task waits and nothing is scheduled the program is stopped, so that its clean-up
    runs, and `Stalled` is raised: on asyncio all tasks are cancelled; on trio the main task gets
    the error where it waits. On asyncio two runs are identical; trio shuffles the tasks that
    are ready at one time.

    Args:
        backend: ``"asyncio"`` or ``"trio"``.
        patience: real seconds to wait for I/O or a thread when nothing is scheduled.

    Raises:
        Stalled: no task could ever run again.
        ValueError: no such backend.
        ImportError: trio is asked for and not installed.
        RuntimeError: the caller is inside an event loop already.
        BaseException: what the program raised.
    """
    name, options = backend_options(backend, patience=patience)
    try:
        return anyio.run(program, *args, backend=name, backend_options=options)
    finally:
        stalled = getattr(options.get("clock"), "stalled", None)
        if stalled is not None:
            raise stalled from None
