"""What has noted the time before an exploration is told, and `fresh=` and `reset=` note it anew."""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mbufpools import lab

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])

SOURCE = """
import anyio
import datetime
import logging
import math
import time
from math import pi

{noted}
LIMIT, NUMBERS, NAME = 0.1, [1, 2], "name"
DAY = datetime.datetime(2030, 1, 1)

async def uptime():
    await anyio.sleep(60)
    up = {now} - {then}
    assert {least} <= up < {least} * 2, up

async def looks():
    await anyio.sleep(60)
    time.time()

async def does_not_look():
    await anyio.sleep(60)

def note():
    global STARTED
    STARTED = time.time()
"""


def _a_second_ago(clock: Callable[[], float]) -> float:
    """Return a time with nine digits: one look at a real clock in a thousand has six or fewer."""
    return math.floor(clock()) - 1 + 0.123456789


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Imports a module that notes the time."""
    monkeypatch.syspath_prepend(tmp_path)

    def loaded(
        noted: str, now: str = "time.time()", then: str = "STARTED", least: str = "60"
    ) -> ModuleType:
        source = SOURCE.format(noted=noted, now=now, then=then, least=least)
        (tmp_path / "noted_times.py").write_text(source, "utf-8")
        with monkeypatch.context() as patch:
            for clock in (time.time, time.monotonic, time.perf_counter):
                patch.setattr(time, clock.__name__, partial(_a_second_ago, clock))
            return __import__("noted_times")

    yield loaded
    sys.modules.pop("noted_times", None)


NOTED = {
    "STARTED": ("STARTED = time.time()", "time.time()", "60"),
    "BEGUN": ("BEGUN = time.monotonic()", "time.monotonic()", "60"),
    "IN_NS": ("IN_NS = time.time_ns()", "time.time_ns()", "60_000_000_000"),
    "MADE": (
        "MADE = datetime.datetime.now()",
        "datetime.datetime.now()",
        "datetime.timedelta(seconds=60)",
    ),
    "Box.at": ("class Box:\n    at = time.perf_counter()", "time.perf_counter()", "60"),
    "box.at": (
        "class Box:\n    def __init__(self): self.at = time.time()\nbox = Box()",
        "time.time()",
        "60",
    ),
    "state['at']": ("state = {'at': time.time()}", "time.time()", "60"),
}


@BACKENDS
@pytest.mark.parametrize("name", NOTED)
def test_a_time_of_the_import_is_told_and_a_fresh_module_notes_virtual_time(
    name: str, backend: lab.BackendName, load: Any
) -> None:
    noted, now, least = NOTED[name]
    module = load(noted, now, name, least)
    (failure,) = lab.explore(module.uptime, backend=backend).failures
    told = f"a time of the real clock was noted before (noted_times.{name})"
    assert f"note: the program looks at clocks that begin in 2023, and {told}" in failure.report
    (again,) = lab.replay(module.uptime, failure.token).failures
    assert told in again.report
    found = lab.explore(module.looks, backend=backend)
    assert any(told in remark for remark in found.remarks)
    found = lab.explore(module.uptime, backend=backend, fresh=["noted_times"])
    found.assert_holds()
    assert told not in str(found)


def test_a_reset_notes_virtual_time(load: Any) -> None:
    module = load("STARTED = 0.0")
    found = lab.explore(module.uptime, reset=module.note)
    found.assert_holds()
    assert "real clock" not in str(found)


def test_a_time_in_a_default_argument_and_one_at_which_something_expires_are_told(
    load: Any,
) -> None:
    module = load("EXPIRES = time.time() + 3600\ndef call(at=time.time()): pass")
    told = "noted before (noted_times.EXPIRES, noted_times.call())"
    assert any(told in remark for remark in lab.explore(module.looks).remarks)


@pytest.mark.parametrize(
    ("program", "options"), [("does_not_look", {}), ("looks", {"clocks": False})]
)
def test_a_time_of_the_import_is_not_told_if_the_program_looks_at_no_virtual_clock(
    program: str, options: dict[str, Any], load: Any
) -> None:
    module = load("STARTED = time.time()")
    found = lab.explore(getattr(module, program), **options)
    found.assert_holds()
    assert not any("real clock" in remark for remark in found.remarks)


def test_other_numbers_and_dates_are_taken_for_no_time(load: Any) -> None:
    module = load("SPEED, LARGE, EVEN = 299.792458, 10**18, 1_900_000_000.0")
    found = lab.explore(module.looks)
    assert not any("real clock" in remark for remark in found.remarks)


def test_the_time_of_a_fresh_module_is_never_later_than_a_look_of_the_program(load: Any) -> None:
    """Each look takes a time, also before the execution."""
    module = load("for _ in range(1000): STARTED = time.monotonic()")
    seen: list[float] = []

    async def program() -> None:
        import time

        seen.append(time.monotonic() - module.STARTED)
        await asyncio.sleep(0)

    lab.explore(program, fresh=["noted_times"]).assert_holds()
    assert min(seen) > 0


def test_a_fresh_module_that_waits_for_the_clock_to_move_comes_to_an_end(load: Any) -> None:
    module = load("STARTED = time.time()\nwhile time.time() < STARTED + 0.01: pass")
    lab.explore(module.does_not_look, fresh=["noted_times"]).assert_holds()
