"""The page on mutation testing explains mutants of the code that is there."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from types import ModuleType

import mbufpools

DOCS = Path(__file__).resolve().parents[2] / "docs"


def _summary() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mutants", DOCS / "mutants.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
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
    assert SUMMARY.function_of("mbufpools._pool.xǁPoolǁ_get__mutmut_12") == "Pool._get"
    assert SUMMARY.function_of("mbufpools._waiters.x__number__mutmut_1") == "_number"


def test_a_diff_is_read_without_its_file_names_and_its_indentation() -> None:
    diff = "--- src/a.py\n+++ src/a.py\n@@ -1,2 +1,2 @@\n     same\n-    if x:\n+    if not x:\n"
    assert SUMMARY.change_of("f", diff) == ("f", ("if x:",), ("if not x:",))
