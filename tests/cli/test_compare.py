"""``mbufpools compare``: tables, verdicts, JSON, files, and mistakes."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from mbufpools.cli import main
from mbufpools.experiment import DESCRIBED, QUESTIONS, find_question

RESULTS = str(Path(__file__).resolve().parents[2] / "docs" / "results.jsonl.xz")


def test_it_prints_the_tables_and_the_verdict_of_a_question(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["compare", "grab", "--results", RESULTS]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"b. {find_question('grab').asked}\n---")
    assert "patch + own queue" in printed
    assert "Verdict: " in printed


def test_it_prints_the_verdicts_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--results", RESULTS, "--verdicts"]) == 0
    printed = capsys.readouterr().out
    for question in QUESTIONS:
        assert f"{question.letter}. {question.asked}" in printed
    assert "patch + own queue" not in printed


def test_json_has_an_object_for_each_question(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--results", RESULTS, "--json"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [it["question"] for it in found] == [question.name for question in QUESTIONS]
    assert all(it["verdict"] and it["tables"][0]["rows"] and it["seeds"] for it in found)


def test_it_prints_the_findings_and_the_mail(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--results", RESULTS, "--findings"]) == 0
    assert capsys.readouterr().out.count("\n- ") == 4
    assert main(["compare", "--results", RESULTS, "--mail"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("Subject: ")
    assert printed.count("Subject: ") == printed.count("=" * 72) + 1 == 4


def test_it_runs_a_question_with_other_parameters_and_keeps_the_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    line = ["compare", "margin", "--seeds", "1", "--workers", "1"]
    changes = ("cold.horizon=20", "incident.resume=1.0", "incident.end=1.5")
    line += [word for change in changes for word in ("--set", change)]
    assert main([*line, "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    said = " ".join(printed.out.split())
    assert (
        "Changed in every row that is simulated, whatever it says: cold.horizon=20, "
        "incident.resume=1.0,"
    ) in said
    rerun = "mbufpools compare margin --seeds 1 --set cold.horizon=20"
    assert rerun in (tmp_path / "report.html").read_text("utf-8")
    assert "The pages leave one a second, so each is an add of its own. 20 s are simulated." in said
    assert "No margin up to 2 MiB is safe" in printed.out
    assert "No margin up to 2 MiB is safe" in (tmp_path / "report.html").read_text("utf-8")
    assert (tmp_path / "margin.svg").exists()
    assert len(list((tmp_path / "results").iterdir())) == len(find_question("margin").cells)


def test_processes_that_run_the_cells_write_nothing_beside_the_tables() -> None:
    incident = ("nmbclust=4096", "stop=0.1", "resume=1", "end=1.5")
    changes = [*(f"incident.{it}" for it in incident), "hidden.pages=4", "cold.horizon=3"]
    command = ["-m", "mbufpools", "compare", "page", "--seeds", "1", "--workers", "1"]
    command += [word for change in changes for word in ("--set", change)]
    done = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert "Verdict: " in done.stdout
    assert done.stderr == ""


def test_it_packs_results(tmp_path: Path) -> None:
    file = tmp_path / "packed"
    assert main(["compare", "--results", RESULTS, "--pack", str(file), "--verdicts"]) == 0
    assert file.read_bytes() == Path(RESULTS).read_bytes()


def test_it_lists_questions_and_parameters(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--list"]) == 0
    printed = capsys.readouterr().out
    assert "c  backlog" in printed
    assert "\nb  grab.delay\n" in printed, "what a question states"


def test_the_list_says_of_each_parameter_what_it_means_and_its_unit(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["compare", "--list"]) == 0
    _, *parts = capsys.readouterr().out.split("\n\n")
    for part, (workload, parameters) in zip(parts, DESCRIBED.items(), strict=False):
        first, *lines = part.splitlines()
        assert first.startswith(f"{workload}: ")
        for line, (name, it) in zip(lines, parameters.items(), strict=True):
            assert it.unit
            assert it.meaning
            assert line.split("  ")[1] == f"{name}={json.dumps(it.default)}"
            assert line.endswith(f"  {it.meaning} ({it.unit})")
    assert main(["compare", "grab", "--list", "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["parameters"].keys() == told["units"].keys() == told["meanings"].keys()
    assert (told["parameters"]["rate"], told["units"]["rate"]) == (200.0, "gets a second")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nothing"], "no question 'nothing'; expected one of 0 (page), a (cure)"),
        (["cure", "--set", "cold.x=1"], "no parameter 'cold.x'; expected one of hidden.pool"),
        (["cure", "--set", "cold.load=much"], "'much' is no value; expected a whole number"),
        (["cure", "--set", "cold.load=-1"], "expected a whole number from 0 to 100"),
        (["margin", "--set", "cold.load=101"], "expected a whole number from 0 to 100"),
        (["cure", "--set", "cold.hold=NaN"], "expected a number above 0"),
        (["page", "--set", "hidden.sleepers=0"], "expected a whole number from 1 up"),
        (["page", "--set", "hidden.pages=0"], "expected a whole number from 1 up"),
        (["grab", "--set", "grab.rate=0"], "expected a number above 0"),
        (["page", "--set", "incident.rx_period=0"], "expected a number above 0"),
        (["page", "--set", "incident.hogs=0"], "expected a whole number from 1 up"),
        (["page", "--set", "cold.nmbclust=17"], "expected a whole number from 18 up"),
        (["margin", "--set", "cold.horizon=1"], "expected a number above 1"),
        (["g", "--set", "incident.stop=-1"], "expected a number from 0 up"),
        (["g", "--set", "incident.resume=30"], "expected stop < resume < end; they would be "),
        (["cure", "--set", "hidden.pages=16"], "by question a (cure), whose rows and words would"),
        (["cure", "--set", "hidden.pages=16"], "leave it out, or ask `mbufpools compare page`"),
        (["grab", "--set", "grab.delay=0.005"], "would then say what was not run; leave it out\n"),
        (["page", "--set", "cold.request=nfs"], "'cold.request' is stated by question 0 (page)"),
        (["--set", "cold.request=nfs"], "by question 0 (page), a (cure) and e (margin), whose"),
        (["--mail", "--set", "grab.rate=1"], "--mail is for results of the stated parameters"),
        (["--findings", "--cpus", "4"], "--findings is for results of the stated parameters"),
        (["cure", "--set", "hidden.pool=mcl3k"], "expected one of mbufpl, mcl2k"),
        (["cure", "--set", "hidden.order=sorted"], "expected one of random, first, last"),
        (["backlog", "--set", "backlog.once=1"], "expected true or false"),
        (["cure", "--set", "cold.laod=1"], "did you mean 'cold.load'?"),
        (["cure", "--set", "storm.rate=1"], "has no workload storm; it has cold, hidden"),
        (["cur"], "no question 'cur'; did you mean 'cure'? Expected one of 0 (page)"),
        (["--results", f"{RESULTS[:-1]}y"], f"did you mean {RESULTS}?"),
        (["--results", RESULTS, "--seeds", "2"], "--seeds would have no effect"),
        (["--list", "--out", "x"], "--out would have no effect"),
        (["--list", "--mail"], "argument --mail: not allowed with argument --list"),
        (["--pack", "."], "argument --pack: . is a directory; expected a file"),
        (["--pack", "no/such"], "argument --pack: there is no directory no"),
        (["--out", __file__], "is a file; expected a directory"),
        (["--results", "/nonexistent"], "/nonexistent: No such file or directory; expected"),
        (["--results", __file__], "is no file of results; expected one that --pack wrote"),
        (["--pack", "x", "--cpus", "4"], "leave --set and --cpus out"),
        (["--seeds", "0"], "'0'; expected a whole number from 1 to 10000"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["compare", *arguments])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


@pytest.mark.skipif(importlib.util.find_spec("distributed") is None, reason="needs Dask")
@pytest.mark.filterwarnings("ignore")
def test_an_address_without_a_scheduler_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["compare", "margin", "--dask", "nonsense://nowhere"])
    assert stop.value.code == 2
    assert "no Dask scheduler at 'nonsense://nowhere'" in capsys.readouterr().err
