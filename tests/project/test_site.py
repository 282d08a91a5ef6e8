"""The reference has every public name, and the long description of the package has no dead link.

The site itself is built by `make site`, for which a warning is an error. These tests need no
Sphinx: they compare the sources of the reference with `__all__`.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

import mbufpools

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference"
NEEDS = {"mbufpools.experiment.report": "matplotlib"}
"""Public modules that need an extra."""


def public_modules() -> Iterator[str]:
    """Every module of the package whose path has no name with an underscore."""
    yield "mbufpools"
    folders = [(Path(mbufpools.__file__).parent, "mbufpools.")]
    while folders:
        folder, prefix = folders.pop()
        for found in pkgutil.iter_modules([str(folder)], prefix):
            if not found.name.rpartition(".")[2].startswith("_"):
                yield found.name
                if found.ispkg:
                    folders.append((folder / found.name.rpartition(".")[2], f"{found.name}."))


def documented_names() -> list[str]:
    text = "".join(page.read_text(encoding="utf-8") for page in sorted(REFERENCE.glob("*.rst")))
    return re.findall(
        r"^\.\. auto(?:class|function|data|exception):: ([\w.]+)$", text, re.MULTILINE
    )


def value_of(name: str) -> object:
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


DOCUMENTED = documented_names()


def test_the_public_modules_are_found() -> None:
    found = set(public_modules())
    assert {"mbufpools", "mbufpools.net", "mbufpools.lab.engine", "mbufpools.examples"} <= found


@pytest.mark.parametrize("module", [*public_modules()])
def test_every_public_name_is_in_the_reference(module: str) -> None:
    if module in NEEDS:
        pytest.importorskip(NEEDS[module])
    values = {id(value_of(name)) for name in DOCUMENTED if name.rpartition(".")[0] not in NEEDS}
    missing = [
        name
        for name in getattr(importlib.import_module(module), "__all__", [])
        if f"{module}.{name}" not in DOCUMENTED and id(value_of(f"{module}.{name}")) not in values
    ]
    assert not missing, f"add these to a page of docs/reference: {missing}"


def undocumented(owner: object, names: Iterable[str]) -> Iterator[str]:
    """Those of the names that are a class, a method, a property or a function without a docstring.
    A method may have that of the base class."""
    for name in names:
        value = getattr(owner, name)
        if inspect.isclass(value):
            text = value.__doc__ or ""
            if not text or text.startswith(f"{name}("):  # the one that a dataclass has by itself
                yield name
            public = [member for member in vars(value) if not member.startswith("_")]
            yield from (f"{name}.{member}" for member in undocumented(value, public))
        elif (inspect.isroutine(value) or isinstance(value, property)) and not inspect.getdoc(
            value
        ):
            yield name


@pytest.mark.parametrize("module", [*public_modules()])
def test_every_public_name_and_method_has_a_docstring(module: str) -> None:
    """Ruff cannot check it: it takes all that a module such as `_pool` defines for private."""
    if module in NEEDS:
        pytest.importorskip(NEEDS[module])
    found = importlib.import_module(module)
    missing = [*undocumented(found, getattr(found, "__all__", []))]
    assert found.__doc__
    assert not missing, f"write a docstring for each of these of {module}: {missing}"


def test_a_missing_docstring_is_found() -> None:
    @dataclass
    class Plain:
        number: int

        def told(self) -> None:
            """Has one."""

        def untold(self) -> None:
            pass

        @property
        def silent(self) -> None:
            pass

    names = [*undocumented(SimpleNamespace(Plain=Plain), ["Plain"])]
    assert names == ["Plain", "Plain.untold", "Plain.silent"]


def idle_strings(source: str) -> Iterator[int]:
    """The lines with a string that documents nothing: no module, class, function or attribute is
    right above it."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(source)):
        for block in ("body", "orelse", "finalbody"):
            statements = getattr(node, block, None)
            if not isinstance(statements, list):  # a lambda's body
                continue
            for above, statement in zip([None, *statements], statements, strict=False):
                match statement:
                    case ast.Expr(ast.Constant(str())):
                        if above is None and isinstance(node, documented):
                            continue
                        if not isinstance(above, ast.Assign | ast.AnnAssign):
                            yield statement.lineno


def test_each_string_of_the_source_documents_something() -> None:
    """A second docstring below one is what an edit forgot."""
    idle = [
        f"{path.relative_to(ROOT).as_posix()}:{line}"
        for path in sorted((ROOT / "src").rglob("*.py"))
        for line in idle_strings(path.read_text("utf-8"))
    ]
    assert not idle, f"join each of these strings to the one above it, or remove it: {idle}"


def test_a_string_that_documents_nothing_is_found() -> None:
    source = '''
"""Documents the module."""
"""Is the second one."""

def function():
    """Documents the function."""
    name = 1
    """Documents the name."""
    """Is the second one."""
    if name:
        """Is in a block."""
    call()
    """Is below a call."""
'''
    assert sorted(idle_strings(source)) == [3, 9, 11, 13]


SNAPSHOTS = [
    value_of(name)
    for name in DOCUMENTED
    if re.fullmatch(
        r"mbufpools\.(net\.)?(\w+Statistics|Explanation|WaitingRequest|Event|Holder)", name
    )
]


@pytest.mark.parametrize("snapshot", SNAPSHOTS, ids=lambda value: value.__name__)
def test_help_says_what_each_field_of_a_snapshot_means(snapshot: type) -> None:
    """Python keeps no string below a field, so pydoc cannot print it."""
    _, _, section = (inspect.getdoc(snapshot) or "").partition("\nAttributes:\n")
    described = re.findall(r"^ {4}(\w+): \S", section, re.MULTILINE)
    names = getattr(snapshot, "__match_args__")  # noqa: B009 - mypy knows no such name of a type
    assert described == [*names]


def test_the_snapshots_are_found() -> None:
    assert len(SNAPSHOTS) >= 11


def test_each_name_in_the_reference_is_public_and_there_once() -> None:
    assert sorted(DOCUMENTED) == sorted(set(DOCUMENTED))
    for name in DOCUMENTED:
        module, _, attribute = name.rpartition(".")
        if module not in NEEDS:
            assert attribute in importlib.import_module(module).__all__, name


def test_each_page_of_the_reference_is_in_its_list() -> None:
    listed = re.search(
        r"```\{toctree\}(.*?)```", (REFERENCE / "index.md").read_text("utf-8"), re.DOTALL
    )
    assert listed is not None
    pages = {line for line in listed[1].split() if not line.startswith(":")} - {"1"}
    assert pages == {page.stem for page in REFERENCE.glob("*.rst")}


def long_description() -> str:
    """What the built package shows, by the substitutions of pyproject.toml."""
    hooks = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["metadata"]
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for change in hooks["hooks"]["fancy-pypi-readme"]["substitutions"]:
        text = re.sub(change["pattern"], change["replacement"], text)
    return text


def test_the_long_description_has_no_link_to_a_file() -> None:
    text = long_description()
    assert re.findall(r"\]\((?!https?:)[^)]*\)|<(?:img|a) ", text) == []
    assert "![" not in text
    assert "](docs/" in (ROOT / "README.md").read_text(encoding="utf-8"), "in a checkout it has"


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
)
def test_each_link_of_a_page_leads_to_a_file_or_a_heading(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), f"{link}: no such file"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in map(slug, headings), f"{link}: no such heading"


def slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
