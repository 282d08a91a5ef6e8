"""What the command says of a mistake: what was typed, what is wrong, what was meant."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mbufpools.cli import main
from mbufpools.cli._demos import NAMES
from mbufpools.demokit import closest, closest_path

ROOT = Path(__file__).resolve().parents[2]
RESULTS = str(ROOT / "docs" / "results.jsonl.xz")


def mistake(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The one line that is printed after a mistake."""
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    return err.rstrip("\n")


# --- the name that was meant


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("stal", "stall"),
        ("STALL", "stall"),
        ("hidden_items", "hidden-items"),
        ("demos/hidden_items.py", "hidden-items"),
        ("inc", "incident"),
        ("n", None),  # two begin with it
        ("xyz", None),
        ("", None),
    ],
)
def test_the_name_that_was_meant_is_the_one_that_looks_like_it(
    word: str, meant: str | None
) -> None:
    assert closest(word, NAMES) == meant


def test_a_path_that_was_meant_is_in_the_same_directory(tmp_path: Path) -> None:
    (tmp_path / "trace.jsonl").touch()
    (tmp_path / ".tracee").touch()
    assert closest_path(tmp_path / "trac.jsonl") == str(tmp_path / "trace.jsonl")
    assert closest_path(tmp_path / "trac.jsonl", "*.py") is None
    assert closest_path(tmp_path / "nowhere" / "trace.jsonl") is None


# --- each verb


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        ("dmeo stall", "mbufpools: no command 'dmeo'; did you mean 'demo'? Expected one of demo, "),
        ("help", "mbufpools: no command 'help'; did you mean --help?"),
        ("version", "mbufpools: no command 'version'; did you mean --version?"),
        ("-V", "mbufpools: unexpected argument '-V'; did you mean --version? `mbufpools --help` "),
        ("demo stal", "mbufpools demo: no demo 'stal'; did you mean 'stall'? Expected one of "),
        ("stat stal", "mbufpools stat: no demo 'stal'; did you mean 'stall'? Expected one of "),
        (
            "demo stall --policy defered",
            "mbufpools demo stall: argument --policy: 'defered'; did you mean 'deferred'? Expected "
            "one of none, deferred, direct, near-limit, wanted",
        ),
        ("demo --policy x", "mbufpools demo: argument --policy: 'x'; expected one of none, "),
        ("stat stall --policy x", "mbufpools stat stall: argument --policy: 'x'; expected one of "),
        ("stat --policy x", "mbufpools stat: argument --policy: 'x'; expected one of none, "),
        (
            "demo stall --polcy none",
            "mbufpools demo: unexpected argument '--polcy'; did you mean --policy? "
            "`mbufpools demo --help` lists the options",
        ),
        (
            "demo stall --policy",
            "mbufpools demo: argument --policy: there is no value; expected --policy POLICY: one "
            "of none, deferred, direct, near-limit, wanted",
        ),
        (
            "demo coalesce --nmbclust 16",
            "mbufpools demo coalesce: unexpected argument '--nmbclust'; the options are --policy, ",
        ),
        ("demo --list stall", "mbufpools demo: --list runs no demo; leave 'stall' out, or --list"),
        ("explore x:y --strategy dpro", "mbufpools explore: argument --strategy: 'dpro'; did you "),
        ("explore x:y --backnd trio", "mbufpools explore: unexpected argument '--backnd'; did you"),
        ("smp stlae", "mbufpools smp: no variant 'stlae'; did you mean 'stale'? `mbufpools smp "),
        ("smp xyz", "mbufpools smp: no variant 'xyz'; expected one of cured, kernel, "),
        ("smp --list stale", "mbufpools smp: --list explores nothing; give no VARIANT, --token "),
        ("compare Margn", "mbufpools compare: no question 'Margn'; did you mean 'margin'? "),
    ],
)
def test_a_mistake_names_the_command_as_it_was_typed_and_what_was_meant(
    typed: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mistake(capsys, *typed.split()).startswith(line)


def test_a_recording_that_was_meant_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "trace.jsonl").touch()
    assert main(["replay", str(tmp_path / "trac.jsonl")]) == 2
    line = capsys.readouterr().err
    assert line.startswith("mbufpools replay: ")
    assert line.endswith(f"trac.jsonl: No such file or directory; did you mean "
                         f"{tmp_path / 'trace.jsonl'}?\n")  # fmt: skip


def test_a_question_may_be_in_capitals(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "B", "--results", RESULTS, "--verdicts"]) == 0
    assert capsys.readouterr().out.startswith("b. ")


def test_a_file_that_cannot_be_written_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "file").touch()
    argv = ("compare", "grab", "--results", RESULTS, "--verdicts")
    with pytest.raises(SystemExit) as caught:
        main([*argv, "--out", str(tmp_path / "file" / "folder")])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error == f"mbufpools compare: {tmp_path / 'file' / 'folder'}: Not a directory\n"


def test_parameters_with_which_a_workload_fails_are_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = ("--set", "cold.nmbclust=9999999999999999", "--seeds", "1", "--workers", "1")
    line = mistake(capsys, "compare", "margin", *options)
    assert line == (
        "mbufpools compare: argument --set: a workload fails with these parameters: "
        "LimitRangeError: nmbclust is 9999999999999999; expected 1 to 4503599627370495 clusters of "
        "2048 bytes"
    )


@pytest.mark.parametrize(
    ("command", "begins"),
    [
        (["-m", "mbufpools", "demo", "stall", "--policy=x"], "python -m mbufpools demo stall: "),
        ([str(ROOT / "demos" / "stall.py"), "--policy=x"], "stall.py: argument --policy: "),
    ],
)
def test_a_mistake_names_the_module_or_the_script_that_was_run(
    command: list[str], begins: str
) -> None:
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(begins)


# --- JSON and colour


@pytest.mark.parametrize(
    "typed",
    [
        "demo stall --json",
        "demo --list --json",
        "stat stall --json",
        "smp --list --json",
        "smp stale --json",
        "compare --list --json",
        "compare grab --json --results RESULTS",
        "compare grab --json --verdicts --results RESULTS",
        "compare --json --findings --results RESULTS",
        "compare --json --mail --results RESULTS",
        "explore",
    ],
)
def test_json_is_an_object_a_line_wherever_there_is_output(
    typed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if typed == "explore":
        (tmp_path / "program_for_json.py").write_text("async def nothing(): pass\n", "utf-8")
        typed = f"explore {tmp_path}/program_for_json.py:nothing --json"
    main([RESULTS if word == "RESULTS" else word for word in typed.split()])
    lines = capsys.readouterr().out.splitlines()
    assert lines
    assert all(isinstance(json.loads(line), dict) for line in lines)


def test_nothing_is_coloured_on_a_terminal_with_no_color() -> None:
    """On a terminal, where Python itself colours its help and its tracebacks if it may."""
    pty = pytest.importorskip("pty")
    environment = {name: value for name, value in os.environ.items() if name != "FORCE_COLOR"}
    for arguments in (["--help"], ["demo", "--help"], ["demo", "stall"]):
        controller, terminal = pty.openpty()
        with subprocess.Popen(
            [sys.executable, "-m", "mbufpools", *arguments],
            stdout=terminal,
            stderr=terminal,
            env={**environment, "NO_COLOR": "1", "TERM": "xterm-256color"},
        ) as process:
            os.close(terminal)
            shown = b""
            while True:
                try:
                    chunk = os.read(controller, 65536)
                except OSError:  # on Linux, the end of what was shown
                    break
                if not chunk:
                    break
                shown += chunk
            os.close(controller)
        assert process.returncode == 0
        assert len(shown) > 500
        assert b"\033" not in shown
