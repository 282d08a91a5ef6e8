"""The Makefile is read alike by GNU make and by BSD make, and a first look needs no linter."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAKES = ["make", "gmake", "bmake"]
"""Of which only those are tried that are there."""


def run(make: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    if shutil.which(make) is None:
        pytest.skip(f"there is no {make}")
    return subprocess.run(
        [make, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        # What a make that runs these tests tells its own makes.
        env={"PATH": f"{Path(shutil.which(make) or '').parent}:/usr/bin:/bin"},
    )


def test_no_function_of_gnu_make_is_used() -> None:
    text = (ROOT / "Makefile").read_text("utf-8")
    assert re.findall(r"(?<!\$)\$\([a-z-]+ ", text) == []
    gnu = r"^(?:export|define|ifeq|ifdef|include|\.DEFAULT_GOAL)\b"
    assert re.findall(gnu, text, re.MULTILINE) == []


@pytest.mark.parametrize("make", MAKES)
def test_make_alone_lists_the_targets(make: str) -> None:
    done = run(make)
    assert done.returncode == 0
    assert "  make demo         see what a wakeup policy costs\n" in done.stdout


@pytest.mark.parametrize("make", MAKES)
def test_every_recipe_can_be_read(make: str) -> None:
    text = (ROOT / "Makefile").read_text("utf-8")
    targets = re.findall(r"^([a-z-]+):", text, re.MULTILINE)
    done = run(make, "-n", *targets)
    assert done.returncode == 0, done.stderr
    assert "--deselect=tests/core/test_stateful.py --deselect=" in done.stdout
    assert "$(" not in re.sub(r"\$\((?:\.ci/pythons|\$python|date)", "", done.stdout)


@pytest.mark.parametrize("make", MAKES)
def test_a_first_demo_installs_the_package_alone(make: str, tmp_path: Path) -> None:
    recipe = run(make, "-n", "demo-here", f"VENV={tmp_path}/.venv-demo", "EXTRAS=").stdout
    assert re.search(r"pip install --quiet --editable '\.'$", recipe, re.MULTILINE)
    assert recipe.rstrip().endswith("/.venv-demo/bin/mbufpools demo")
    demo = (ROOT / "Makefile").read_text("utf-8").partition("\ndemo:")[2].partition("\n\n")[0]
    assert "VENV=.venv-demo EXTRAS= demo-here" in demo


@pytest.mark.parametrize("make", MAKES)
def test_without_a_python_that_will_do_one_line_says_what_to_do(make: str, tmp_path: Path) -> None:
    done = run(make, "demo-here", f"VENV={tmp_path}/.venv", "PYTHON=/nowhere/python3")
    assert done.returncode != 0
    assert (
        "error: no Python 3.11 or later that can make a venv; install one, or: "
        "make PYTHON=/path/to/python3\n"
    ) in done.stderr
