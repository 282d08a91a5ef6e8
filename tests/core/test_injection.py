"""An exception at any line of the core, inside any public call, loses no item and no waiter.

A tracer raises at the n-th line event inside the modules of the core, for each n in turn, until the
call ends before its n-th line. So does a Ctrl-C, or a stack or a heap that is full.

``python -m tests.proofs.places`` tries every place. This quick form tries each line of the core
that any of the calls runs, once on a backend: the first time that it runs, in the first call that
runs it. The other backend is left to the long proofs where both run the line.
"""

from __future__ import annotations

import functools
import signal
import zlib
from types import FrameType
from typing import Any

import anyio
import pytest

from mbufpools._waits import _TrioSleeper
from tests.core.injected_calls import (
    CALLS,
    ERRORS,
    Trial,
    inject,
    lines_of,
    release_with_a_waiter,
)
from tests.kit.grants import settle
from tests.kit.injection import Injector

BACKENDS = ("asyncio", "trio")


@functools.cache
def runs_first(line: str, backend: str) -> Any:
    """The first call that runs the line on this backend; None if none does."""
    return next((call for call in CALLS if line in lines_of(call, backend)), None)


@pytest.mark.parametrize("in_turn", [True, pytest.param(False, marks=pytest.mark.prove)])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("call", CALLS)
def test_an_exception_at_any_line_loses_nothing(call: Any, backend: str, in_turn: bool) -> None:
    assert lines_of(call, backend), "the call runs no line of the core"
    for line in lines_of(call, backend):
        if runs_first(line, backend) is call:
            chance = zlib.crc32(line.encode())
            backends = [it for it in BACKENDS if runs_first(line, it)]
            if in_turn == (backend == backends[chance // 7 % len(backends)]):
                inject(call, ERRORS[chance % len(ERRORS)], 1, backend, line)


def test_many_lines_of_the_modules_that_serve_requests_are_tried() -> None:
    tried = {line for call in CALLS for line in lines_of(call, "trio")}
    for module, least in (("_waiters.py", 200), ("_supply.py", 60), ("_waits.py", 10)):
        assert sum(line.startswith(f"{module}:") for line in tried) >= least


def test_a_wake_that_an_exception_has_ended_in_its_middle_is_made_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    call = release_with_a_waiter
    wakes = [line for line in lines_of(call, "trio") if line.startswith("_waits.py")]
    for line in wakes:
        inject(call, KeyboardInterrupt, 1, "trio", line)
    monkeypatch.setattr(_TrioSleeper, "done", lambda self: self._woken)
    with pytest.raises(AssertionError, match=r"\['small'\] wait for ever"):
        for line in wakes:
            inject(call, KeyboardInterrupt, 1, "trio", line)


@pytest.mark.parametrize("line", [1, 4, 9, 15, 25, 40])
def test_on_trio_a_ctrl_c_waits_for_the_next_checkpoint(line: int) -> None:
    """The injector raises a real signal here, in a release that serves a waiter."""
    came: list[str] = []

    class Interrupting(Injector):
        def _line(self, frame: FrameType, event: str, arg: object) -> Any:
            if event == "line":
                self.seen += 1
                if self.seen == self.place:
                    signal.raise_signal(signal.SIGINT)
            return self._line

    async def main() -> None:
        trial = Trial(2)
        async with anyio.create_task_group() as group:
            await trial.pools.__aenter__()
            trial.take_nowait("small", 8)
            trial.wait(group, "small", trial.pools.pools["small"].get)
            await settle()
            injector = Interrupting(KeyboardInterrupt, line)
            with injector:
                trial.held[3].release()
            assert injector.raised
            came.append("released")
            try:
                await settle()
            finally:
                assert trial.held[3].released
                for buffer in trial.held:
                    buffer.end()
                trial.pools.check()
                with anyio.CancelScope(shield=True):
                    await trial.pools.aclose()
                came.append("closed")

    with pytest.raises(BaseException) as caught:  # noqa: PT011 - in a group, or not
        anyio.run(main, backend="trio")
    assert came == ["released", "closed"]
    assert "KeyboardInterrupt" in repr(caught.value)
