"""The page on mutation testing explains mutants of the code that is there."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

import mbufpools

DOCS = Path(__file__).resolve().parents[2] / "docs"


def _summary() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_mutants", DOCS / "mutants.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclass looks there for what its annotations mean
    spec.loader.exec_module(module)
    return module


SUMMARY = _summary()


def _functions() -> dict[str, set[str]]:
    """The lines of every function of the core, without indentation, by its name in its class."""
    lines: dict[str, set[str]] = {}
    for path in Path(mbufpools.__file__).parent.glob("*.py"):
        text = path.read_text("utf-8")
        tree = ast.parse(text)
        scopes = [("", tree.body)]
        scopes += [(f"{n.name}.", n.body) for n in tree.body if isinstance(n, ast.ClassDef)]
        for prefix, body in scopes:
            for node in body:
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    span = text.splitlines()[node.lineno - 1 : node.end_lineno]
                    lines.setdefault(prefix + node.name, set()).update(map(str.strip, span))
    return lines


def test_each_mutant_that_the_page_explains_changes_a_line_that_is_there() -> None:
    functions = _functions()
    explained = SUMMARY.explained((DOCS / "mutation.md").read_text("utf-8"))
    assert explained
    for change in explained:
        assert change.removed
        assert set(change.removed) <= functions[change.function], str(change)


def test_a_block_may_explain_several_mutants() -> None:
    page = "Words.\n\n```diff\n@@ A.b @@\n-x < 1\n+x <= 1\n@@ c @@\n-y\n-z\n+\n```\n\n- no diff\n"
    first, second = SUMMARY.explained(page)
    assert first == ("A.b", ("x < 1",), ("x <= 1",))
    assert second == ("c", ("y", "z"), ("",))


def test_the_name_of_a_mutant_tells_its_function() -> None:
    name_of, pattern_of = SUMMARY.name_of, SUMMARY.pattern_of
    assert name_of("mbufpools._pool.xǁPoolǁ_get__mutmut_12") == "mbufpools._pool:Pool._get"
    assert pattern_of("mbufpools._pool:Pool._get") == "mbufpools._pool.xǁPoolǁ_get__mutmut_*"
    assert name_of("mbufpools._waiters.x__number__mutmut_1") == "mbufpools._waiters:_number"
    assert pattern_of("mbufpools._waiters:_number") == "mbufpools._waiters.x__number__mutmut_*"


BEFORE = """
class A:
    def b(self):
        return 1

if VERSION:
    def c():
        return 2
"""


@pytest.mark.parametrize(
    ("line", "instead", "changed"),
    [
        ("return 1", "return 3", {"m:A.b"}),
        ("return 2", "return 3", {"m:c"}),
        ("return 1", "return 1  # a comment", set()),
        ("return 1", '"""A docstring."""\n        return 1', set()),
    ],
)
def test_a_function_is_tested_again_only_if_its_code_has_changed(
    line: str, instead: str, changed: set[str]
) -> None:
    before = dict(SUMMARY.codes_of("m", BEFORE))
    after = dict(SUMMARY.codes_of("m", BEFORE.replace(line, instead)))
    assert before.keys() == after.keys() == {"m:A.b", "m:c"}
    assert {name for name in after if after[name] != before[name]} == changed


def test_the_kept_results_are_read_as_they_were_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = {
        "m:A.b": SUMMARY.Results("0123456789ab", 12, ["@@ A.b @@\n-x < 1\n+x <= 1"]),
        "m:c": SUMMARY.Results("ba9876543210"),
    }
    monkeypatch.setattr(SUMMARY, "RECORD", tmp_path / "mutants.json")
    SUMMARY.save(record)
    assert SUMMARY.load(SUMMARY.RECORD.read_text("utf-8")) == record


@pytest.mark.parametrize(
    ("survived", "untested", "expected"),
    [
        ("@@ A.b @@\n-x < 1\n+x <= 1", [], 0),
        ("@@ A.b @@\n-x < 1\n+x > 1", [], 1),
        ("@@ A.b @@\n-x < 1\n+x <= 1", ["m:d"], 1),
    ],
)
def test_a_run_fails_if_a_survivor_has_no_reason_or_a_function_was_not_tested(
    survived: str,
    untested: list[str],
    expected: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    page = tmp_path / "page.md"
    page.write_text("A reason.\n\n```diff\n@@ A.b @@\n-x < 1\n+x <= 1\n```\n", "utf-8")
    monkeypatch.setattr(SUMMARY, "PAGE", page)
    record = {"m:A.b": SUMMARY.Results("0123456789ab", 12, [survived])}
    assert SUMMARY.summary(record, untested) == expected


def test_a_diff_is_read_without_its_file_names_and_its_indentation() -> None:
    diff = "--- src/a.py\n+++ src/a.py\n@@ -1,2 +1,2 @@\n     same\n-    if x:\n+    if not x:\n"
    assert SUMMARY.change_of("f", diff) == ("f", ("if x:",), ("if not x:",))
