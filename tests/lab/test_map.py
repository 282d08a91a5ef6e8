"""The map in the lab's docstring lists every module, and each imports only modules above it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from mbufpools import lab

FOLDER = Path(lab.__file__).parent
MAP = re.findall(r"^``(\w+)``  ", lab.__doc__ or "", re.MULTILINE)


def imports_of(module: str) -> Iterator[str]:
    """Yield the modules of the lab that a module imports, also inside functions."""
    for node in ast.walk(ast.parse((FOLDER / f"{module}.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            names = [node.module] if node.module else [alias.name for alias in node.names]
            yield from (name.partition(".")[0] for name in names)


def test_the_map_lists_every_module_once() -> None:
    modules = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")
    assert sorted(MAP) == modules


@pytest.mark.parametrize("module", MAP)
def test_a_module_imports_only_modules_above_it(module: str) -> None:
    above = MAP[: MAP.index(module)]
    below = [name for name in imports_of(module) if name not in above]
    assert not below, f"{module} imports {', '.join(below)}"
