"""What is made anew before each execution: modules that are executed again, and a function. The
clocks tell them the time at which the execution begins.

At the end of an exploration a module that was executed again gets its own variables back. A test
may hold one of them (``reset=cache.DATA.clear``), or a function that uses them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from ._running import at_begin

__all__ = ["Renewal", "executed_before", "module_names", "own_variables_kept"]


def module_names(modules: Iterable[str | ModuleType]) -> tuple[str, ...]:
    """Return the names of modules. Raises ValueError for one that cannot be executed again."""
    if isinstance(modules, str):
        raise ValueError(  # noqa: TRY004 - as for the other arguments
            f"fresh is {modules!r}; expected a list of modules, such as [{modules!r}]"
        )
    names = tuple(it if isinstance(it, str) else it.__name__ for it in modules)
    for name in names:
        _code(name)
    return names


class Renewal:
    """Called before each execution.

    A module is executed again in its own namespace, in the order given, so functions that were
    imported from it see its new variables. What another module has copied (``from module import
    cache``) stays the old object: name that module, too.
    """

    def __init__(self, reset: Callable[[], Any] | None, fresh: tuple[str, ...]) -> None:
        self._reset = reset
        self._names = fresh
        self._fresh = [(sys.modules[name], code) for name in fresh for code in [_code(name)]]

    def __call__(self) -> None:
        """Make everything anew. What the reset function raises is the caller's."""
        global _executed
        if self._names != _executed:
            self._execute()
        _executed = ()
        if self._reset is None:
            return
        if hasattr(self._reset, "only_fixtures"):  # the first time pytest has made them
            self._reset()
            return
        with at_begin():
            self._reset()

    def _execute(self) -> None:
        for module, code in self._fresh:
            for name, value in list(vars(module).items()):
                if not name.startswith("__") and not isinstance(value, ModuleType):
                    del vars(module)[name]
            with at_begin():
                exec(code, vars(module))


_executed: tuple[str, ...] = ()
"""The modules that were executed for the next execution, before it begins."""


@contextmanager
def executed_before(fresh: tuple[str, ...]) -> Iterator[None]:
    """Execute modules again now, and not at the beginning of the next execution: what is made
    meanwhile may change them."""
    global _executed
    Renewal(None, fresh)._execute()
    _executed = fresh
    try:
        yield
    finally:
        _executed = ()


@contextmanager
def own_variables_kept(fresh: tuple[str, ...]) -> Iterator[None]:
    """Give modules back, at the end, the variables that they have at the beginning.

    A submodule that was imported meanwhile stays, since it is imported only once.
    """
    before = [(vars(it), dict(vars(it))) for it in map(sys.modules.__getitem__, fresh)]
    try:
        yield
    finally:
        for variables, own in before:
            for name in variables.keys() - own.keys():
                if not isinstance(variables[name], ModuleType):
                    del variables[name]
            variables.update(own)


def _code(name: str) -> CodeType:
    module = sys.modules.get(name)
    if module is None:
        raise ValueError(
            f"fresh: module {name!r} is not imported; name modules as sys.modules does"
        )
    loader: Any = getattr(module, "__loader__", None)
    try:
        code = loader.get_code(name)
    except (AttributeError, ImportError):  # that of pytest, which rewrites assertions, has none
        code = _compiled(getattr(module, "__file__", None))
    if not isinstance(code, CodeType):
        raise ValueError(  # noqa: TRY004 - as for the other arguments
            f"fresh: module {name!r} cannot be executed again, since it has no Python source; use "
            f"reset="
        )
    return code


def _compiled(file: str | None) -> CodeType | None:
    if file is None or not file.endswith(".py"):
        return None
    try:
        return compile(Path(file).read_bytes(), file, "exec", dont_inherit=True)
    except OSError:
        return None
