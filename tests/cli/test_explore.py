"""``mbufpools explore``, on programs of a user."""

from __future__ import annotations

import importlib
import json
import random
import shlex
import sys
from pathlib import Path

import pytest

from mbufpools.cli import main

PROGRAMS = """
import asyncio, functools
import anyio
from anyio.lowlevel import checkpoint

async def two(function):
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(function)
        tasks.start_soon(function)

async def sound():
    await two(checkpoint)

async def race(expected=2):
    count = begun = 0

    async def increase():
        nonlocal count, begun
        begun += 1
        if begun == 2:
            await checkpoint()  # in the stock order it comes too late for the race
        value = count
        await checkpoint()
        count = value + 1

    await two(increase)
    assert count == expected, f"{count} of {expected}"

async def clocks():
    import random, time
    assert (time.time() == 1_700_000_000, random.random() < 0.14) == (True, True)

async def stall():
    await anyio.Event().wait()

async def wait():
    await anyio.Event().wait()

async def stuck():
    await two(wait)

async def io():
    await asyncio.open_connection("localhost", 1)

async def dies_elsewhere():
    import multiprocessing, os
    if multiprocessing.parent_process() is not None:
        os._exit(1)

class Holder:
    @staticmethod
    async def program():
        await two(checkpoint)

def plain():
    pass

number = 5
"""


@pytest.fixture(autouse=True)
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with a file of programs."""
    (tmp_path / "programs.py").write_text(PROGRAMS, "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    for name in ("programs", "printing", "broken", "explored_queue", "explored_anyio"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def explore(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    """The exit status, and what was printed."""
    try:
        status = main(["explore", *argv])
    except SystemExit as caught:
        status = int(caught.code or 0)
    return status, *capsys.readouterr()


def replay_line(out: str) -> list[str]:
    """The arguments of the command in the replay line of a failure."""
    (line,) = (line for line in out.splitlines() if line.startswith("replay: "))
    program, command, *arguments = shlex.split(line.removeprefix("replay: "))
    assert (program, command) == ("mbufpools", "explore")
    return arguments


@pytest.mark.parametrize("target", ["programs:sound", "programs.py:sound", "./programs.py:sound"])
def test_a_program_that_holds_is_one_line(target: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert explore(capsys, target, "--strategy", "exhaustive") == (
        0,
        "proved: no failure in 12 executions (exhaustive on asyncio): all of the schedules of at "
        "most 2 preemptions, and those of at most 2 delays; not explored: cancellations "
        "(cancel=True); other orders of plain callbacks, or of a set of tasks, than first in, "
        "first out; threads in the middle of a step (their own, or one of the event loop), I/O and "
        "real time\n",
        "",
    )


def test_clocks_and_chance_are_controlled_unless_they_are_to_be_real(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert explore(capsys, "programs:clocks")[0] == 0
    assert explore(capsys, "programs:clocks", "--real-clocks")[0] == 1
    random.seed(0)
    assert explore(capsys, "programs:clocks", "--real-chance", "--token", "asyncio:")[0] == 1


def test_a_program_may_be_an_attribute(capsys: pytest.CaptureFixture[str]) -> None:
    assert explore(capsys, "programs:Holder.program")[0] == 0


def test_both_backends_are_explored_in_turn(capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--strategy", "exhaustive", "--backend", "both", "--max-preemptions", "none")
    status, out, _ = explore(capsys, "programs:sound", *options)
    assert status == 0
    assert out.splitlines() == [
        f"proved: no failure in 12 executions (exhaustive on {backend}): all of the schedules; "
        f"not explored: cancellations (cancel=True); {callbacks}threads in the middle of a step "
        f"(their own, or one of the event loop), I/O and real time"
        for backend, callbacks in (
            (
                "asyncio",
                "other orders of plain callbacks, or of a set of tasks, than first in, first out; ",
            ),
            ("trio", "other orders of trio's own tasks, or of a set of tasks; "),
        )
    ]


@pytest.mark.parametrize(
    ("options", "verdict", "summary"),
    [
        (
            ["--strategy", "dpor"],
            0,
            "proved: no failure in 2 executions (dpor on asyncio): all of *",
        ),
        (
            ["--strategy", "random", "--seed", "7", "--max-executions", "3"],
            3,
            "ran out: no failure in 3 executions (random on asyncio): not all of the *, chosen *",
        ),
        (
            ["--strategy", "pct", "--depth", "2", "--max-executions", "4"],
            3,
            "ran out: no failure in 4 executions (pct on asyncio): not all of the *, by PCT to 2",
        ),
        (
            ["--max-preemptions", "0"],
            0,
            "proved: *: all of the schedules of at most 0 preemptions, and *",
        ),
        (["--cancel"], 0, "*, each with one cancellation at a time; not explored: *"),
        (
            ["--cancel-by", "native"],
            0,
            "*, each with one cancellation at a time by Task.cancel(); *",
        ),
        (
            ["--max-executions", "2"],
            3,
            "ran out: no failure in 2 executions *: not all of the schedules *",
        ),
    ],
)
def test_the_options_are_those_of_the_lab(
    options: list[str], verdict: int, summary: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = explore(capsys, "programs:sound", *options)
    assert (status, err) == (verdict, "")
    pytest.LineMatcher(out.splitlines()).fnmatch_lines([summary])


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("target", ["programs:race", "programs.py:race"])
def test_a_failure_prints_the_report_and_the_command_that_replays_it(
    target: str, backend: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = explore(capsys, target, "--backend", backend)
    assert (status, err) == (1, "")
    assert out.startswith("exception: AssertionError: 1 of 2\nschedule (")
    assert "/lab/" not in out
    assert out.endswith(
        f"\n\nfound: 1 failure in 4 executions (mixed on {backend}): not all of the "
        f"schedules of at most 2 preemptions, and those of at most 2 delays\n"
    )
    arguments = replay_line(out)
    assert arguments[-1] == f"{backend}/run-on:0.0@1>0.1"
    again = explore(capsys, *arguments)
    assert again == (1, out[: out.index("\n\n") + 1], "")


def test_a_stall_is_reported_and_replayed(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = explore(capsys, "programs:stall")
    assert status == 1
    assert out.startswith("stall: every task waits, and nothing can wake one\n")
    assert explore(capsys, *replay_line(out))[0] == 1


def test_the_status_is_that_of_the_worst_backend(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = explore(capsys, "programs:race", "--backend", "both")
    assert status == 1
    assert out.count("found: 1 failure in 4 executions") == 2


def test_a_token_that_no_longer_fails_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    token = "asyncio:0@1>0.1"
    assert explore(capsys, "programs:sound", "--token", token) == (
        0,
        "the schedule of the token does not fail\n",
        "",
    )


PRINTING = """
from programs import checkpoint, two

async def prints():
    print("printed", flush=True)
    await two(checkpoint)
"""


@pytest.mark.parametrize("options", [(), ("--jobs", "2"), ("--token", "asyncio:0@1>0.1")])
def test_json_is_all_of_the_standard_output_though_the_program_prints(
    options: tuple[str, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    Path("printing.py").write_text(PRINTING, "utf-8")
    assert main(["explore", "printing:prints", "--json", *options]) == 0
    out, err = capfd.readouterr()
    (line,) = out.splitlines()
    assert json.loads(line)["program"] == "printing:prints"
    assert "printed" in err


def test_json_is_an_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = explore(capsys, "programs:race", "--backend", "both", "--json")
    assert status == 1
    first, second = (json.loads(line) for line in out.splitlines())
    (failure,) = first.pop("failures")
    assert first.pop("seconds") > 0
    assert first == {
        "program": "programs:race",
        "verdict": "found",
        "left": None,
        "strategy": "mixed",
        "backend": "asyncio",
        "executions": 4,
        "complete": False,
        "bound": "the schedules of at most 2 preemptions, and those of at most 2 delays",
        "redundant": 0,
    }
    assert failure["kind"] == "exception"
    assert failure["found_at"] == 4
    assert failure["token"] in failure["report"]
    assert replay_line(failure["report"]) == ["programs:race", "--token", failure["token"]]
    assert second["backend"] == "trio"


def test_jobs_explore_the_same_schedules(capsys: pytest.CaptureFixture[str]) -> None:
    alone = explore(capsys, "programs.py:sound", "--max-preemptions", "none")
    shared = explore(capsys, "programs.py:sound", "--max-preemptions", "none", "--jobs", "2")
    assert shared == alone
    status, out, _ = explore(capsys, "programs.py:race", "--jobs", "2")
    assert status == 1
    assert "AssertionError: 1 of 2" in out


def test_a_process_that_dies_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert mistake(capsys, "programs.py:dies_elsewhere", "--jobs", "2").startswith("A process in")


# --- mistakes


def mistake(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The one line that is printed after a mistake."""
    status, out, err = explore(capsys, *argv)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert err.startswith("mbufpools explore: ")
    return err.removeprefix("mbufpools explore: ").rstrip("\n")


THERE = "There are sound, race, clocks, stall, wait, stuck, io, dies_elsewhere"
EXPECTED = "expected an `async def` without arguments"
THERE_ARE = f"; there{THERE[5:]}"


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["programs"], "'programs': expected module:function or file.py:function"),
        ([":sound"], "':sound': expected module:function or file.py:function"),
        (["programs.py:"], "'programs.py:': expected module:function or file.py:function"),
        (["nowhere.py:sound"], "there is no file nowhere.py"),
        (
            ["nowhere:sound"],
            "there is no module 'nowhere' in this directory or on sys.path; expected "
            "module:function or file.py:function, with the path of the file",
        ),
        (["programs:sond"], f"programs has no function 'sond'; did you mean 'sound'? {THERE}"),
        (["programs:xyz"], f"programs has no function 'xyz'{THERE_ARE}"),
        (["program.py:sound"], "there is no file program.py; did you mean programs.py?"),
        (
            ["progams:sound"],
            "there is no module 'progams' in this directory or on sys.path; did you mean "
            "'programs'?",
        ),
        (
            ["programs.py::sound"],
            "'programs.py::sound': expected module:function or file.py:function; did you mean "
            "programs.py:sound?",
        ),
        ([".a:sound"], "'.a' is relative; expected module:function or file.py:function"),
        (
            ["programs:sound", "--fresh", "asynci"],
            "argument --fresh: programs imports no module 'asynci'; did you mean 'asyncio'?",
        ),
        (
            ["programs:sound", "--reset", "programs:plan"],
            "argument --reset: programs has no function 'plan'; did you mean 'plain'?",
        ),
        (
            ["programs:sound", "--reset", "programs:sound"],
            "argument --reset: sound in programs is no plain function; there is only plain",
        ),
        (
            ["programs:sound", "--cancel-file", "program.py"],
            "argument --cancel-file: there is no file program.py; did you mean programs.py?",
        ),
        (
            ["programs:sound", "--html", "programs.py"],
            "argument --html: programs.py is a file; expected a directory",
        ),
        (
            ["programs:sound", "--ignore", "stal"],
            "argument --ignore: 'stal'; did you mean 'stall'? Expected one of stall, livelock, "
            "exception, leak",
        ),
        (["programs:plain"], f"plain in programs is no `async def`; {EXPECTED}{THERE_ARE}"),
        (["programs:number"], f"number in programs is no `async def`; {EXPECTED}{THERE_ARE}"),
        (
            ["programs:two"],
            f"two in programs takes arguments (function); {EXPECTED}: write one that calls it"
            f"{THERE_ARE}",
        ),
        (
            ["programs:sound", "--strategy", "bfs"],
            "argument --strategy: 'bfs'; expected one of mixed, exhaustive, dpor, random, pct, "
            "fifo",
        ),
        (
            ["programs:sound", "--backend", "curio"],
            "argument --backend: 'curio'; expected one of asyncio, trio, both",
        ),
        (
            ["programs:sound", "--max-preemptions", "-1"],
            "argument --max-preemptions: '-1'; expected a whole number from 0 up or none",
        ),
        (
            ["programs:sound", "--max-executions", "0"],
            "argument --max-executions: '0'; expected a whole number from 1 up",
        ),
        (
            ["programs:sound", "--cancel-by", "force"],
            "argument --cancel-by: 'force'; expected one of scope, native",
        ),
        (
            ["programs:sound", "--cancel-by", "native", "--backend", "both"],
            "argument --cancel-by: native is asyncio's; on trio there is only scope",
        ),
        (
            ["programs:sound", "--jobs", "many"],
            "argument --jobs: 'many'; expected a whole number from 1 up",
        ),
        (
            ["programs:sound", "--jobs", "2", "--strategy", "dpor"],
            "argument --jobs: dpor goes from one schedule to the next, in one process",
        ),
        (
            ["programs:sound", "--token", "nonsense"],
            "'nonsense' is no token; expected what a failure's `token` says, such as "
            "'asyncio:0.1@2>0.2'",
        ),
    ],
)
def test_a_mistake_is_one_line_that_lists_the_right_values(
    argv: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mistake(capsys, *argv) == line


def test_a_page_has_the_command_and_a_replay_writes_it_too(
    programs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = programs / "pages" / "race-asyncio-1.html"
    arguments = ["programs:race"]
    for _ in range(2):
        status, out, _ = explore(capsys, *arguments, "--html", "pages")
        assert status == 1
        assert f"\npage: {page.relative_to(programs)}\n" in out
        assert "replay: mbufpools explore programs:race --token " in page.read_text("utf-8")
        arguments = replay_line(out)
        page.unlink()
    status, out, _ = explore(capsys, "programs:race", "--html", "programs.py/pages")
    assert status == 1
    assert "\nno page, because of NotADirectoryError: " in out


def test_a_token_that_does_not_fit_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    line = mistake(capsys, "programs:sound", "--token", "trio:0@9>0.5")
    assert line.startswith("the token 'trio:0@9>0.5' does not fit the program: ")


def test_a_program_that_cannot_be_explored_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert mistake(capsys, "programs:io").startswith("the program does I/O; ")


def test_a_module_that_fails_is_reported_with_its_line(
    programs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (programs / "broken.py").write_text("\n1 / 0\n", "utf-8")
    for target in ("broken", "broken.py"):
        assert mistake(capsys, f"{target}:program") == (
            f"cannot import {target}: ZeroDivisionError: division by zero "
            f"({programs / 'broken.py'}:2)"
        )


def test_a_module_without_programs_lists_none(
    programs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (programs / "broken.py").write_text("", "utf-8")
    assert mistake(capsys, "broken:program") == "broken has no function 'program'"


@pytest.mark.parametrize("name", ["queue", "anyio"])
def test_a_file_may_have_the_name_of_another_module(
    name: str, programs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (programs / f"{name}.py").write_text("async def program(): pass", "utf-8")
    module = importlib.import_module(name)
    assert explore(capsys, f"{name}.py:program")[0] == 0
    assert sys.modules[name] is module


def test_the_tasks_of_a_file_are_reported_with_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = explore(capsys, "programs.py:stuck", "--jobs", "2")
    assert "task 0.1 'programs.wait' waits at programs.py:" in out


# --- progress


def test_progress_is_shown_only_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mbufpools.demokit._command_line.PAUSE", 0)
    many = ("programs:sound", "--strategy", "random", "--max-executions", "40")
    assert explore(capsys, *many)[2] == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    _, out, err = explore(capsys, *many)
    assert out.startswith("ran out: no failure in 40 executions")
    _, *lines, last = err.split("\r\033[K")
    assert last == ""
    assert len(lines) == 40
    assert lines[9].startswith("[#####...............] 10 of at most 40 executions, ")
    assert lines[-1].startswith("[####################] 40 of at most 40 executions, ")
    assert lines[-1].endswith(" a second")


def test_progress_is_shown_at_most_ten_times_a_second(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mbufpools.demokit._command_line.PAUSE", 1000)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert explore(capsys, "programs:sound")[2] == "\r\033[K"
