"""What a checker of types sees of the package from outside.

`make release-check` asks pyright and mypy about the wheel. These tests keep, without either, what
pyright asks for: each name in a public signature can be imported, and no type is left to be
inferred, which two checkers may do differently.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.project import user_program

SOURCE = Path(__file__).resolve().parents[2] / "src"
PACKAGES = [
    "mbufpools",
    "mbufpools.mbufs",
    "mbufpools.net",
    "mbufpools.lab",
    "mbufpools.lab.engine",
    "mbufpools.lab.hooks",
    "mbufpools.lab.pytest_plugin",
    "mbufpools.smp",
    "mbufpools.traces",
    "mbufpools.experiment",
    "mbufpools.experiment.questions",
    "mbufpools.experiment.report",
    "mbufpools.demokit",
]


def test_the_package_says_that_it_is_typed() -> None:
    assert (SOURCE / "mbufpools" / "py.typed").is_file()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_program_of_a_user_runs(backend: str) -> None:
    anyio.run(user_program.main, backend=backend)


# --- the names in public signatures


def names_in(annotation: str) -> set[str]:
    """The plain names in an annotation, also in those that are quoted."""
    tree = ast.parse(annotation.removeprefix("*"), mode="eval")
    found = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            try:
                found |= names_in(node.value)
            except SyntaxError:  # a word of a Literal
                continue
    return found


def signatures(module: Any) -> Iterator[tuple[str, Any]]:
    """Yield each public function, class and method of a module, with its name."""
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isfunction(value) or inspect.isclass(value):
            yield name, value
        if inspect.isclass(value):
            for attribute, member in vars(value).items():
                function = getattr(member, "fget", getattr(member, "__func__", member))
                if inspect.isfunction(function) and (
                    not attribute.startswith("_") or attribute in ("__init__", "__call__")
                ):
                    yield f"{name}.{attribute}", function


@pytest.mark.parametrize("package", PACKAGES)
def test_each_alias_in_a_public_signature_can_be_imported(package: str) -> None:
    public = [importlib.import_module(each) for each in PACKAGES]
    missing = set()
    for where, value in signatures(importlib.import_module(package)):
        for annotation in inspect.get_annotations(value).values():
            for name in names_in(annotation) if isinstance(annotation, str) else ():
                found = vars(sys.modules[value.__module__]).get(name)
                is_alias = bool(getattr(found, "__args__", ()))
                if is_alias and not any(
                    name in each.__all__ and getattr(each, name) is found for each in public
                ):
                    missing.add((where, name))
    assert not missing


# --- no type is left to be inferred


@cache
def source_of(module: str) -> ast.Module:
    return ast.parse(Path(str(sys.modules[module].__file__)).read_text("utf-8"))


def set_without_type(cls: type) -> Iterator[str]:
    """Yield the public attributes that ``__init__`` of a class sets, and whose type is not said."""
    tree = next(
        node
        for node in source_of(cls.__module__).body
        if isinstance(node, ast.ClassDef) and node.name == cls.__name__
    )
    said = {name for each in cls.__mro__ for name in inspect.get_annotations(each)} | {
        node.target.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Attribute)
    }
    for method in tree.body:
        if isinstance(method, ast.FunctionDef) and method.name == "__init__":
            assigned = [node for node in ast.walk(method) if isinstance(node, ast.Assign)]
            for target in (
                it for node in assigned for each in node.targets for it in ast.walk(each)
            ):
                if (
                    isinstance(target, ast.Attribute)
                    and ast.unparse(target.value) == "self"
                    and not target.attr.startswith("_")
                    and target.attr not in said
                ):
                    yield f"{cls.__name__}.{target.attr}"


@pytest.mark.parametrize("package", PACKAGES)
def test_each_attribute_of_a_public_class_has_a_type_that_is_written_down(package: str) -> None:
    module = importlib.import_module(package)
    classes = [value for _, value in signatures(module) if inspect.isclass(value)]
    ours = [cls for cls in classes if cls.__module__.startswith("mbufpools")]
    assert [name for cls in ours for name in set_without_type(cls)] == []
