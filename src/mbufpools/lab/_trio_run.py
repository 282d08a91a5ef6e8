"""What belongs to one run of trio, made anew for each execution.

Many executions share one `trio.run`, which takes as long to start and to end as some of them take.
So that a program sees a run of its own, the lab does here what the end of a run does: the token,
the `RunVar` values of trio and of anyio, which has its own by token, the instruments, and the
context of what `run_sync_soon` calls are dropped, and the async generators that are still open are
closed.

Invariants:

- The tasks of the lab are in no set that a program can walk: they are hidden from the run and from
  their nursery, and they are put back in their last step, in which trio removes them.
- When the generators are closed, no task of the program is left, and the system nursery takes none.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import trio
from trio._core import _asyncgens, _instrumentation, _run
from trio._util import name_asyncgen

from ._ordered_sets import OpenGenerators

__all__ = [
    "CLOSES_GENERATOR",
    "begin_run",
    "add_instruments",
    "close_generators",
    "end_run",
    "hide",
    "logger_of_generators",
    "unhide",
]

CLOSES_GENERATOR = "close asyncgen "
"""How trio begins the name of a task in which it closes an async generator."""


class _Closing(dict[Any, None]):
    """The async generators that are open, while they are closed: it keeps those that the clean-up
    of others begins."""

    add = dict.setdefault  # its default is None


class _Logger:
    """Replaces the logger to which trio tells the errors of generators that it closes."""

    def __init__(self, failed: Callable[[str], None], logger: Any) -> None:
        self._failed = failed
        self._logger = logger

    def exception(self, message: str, name: object) -> None:
        """Called by trio while it handles the error."""
        self._failed(str(name))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._logger, name)


def logger_of_generators(failed: Callable[[str], None]) -> _Logger:
    """Return what is to stand in the place of trio's logger; it calls `failed` with the name of a
    generator, while the error of its clean-up is handled."""
    return _Logger(failed, _asyncgens.ASYNCGEN_LOGGER)


def begin_run() -> None:
    """Keep the async generators in order, since a run of trio begins."""
    _run.GLOBAL_RUN_CONTEXT.runner.asyncgens.alive = OpenGenerators()  # type: ignore[assignment]  # it has what trio calls


def end_run(own: trio.abc.Instrument) -> None:
    """Drop what an execution has left in the run of trio, but the lab's `own` instrument."""
    runner = _run.GLOBAL_RUN_CONTEXT.runner
    if "after_run" in runner.instruments:
        runner.instruments.call("after_run")
    for instrument in list(runner.instruments["_all"]):
        if instrument is not own:
            runner.instruments.remove_instrument(instrument)
    vars(runner.instruments).pop("call", None)
    runner.trio_token = None
    runner._locals.clear()
    runner.deadlines = _run.Deadlines()  # trio forgets a scope that it has left only with time
    # The task in which the calls of `run_sync_soon` are made is the only one in its nursery.
    assert runner.init_task is not None
    for task in runner.init_task.child_nurseries[0].child_tasks:
        task.context = runner.system_context.copy()


async def close_generators(closes: Callable[[str], None]) -> None:
    """Close the async generators that are still open, as trio does at the end of a run.

    Args:
        closes: called with the name of each, before it is closed.
    """
    runner = _run.GLOBAL_RUN_CONTEXT.runner
    nursery, generators = runner.system_nursery, runner.asyncgens
    assert nursery is not None
    nursery._closed = True
    try:
        while generators.alive:
            batch, generators.alive = list(generators.alive), _Closing()  # type: ignore[assignment]  # it has what trio calls
            while batch:
                generator = batch.pop(0)
                name = name_asyncgen(generator)
                closes(name)
                await generators._finalize_one(generator, name)
                del generator
    finally:
        nursery._closed = False
        begin_run()


_hidden = weakref.WeakSet[trio.lowlevel.Task]()


def add_instruments(
    own: trio.abc.Instrument, add: Callable[..., None], is_hiding: Callable[[], bool]
) -> Callable[..., None]:
    """Return what is to stand in the place of `add`, by which a program adds an instrument.

    From then on trio tells only the lab's `own` instrument about a task that is hidden, or that is
    made while `is_hiding` returns True.
    """

    def add_instrument(instruments: Any, instrument: trio.abc.Instrument) -> None:
        add(instruments, instrument)
        call = _instrumentation.Instruments.call

        def tell(hook: str, *about: Any) -> None:
            is_task = bool(about) and type(about[0]) is trio.lowlevel.Task
            if is_task and (about[0] in _hidden or is_hiding()):
                if own in instruments[hook]:
                    getattr(own, hook)(*about)
            else:
                call(instruments, hook, *about)

        if instrument is not own:
            instruments.call = tell

    return add_instrument


def hide(task: trio.lowlevel.Task) -> None:
    """Take a task of the lab out of what a program can see of a run of trio."""
    assert task.parent_nursery is not None
    _hidden.add(task)
    _run.GLOBAL_RUN_CONTEXT.runner.tasks.discard(task)
    task.parent_nursery._children.discard(task)


def unhide() -> None:
    """Put the calling task back, in its last step."""
    task = trio.lowlevel.current_task()
    assert task.parent_nursery is not None
    _run.GLOBAL_RUN_CONTEXT.runner.tasks.add(task)
    task.parent_nursery._children.add(task)
