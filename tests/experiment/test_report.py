"""The report is one file, the same bytes each time, and a browser shows it without complaint."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from mbufpools.demokit import Table
from mbufpools.experiment import KERNELS, QUESTIONS, find_question, unpack
from mbufpools.experiment._story import tell_story

pytest.importorskip("matplotlib")

from mbufpools.experiment import report
from mbufpools.experiment.report._page import _command, html_table

ROOT = Path(__file__).resolve().parents[2]
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = unpack(ROOT / "docs" / "results.jsonl.xz")
    return report.write_report(QUESTIONS, results, tmp_path_factory.mktemp("report"))


def test_the_first_picture_is_the_same_bytes_each_time() -> None:
    assert report.hero() == report.hero()


def test_the_page_needs_no_network(written: Path) -> None:
    text = written.read_text("utf-8")
    links = set(re.findall(r"""(?:src|href)=["']([^"'#][^"']*)""", text))
    assert links <= {"data:,"}
    assert not re.search(r"@import|url\((?!#)", text)


def test_the_page_has_every_question_with_its_picture(written: Path) -> None:
    text = written.read_text("utf-8")
    for question in QUESTIONS:
        section = text[text.index(f'<section id="{question.name}">') :]
        assert "<svg" in section[: section.index("</section>")]
        assert (written.parent / f"{question.name}.svg").exists()
    assert text.index('id="page"') < text.index('id="story"') < text.index('id="cure"')


def test_the_page_says_the_command_that_runs_a_question_as_it_was_run(written: Path) -> None:
    text = written.read_text("utf-8")
    for question in QUESTIONS:
        assert f"Rerun: <code>mbufpools compare {question.name} --seeds 20</code>" in text
    results = unpack(ROOT / "docs" / "results.jsonl.xz")
    results.cpus = 4
    results.changes = {"incident": {"nmbclust": 4096, "resume": 1.5}, "grab": {"nmbclust": 64}}
    command = _command(find_question("page"), results, 3)
    assert command == (
        "mbufpools compare page --seeds 3 --cpus 4 "
        "--set incident.nmbclust=4096 --set incident.resume=1.5"
    )


def test_words_stand_on_the_left_of_a_column_and_numbers_on_the_right() -> None:
    table = Table({"caches": "caches", "kernel": "kernel", "at": "at", "drained": "drained"})
    table.add(caches=True, kernel="patch", at="never", drained=False)
    table.add(caches=True, kernel="none", at="9.0", drained=True)
    text = html_table(table)
    assert text.count('<td class="words">yes</td><td class="words">patch</td>') == 1
    assert "<td>never</td><td>no</td>" in text
    assert text.index("<thead>") < text.index("<tbody>")


def test_the_script_of_the_timeline_is_short() -> None:
    script = Path(report.__file__).parent / "timeline.js"
    assert len(script.read_text("utf-8").splitlines()) <= 150


def test_the_story_before_the_cures_ends_with_sleepers_and_after_them_without() -> None:
    before, after = (tell_story(KERNELS[name]) for name in ("as it is", "patch + curpage"))
    assert [lane.served for lane in before.lanes].count(None) == 4
    assert all(lane.served is not None for lane in after.lanes)
    assert before.steps[-1][1] == [0, 0, 0, 0]
    assert all(sum(nbytes) <= after.limit for _, nbytes in after.steps)


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
def test_a_browser_finds_no_error_in_the_page(written: Path, tmp_path: Path) -> None:
    assert BROWSER is not None
    shot = tmp_path / "report.png"
    done = subprocess.run(
        [
            BROWSER,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--enable-logging=stderr",
            "--window-size=1100,2400",
            "--virtual-time-budget=3000",
            f"--screenshot={shot}",
            written.as_uri(),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "CONSOLE" not in done.stderr, done.stderr
    assert shot.stat().st_size > 20_000
