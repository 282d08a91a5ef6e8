"""Runs a program once in virtual time, on asyncio or on trio.

trio, and the module of its clock, are imported only when the backend is trio.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar, TypeVarTuple

import anyio

from ._virtual_time import Stalled, VirtualTimeLoop

__all__ = ["backend_options", "run"]

Args = TypeVarTuple("Args")
Result = TypeVar("Result")


def backend_options(backend: str, *, patience: float = 1.0) -> tuple[str, dict[str, Any]]:
    """Return what anyio needs to run in virtual time: the backend and its options.

    An `anyio_backend` fixture may return the pair as it is; `anyio.run` takes the two parts as
    `backend` and `backend_options`. The clock of each run starts at 0.0 seconds. A stall ends the
    run with `Stalled`; on trio a nursery may wrap it in an exception group. Does not block.

    Args:
        backend: ``"asyncio"`` or ``"trio"``.
        patience: seconds of real time to wait for I/O or a thread when nothing is scheduled.

    Raises:
        ValueError: there is no backend of this name.
        ImportError: the backend is trio, and trio is not installed.
        LabError: this release of trio lacks a private name that virtual time needs.
    """
    if backend == "asyncio":
        return backend, {"loop_factory": partial(VirtualTimeLoop, patience)}
    if backend != "trio":
        raise ValueError(f"no backend {backend!r}: expected 'asyncio' or 'trio'")
    if importlib.util.find_spec("trio") is None:
        raise ImportError("the trio backend needs trio: pip install 'mbufpools[trio]'")
    from ._virtual_clock import VirtualClock

    return backend, {"clock": VirtualClock(patience)}


def run(
    program: Callable[[*Args], Awaitable[Result]],
    *args: *Args,
    backend: str = "asyncio",
    patience: float = 1.0,
) -> Result:
    """Run ``program(*args)`` once, in virtual time, and return its result.

    The program's clock (`anyio.current_time`) starts at 0.0 seconds. Sleeps and timeouts take no
    real time. Real I/O and threads work, but take no virtual time, so a timer fires before a
    thread that is still at work has ended. On asyncio two runs are identical; trio shuffles the
    tasks that are ready at the same time.

    Blocks the calling thread until the program has ended.

    If every task waits and nothing is scheduled, the program is stopped, its clean-up runs, and
    `Stalled` is raised. On asyncio all tasks are cancelled; on trio the error is raised where the
    main task waits.

    Args:
        program: an async function.
        args: its arguments.
        backend: ``"asyncio"`` or ``"trio"``.
        patience: seconds of real time to wait for I/O or a thread when nothing is scheduled.

    Raises:
        Stalled: no task could ever run again.
        ValueError: there is no backend of this name.
        ImportError: the backend is trio, and trio is not installed.
        LabError: this release of trio lacks a private name that virtual time needs.
        RuntimeError: the caller is inside an event loop.
        BaseException: the program raised it.
    """
    name, options = backend_options(backend, patience=patience)
    try:
        return anyio.run(program, *args, backend=name, backend_options=options)
    except RecursionError as error:  # asyncio cannot cancel tasks that await each other
        if isinstance(error.__context__, Stalled):
            raise error.__context__ from None
        raise
    finally:
        stalled = getattr(options.get("clock"), "stalled", None)
        if stalled is not None:
            raise stalled from None
