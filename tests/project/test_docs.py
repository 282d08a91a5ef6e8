"""The documents are true: the names that they point to exist, and their output is the output."""

from __future__ import annotations

import importlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _places() -> list[str]:
    text = (ROOT / "docs" / "kernel-map.md").read_text(encoding="utf-8")
    return re.findall(r"^\|.*\| `([\w.]+)` \|$", text, re.MULTILINE)


def test_the_kernel_map_has_rows() -> None:
    assert len(_places()) > 30


@pytest.mark.parametrize("place", _places())
def test_each_name_in_the_kernel_map_exists(place: str) -> None:
    module, *names = place.split(".")
    found = importlib.import_module(f"mbufpools.{module}")
    for name in names:
        found = getattr(found, name)


PRODUCED = [
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    if re.search(r"^<!-- (produced|shown)", path.read_text(encoding="utf-8"), re.MULTILINE)
]
LONG = {"docs/zoo.md"}
"""The tests of the zoo have a bound for each figure of its page."""


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(name, marks=[pytest.mark.prove] if name in LONG else [], id=name)
        for name in PRODUCED
    ],
)
def test_the_output_in_a_document_is_the_output(document: str) -> None:
    check = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "produce.py"), "--check", str(ROOT / document)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert check.returncode == 0, check.stdout + check.stderr


@pytest.fixture(scope="module")
def produce() -> Any:
    """The module docs/produce.py, which is in no package."""
    spec = importlib.util.spec_from_file_location("produce", ROOT / "docs" / "produce.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_check_shows_the_lines_that_are_out_of_date(
    produce: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(produce, "ROOT", tmp_path)
    page = tmp_path / "page.md"
    begin = "<!-- produced by: python -c 'print(1)' -->\n```text\n"
    page.write_text(f"{begin}2\n```\n<!-- end -->\n", encoding="utf-8")
    assert produce.main(["--check", str(page)]) == 1
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == "page.md was out of date; run `.venv/bin/python docs/produce.py page.md`"
    assert [line for line in lines if line[0] in "-+"] == [
        *("--- page.md", "+++ page.md, as produced", "-2", "+1")
    ]
    assert produce.main([str(page)]) == 0
    assert capsys.readouterr().out == "page.md was out of date; updated\n"
    assert produce.main(["--check", str(page)]) == 0
    assert capsys.readouterr().out == ""


def test_a_command_that_ends_in_a_traceback_produces_nothing(produce: Any) -> None:
    assert produce.run("python -c 'print(1); raise SystemExit(1)'") == "1\n"
    with pytest.raises(RuntimeError, match="NameError"):
        produce.run("python -c unknown")


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize(
    ("document", "prints"), [("README.md", ""), ("docs/application.md", "b'hello'\n")]
)
def test_the_application_in_a_document_runs(document: str, prints: str, backend: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    (program,) = re.findall(
        r"```python\n(import [^`]*?\nanyio\.run\(main\)[^`]*)```", text, re.DOTALL
    )
    program = program.replace("anyio.run(main)", f"anyio.run(main, backend={backend!r})")
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, prints, "")
