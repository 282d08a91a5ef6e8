"""The import graph, read from the source, points down; and `__all__` is true.

There are two graphs: of the imports that run, and of all, with those for the type checker. The
first has no cycle. The second has the one that `mbufpools/__init__.py` names.
"""

from __future__ import annotations

import ast
import graphlib
import importlib
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

import mbufpools

ROOT = Path(mbufpools.__file__).parent

CORE = [
    "_errors",
    "_sizes",
    "_log",
    "_statistics",
    "_events",
    "_waits",
    "_memory",
    "_budget",
    "_policies",
    "_window",
    "_page",
    "_request",
    "_owner_loop",
    "_taskq",
    "_debug",
    "_set_state",
    "_lease",
    "_reservation",
    "_spec",
    "_supply",
    "_buffer",
    "_wait_queues",
    "_order",
    "_reclaim",
    "_waiters",
    "_pool",
    "_pool_cache",
    "_cached_pool",
    "_explain",
    "_bufferpools",
    "mbufs",
]
ON_TOP = [
    "lab",
    "_lab_hooks",
    "smp",
    "net",
    "traces",
    "demokit",
    "examples",
    "experiment",
    "cli",
    "__main__",
]

ORDER = [*CORE, "mbufpools", *ON_TOP]
"""Each module or sub-package imports only those before it; ``mbufpools`` is the package's own
`__init__`."""

STANDS_ON: dict[str, set[str]] = {
    "lab": set(),
    "_lab_hooks": {*CORE, "mbufpools", "lab"},
    "smp": {"lab", "_pool_cache"},
    "net": {*CORE, "mbufpools"},
    "traces": {*CORE, "mbufpools"},
    "demokit": {*CORE, "mbufpools", "lab"},
    "examples": {"demokit"},
    "experiment": {*CORE, "mbufpools", "lab", "demokit"},
    "cli": {*CORE, "mbufpools", "lab", "smp", "net", "traces", "demokit", "examples", "experiment"},
}
"""What each sub-package may import of the rest."""


def module_names(root: Path) -> dict[str, Path]:
    """Every module below a package's folder, by dotted name."""
    names = {}
    for path in sorted(root.rglob("*.py")):
        parts = (root.name, *path.relative_to(root).with_suffix("").parts)
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def import_statements(
    nodes: Iterable[ast.AST], *, for_types: bool = False
) -> Iterator[ast.Import | ast.ImportFrom]:
    """All imports that run, also inside functions; with `for_types` those of ``if TYPE_CHECKING:``,
    too."""
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif (
            not for_types and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        ):
            yield from import_statements(node.orelse)
        else:
            yield from import_statements(ast.iter_child_nodes(node), for_types=for_types)


def imported_names(
    name: str, modules: dict[str, Path], *, for_types: bool = False
) -> Iterator[tuple[str, str]]:
    """What a module imports: by dotted name a module where there is one, else its package; and
    the name that is taken from it, if there is one."""
    tree = ast.parse(modules[name].read_text("utf-8"))
    for node in import_statements([tree], for_types=for_types):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
            continue
        package = name.split(".")
        if modules[name].name != "__init__.py":
            package.pop()
        above = package[: len(package) - node.level + 1] if node.level else []
        source = ".".join([*above, *([node.module] if node.module else [])])
        for alias in node.names:
            submodule = f"{source}.{alias.name}"
            yield (submodule, "") if submodule in modules else (source, alias.name)


def import_graph(root: Path, *, for_types: bool = False) -> dict[str, set[str]]:
    modules = module_names(root)
    return {
        name: {source for source, _ in imported_names(name, modules, for_types=for_types)}
        for name in modules
    }


def cycles(graph: dict[str, set[str]]) -> list[set[str]]:
    """The sets of several modules that all reach each other."""
    reached: dict[str, set[str]] = {}
    for start in graph:
        found: set[str] = set()
        ahead = [start]
        while ahead:
            new = (graph[ahead.pop()] & graph.keys()) - found
            found |= new
            ahead += new
        reached[start] = found
    groups: list[set[str]] = []
    for name in graph:
        group = {other for other in reached[name] if name in reached[other]}
        if group and group not in groups:
            groups.append(group)
    return groups


def part_of(module: str) -> str:
    """The part of the library that a module of it belongs to: itself, if it is one of the core,
    or the sub-package."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else parts[0]


def is_ours(module: str) -> bool:
    return module.split(".")[0] == "mbufpools"


MODULES = module_names(ROOT)
GRAPH = import_graph(ROOT)
GRAPH_WITH_TYPES = import_graph(ROOT, for_types=True)


def test_no_import_cycle() -> None:
    told = ""
    try:
        graphlib.TopologicalSorter(GRAPH).prepare()
    except graphlib.CycleError as error:
        # Each module of the cycle is imported by the next one.
        told = ", which imports ".join(reversed(error.args[1])).replace(", which", "", 1)
    if told:
        pytest.fail(f"the imports have a cycle: {told}", pytrace=False)


def test_the_type_checkers_imports_add_no_cycle() -> None:
    found = [sorted(group) for group in cycles(GRAPH_WITH_TYPES)]
    assert not found, f"these modules import each other, if only for the type checker: {found}"


def test_the_package_says_what_each_module_holds() -> None:
    told = re.findall(r"^``(\w+)``", mbufpools.__doc__ or "", re.MULTILINE)
    missing = missing_rows(told)
    assert not missing, f"in src/mbufpools/__init__.py, {'; '.join(missing)}"
    assert told[: len(CORE)] == CORE, "the first table has the order of CORE, and nothing else"
    assert sorted(told[len(CORE) :]) == sorted(set(ON_TOP) - {"__main__"})


def test_in_the_table_of_the_design_each_module_imports_only_those_above_it() -> None:
    page = (ROOT.parents[1] / "docs" / "design.md").read_text(encoding="utf-8")
    table = page[page.index("\n## Modules\n") :]
    rows = [
        re.findall(r"`(_\w+)`", names)
        for names in re.findall(r"^\| (`_.*?) \|", table, re.MULTILINE)
    ]
    listed = [name for row in rows for name in row]
    assert len(listed) > 10
    above: set[str] = set()
    for row in rows:
        above.update(row)
        for name in row:
            imported = set(map(part_of, filter(is_ours, GRAPH_WITH_TYPES[f"mbufpools.{name}"])))
            assert not imported & set(listed) - above, name


def missing_rows(told: list[str]) -> list[str]:
    """Say where each row goes that the tables of the package's docstring lack."""
    return [
        f"add ``{name}`` to the table of the core, "
        + (f"after ``{CORE[place - 1]}``" if place else "as its first row")
        for place, name in enumerate(CORE)
        if name not in told
    ] + [
        f"add ``{name}`` to the table of what is on top of the core"
        for name in ON_TOP
        if name not in (*told, "__main__")
    ]


def test_a_missing_row_is_told_with_its_place() -> None:
    assert missing_rows([*CORE, *ON_TOP]) == []
    told = missing_rows([name for name in [*CORE, *ON_TOP] if name not in ("_sizes", "net")])
    assert told == [
        "add ``_sizes`` to the table of the core, after ``_errors``",
        "add ``net`` to the table of what is on top of the core",
    ]


def test_every_module_and_sub_package_has_its_place() -> None:
    unknown = {part_of(module) for module in GRAPH} - set(ORDER)
    assert not unknown, f"place these in ORDER, in {Path(__file__).name}: {sorted(unknown)}"


@pytest.mark.parametrize("module", GRAPH)
def test_imports_point_down(module: str) -> None:
    above = {*ORDER[: ORDER.index(part_of(module))], part_of(module)}
    for imported in filter(is_ours, GRAPH[module]):
        if part_of(imported) not in above:
            told = f"`{part_of(imported)}` is below `{part_of(module)}` in ORDER of test_imports.py"
            pytest.fail(f"{module} imports {imported}, but {told}", pytrace=False)


@pytest.mark.parametrize("package", STANDS_ON)
def test_a_sub_package_imports_only_what_it_stands_on(package: str) -> None:
    """`lab` imports nothing of mbufpools outside of lab, not for the type checker either."""
    others = {
        f"{module} imports {imported}"
        for module, names in GRAPH_WITH_TYPES.items()
        if part_of(module) == package
        for imported in filter(is_ours, names)
        if part_of(imported) not in STANDS_ON[package] | {package}
    }
    assert not others, (
        f"{'; '.join(sorted(others))}; what `{package}` may import is in STANDS_ON of this file"
    )


def test_every_sub_package_says_what_it_stands_on() -> None:
    assert set(STANDS_ON) == set(ON_TOP) - {"__main__"}


@pytest.mark.parametrize("module", [module for module in GRAPH if part_of(module) in CORE])
def test_the_core_needs_anyio_alone(module: str) -> None:
    outside = {name.split(".")[0] for name in GRAPH[module] if not is_ours(name)}
    assert outside <= sys.stdlib_module_names | {"anyio"}


@pytest.mark.parametrize("package", ["mbufpools", "mbufpools.lab"])
def test_an_import_loads_no_extra(package: str) -> None:
    program = f"import sys, {package}; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True
    ).stdout.split()
    assert package in loaded
    assert not {"matplotlib", "rich", "trio", "uvloop"}.intersection(loaded)


# --- __all__


@pytest.mark.parametrize("name", [name for name in GRAPH if not name.endswith("__main__")])
def test_every_name_in_all_exists_once(name: str) -> None:
    module = importlib.import_module(name)
    promised = getattr(module, "__all__", [])
    assert len(promised) == len(set(promised))
    assert not [each for each in promised if not hasattr(module, each)]


def test_what_modules_of_the_core_import_from_each_other_is_in_all() -> None:
    missing = {
        (source, name)
        for module in GRAPH
        if part_of(module) in CORE
        for source, name in imported_names(module, MODULES, for_types=True)
        if is_ours(source) and name not in importlib.import_module(source).__all__
    }
    assert not missing


@pytest.mark.parametrize("package", ["mbufpools", "mbufpools.lab"])
def test_nothing_public_is_missing_from_all(package: str) -> None:
    module = importlib.import_module(package)
    of_python = {"Any", "TYPE_CHECKING", "annotations"}
    public = {
        name
        for name in dir(module)
        if not name.startswith("_") and not isinstance(getattr(module, name), ModuleType)
    }
    assert public - of_python == set(module.__all__)


# --- the test's own eyes


@pytest.mark.parametrize(
    ("source", "imported"),
    [
        ("from . import b", "pkg.b"),
        ("from .b import thing", "pkg.b"),
        ("import pkg.b", "pkg.b"),
        ("from pkg import b", "pkg.b"),
        ("from . import thing", "pkg"),
        ("def f():\n    from .b import thing", "pkg.b"),
        ("try:\n    import pkg.b\nexcept ImportError:\n    pass", "pkg.b"),
        ("from .sub import thing", "pkg.sub"),
        ("if TYPE_CHECKING:\n    from . import b\nelse:\n    import os", "os"),
    ],
)
def test_an_import_is_seen_wherever_it_hides(source: str, imported: str, tmp_path: Path) -> None:
    root = tmp_path / "pkg"
    (root / "sub").mkdir(parents=True)
    (root / "__init__.py").touch()
    (root / "a.py").write_text(source, "utf-8")
    (root / "b.py").touch()
    (root / "sub" / "__init__.py").write_text("from .. import a", "utf-8")
    graph = import_graph(root)
    assert graph["pkg.a"] == {imported}
    assert graph["pkg.sub"] == {"pkg.a"}


def test_a_cycle_through_an_import_for_the_type_checker_is_found_in_the_second_graph(
    tmp_path: Path,
) -> None:
    root = tmp_path / "pkg"
    root.mkdir()
    (root / "a.py").write_text("if TYPE_CHECKING:\n    from . import b", "utf-8")
    (root / "b.py").write_text("from . import a", "utf-8")
    (root / "c.py").write_text("from . import a, b", "utf-8")
    assert cycles(import_graph(root)) == []
    assert cycles(import_graph(root, for_types=True)) == [{"pkg.a", "pkg.b"}]


def test_a_cycle_through_a_function_is_found(tmp_path: Path) -> None:
    root = tmp_path / "pkg"
    root.mkdir()
    (root / "a.py").write_text("from . import b", "utf-8")
    (root / "b.py").write_text("def f():\n    from . import a", "utf-8")
    with pytest.raises(graphlib.CycleError):
        graphlib.TopologicalSorter(import_graph(root)).prepare()
