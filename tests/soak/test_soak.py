"""The soak: its short form, and that it finds what is broken and can do the same again."""

from __future__ import annotations

import gc
import json
import logging
import mmap
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mbufpools import Budget, BufferPools, TaskQueue
from mbufpools._debug import LeaseTracker
from mbufpools._memory import MappedBlock
from mbufpools._owner_loop import OwnerLoop
from mbufpools._page import Item
from mbufpools._request import Request
from mbufpools._reservation import Reservation
from mbufpools._supply import Supply
from mbufpools._waiters import Waiters
from mbufpools._window import Window, share
from tests.soak import soak
from tests.soak.__main__ import main
from tests.soak._counters import STATM, Counters, MemoryWatch

BACKENDS = ["asyncio", "trio"]
SHORT = 2000
NOT_DETERMINED = ("resident_growth_mib", "block_growth", "real_seconds", "verdict")


def exit_status(*argv: str) -> int:
    try:
        return main(argv)
    except SystemExit as caught:
        status = caught.code
    assert isinstance(status, int)
    return status


def determined(report: str) -> dict[str, Any]:
    """What the seed determines of a report."""
    found: dict[str, Any] = json.loads(report)
    return {name: value for name, value in found.items() if name not in NOT_DETERMINED}


# Nothing breaks


@pytest.fixture(autouse=True)
def what_a_test_leaves_in_cycles_is_collected_by_its_end() -> Iterator[None]:
    """What is broken on purpose leaves leases in cycles, and the next soak would count them."""
    _collect()
    yield
    _collect()


def _collect() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_breaks_in_a_few_thousand_operations(seed: int, backend: str) -> None:
    found = soak(SHORT, seed=seed, backend=backend)
    assert found.faults == []
    assert found.verdict.startswith(f"{found.counters.total} operations on ")
    counters = found.counters
    assert SHORT <= counters.total < SHORT + 5
    assert sum(counters.operations.values()) == counters.total
    assert 0 < counters.opened == counters.closed
    assert counters.found == counters.dropped > 0
    assert counters.waits > SHORT / 20, "waiting is common"
    assert counters.grants > 0
    assert counters.cancellations > 0
    assert counters.handed_back > 0, "some are cancelled at the moment of the grant"


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_kind_of_operation_is_done(backend: str) -> None:
    done = soak(SHORT, seed=3, backend=backend).counters.operations
    assert ("cancel natively" in done) == (backend == "asyncio")
    kinds = {
        "get", "get_nowait", "get_many", "reserve", "release", "release in a thread",
        "release in a __del__", "drop", "drop in a cycle", "drop while exported",
        "cancel by scope", "resize", "hard limit", "low water", "prime", "task", "check",
    }  # fmt: skip
    assert kinds <= done.keys()


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_seed_determines_the_run_in_any_process(
    backend: str, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--operations=1000", "--seed=7", f"--backend={backend}", "--json"]
    assert exit_status(*argv) == 0
    here = determined(capsys.readouterr().out)
    there = subprocess.run(
        [sys.executable, "-m", "tests.soak", *argv],
        env={"PYTHONHASHSEED": "17"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert determined(there.stdout) == here
    assert there.stderr == ""
    assert exit_status(argv[0], "--seed=8", *argv[2:]) == 0
    assert determined(capsys.readouterr().out) != here


def test_what_the_process_had_is_put_back() -> None:
    logger = logging.getLogger("mbufpools")

    def settings() -> tuple[object, ...]:
        return (
            gc.isenabled(), warnings.showwarning, warnings.filters[:],
            sys.unraisablehook, logger.handlers[:], logger.propagate,
        )  # fmt: skip

    gc.unfreeze()  # Python 3.12 starts with frozen objects of its own
    before = settings()
    soak(100)
    assert settings() == before
    assert gc.get_freeze_count() == 0
    gc.freeze()


# What is broken is found


def lose_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each page that leaves, a byte stays charged."""
    credit = Budget.credit

    def losing(self: Budget, nbytes: int, **options: Any) -> None:
        credit(self, nbytes - 1, **options)

    monkeypatch.setattr(Budget, "credit", losing)


def lose_what_is_granted_to_the_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was granted to a request that was cancelled at that moment is lost."""

    def forgetting(holds: Any) -> None:
        pass

    monkeypatch.setattr("mbufpools._waiters._release", forgetting)


def wake_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that leaves wakes no request, under any policy: the stall."""
    monkeypatch.setattr(
        BufferPools, "_page_left", lambda self, nbytes: self._waiters.budget_credited()
    )


def have_one_item_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """All buffers of a page have the memory of its first item."""

    def first(self: Supply, item: Item, nbytes: int) -> Window:
        item.page.shared = share(item.page.block.view, self.stride, item.page.items)
        window = item.window = Window(item.page.shared, 0, nbytes, self.stride)
        return window

    monkeypatch.setattr(Supply, "window", first)


def lose_what_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A buffer that is dropped is neither reported nor taken back."""
    monkeypatch.setattr(Item, "__del__", lambda self: None)


def lose_dropped_reservations(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reservation that is dropped is neither reported nor taken back."""
    monkeypatch.setattr(Reservation, "__del__", lambda self: None)


def wake_no_request_at_the_close(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that waits when its set is closed waits for ever."""
    monkeypatch.setattr(Waiters, "fail_all", lambda self, error: None)


def clear_the_queued_mark_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is added while a task runs is lost."""
    run_one = TaskQueue._run_one

    async def late(self: TaskQueue, task: Any) -> None:
        await run_one(self, task)
        self.discard(task)

    monkeypatch.setattr(TaskQueue, "_run_one", late)


def leave_the_queue_standing(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the head of a queue is cancelled, the queue is not run for the next request."""

    def withdrawing(self: Waiters, line: Any, request: Request[Any]) -> None:
        if request.granted is not None:
            request.granted.release()
        elif request in line.requests:
            self._leave(line, request)

    monkeypatch.setattr(Waiters, "_withdraw", withdrawing)


def keep_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each page that leaves something stays behind."""
    unmap = MappedBlock.unmap
    kept: list[mmap.mmap] = []

    def unmapping(self: MappedBlock) -> bool:
        kept.append(mmap.mmap(-1, 262144))  # not of a heap that may have room from before
        kept[-1].write(b"x" * 262144)
        return unmap(self)

    monkeypatch.setattr(MappedBlock, "unmap", unmapping)


def keep_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each request something stays behind."""
    init = Request.__init__
    kept: list[object] = []

    def making(self: Request[Any], number: int, nbytes: int, since: int) -> None:
        kept.extend(object() for _ in range(5))
        init(self, number, nbytes, since)

    monkeypatch.setattr(Request, "__init__", making)


def fail_in_a_callback(monkeypatch: pytest.MonkeyPatch) -> None:
    """A release from another thread raises in a callback, where no caller can catch it."""

    def failing(self: OwnerLoop) -> int:
        raise ZeroDivisionError("by a plan")

    monkeypatch.setattr(OwnerLoop, "_deliver", failing)


def say_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Debug mode reports every item as damaged when it is handed out."""
    monkeypatch.setattr(
        LeaseTracker, "damage", lambda *args: "something wrote" if args[1].index == 1 else None
    )


@pytest.mark.parametrize(
    ("break_it", "told"),
    [
        (lose_bytes, "bytes are charged, but the pages take"),
        (lose_what_is_granted_to_the_cancelled, "leases were dropped, but"),
        (wake_no_request, "all was released, and yet a request waits"),
        (have_one_item_only, "was written to (by another lease|after its release)"),
        (lose_what_is_dropped, "buffers and .* reserved bytes are out, but .* are held"),
        (lose_dropped_reservations, "reserved bytes are out, but .* are held"),
        (wake_no_request_at_the_close, "the run ended with Stalled"),
        (clear_the_queued_mark_late, "all was released, and yet a request waits"),
        (leave_the_queue_standing, "requests parked and never heard of again"),
        pytest.param(
            keep_memory,
            "the resident size grew by",
            marks=pytest.mark.skipif(not STATM.exists(), reason="it is not known here"),
        ),
        (keep_objects, "Python's allocator held"),
        (fail_in_a_callback, "by a plan"),
        (say_damage, "something wrote"),
    ],
)
def test_what_is_broken_is_found(break_it: Any, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    break_it(monkeypatch)
    for seed in range(5):
        found = soak(6000, seed=seed)
        if re.search(told, found.verdict):
            break
    assert re.search(told, found.verdict), found.verdict
    assert found.verdict.startswith("BROKEN after ")


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_line_that_is_printed_replays_what_broke(
    backend: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lose_bytes(monkeypatch)
    assert exit_status("--operations=2000", "--seed=12", f"--backend={backend}") == 1
    lines = capsys.readouterr().out.splitlines()
    assert (
        lines[-1] == f"Replay: python -m tests.soak --operations 2000 --seed 12 --backend {backend}"
    )
    assert any(line.startswith("Verdict: BROKEN after ") for line in lines)
    fault = next(line for line in lines if line.startswith("operation "))
    argv = lines[-1].split()[4:]
    assert exit_status(*argv) == 1
    assert fault in capsys.readouterr().out.splitlines()
    monkeypatch.undo()
    assert exit_status(*argv) == 0


def test_a_request_that_waits_for_ever_is_reported_with_all_that_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wake_no_request(monkeypatch)
    (fault, *_) = soak(6000, seed=4).faults
    assert re.search(
        r"yet a request waits\n\d+ requests? waits?; \d+ of \d+ bytes are allocated", fault
    )


# Memory


def test_what_is_needed_after_the_warm_up_is_growth(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = iter([(10, 500), (14, 400), (12, 450), (15, 550)])
    now = (0, 0)
    monkeypatch.setattr("tests.soak._counters.resident", lambda: now[0] << 20)
    monkeypatch.setattr("sys.getallocatedblocks", lambda: now[1])
    watch, counters = MemoryWatch(), Counters(1000)
    for counters.total in (50, 100, 101, 1000):
        now = next(sizes)
        watch.look(counters)
    assert (watch.resident_growth, watch.block_growth) == (1.0, 50)


def test_where_the_system_tells_no_resident_size_the_verdict_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tests.soak._counters.STATM", tmp_path / "statm")
    found = soak(100)
    assert found.faults == []
    assert found.verdict.endswith("; this system does not tell the resident size.")


# The command


def test_the_command_prints_what_it_did_within_80_columns(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert exit_status("--operations", "500", "--seed", "4") == 0
    out, err = capsys.readouterr()
    assert err == "", "no progress but to a terminal"
    lines = out.splitlines()
    assert lines[0].startswith("Soak: 500 operations on asyncio, seed 4, in ")
    assert max(map(len, lines)) <= 80
    told = dict(re.findall(r"^(\S.*?)  +(\d+)$", out, re.MULTILINE))
    assert told["sets opened"] == told["sets closed"] != "0"
    assert told["leases dropped"] == told["leaks found"]
    assert {"grants", "cancellations", "passes", "peak waiting in one set"} <= told.keys()
    assert "seconds of virtual time" in told
    assert "\nVerdict: 50" in out
    assert "Replay" not in out


def test_progress_goes_to_a_terminal_and_is_wiped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr("mbufpools.demokit._command_line.PAUSE", 0)
    assert exit_status("--operations=500") == 0
    err = capsys.readouterr().err
    assert re.search(r"\d+ of 500 operations, \d+ a second", err)
    assert err.endswith("\r\033[K")


def test_json_is_one_object_with_the_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status("--operations=500", "--seed=4", "--json") == 0
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert report["ok"] is True
    assert report["faults"] == []
    assert sum(report["operations"].values()) >= 500
    assert report["leases_dropped"] == report["leaks_found"]
    assert report["replay"] == "python -m tests.soak --operations 500 --seed 4 --backend asyncio"


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("--operations=0", "argument --operations: '0'; expected a whole number from 1 up"),
        ("--operations=1e6", "argument --operations: '1e6'; expected a whole number from 1 up"),
        ("--seed=-1", "argument --seed: '-1'; expected a whole number from 0 up"),
        ("--seed=x", "argument --seed: 'x'; expected a whole number from 0 up"),
        ("--backend=curio", "argument --backend: 'curio'; expected one of asyncio, trio"),
    ],
)
def test_a_wrong_value_is_one_line_that_says_what_is_right(
    option: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_status(option) == 2
    assert capsys.readouterr() == ("", f"python -m tests.soak: {told}\n")
