"""Replaces functions of modules while the lab explores, and the copies that other modules hold.

A module that says ``from time import monotonic`` holds a copy of the function, and so does a
function with the default argument ``timer=time.monotonic``, a class, a dataclass with a
``default_factory=threading.Lock``, and a variable that is a ``defaultdict(threading.Lock)``. Copies
are looked for in all imported modules but those of Python itself and of tools that have to know the
real time. A module that is imported during the exploration copies the replacement; that copy is put
back at the end, too.

Copies elsewhere, such as in an instance or a list, are not found. So functions of C are redirected
instead (`_redirected`).

What a test has patched, such as ``monkeypatch.setattr(time, "time", fake)`` in a fixture, is the
test's: an attribute that is not what it was when the lab was imported (`known`) is left alone.
"""

from __future__ import annotations

import sys
import types
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["known", "original", "replaced"]

_SKIPPED = sys.stdlib_module_names | {
    "_mbufpools_pytest",
    "_pytest",
    "anyio",
    "coverage",
    "execnet",
    "hypothesis",
    "mbufpools",
    "pluggy",
    "pytest",
    "pytest_timeout",
    "sniffio",
    "trio",
    "xdist",
}

_Scanned = dict[str, tuple[object, dict[str, Any], int]]
_scanned: dict[frozenset[int], _Scanned] = {}
"""For the functions, by identity, that were looked for: the modules without a copy of any, each
with its variables and their number at that time."""
_kept: list[object] = []
"""Those functions themselves, so that their identities stay theirs."""
_NOTHING: dict[str, Any] = {}


_originals: dict[tuple[int, str], tuple[Any, Any]] = {}
"""What attributes were when the lab was imported, by their owner's identity and their name; with
the owner, so that its identity stays its own."""


def known(replacements: Iterable[tuple[Any, str, Any]]) -> None:
    """Note what attributes are, so that later ones are known to be patches of a test."""
    for owner, name, _ in replacements:
        _originals.setdefault((id(owner), name), (owner, getattr(owner, name)))


def original(owner: Any, name: str) -> Any:
    """Return what an attribute was when the lab was imported; or what it is, if that is not
    known."""
    noted = _originals.get((id(owner), name))
    return getattr(owner, name) if noted is None else noted[1]


@contextmanager
def replaced(
    replacements: Iterable[tuple[Any, str, Any]], *, copies: bool = True
) -> Iterator[None]:
    """Replace attributes, each given by its owner, its name and the new value; and all copies. An
    attribute that a test has patched stays so."""
    wanted = [(owner, name, original(owner, name), new) for owner, name, new in replacements]
    new_by_old = {id(old): new for _, _, old, new in wanted if copies and callable(new)}
    old_by_new = {id(new): old for _, _, old, new in wanted if copies and callable(new)}
    functions = frozenset(new_by_old)
    if functions not in _scanned:
        _kept.extend(old for _, _, old, _ in wanted)
    scanned = _scanned.setdefault(functions, {})
    if new_by_old:
        _replace_copies(new_by_old, scanned)
    named = [it for it in wanted if getattr(it[0], it[1]) is it[2]]
    for owner, name, _, new in named:
        setattr(owner, name, new)
    try:
        yield
    finally:
        for owner, name, old, _ in reversed(named):
            setattr(owner, name, old)
        if old_by_new:
            _replace_copies(old_by_new, scanned)


def _replace_copies(table: dict[int, Any], scanned: _Scanned) -> None:
    """Put another function in the place of each copy; the table has the new one by the identity of
    the old one."""
    for name, module in list(sys.modules.items()):
        before = scanned.get(name)
        if before is not None and before[0] is module and len(before[1]) == before[2]:
            continue
        variables = getattr(module, "__dict__", None)
        if name.partition(".")[0] in _SKIPPED or type(variables) is not dict:
            scanned[name] = module, _NOTHING, 0
        elif not _replace_in_module(name, variables, table):
            scanned[name] = module, variables, len(variables)


def _replace_in_module(name: str, variables: dict[str, Any], table: dict[int, Any]) -> bool:
    """Replace the copies of one module; return whether there were any."""
    found = False
    for variable, value in list(variables.items()):
        if id(value) in table:
            variables[variable] = table[id(value)]
            found = True
        elif isinstance(value, types.FunctionType):
            found |= _replace_in_function(value, table)
        elif isinstance(value, defaultdict) and id(value.default_factory) in table:
            value.default_factory = table[id(value.default_factory)]
            found = True
        elif isinstance(value, type) and value.__module__ == name:
            for attribute, inner in list(vars(value).items()):
                if isinstance(inner, types.FunctionType):
                    found |= _replace_in_function(inner, table)
                elif id(inner) in table:
                    setattr(value, attribute, table[id(inner)])
                    found = True
    return found


def _replace_in_function(function: types.FunctionType, table: dict[int, Any]) -> bool:
    """Replace the copies in a function's defaults, and in the variables around it, such as the
    default factories of a dataclass; return whether there were any."""
    found = _replace_in_defaults(function, table)
    for cell in function.__closure__ or ():
        try:
            held = cell.cell_contents
        except ValueError:  # it is empty
            continue
        if id(held) in table:
            cell.cell_contents = table[id(held)]
            found = True
    return found


def _replace_in_defaults(function: types.FunctionType, table: dict[int, Any]) -> bool:
    """Replace the copies among a function's default arguments; return whether there were any."""
    found = False
    defaults = function.__defaults__
    if defaults is not None and any(id(it) in table for it in defaults):
        function.__defaults__ = tuple(table.get(id(it), it) for it in defaults)
        found = True
    by_name = function.__kwdefaults__
    if by_name is not None and any(id(it) in table for it in by_name.values()):
        function.__kwdefaults__ = {key: table.get(id(it), it) for key, it in by_name.items()}
        found = True
    return found
