"""`make release-check`, without what takes long: it finds what it looks for, and tells it."""

from __future__ import annotations

import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import mbufpools
from release._artifacts import Artifacts
from release._installs import EXTRAS, Checks, Environment
from release._steps import StepFailed, Steps, call, expect

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
OF_DEVELOPERS = {"dev", "docs", "mutate", "release"}


def made(folder: Path, changelog: str, description: str = "") -> Artifacts:
    """Two small files of a release, and a changelog."""
    dist = folder / "dist"
    dist.mkdir()
    with zipfile.ZipFile(dist / "mbufpools-1.2.0-py3-none-any.whl", "w") as wheel:
        metadata = f"Metadata-Version: 2.4\nName: mbufpools\n\n{description}"
        wheel.writestr("mbufpools-1.2.0.dist-info/METADATA", metadata)
    with tarfile.open(dist / "mbufpools-1.2.0.tar.gz", "w:gz"):
        pass
    (folder / "CHANGELOG.md").write_text(changelog, "utf-8")
    return Artifacts(folder, dist)


def test_the_changelog_has_a_heading_of_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert f"\n## [{mbufpools.__version__}] - 20" in text


def test_each_extra_for_users_is_installed() -> None:
    assert {*EXTRAS} - {"", "pytest"} == set(PROJECT["optional-dependencies"]) - OF_DEVELOPERS


def test_each_python_of_the_classifiers_is_one_on_which_the_tests_run() -> None:
    versions = [it.rpartition(" ")[2] for it in PROJECT["classifiers"] if ":: Python :: 3." in it]
    assert versions == ["3.11", "3.12", "3.13"]
    systems = [it for it in PROJECT["classifiers"] if it.startswith("Operating System")]
    assert systems == ["Operating System :: POSIX :: Linux"]


@pytest.mark.parametrize(
    ("changelog", "found"),
    [
        ("## [1.2.0] - 2026-01-31\n", None),
        ("## [Unreleased]\n\n## [1.2.0] - 2026-01-31\n", "## [Unreleased]"),
        ("## [1.2.0]\n", "## [1.2.0]"),
        ("## [1.1.0] - 2026-01-31\n", "## [1.1.0] - 2026-01-31"),
        ("", "no heading"),
    ],
)
def test_the_first_heading_of_the_changelog_must_be_the_version_with_a_date(
    changelog: str, found: str | None, tmp_path: Path
) -> None:
    artifacts = made(tmp_path, changelog)
    if found is None:
        artifacts.check_version()
        return
    with pytest.raises(StepFailed) as caught:
        artifacts.check_version()
    assert str(caught.value) == (
        f"CHANGELOG.md begins with {found!r}; expected '## [1.2.0] - YYYY-MM-DD'"
    )


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    artifacts = made(tmp_path, "")
    with pytest.raises(StepFailed, match=r"mbufpools-1.2.0.tar.gz lacks README.md, LICENSE"):
        artifacts.check_sdist()
    with pytest.raises(StepFailed, match=r"none-any.whl lacks mbufpools/py.typed"):
        artifacts.check_wheel()


def test_a_link_to_a_file_is_found_in_the_description(tmp_path: Path) -> None:
    good = "[a](https://example.org/a) [b](#b)"
    artifacts = made(tmp_path, "", f"{good} [c](docs/c.md) ![d](docs/d.svg)")
    with pytest.raises(StepFailed, match=r"links to files: docs/c.md, docs/d.svg$"):
        artifacts.check_description()
    (tmp_path / "good").mkdir()
    made(tmp_path / "good", "", good).check_description()


@pytest.mark.parametrize("extra", EXTRAS)
def test_each_extra_has_a_check_of_its_own(extra: str, tmp_path: Path) -> None:
    environment = Environment(tmp_path / "environment", sys.executable)
    names = [name for name, _ in Checks(environment, "1.2.0", ROOT).of(extra)]
    assert names[0] == "the command"
    assert len(names) > 1


def test_a_step_that_fails_is_told_with_its_command_and_the_others_are_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = Steps()
    printing = "import sys; print('one'); print('two', file=sys.stderr); sys.exit(3)"

    def first() -> None:
        call(sys.executable, "-c", printing, folder=tmp_path)

    assert not steps.run("first", first)
    assert not steps.run("second", lambda: expect("this", "that", "the text"))
    assert steps.run("third", lambda: None)
    told = capsys.readouterr().out
    assert told.startswith("first ... FAILED\n    $ ")
    assert "    one\n    two\n    exit status 3, expected 0\n" in told
    assert "second ... FAILED\n    the text: expected 'that'; found\n    this\n" in told
    assert "third ... ok (0 s)\n" in told
    assert steps.summary() == "2 of 3 steps failed:\n  first\n  second"


def test_a_command_that_fails_as_it_should_is_no_failure(tmp_path: Path) -> None:
    call(sys.executable, "-c", "raise SystemExit(1)", folder=tmp_path, status=1)
