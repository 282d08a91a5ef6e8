"""A test may use packages that patch clocks, locks or files for the whole process, in a fixture or
in the program. A test of such a package is skipped where it is not installed; beside it is one that
plants the same kind of patch."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest

from mbufpools import lab
from mbufpools.lab import _lockstep
from mbufpools.lab._redirected import methods_replaced

on_cpython = pytest.mark.skipif(
    sys.implementation.name != "cpython", reason="the methods of C are replaced on CPython alone"
)


# Packages that raise an error where the event loop would block: blockbuster


START = threading.Thread.start.__code__


class WouldBlock(Exception):
    pass


def is_in_event_loop() -> bool:
    return asyncio._get_running_loop() is not None


def starts_a_thread() -> bool:
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code is not START:
        frame = frame.f_back
    return frame is not None


@contextlib.contextmanager
def nothing_blocks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Raise an error where the thread of an event loop waits for a lock, or asks for a file."""
    cls = type(threading.Lock())
    acquire, stat = vars(cls)["acquire"], os.stat

    def checked(lock: Any, blocking: bool = True, timeout: float = -1) -> Any:
        waits = blocking and timeout != 0 and lock.locked()
        if waits and is_in_event_loop() and not starts_a_thread():
            raise WouldBlock("acquire")
        return acquire(lock, blocking, timeout)

    def checked_stat(*args: Any, **options: Any) -> Any:
        if is_in_event_loop():
            raise WouldBlock("stat")
        return stat(*args, **options)

    with methods_replaced({cls: {"acquire": checked}}), monkeypatch.context() as patch:
        patch.setattr(os, "stat", checked_stat)
        yield


async def asks_threads() -> None:
    ready = threading.Event()
    lock = threading.Lock()

    def wait() -> None:
        ready.wait()
        with lock:
            pass

    def tell() -> None:
        lock.acquire()
        lock.release()
        ready.set()

    await asyncio.gather(asyncio.to_thread(wait), asyncio.to_thread(tell))


async def joins_a_thread() -> None:
    thread = threading.Thread(target=time.sleep, args=(1,))
    thread.start()
    thread.join()


async def asks_no_thread() -> None:
    await asyncio.gather(asyncio.sleep(0), asyncio.sleep(0))


PROGRAMS = [asks_threads, joins_a_thread, asks_no_thread]


@on_cpython
@pytest.mark.parametrize("program", PROGRAMS)
def test_locks_of_the_lab_are_immune_to_a_patch_that_forbids_to_block(
    program: lab.Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    with nothing_blocks(monkeypatch):
        lab.explore(program, max_executions=20).assert_holds()
        lab.explore(program, max_executions=20, cancel=True).assert_holds()
    lab.explore(program, max_executions=20).assert_holds()


@pytest.mark.parametrize("program", PROGRAMS)
def test_blockbuster_gives_no_alarm(program: lab.Program) -> None:
    blockbuster = pytest.importorskip("blockbuster")
    with blockbuster.blockbuster_ctx():
        lab.explore(program, max_executions=20).assert_holds()
        lab.explore(program, max_executions=20, cancel=True).assert_holds()
    lab.explore(program, max_executions=20).assert_holds()


def test_blockbuster_finds_what_blocks_the_event_loop() -> None:
    blockbuster = pytest.importorskip("blockbuster")

    async def program() -> None:
        time.sleep(1)  # noqa: ASYNC251 - what is to be found

    with blockbuster.blockbuster_ctx():
        (failure,) = lab.explore(program).failures
    assert "BlockingError: Blocking call to time.sleep" in str(failure)


def test_a_thread_that_cannot_be_ended_leaves_nothing_to_the_next_execution(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kill = _lockstep.LabThread.kill

    def kill_and_fail(thread: _lockstep.LabThread) -> None:
        kill(thread)
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(_lockstep.LabThread, "kill", kill_and_fail)
        with pytest.raises(ZeroDivisionError):
            lab.explore(asks_threads)
    assert not _lockstep.any_thread()
    lab.explore(asks_threads, max_executions=20).assert_holds()
