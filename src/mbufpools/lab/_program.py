"""Looks at what `explore` is given: is it an `async def` without arguments, and which one?

A call too many or too few (``explore(p())``, a `p` that takes arguments, a function that returns no
awaitable) would be a failure of the program in every schedule. It is a mistake of the caller, so it
is an error that says what was expected.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from ._options import Program
from ._outcome import refuse

__all__ = ["awaitable_of", "check_program", "function_of", "needed_arguments"]

EXPECTED = "expected an `async def` without arguments"


def check_program(program: object) -> None:
    """Raise ValueError if a program cannot be called without arguments."""
    if inspect.iscoroutine(program):
        name = program.__qualname__
        program.close()  # or Python warns that it was never awaited
        raise ValueError(
            f"the program is a coroutine, which can run only once; {EXPECTED}, because each "
            f"execution calls it: pass `{name}`, not `{name}()`"
        )
    if not callable(program):
        raise ValueError(f"the program is {program!r}; {EXPECTED}")  # noqa: TRY004 - as elsewhere
    needs = needed_arguments(program)
    if needs:
        name = _name(program)
        raise ValueError(
            f"the program {name} takes arguments ({', '.join(needs)}); {EXPECTED}: wrap it, as in "
            f"`functools.partial({name}, ...)`"
        )


def function_of(program: Any) -> Any:
    """Return the program's own function, inside of `functools.partial` and of decorators that say
    what they wrap.

    Where its file is decides which code is the program's own; a decorator may be anyone's.
    """
    while True:
        inner = getattr(program, "func", None) or getattr(program, "__wrapped__", None)
        if not callable(inner):
            return program
        program = inner


def needed_arguments(function: Callable[..., Any]) -> list[str]:
    """Return the names of the arguments without which a function cannot be called.

    The mocks that `unittest.mock.patch` passes, as a decorator, are none of them.
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # a function in C need not have one
        return []
    needed = [
        it.name
        for it in parameters
        if it.default is it.empty and it.kind not in (it.VAR_POSITIONAL, it.VAR_KEYWORD)
    ]
    by_position, by_name = _mocks(function)
    return [it for it in needed[by_position:] if it not in by_name]


def _mocks(function: Any) -> tuple[int, set[str]]:
    """Return how many mocks a function gets from `unittest.mock.patch`, and the names of those that
    it gets by name (``patch.multiple``)."""
    mock = sys.modules.get("unittest.mock")
    count, names = 0, set()
    while mock is not None and callable(function):
        # The wrappers inside of it share this list.
        for it in vars(function).get("patchings", ()) if hasattr(function, "__dict__") else ():
            if it.new is mock.DEFAULT and it.attribute_name is None:
                count += 1
            elif it.attribute_name is not None:
                names |= {
                    part.attribute_name
                    for part in (it, *it.additional_patchers)
                    if part.new is mock.DEFAULT
                }
        if "patchings" in getattr(function, "__dict__", ()):
            break
        function = getattr(function, "func", None) or getattr(function, "__wrapped__", None)
    return count, names


def awaitable_of(program: Program) -> Awaitable[Any]:
    """Call the program, in an execution.

    Raises:
        Unsupported: what it returns cannot be awaited.
    """
    value: object = program()
    if inspect.isawaitable(value):
        return value
    raise refuse(
        f"the program {_name(program)} returned a value that cannot be awaited, of the type "
        f"{type(value).__name__}; {EXPECTED}"
    )


def _name(program: Any) -> str:
    function = function_of(program)
    return str(getattr(function, "__name__", type(function).__name__))
