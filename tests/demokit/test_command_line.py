"""What all command lines share."""

from __future__ import annotations

import argparse
import sys

import pytest

from mbufpools.demokit import Parser, progress_line, whole_number


@pytest.mark.parametrize(("value", "number"), [("1", 1), ("007", 7), ("10", 10)])
def test_a_whole_number_is_read(value: str, number: int) -> None:
    assert whole_number(1, 10)(value) == number


@pytest.mark.parametrize("value", ["0", "11", "-1", "+1", " 1", "1_0", "1e1", "", "٣", "9" * 5000])
def test_a_number_outside_of_the_range_is_refused(value: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected a whole number from 1 to 10"):
        whole_number(1, 10)(value)


def two_verbs() -> Parser:
    parser = Parser(prog="tool")
    parser.add_argument("--all", action="store_true")
    commands = parser.add_subparsers()
    commands.add_parser("list").add_argument("--long", action="store_true")
    commands.add_parser("show")
    return parser


def test_the_parser_of_the_verb_is_in_the_namespace() -> None:
    parser = two_verbs()
    assert parser.read([]).parser is parser
    assert parser.read(["show"]).parser.prog == "tool show"


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["--lon"], "tool: unexpected argument '--lon'; the options are --all"),
        (["list", "--xy"], "tool list: unexpected argument '--xy'; the options are --long"),
        (
            ["list", "--lon=1"],
            "tool list: unexpected argument '--lon'; did you mean --long? `tool list --help` "
            "lists the options",
        ),
        (["show", "--lon"], "tool show: unexpected argument '--lon'; the options are none"),
        (["list", "one"], "tool list: unexpected argument 'one'; the options are --long"),
    ],
)
def test_an_unexpected_argument_is_one_line_of_the_verb_that_lists_its_options(
    argv: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        two_verbs().read(argv)
    assert caught.value.code == 2
    assert capsys.readouterr() == ("", f"{line}\n")


def test_the_progress_line_is_removed_after_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr("mbufpools.demokit._command_line.PAUSE", 0)
    with pytest.raises(KeyError), progress_line(4, "steps") as progress:
        assert progress is not None
        progress(1)
        raise KeyError
    first, last = capsys.readouterr().err.split("\r\033[K")[1:]
    assert first.startswith("[#####...............] 1 of 4 steps, ")
    assert last == ""


def test_the_progress_line_tells_the_time_left_without_what_was_done_before(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([0.0, 1.0, 11.0, 12.0])
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setattr("mbufpools.demokit._command_line.time.monotonic", lambda: next(clock))
    with progress_line(500, "runs", time_left=True) as progress:
        assert progress is not None
        progress(100)
        progress(210)
        progress(490)
    shown = capsys.readouterr().err.split("\r\033[K")
    assert shown[1].endswith("100 of 500 runs, just begun")
    assert shown[2].endswith("210 of 500 runs, 29 s left")
    assert shown[3].endswith("490 of 500 runs, 0 s left")


def test_a_long_time_left_is_told_in_minutes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([0.0, 1.0, 2.0])
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setattr("mbufpools.demokit._command_line.time.monotonic", lambda: next(clock))
    with progress_line(601, "runs", time_left=True) as progress:
        assert progress is not None
        progress(0)
        progress(2)
    assert "2 of 601 runs, 10 min left" in capsys.readouterr().err
