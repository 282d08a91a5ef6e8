"""Modules of which something survives an execution of the lab."""

from __future__ import annotations

import importlib
import itertools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

__all__ = ["imported"]

_numbers = itertools.count()


@contextmanager
def imported(source: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Import a source as a new module, from a file in a folder; at the end it is forgotten."""
    name = f"with_state_{next(_numbers)}"
    (folder / f"{name}.py").write_text(source, "utf-8")
    monkeypatch.syspath_prepend(folder)
    yield importlib.import_module(name)
    sys.modules.pop(name, None)
