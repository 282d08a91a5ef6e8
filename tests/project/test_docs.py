"""The documents are true: the names that they point to exist, and their output is the output."""

from __future__ import annotations

import enum
import importlib
import importlib.util
import pydoc
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from mbufpools import CurPage, Drain, Order, Reclaim, Wakeup
from mbufpools.lab import _pytest_options
from mbufpools.lab._token import parse_token, spell_token

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


AS_THE_KERNEL_IS = {CurPage.STALE, Drain.NEVER, Reclaim.GC}
"""They are no cure, so they cost the kernel nothing."""
TABLES: list[tuple[str, str, Iterable[enum.StrEnum]]] = [
    ("README.md", '| `"{}"` |', Wakeup),
    ("docs/application.md", '| `"{}"`', Order),
    ("docs/kernel-map.md", '| `wakeup="{}"` |', Wakeup),
    ("docs/kernel-map.md", '| `curpage="{}"` |', {*CurPage} - AS_THE_KERNEL_IS),
    ("docs/kernel-map.md", '| `drain="{}"` |', {*Drain} - AS_THE_KERNEL_IS),
    ("docs/kernel-map.md", '| `reclaim="{}"` |', {*Reclaim} - AS_THE_KERNEL_IS),
]
"""A page, how a row of its table begins, and the policies of which each has one."""


@pytest.mark.parametrize(("page", "row", "policies"), TABLES)
def test_each_policy_has_a_row_in_the_table_that_compares_them(
    page: str, row: str, policies: Iterable[enum.StrEnum]
) -> None:
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    missing = [
        row.format(policy)
        for policy in policies
        if not any(line.startswith(row.format(policy)) for line in lines)
    ]
    assert not missing, f"{page} needs rows that begin with {missing}"


PRODUCED = [
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    if re.search(r"^<!-- (produced|shown)", path.read_text(encoding="utf-8"), re.MULTILINE)
]
LONG = {"docs/smp.md", "docs/zoo.md"}
"""The tests of the zoo have a bound for each figure of its page, and those of the SMP model go
through the same schedules as its page."""


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


def test_a_command_that_writes_to_stderr_produces_nothing(produce: Any) -> None:
    """A reader who types the command would see that, too."""
    with pytest.raises(RuntimeError, match="exits with 0, and writes to stderr:\nstill out"):
        produce.run("python -c 'import sys; sys.stderr.write(\"still out\")'")


# What a reader needs to go on from a page


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize(
    "page",
    [
        *("application.md", "pytest.md", "tutorials/app.md", "tutorials/race.md"),
        *(f"howto/{page.name}" for page in sorted((ROOT / "docs" / "howto").glob("*.md"))),
    ],
)
def test_a_page_for_users_leads_to_the_reference(page: str) -> None:
    assert re.search(r"\]\((?:\.\./)?reference/", (ROOT / "docs" / page).read_text("utf-8"))


def test_each_name_that_pydoc_is_to_print_exists() -> None:
    found = 0
    for page in PAGES:
        for name in re.findall(r"python -m pydoc\s+([\w.]+)", page.read_text("utf-8")):
            assert pydoc.locate(name) is not None, f"{page.name}: {name}"
            found += 1
    assert found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_page_that_uses_the_lab_by_its_short_name_says_how_to_import_it(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    if re.search(r"(?:^|`|= )lab\.[a-zA-Z]", text, re.MULTILINE):
        assert re.search(r"from mbufpools import (?:\w+, )*lab\b|`mbufpools\.lab", text)


def test_each_program_that_a_page_explores_is_an_example_or_is_shown() -> None:
    found = 0
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for file, name in re.findall(r"^\$ mbufpools explore (\S+\.py):(\w+)", text, re.MULTILINE):
            source = (ROOT / "docs" / "examples" / file).read_text(encoding="utf-8")
            assert f"\nasync def {name}(" in source, f"{page.name}: {file}:{name}"
            found += 1
    assert found > 3


def test_the_tokens_that_the_page_of_the_lab_explains_are_tokens() -> None:
    text = (ROOT / "docs" / "lab.md").read_text(encoding="utf-8")
    section = text[text.index("## What a token says") :].partition("\n## ")[0]
    deviations = re.findall(r"`([\d.]+@\d+[^`]*[>!=][^`]+)`", section)
    assert {"0.0@2>0.1", "0.0@3!0.1/scope", "0.0@3'>0.1", "0@2?=1"} <= set(deviations)
    for deviation in deviations:
        assert spell_token(*parse_token(f"asyncio:{deviation}")) == f"asyncio:{deviation}"
    for rule in re.findall(r"`(asyncio/[\w-]+:)`", section):
        assert spell_token(*parse_token(rule)) == rule


def test_the_options_in_the_table_of_explored_tests_are_those_of_the_plugin(
    pytestconfig: pytest.Config,
) -> None:
    text = (ROOT / "docs" / "pytest.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| (?:`--([\w-]+)[^`]*`)? ?\| (?:`(\w+)`)? ?\| (?:`(\w+)`)? ?\|", text, re.MULTILINE
    )
    in_ini = {ini: mark for _, mark, ini in rows if ini}
    assert in_ini == {**_pytest_options.INI, "explore_backends": "backends"}
    commanded = {option.replace("-", "_"): mark for option, mark, _ in rows if option}
    assert {it: mark for it, mark in commanded.items() if mark} == _pytest_options.COMMAND
    for option in commanded:
        pytestconfig.getoption(option)  # raises ValueError if there is none
    marks = {mark: None for _, mark, _ in rows if mark}
    assert _pytest_options.of_marks([pytest.mark.explore(**marks).mark]) == marks


# The programs of the pages


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize(
    ("document", "prints"),
    [("README.md", "1048576 bytes at most\n"), ("docs/application.md", "b'hello'\n")],
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
