"""The command line."""

from __future__ import annotations

import json
import lzma
import os
import pydoc
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mbufpools
from mbufpools.cli import main
from mbufpools.cli._demos import NAMES, find_demo, load
from mbufpools.cli._replay import EXPECTED
from mbufpools.demokit import Mistake, run_command
from tests.kit.kept_demo import kept_demo

BACKENDS = ["asyncio", "trio"]
ROOT = Path(__file__).parents[2]


def exit_status(*argv: str) -> int:
    try:
        return main(argv)
    except SystemExit as caught:
        status = caught.code
    assert isinstance(status, int)
    return status


def mistake(*argv: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that is printed after a mistake of the caller."""
    assert exit_status(*argv) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.endswith("\n")
    assert err.count("\n") == 1
    return err.rstrip("\n")


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)


# --- the command itself


def test_the_version_is_the_package_s(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status("--version") == 0
    assert capsys.readouterr().out == f"mbufpools {mbufpools.__version__}\n"


def test_the_package_runs_as_a_module() -> None:
    done = python("-m", "mbufpools", "--version")
    assert (done.returncode, done.stdout) == (0, f"mbufpools {mbufpools.__version__}\n")


@pytest.mark.parametrize("command", [[], ["demo"], ["stat"], ["replay"], ["smp"], ["explore"]])
def test_help_fits_the_terminal(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status(*command, "--help") == 0
    out = capsys.readouterr().out
    assert out.startswith("usage: mbufpools")
    assert max(map(len, out.splitlines())) <= 80


def test_the_help_says_what_an_application_and_a_tester_begin_with(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert exit_status("--help") == 0
    out = capsys.readouterr().out
    assert out.index("Buffer pools under one limit") < out.index("positional arguments")
    assert "`explore` is the lab" in out
    assert "  python -m mbufpools.examples " in out
    (name,) = re.findall(r"python -m pydoc (\S+)", out)
    assert pydoc.locate(name) is mbufpools.BufferPools


def test_the_list_of_demos_has_those_of_applications_in_a_group_of_their_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert exit_status("demo", "--list") == 0
    kernel, applications = capsys.readouterr().out.split("\n\n")
    assert kernel.startswith("Demos of the kernel's pools:\n  stall ")
    assert applications.startswith("Demos of applications:\n  order ")
    lines = [*kernel.splitlines(), *applications.splitlines()]
    listed = [line.split()[0] for line in lines if line.startswith("  ") and line[2] != " "]
    assert listed == list(NAMES)
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("argv", [[], ["explode"]])
def test_a_missing_or_unknown_command_lists_the_right_ones(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    line = mistake(*argv, capsys=capsys)
    assert all(command in line for command in ("demo", "stat", "replay", "smp", "explore"))


def test_a_start_loads_only_what_the_command_needs() -> None:
    done = python("-X", "importtime", "-m", "mbufpools", "--version")
    assert "mbufpools.cli" in done.stderr
    for heavy in (
        "mbufpools.lab",
        "mbufpools.smp",
        "mbufpools.traces",
        "concurrent.futures.process",
    ):
        assert heavy not in done.stderr


def test_a_reader_that_closes_the_pipe_early_causes_no_traceback() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "mbufpools", "demo", "stall"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


COMMANDS = {
    "demo": "-m mbufpools demo stall",
    "demo --json": "-m mbufpools demo stall --json",
    "stat": "-m mbufpools stat stall",
    "help": "-m mbufpools --help",
    "demo as a program": "demos/hidden_items.py",
    "soak": "-m tests.soak --operations 50",
}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_full_disk_is_one_line(command: str) -> None:
    done = run_in_a_shell(f"{command} >/dev/full")
    assert done.returncode == 1
    assert done.stderr.endswith(": the output cannot be written: No space left on device\n")
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(os.name != "posix", reason="it needs a POSIX shell")
@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_no_standard_output_is_one_line(command: str) -> None:
    done = run_in_a_shell(f"{command} >&-")
    assert done.returncode == 1
    assert done.stderr.endswith(": the output cannot be written: there is no standard output\n")
    assert done.stderr.count("\n") == 1


def run_in_a_shell(command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", f'"{sys.executable}" {command}'],
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        check=False,
    )


def test_an_interrupt_that_trio_has_put_into_groups_ends_without_a_traceback() -> None:
    def interrupted() -> int:
        raise BaseExceptionGroup("outer", [BaseExceptionGroup("inner", [KeyboardInterrupt()])])

    assert run_command("command", interrupted) == 130

    def failed() -> int:
        raise BaseExceptionGroup("both", [KeyboardInterrupt(), KeyError()])

    with pytest.RaisesGroup(KeyboardInterrupt, KeyError):
        run_command("command", failed)


def test_an_error_of_a_file_that_is_read_is_not_taken_for_one_of_the_output() -> None:
    with pytest.raises(FileNotFoundError):
        run_command("command", lambda: len(Path("no such file").read_bytes()))


def test_an_interrupt_ends_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(argv: object, prog: str) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(find_demo("stall"), "main", interrupted)
    assert exit_status("demo", "stall") == 130


# --- demo


def test_demo_runs_the_one_that_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status("demo", "--policy", "direct", "hidden-items", "--nmbclust=16") == 0
    out = capsys.readouterr().out
    assert out.startswith("Hidden items")
    assert " ".join(out.split()).endswith(
        "(beside 7 free items) and put 1 with curpage refreshed (beside 0 free items)."
    )


def test_demo_without_a_name_runs_all_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[str, list[str]]] = []

    def noted(name: str) -> Callable[[list[str], str], int]:
        def main(argv: list[str], prog: str) -> int:
            ran.append((name, argv))
            return 0

        return main

    for name in NAMES:
        monkeypatch.setattr(find_demo(name), "main", noted(name))
    options = ["--policy=deferred", "--backend=trio", "--json"]
    assert exit_status("demo", *options) == 0
    assert ran == [(name, options) for name in NAMES]


def test_demo_runs_each_demo_with_the_options_given(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mbufpools.cli._demos.NAMES", ("stall", "coalesce"))
    assert exit_status("demo", "--json", "--backend", "trio", "--policy", "deferred") == 0
    reports = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [report["demo"] for report in reports] == ["stall", "coalesce"]
    assert all(report["ok"] for report in reports)


def test_several_demos_are_separated_by_empty_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mbufpools.cli._demos.NAMES", ("stall", "coalesce"))
    assert exit_status("demo", "--policy", "none") == 0
    assert "beside" not in (out := capsys.readouterr().out)
    assert "bytes free.\n\n\nCoalescing: " in out


def test_one_demo_that_fails_decides_the_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mbufpools.cli._demos.NAMES", ("stall", "coalesce"))
    monkeypatch.setattr(find_demo("stall"), "main", lambda argv, prog: 1)
    assert exit_status("demo") == 1
    assert "Coalescing" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["demo", "stat"])
def test_an_unknown_demo_lists_the_right_ones(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mistake(command, "xyz", capsys=capsys) == (
        f"mbufpools {command}: no demo 'xyz'; expected one of {', '.join(NAMES)}"
    )


@pytest.mark.parametrize("command", ["demo", "stat"])
@pytest.mark.parametrize(
    ("option", "listed"),
    [
        ("--policy=x", "none, deferred, direct, near-limit, wanted"),
        ("--backend=x", "asyncio, trio"),
        ("--nmbclust=x", "a whole number from 8 to 4096"),
    ],
)
def test_a_wrong_value_of_a_demo_s_option_lists_the_right_ones(
    command: str, option: str, listed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mistake(command, "stall", option, capsys=capsys).endswith(listed)


@pytest.mark.parametrize(
    ("argv", "options"),
    [
        (["demo", "--fast"], "--policy, --backend, --nmbclust, --json, --list"),
        (["stat", "stall", "--fast"], "--policy, --backend, --nmbclust, --json"),
        (["replay", "trace.jsonl", "--fast"], "--backend, --json"),
    ],
    ids=["demo", "stat", "replay"],
)
def test_an_unknown_option_lists_the_right_ones(
    argv: list[str], options: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mistake(*argv, capsys=capsys) == (
        f"mbufpools {argv[0]}: unexpected argument '--fast'; the options are {options}"
    )


def test_an_argument_too_many_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    line = mistake("demo", "stall", "twice", capsys=capsys)
    assert line.startswith(
        "mbufpools demo: unexpected argument 'twice'; expected at most one NAME; the options are "
    )


def test_an_option_that_one_demo_lacks_is_reported_before_any_demo_has_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert mistake("demo", "--nmbclust=16", capsys=capsys) == (
        "mbufpools demo: --nmbclust is an option of stall, hidden-items and nine-seconds alone; "
        "name one of them, as in `mbufpools demo stall --nmbclust 16`"
    )


def forget(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    """Let a module be imported again in this test, and restore it afterwards."""
    monkeypatch.setitem(sys.modules, module, mbufpools)
    del sys.modules[module]


def test_demos_are_found_in_an_installed_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "_demos").mkdir()
    (tmp_path / "_demos" / "nine_seconds.py").write_text("here = True\n", "utf-8")
    monkeypatch.setattr(mbufpools, "__file__", str(tmp_path / "__init__.py"))
    forget(monkeypatch, "mbufpools_demo_nine_seconds")
    assert load("nine-seconds").here
    with pytest.raises(Mistake, match="reinstall mbufpools"):
        load("app")


def test_a_script_that_fails_to_load_is_imported_again_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "_demos").mkdir()
    (tmp_path / "_demos" / "app.py").write_text("raise ZeroDivisionError\n", "utf-8")
    monkeypatch.setattr(mbufpools, "__file__", str(tmp_path / "__init__.py"))
    forget(monkeypatch, "mbufpools_demo_app")
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            load("app")


# --- stat

STALLED = """\
0 mbufs in use
0/8 mbuf 2048 byte clusters in use (current/peak)
0/0 mbuf 2112 byte clusters in use (current/peak)
0/0 mbuf 4096 byte clusters in use (current/peak)
0/0 mbuf 8192 byte clusters in use (current/peak)
0/0 mbuf 9216 byte clusters in use (current/peak)
0/0 mbuf 12288 byte clusters in use (current/peak)
0/0 mbuf 16384 byte clusters in use (current/peak)
0/0 mbuf 65536 byte clusters in use (current/peak)
0/16/16 Kbytes allocated to network (current/peak/max)
2 requests for memory denied
1 requests for memory delayed

Memory resource pool statistics
Name        Size Requests Fail    InUse Pgreq Pgrel Npage Hiwat Minpg Maxpg Idle
mbufpl       256        0    0        0     0     0     0     0     0     8    0
mcl2k       2048        1    0        0     1     1     0     1     0     8    0

In use 0K, total allocated 0K; utilization 0.0%

1 request asleep now (1 in mbufpl)
0 runs of the wakeup, 0 adds coalesced
"""


@pytest.mark.parametrize("argv", [[], ["stall"], ["stall", "--backend", "trio"]])
def test_stat_prints_what_the_kernel_s_tools_would(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_status("stat", *argv) == 0
    assert capsys.readouterr().out == STALLED


def test_stat_shows_the_state_under_the_policy_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert exit_status("stat", "stall", "--policy", "deferred") == 0
    out = capsys.readouterr().out
    assert out.startswith("1 mbuf in use\n")
    assert "4/16/16 Kbytes allocated to network" in out
    assert "In use 0K, total allocated 4K; utilization 6.2%" in out
    assert "0 requests asleep now\n1 run of the wakeup, 0 adds coalesced\n" in out


@pytest.mark.parametrize("name", NAMES)
def test_stat_of_every_demo_has_the_kernel_s_columns_within_80(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mbufpools.cli._demos.find_demo", kept_demo)
    assert exit_status("stat", name) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    start = lines.index("Memory resource pool statistics")
    columns = "Name Size Requests Fail InUse Pgreq Pgrel Npage Hiwat Minpg Maxpg Idle"
    assert lines[start + 1].split() == columns.split()
    rows = [line.split() for line in lines[start + 2 : lines.index("", start)]]
    assert rows
    for row in rows:
        _, _, requests, _, in_use, pgreq, pgrel, npage, hiwat, _, _, idle = row
        assert int(in_use) <= int(requests)
        assert int(npage) == int(pgreq) - int(pgrel)
        assert int(idle) <= int(npage) <= int(hiwat)


def test_stat_of_an_application_names_buffers(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status("stat", "app") == 0
    out = capsys.readouterr().out
    assert "buffers of 2048 bytes in use (current/peak)\n" in out
    assert "mbuf" not in out


def test_stat_as_json_has_every_counter(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status("stat", "--json") == 0
    counters: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (counters["limit"], counters["allocated"], counters["peak"]) == (16384, 0, 16384)
    assert counters["taskq"]["scheduled"] == 1
    assert counters["pools"]["mbufpl"]["waiting"] == 1
    assert counters["pools"]["mcl2k"]["max_items"] is None


# --- replay

POOL = dict.fromkeys(
    ("nget", "nput", "nfail", "nout", "npages", "nidle", "npagealloc", "npagefree", "hiwat",
     "waiting"), 0,
)  # fmt: skip


def line(op: list[Any], t: float, alloc: int, drops: int, runs: int, **more: Any) -> dict[str, Any]:
    return {
        "op": op, "t": t, "rv": 0, "granted": [], "mem_limit": 16384, "mem_alloc": alloc,
        "drops": drops, "wakeup_runs": runs, "pools": {}, **more,
    }  # fmt: skip


def recording() -> list[dict[str, Any]]:
    """The stall with the patch, as the kernel would be recorded."""
    taken = POOL | {"nget": 1, "nout": 1, "npages": 1, "npagealloc": 1, "hiwat": 1}
    idle = taken | {"nput": 1, "nout": 0, "nidle": 1}
    left = idle | {"npages": 0, "nidle": 0, "npagefree": 1}
    return [
        {"seed": 1, "wakeup": "deferred", "curpage": "stale"},
        line(["nmbclust", 8], 0.0, 0, 0, 1),
        line(["get", 1, "mcl2k"], 0.0, 16384, 0, 1, granted=[[1, 0.0]], pools={"mcl2k": taken}),
        line(["get", 2, "mbufpl"], 0.0, 16384, 2, 1, pools={"mbufpl": POOL | {"waiting": 1}}),
        line(["put", 1], 0.0, 16384, 2, 1, pools={"mcl2k": idle}),
        line(["advance", 8.5], 8.5, 16384, 2, 1),
        line(
            ["advance", 1.0], 9.5, 4096, 2, 2,
            granted=[[2, 9.0]], pools={"mcl2k": left, "mbufpl": taken},
        ),
    ]  # fmt: skip


def write(path: Path, lines: list[dict[str, Any]]) -> str:
    text = "".join(json.dumps(each) + "\n" for each in lines)
    path.write_bytes(lzma.compress(text.encode()) if path.suffix == ".xz" else text.encode())
    return str(path)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["stall.jsonl", "stall.jsonl.xz"])
def test_replay_says_how_many_lines_agree(
    name: str, backend: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / name, recording())
    assert exit_status("replay", file, "--backend", backend) == 0
    assert capsys.readouterr().out == f"{name}: 6 lines agree in every field\n"


@pytest.mark.parametrize("backend", BACKENDS)
def test_replay_shows_the_first_disagreement(
    backend: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = recording()
    wrong[4]["pools"]["mcl2k"]["nidle"] = 0
    file = write(tmp_path / "wrong.jsonl", wrong)
    assert exit_status("replay", file, "--backend", backend) == 1
    assert capsys.readouterr().out.splitlines() == [
        "wrong.jsonl, line 5: after put 1, mcl2k.nidle differs",
        "  expected 0",
        "  got      1",
    ]


@pytest.mark.parametrize("backend", BACKENDS)
def test_replay_that_ends_right_after_a_get_leaves_nothing_behind(
    backend: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = recording()
    wrong[2]["mem_alloc"] = 1
    assert exit_status("replay", write(tmp_path / "wrong.jsonl", wrong), "--backend", backend) == 1
    assert "line 3: after get 1 mcl2k, mem_alloc differs" in capsys.readouterr().out


def test_replay_of_several_files_goes_on_and_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = recording()
    wrong[1]["mem_limit"] = 1
    files = [
        write(tmp_path / "a.jsonl", recording()),
        write(tmp_path / "b.jsonl", wrong),
        str(tmp_path / "c.jsonl"),
        write(tmp_path / "d.jsonl", recording()),
    ]
    assert exit_status("replay", *files) == 2
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == "2 of 4 recordings agree, 12 lines in all"
    assert err.count("\n") == 1
    assert exit_status("replay", *files[:2]) == 1


def test_replay_of_an_archive_replays_every_recording_in_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = recording()
    wrong[1]["mem_limit"] = 1
    for name, lines in (("a", recording()), ("b", wrong), ("c", [{"seed": 1}]), ("d", recording())):
        write(tmp_path / f"{name}.jsonl", lines)
    archive = tmp_path / "all.tar.xz"
    with tarfile.open(archive, "w:xz") as files:
        for file in sorted(tmp_path.glob("*.jsonl")):
            files.add(file, file.name)
    assert exit_status("replay", str(archive)) == 2
    out, err = capsys.readouterr()
    assert out.startswith("a.jsonl: 6 lines agree in every field\nb.jsonl, line 2: ")
    assert out.splitlines()[-1] == "2 of 4 recordings agree, 12 lines in all"
    assert err.startswith("mbufpools replay: c.jsonl, line 1: expected a header")
    assert exit_status("replay", str(archive), "--json") == 2
    objects = [json.loads(each) for each in capsys.readouterr().out.splitlines()]
    assert [each["recording"] for each in objects] == ["a.jsonl", "b.jsonl", "d.jsonl"]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is empty"),
        (b"\xff\xfe", "expected JSON"),
        (b"[1, 2]\n", "line 1: expected an object"),
        (b"{}\n", "line 1: expected a header"),
        (b'{"wakeup": "none", "curpage": "stale"}\n{"op": ["fly"]}\n', "expected one of get, try"),
    ],
)
def test_a_file_that_is_no_recording_is_one_line(
    content: bytes, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_bytes(content)
    line = mistake("replay", str(file), capsys=capsys)
    assert line.startswith("mbufpools replay: ")
    assert "bad.jsonl" in line
    assert complaint in line


@pytest.mark.parametrize(
    ("number", "broken", "complaint"),
    [
        (1, {"op": ["put", 7]}, "process 7 puts, but was never granted a buffer"),
        (2, {"op": ["get", 1, "mcl3k"]}, "there is no pool 'mcl3k'; expected one of mbufpl, "),
        (3, {"op": ["get", 1, "mbufpl"]}, "process 1 holds or waits for a buffer already"),
        (4, {"op": ["get", 2, "mbufpl"]}, "process 2 holds or waits for a buffer already"),
        (3, {"op": ["try", 1, "mbufpl"]}, "process 1 holds or waits for a buffer already"),
        (4, {"op": [[], 1]}, "op is [[], 1]; expected one of get, "),
        (4, {"op": ["put", True]}, "put takes (int); got [True]"),
        (5, {"op": ["advance", -1]}, "advance takes (float); got [-1]"),
        (5, {"op": ["advance", float("nan")]}, "advance takes (float); got [nan]"),
        (5, {"op": ["advance", 1e30]}, "advance takes (float); got [1e+30]"),
        (4, {"pools": []}, "expected pools with their counters; got []"),
        (4, {"pools": {"mcl2k": 1}}, "expected pools with their counters; got {'mcl2k': 1}"),
    ],
)
def test_a_recording_of_an_impossible_state_is_one_line(
    number: int,
    broken: dict[str, Any],
    complaint: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = recording()
    lines[number].update(broken)
    message = mistake("replay", write(tmp_path / "bad.jsonl", lines), capsys=capsys)
    assert message.startswith(f"mbufpools replay: bad.jsonl, line {number + 1}: {complaint}")


def test_a_truncated_archive_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = Path(write(tmp_path / "half.jsonl.xz", recording()))
    file.write_bytes(file.read_bytes()[:100])
    assert "half.jsonl.xz is not a recording" in mistake("replay", str(file), capsys=capsys)


@pytest.mark.parametrize("name", ["missing.jsonl", "."])
def test_a_file_that_cannot_be_read_is_one_line(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    complaint = mistake("replay", str(tmp_path / name), capsys=capsys)
    assert complaint.endswith(f"expected {EXPECTED}")


def test_replay_refuses_an_unknown_backend(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "stall.jsonl", recording())
    complaint = mistake("replay", file, "--backend", "curio", capsys=capsys)
    assert complaint.endswith("'curio'; expected one of asyncio, trio")
