"""The page for contributors names only what exists: files, folders and targets of `make`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
FOLDERS = ("src", "tests", "docs", "demos", "benchmarks", "release", ".ci")
PATHS = sorted(
    set(re.findall(rf"(?<![\w/.])(?:{'|'.join(map(re.escape, FOLDERS))})/[\w./-]*", PAGE))
)
TARGETS = sorted(set(re.findall(r"\bmake\s([a-z-]+)", PAGE)) - {"alone", "lists"})


def test_the_page_names_every_folder_of_the_package_and_of_the_tests() -> None:
    for parent in (ROOT / "src" / "mbufpools", ROOT / "tests"):
        for folder in parent.iterdir():
            if folder.is_dir() and any(folder.glob("*.py")):
                assert f"`{folder.relative_to(ROOT).as_posix()}/`" in PAGE


@pytest.mark.parametrize("path", PATHS)
def test_each_path_that_the_page_names_exists(path: str) -> None:
    assert (ROOT / path.rstrip(".")).exists()


@pytest.mark.parametrize("target", TARGETS)
def test_each_target_that_the_page_names_is_in_the_makefile(target: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{target}:", makefile, re.MULTILINE)
