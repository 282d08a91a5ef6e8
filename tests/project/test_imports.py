"""The import graph, read from the source, points down; and `__all__` is true."""

from __future__ import annotations

import ast
import graphlib
import importlib
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
    "_statistics",
    "_events",
    "_memory",
    "_budget",
    "_policies",
    "_page",
    "_request",
    "_owner_loop",
    "_taskq",
    "_debug",
    "_set_state",
    "_buffer",
    "_reservation",
    "_spec",
    "_wait_queues",
    "_waiters",
    "_pool",
    "_explain",
    "_bufferpools",
    "mbufs",
]
ON_TOP = ["lab", "_lab_hooks", "smp", "net", "traces", "demokit", "cli", "__main__"]

ORDER = [*CORE, "mbufpools", *ON_TOP]
"""Each room uses only those before it; ``mbufpools`` is the package's own `__init__`."""


def module_names(root: Path) -> dict[str, Path]:
    """Every module below a package's folder, by dotted name."""
    names = {}
    for path in sorted(root.rglob("*.py")):
        parts = (root.name, *path.relative_to(root).with_suffix("").parts)
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def import_statements(nodes: Iterable[ast.AST]) -> Iterator[ast.Import | ast.ImportFrom]:
    """All that run, also inside functions: not those of ``if TYPE_CHECKING:``."""
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from import_statements(node.orelse)
        else:
            yield from import_statements(ast.iter_child_nodes(node))


def imported_by(name: str, modules: dict[str, Path]) -> set[str]:
    """What a module imports, by dotted name: a module where there is one, else its package."""
    found: set[str] = set()
    for node in import_statements([ast.parse(modules[name].read_text("utf-8"))]):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
            continue
        package = name.split(".")
        if modules[name].name != "__init__.py":
            package.pop()
        above = package[: len(package) - node.level + 1] if node.level else []
        source = ".".join([*above, *([node.module] if node.module else [])])
        for alias in node.names:
            submodule = f"{source}.{alias.name}"
            found.add(submodule if submodule in modules else source)
    return found


def import_graph(root: Path) -> dict[str, set[str]]:
    modules = module_names(root)
    return {name: imported_by(name, modules) for name in modules}


def room_of(module: str) -> str:
    """The room of one of our modules: a core module, or a whole package on top."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else parts[0]


def is_ours(module: str) -> bool:
    return module.split(".")[0] == "mbufpools"


GRAPH = import_graph(ROOT)


def test_no_import_cycle() -> None:
    graphlib.TopologicalSorter(GRAPH).prepare()


def test_every_room_has_its_place() -> None:
    unknown = {room_of(module) for module in GRAPH} - set(ORDER)
    assert not unknown, f"place these in ORDER, in {Path(__file__).name}: {sorted(unknown)}"


@pytest.mark.parametrize("module", GRAPH)
def test_imports_point_down(module: str) -> None:
    place = ORDER.index(room_of(module))
    for imported in filter(is_ours, GRAPH[module]):
        if room_of(imported) != room_of(module):
            assert ORDER.index(room_of(imported)) < place, f"{module} imports {imported}"


@pytest.mark.parametrize("module", [module for module in GRAPH if room_of(module) in CORE])
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


@pytest.mark.parametrize("package", ["mbufpools", "mbufpools.lab"])
def test_nothing_public_is_missing_from_all(package: str) -> None:
    module = importlib.import_module(package)
    public = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and not isinstance(value, ModuleType) and name != "annotations"
    }
    assert public == set(module.__all__)


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


def test_a_cycle_through_a_function_is_found(tmp_path: Path) -> None:
    root = tmp_path / "pkg"
    root.mkdir()
    (root / "a.py").write_text("from . import b", "utf-8")
    (root / "b.py").write_text("def f():\n    from . import a", "utf-8")
    with pytest.raises(graphlib.CycleError):
        graphlib.TopologicalSorter(import_graph(root)).prepare()
