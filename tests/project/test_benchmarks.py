"""The benchmarks run, in a small form; what they measure is for people to read."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import benchmarks.__main__ as benchmarks
from benchmarks import _cuts
from benchmarks._forms import Form
from benchmarks._record import HEADLINES, Record, ablations, environment, verdict
from benchmarks._record import line as text_of
from benchmarks._rows import compare, difference
from mbufpools import Pool

ROOT = Path(__file__).resolve().parents[2]


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import a benchmark, which is a script."""
    spec = importlib.util.spec_from_file_location(
        f"benchmark_{name}", ROOT / "benchmarks" / f"{name}.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def lab_benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    module = load("lab", monkeypatch)
    monkeypatch.setattr(module, "ROUNDS", 1)
    return module


def rows(out: str, tool: str) -> list[list[str]]:
    """The cells of a tool's lines."""
    lines = [line.split("  ") for line in out.splitlines()]
    cells = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    return [line for line in cells if len(line) > 1 and line[1] == tool]


def test_the_lab_s_counts_are_the_same_on_each_backend_and_meet_the_bar(
    lab_benchmark: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    lab_benchmark.main(["--counts", "--only", "lab", "--users", "2", "3"])
    out = capsys.readouterr().out
    lines = rows(out, "lab")
    assert [line[0] for line in lines[::3]] == ["asyncio", "anyio on asyncio", "anyio on trio"]
    assert lines[0][2:] == lines[3][2:] == lines[6][2:]
    stall, race, two, three = (int(cell) for cell in lines[0][3:])
    assert lines[0][2] == "dpor"
    assert stall <= 2
    assert race <= 3
    assert two <= 32
    assert three <= 52
    assert "detangle" not in out
    assert "a second" not in out


def test_the_lab_s_rates_have_a_line_for_each_place_and_strategy(
    lab_benchmark: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    lab_benchmark.main(["--rates", "--only", "lab", "--users", "2"])
    out = capsys.readouterr().out
    lines = rows(out, "lab")
    assert len(lines) == 9
    assert all(float(line[3]) > 0 for line in lines)
    assert "proof" not in out


def test_a_peer_stands_beside_us_with_its_ratios(lab_benchmark: Any) -> None:
    def explore(program: object, backend: str, limit: int) -> Any:
        return lab_benchmark.Found(1200, False, True, 1.0)

    peer = lab_benchmark.Tool("detangle", "slow", ("asyncio",), explore)
    tools = (lab_benchmark.OURS[0], peer)
    out = lab_benchmark.show_counts(lab_benchmark.count(tools, [2], 9999), [2], 9999)
    assert rows(out, "detangle")[0][2:] == ["slow", "not found", "not found", "1200"]
    assert rows(out, "lab")[3:] == [
        ["asyncio", "lab", "dpor", "240.0"],
        ["anyio on asyncio", "lab", "dpor", "240.0"],
    ]
    out = lab_benchmark.rates(tools, 2, 100, 1)
    assert [line[3:] for line in rows(out, "detangle")] == [["1200", "1.00"]] * 2
    on_asyncio, _, on_trio = rows(out, "lab")
    assert float(on_asyncio[4]) > 0
    assert len(on_trio) == 4


def test_what_is_not_finished_is_said_to_be_more(lab_benchmark: Any) -> None:
    tools = lab_benchmark.OURS[:1]
    out = lab_benchmark.show_counts(lab_benchmark.count(tools, [3], 10), [3], 10)
    assert [line[-1] for line in rows(out, "lab")] == ["> 10"] * 3
    found = lab_benchmark.Found
    assert lab_benchmark._ratio(found(90, False, False, 1), found(30, False, True, 1)) == "> 3.0"
    assert lab_benchmark._ratio(found(90, False, True, 1), found(30, False, False, 1)) == "?"


def test_a_false_alarm_is_no_count(lab_benchmark: Any) -> None:
    def explore(program: object, backend: str, limit: int) -> Any:
        return lab_benchmark.Found(1, True, False, 1.0)

    alarm = lab_benchmark.Tool("alarm", "always", ("trio",), explore)
    with pytest.raises(RuntimeError, match="a false alarm: alarm, always, anyio"):
        lab_benchmark.count([alarm], [2], 10)


def test_a_peer_that_is_not_there_cannot_be_asked_for(
    lab_benchmark: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lab_benchmark, "detangle", None)
    with pytest.raises(SystemExit) as caught:
        lab_benchmark.main(["--only", "detangle"])
    assert caught.value.code == 2
    assert "pip install detangle" in capsys.readouterr().err


def test_detangle_finds_the_failures_and_raises_no_false_alarm(
    lab_benchmark: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("detangle", reason="detangle is not installed")
    lab_benchmark.main(["--counts", "--users", "2"])
    for line in rows(capsys.readouterr().out, "detangle"):
        assert all(cell.isdigit() for cell in line[3:]), line


def test_a_claim_waits_longer_the_more_may_pass_and_starves_under_barging(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = load("passes", monkeypatch)
    monkeypatch.setattr(module, "HOLDERS", (4,))
    monkeypatch.setattr(module, "SEEDS", range(1))
    fifo, _ = module.measure(module.Order.FIFO, None, 4)
    bounded, _ = module.measure(module.Order.BOUNDED, 64, 4)
    assert 0 < fifo < bounded < module.PATIENCE
    module.main()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 7
    assert "starves" in lines[-1]


TINY = Form(1, 20, 10, 20, 1, 10, 50, 1, 2, 1, 1)


@pytest.mark.parametrize("group", benchmarks.GROUPS)
@pytest.mark.parametrize("backend", benchmarks.BACKENDS)
def test_each_group_of_rows_stands_beside_its_peers(group: str, backend: str) -> None:
    if backend == "uvloop":
        pytest.importorskip("uvloop", reason="uvloop is not installed")
    record = Record({}, [])
    benchmarks.measure(record, [backend], [group], TINY)
    assert bool(record.rows) == ((group, backend) != ("proxy", "trio"))
    for row in record.rows:
        assert row.backend == backend
        assert row.peer
        assert row.ours >= 0
        assert row.name in text_of(row)


@pytest.mark.parametrize(
    "cuts",
    [
        _cuts.CUTS_OF_A_PAIR,
        _cuts.CUTS_OF_A_HAND_OFF,
        _cuts.CUTS_OF_A_RESERVATION,
        _cuts.CUTS_OF_A_WAKEUP,
        _cuts.CUTS_OF_A_CANCELLATION,
        _cuts.CUTS_OF_A_PAGE,
    ],
)
def test_a_cut_changes_each_function_it_names_and_mends_it_again(
    cuts: tuple[_cuts.Cut, ...],
) -> None:
    places = [place for cut in cuts for place in cut.edits]
    before = [vars(kind)[name] for kind, name in places]
    with pytest.raises(KeyError), _cuts.without(cuts):
        assert all(
            vars(kind)[name] is not function
            for (kind, name), function in zip(places, before, strict=True)
        )
        raise KeyError
    assert [vars(kind)[name] for kind, name in places] == before


def test_a_cut_whose_text_is_gone_is_an_error() -> None:
    cut = _cuts.Cut("nothing", {(Pool, "get_nowait"): (("no such text", ""),)})
    with pytest.raises(ValueError, match="'no such text' 0 times"), _cuts.without((cut,)):
        pass


def test_an_ablation_is_a_table_of_what_each_promise_costs() -> None:
    rows = [
        compare("get, whole", "asyncio", [12], "a queue", [10]),
        compare("  less a check", "asyncio", [11], "a queue", [10]),
        compare("a put", "asyncio", [11], "a queue", [10]),
    ]
    about = {"python": "3.11.7", "system": "Linux", "date": "2026-01-01"}
    lines = [line.split() for line in ablations(Record(about, rows)).splitlines()]
    assert lines[0] == ["get", "/", "a", "queue", "asyncio"]
    assert lines[2:5] == [["with", "all", "promises", "1.20"], ["less", "a", "check", "1.10"], []]


def test_the_import_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    record = Record({}, [])
    benchmarks.measure(record, [], ["import"], TINY)
    assert [row.unit for row in record.rows] == ["ms"]
    assert "import anyio" in capsys.readouterr().out


def test_a_ratio_is_the_median_of_the_rounds_and_not_of_the_times() -> None:
    row = compare("ours", "asyncio", [10, 20, 90], "peer", [10, 10, 10], 2.0)
    assert (row.value, row.ours, row.theirs) == (2.0, 20, 10)
    assert (row.low, row.high) == (1.5, 5.5)
    assert row.holds
    assert compare("ours", "asyncio", [21], "peer", [10], 2.0).holds is False
    assert compare("ours", "asyncio", [21], "peer", [10]).holds is None
    more = difference("ours", "asyncio", [21, 25], "peer", [10, 12], 12.5, unit="ms")
    assert (more.value, more.holds) == (12, True)


def test_the_verdict_counts_the_goals_and_names_those_that_are_not_held() -> None:
    rows = [
        compare("a get", "asyncio", [21], "a queue", [10], 2.0),
        compare("a get", "trio", [30], "a queue", [10], 2.0),
        compare("a put", "trio", [1], "a queue", [10], 2.0),
        compare("a view", "trio", [1], "a queue", [10]),
    ]
    assert verdict(rows).splitlines() == [
        "1 of 3 goals hold",
        "  not held: a get / a queue: asyncio 2.10 of 2.00, trio 3.00 of 2.00",
    ]


def test_a_record_is_written_read_and_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, peer = HEADLINES[0]
    rows = [
        compare(name, "asyncio", [21], peer, [10], 2.0),
        compare(name, "trio", [5], peer, [10], 2.0),
    ]
    record = Record({**environment("short"), "python": "3.11.7"}, rows)
    file = tmp_path / "record.json"
    record.write(file)
    assert Record.read(file) == record
    assert [row["holds"] for row in json.loads(file.read_text("utf-8"))["rows"]] == [False, True]
    assert benchmarks.main(["--headlines", str(file)]) == 0
    out = capsys.readouterr().out
    assert re.search(rf"^{re.escape(f'{name} / {peer}')} +2.10 +0.50$", out, re.MULTILINE)
    assert "on Python 3.11.7" in out


RECORDED = Record.read(ROOT / "docs" / "benchmarks.json").rows


def test_the_readme_shows_rows_that_are_recorded() -> None:
    missing = set(HEADLINES) - {(row.name, row.peer) for row in RECORDED}
    assert not missing, "`make bench-full` records them, and `make docs` then shows them"


def rows_named_in(text: str) -> list[str]:
    """Return the names in "the rows `a`, `b` and `c` of `make bench`"."""
    code = r"`[^`]+`"
    lists = re.findall(
        rf"[Rr]ows?\s+({code}(?:(?:,\s+|\s+and\s+){code})*)\s+of\s+`make bench`", text
    )
    return [" ".join(name.split()) for each in lists for name in re.findall("`([^`]+)`", each)]


def test_the_names_of_rows_are_found_in_a_text() -> None:
    text = (
        "The row `one, x=2` of `make bench` and the rows `a`, `b c` and\n`d` of `make bench`; `e`."
    )
    assert rows_named_in(text) == ["one, x=2", "a", "b c", "d"]


def test_each_row_that_a_page_names_is_recorded() -> None:
    recorded = {row.name for row in RECORDED}
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    named = {page.name: rows_named_in(page.read_text("utf-8")) for page in pages}
    assert "debug=True, a pair of 64 KiB" in named["observing.md"]
    missing = {page: lost for page, rows in named.items() if (lost := set(rows) - recorded)}
    assert not missing, "`make bench-full` records them; or a page names a row that is no more"


def test_a_row_of_the_readme_that_is_not_recorded_yet_is_left_out_and_shown_when_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "record.json"
    small = [row for row in HEADLINES if "4 KiB buffers" in row[0] and "64" not in row[0]]
    for there in (HEADLINES, [row for row in HEADLINES if row not in small]):
        rows = [compare(name, "asyncio", [2], peer, [1]) for name, peer in there]
        Record({**environment("short")}, rows).write(file)
        benchmarks.main(["--headlines", str(file), "--about", "proxy, CPU"])
        lines = capsys.readouterr().out.splitlines()
        assert [line.partition(" / ")[0] for line in lines[2:-2]] == [
            name for name, _ in there if name.startswith("proxy, CPU")
        ]


def test_an_unknown_backend_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        benchmarks.main(["curio"])
    assert (
        "argument BACKEND: 'curio'; expected one of asyncio, uvloop, trio"
        in capsys.readouterr().err
    )


def test_the_lab_finds_and_proves_beside_its_peers_and_a_tool_that_hangs_is_ended(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = load("peers", monkeypatch)
    monkeypatch.setattr(module, "GRACE", 0.2)

    def hangs(specimen: object, twin: bool, seconds: float) -> Any:
        if twin:
            raise RuntimeError
        time.sleep(3600)

    monkeypatch.setitem(module.TOOLS, "hangs", hangs)
    module.main(["--only", "lab", "hangs", "--first", "1", "--seconds", "4", "--specimens"])
    lines = [re.split("  +", line) for line in capsys.readouterr().out.splitlines()]
    (ours,) = [line for line in lines if line[0] == "lab"]
    (theirs,) = [line for line in lines if line[0] == "hangs"]
    assert [ours[1], ours[2], *ours[5:]] == ["1", "1", "1", "0", "0"]
    assert [theirs[1], theirs[2], *theirs[3:]] == ["1", "0", "0", "0", "2"]
    assert lines[-1][1].startswith("failed, ")


def test_a_peer_of_the_zoo_that_is_not_there_cannot_be_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = load("peers", monkeypatch)
    monkeypatch.setattr(module, "detangle", None)
    with pytest.raises(SystemExit) as caught:
        module.main(["--only", "detangle"])
    assert caught.value.code == 2
    assert "pip install detangle" in capsys.readouterr().err
