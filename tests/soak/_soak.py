"""A soak: a great many random operations on many pool sets, in virtual time.

Sets live one after another or several at a time, each under random policies and a tight limit;
`_driver` says what happens to one. All chance comes from one seed, which determines the run for
one version of Python and of what runs it: on asyncio, and on trio, whose scheduler is seeded as
well (if it still has what `_seeded` looks for; else the order of its tasks is not determined).
The driver waits for each release and drop in another thread. Only after a close do several threads
release at a time, when no request waits and their order cannot matter. Python's own garbage
collector would run at moments that depend on the rest of the process: it is off, and called by
chance instead, also in the middle of other operations.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from random import Random
from typing import Any

import anyio

from mbufpools import lab
from mbufpools.demokit import Table, fill, plural

from ._counters import Counters, MemoryWatch
from ._driver import Driver

__all__ = ["OPERATIONS", "Soak", "soak"]

OPERATIONS = 1_000_000
RESIDENT_BOUND = 8
"""MiB by which the resident size may grow after the warm-up, because the allocators keep some of
what is freed. With a million operations this bound shows a leak of eight bytes in each."""
BLOCK_BOUND = 5_000
"""Blocks of Python's allocator by which they may grow after the warm-up."""


@dataclass(frozen=True, slots=True)
class Soak:
    """What a soak did, and whether all held."""

    seed: int
    backend: str
    goal: int
    counters: Counters
    memory: MemoryWatch
    virtual_seconds: float
    real_seconds: float

    @property
    def faults(self) -> list[str]:
        """What was broken, in the order in which it was found."""
        faults = list(self.counters.faults)
        if self.memory.resident_growth > RESIDENT_BOUND:
            faults.append(
                f"the resident size grew by {self.memory.resident_growth:.1f} MiB after the "
                f"warm-up; at most {RESIDENT_BOUND} are expected"
            )
        if self.memory.block_growth > BLOCK_BOUND:
            faults.append(
                f"Python's allocator held {self.memory.block_growth} blocks more than after the "
                f"warm-up; at most {BLOCK_BOUND} are expected"
            )
        return faults

    @property
    def replay(self) -> str:
        """The command that does the same again."""
        return (
            f"python -m tests.soak --operations {self.goal} --seed {self.seed}"
            f" --backend {self.backend}"
        )

    @property
    def outcomes(self) -> dict[str, int | float]:
        """What came of the operations, by name."""
        counters = self.counters
        return {
            "requests that waited": counters.waits,
            "peak waiting in one set": counters.peak_waiting,
            "grants": counters.grants,
            "cancellations": counters.cancellations,
            "cancelled at the grant": counters.handed_back,
            "passes": counters.passes,
            "failed as impossible": counters.impossible,
            "failed without memory": counters.no_memory,
            "failed at a close": counters.closed_on,
            "charges refused": counters.refused,
            "leases dropped": counters.dropped,
            "leaks found": counters.found,
            "sets opened": counters.opened,
            "sets closed": counters.closed,
            "sets closed with leases out": counters.left_out,
            "seconds of virtual time": round(self.virtual_seconds),
        }

    @property
    def tables(self) -> dict[str, Table]:
        """The operations by kind, and what came of them."""
        operations = Table({"operation": "operation", "times": "times"})
        for operation, times in self.counters.operations.most_common():
            operations.add(operation=operation, times=times)
        outcomes = Table({"outcome": "what came of it", "number": "number"})
        for outcome, number in self.outcomes.items():
            outcomes.add(outcome=outcome, number=number)
        return {"operations": operations, "outcomes": outcomes}

    @property
    def verdict(self) -> str:
        """One sentence made of the figures of this run."""
        faults = self.faults
        counters = self.counters
        sets = plural(counters.opened, "pool set")
        where = f"{counters.total} operations on {sets} on {self.backend}"
        if faults:
            return f"BROKEN after {where}: {faults[0].splitlines()[0]}"
        memory = (
            f"the resident size grew by {self.memory.resident_growth:.1f} MiB after the warm-up, "
            f"at most {RESIDENT_BOUND} were allowed"
            if self.memory.resident_known
            else "this system does not tell the resident size"
        )
        return (
            f"{where}: every check held; nothing is out and nothing charged; all of "
            f"{plural(counters.dropped, 'dropped lease')} were found and taken back; {memory}."
        )

    def text(self) -> str:
        """For people."""
        title = (
            f"Soak: {self.goal} operations on {self.backend}, seed {self.seed}, "
            f"in {self.real_seconds:.0f} s"
        )
        paragraphs = [title, *map(str, self.tables.values())]
        paragraphs += self.faults
        paragraphs.append(fill(f"Verdict: {self.verdict}"))
        if self.faults:
            paragraphs.append(f"Replay: {self.replay}")
        return "\n\n".join(paragraphs)

    def json(self) -> str:
        """For programs: one object on one line."""
        return json.dumps(
            {
                "seed": self.seed,
                "backend": self.backend,
                "operations": dict(self.counters.operations),
                **{name.replace(" ", "_"): number for name, number in self.outcomes.items()},
                "resident_growth_mib": round(self.memory.resident_growth, 3),
                "block_growth": self.memory.block_growth,
                "real_seconds": round(self.real_seconds, 3),
                "faults": self.faults,
                "verdict": self.verdict,
                "ok": not self.faults,
                "replay": self.replay,
            }
        )


def soak(
    operations: int = OPERATIONS,
    *,
    seed: int = 0,
    backend: str = "asyncio",
    progress: Callable[[int], None] | None = None,
) -> Soak:
    """Do so many random operations, and check that nothing breaks.

    Blocks the calling thread until the end; a broken invariant ends it early. The garbage
    collector, the filters of warnings and `sys.unraisablehook` are changed for that time, and
    restored.

    Args:
        operations: of all kinds; those of one burst may go beyond.
        seed: of all chance.
        backend: ``"asyncio"`` or ``"trio"``.
        progress: called now and then with the number of operations done.
    """
    counters, memory = Counters(operations), MemoryWatch()
    began = time.monotonic()
    seconds = 0.0

    async def program() -> None:
        nonlocal seconds
        if backend == "asyncio":
            asyncio.get_running_loop().set_exception_handler(_report_callbacks(counters))
        try:
            await _live(seed, counters, memory, thread, progress)
        finally:
            seconds = anyio.current_time()

    with (
        ThreadPoolExecutor(1) as thread,
        _watched(counters),
        _collected_by_hand(),
        _seeded(seed, backend),
    ):
        try:
            lab.run(program, backend=backend, patience=0)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a fault
            cause = _first(error)
            counters.fault(f"the run ended with {type(cause).__name__}: {cause}")
    return Soak(seed, backend, operations, counters, memory, seconds, time.monotonic() - began)


async def _live(
    seed: int,
    counters: Counters,
    memory: MemoryWatch,
    thread: Executor,
    progress: Callable[[int], None] | None,
) -> None:
    """Run set after set, until all operations are done."""
    random = Random(f"soak {seed}")
    number = 0
    while counters.goes_on:
        async with anyio.create_task_group() as together:
            for _ in range(random.choice((1, 1, 2, 3))):
                number += 1
                driver = Driver(number, Random(f"soak {seed} {number}"), counters, thread)
                together.start_soon(driver.live, random.randint(100, 3000))
                del driver
        memory.look(counters)
        if counters.found != counters.dropped:
            counters.fault(f"{counters.dropped} leases were dropped, but {counters.found} reported")
        if progress is not None:
            progress(counters.total)


def _first(error: BaseException) -> BaseException:
    """The first exception in a group, which is where it began."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _report_callbacks(counters: Counters) -> Callable[[Any, dict[str, Any]], None]:
    def handler(loop: Any, context: dict[str, Any]) -> None:
        counters.fault(f"{context['message']}: {context.get('exception')!r}")

    return handler


@contextlib.contextmanager
def _watched(counters: Counters) -> Iterator[None]:
    """Count the reports of leaks; all else that is warned of, logged, or cannot be raised is a
    fault."""
    lock = threading.Lock()

    def warned(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        text = str(message)
        with lock:
            if category is ResourceWarning and "was dropped without a release" in text:
                counters.found += 1
            elif category is ResourceWarning and " was closed with buffers still out" in text:
                counters.left_out += 1
                counters.reported.add(text.partition(" was closed")[0])
            else:
                counters.fault(f"{category.__name__}: {text}")

    def unraisable(report: Any) -> None:
        counters.fault(
            f"{report.err_msg or 'Exception ignored in'} {report.object!r}: {report.exc_value!r}"
        )

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno < logging.ERROR or "which ends the queue" in record.getMessage():
                return  # a dropped lease, counted as a warning, too; or the end of a set, by plan
            error = record.exc_info[1] if record.exc_info else None
            counters.fault(f"logged: {record.getMessage()}" + (f": {error!r}" if error else ""))

    handler, logger = Handler(), logging.getLogger("mbufpools")
    show, hook, propagate = warnings.showwarning, sys.unraisablehook, logger.propagate
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning, sys.unraisablehook = warned, unraisable
        logger.addHandler(handler)
        logger.propagate = False
        try:
            yield
        finally:
            logger.propagate = propagate
            logger.removeHandler(handler)
            warnings.showwarning, sys.unraisablehook = show, hook


@contextlib.contextmanager
def _collected_by_hand() -> Iterator[None]:
    """Keep Python's garbage collector from running by itself, and from looking at what was there
    before."""
    enabled, frozen = gc.isenabled(), gc.get_freeze_count() > 0
    gc.collect()
    gc.disable()
    gc.freeze()
    try:
        yield
    finally:
        if not frozen:
            gc.unfreeze()
        if enabled:
            gc.enable()


@contextlib.contextmanager
def _seeded(seed: int, backend: str) -> Iterator[None]:
    """Seed the order in which trio runs its ready tasks, if this trio has the attributes for it."""
    scheduler: Any = None
    if backend == "trio":
        from trio._core import _run as scheduler
    if not hasattr(scheduler, "_r") or not hasattr(scheduler, "_ALLOW_DETERMINISTIC_SCHEDULING"):
        yield
        return
    before = scheduler._r, scheduler._ALLOW_DETERMINISTIC_SCHEDULING
    scheduler._r, scheduler._ALLOW_DETERMINISTIC_SCHEDULING = Random(f"trio {seed}"), True
    try:
        yield
    finally:
        scheduler._r, scheduler._ALLOW_DETERMINISTIC_SCHEDULING = before
