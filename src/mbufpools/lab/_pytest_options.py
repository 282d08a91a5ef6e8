"""The options of an explored test: of its marks, of the command line, and of the ini file.

Of several values the command line's counts, then that of the closest mark or of the call, then that
of the ini file.
"""

from __future__ import annotations

import dis
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from types import CodeType, ModuleType
from typing import Any, get_args

import pytest

from ._cancellable import cancelling
from ._explore import STRATEGIES, explore
from ._frames import is_installed
from ._options import CancelWay, Options, check_backend
from ._token import parse_token

__all__ = [
    "MARK",
    "backends_of",
    "backends_of_fixture",
    "check_call",
    "check_options",
    "defaults",
    "name_of_backend",
    "numbered",
    "of_marks",
]

MARK = "explore"
OURS = frozenset({"executor", "on_progress"})
"""The options of `lab.explore` that a test cannot set."""
INI = {
    "explore_cancel": "cancel",
    "explore_html": "html",
    "explore_max_executions": "max_executions",
    "explore_max_preemptions": "max_preemptions",
    "explore_require_complete": "require_complete",
    "explore_seconds": "max_seconds",
    "explore_seed": "seed",
    "explore_strategy": "strategy",
}
"""The ini options that are defaults of options of `lab.explore`."""
COMMAND = {"explore_html": "html", "explore_seconds": "max_seconds", "explore_seed": "seed"}
"""The options of the command line that take the place of options of `lab.explore`."""
NUMBERS = ("depth", "max_executions", "max_preemptions", "max_seconds", "step_limit")
PARAMETER = type(pytest.param(None))
SWITCH = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}
"""How pytest's ini files spell True and False."""


def check_options(config: pytest.Config) -> None:
    """Raise `pytest.UsageError` if an option of the command line or the ini file is invalid."""
    token, jobs = config.getoption("explore_token"), config.getoption("explore_jobs")
    html = config.getoption("explore_html")
    if html is not None and (config.invocation_params.dir / html).is_file():
        raise pytest.UsageError(f"--explore-html {html}: it is a file; expected a directory")
    if jobs < 1:
        raise pytest.UsageError(f"--explore-jobs {jobs}: expected a number of processes, 1 or more")
    seconds = config.getoption("explore_seconds")
    if seconds is not None and not seconds > 0:
        raise pytest.UsageError(f"--explore-seconds {seconds:g}: expected seconds, above 0")
    if token is not None:
        try:
            backend, _, _ = parse_token(numbered(token)[1])
            check_backend(backend)
        except ValueError as error:
            raise pytest.UsageError(f"--explore-token: {error}") from None
    for backend in config.getini("explore_backends"):
        if backend not in ("asyncio", "trio"):
            raise pytest.UsageError(
                f"ini option explore_backends: no backend {backend!r}; expected asyncio, trio or "
                f"both of them"
            )
    of_ini(config)


def numbered(token: str) -> tuple[int, str]:
    """Split ``2/asyncio:...`` into the number of the call that it is for, by default 1, and the
    token."""
    number, slash, rest = token.partition("/")
    return (int(number), rest) if slash and number.isdecimal() else (1, token)


def of_marks(marks: Iterable[pytest.Mark]) -> dict[str, Any]:
    """Return the options of marks, of which the closest comes first and takes precedence.

    Raises:
        ValueError: an option is unknown, or is not given by name.
    """
    known = {
        name
        for name, parameter in inspect.signature(explore).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    known = (known | {"backends"}) - OURS
    options: dict[str, Any] = {}
    for mark in marks:
        if mark.args:
            raise ValueError(f"takes its options by name, not {mark.args[0]!r}")
        for name, value in mark.kwargs.items():
            if name not in known:
                raise ValueError(
                    f"has no option {name!r}; its options are {', '.join(sorted(known))}"
                )
            options.setdefault(name, value)
        if "backend" in mark.kwargs and "backends" in mark.kwargs:
            raise ValueError("takes backend or backends, not both")
    return options


def defaults(config: pytest.Config, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a test or of a call, with those of the command line and of the ini
    file."""
    commanded = {name: config.getoption(option) for option, name in COMMAND.items()}
    return {
        **of_ini(config),
        **options,
        **{name: value for name, value in commanded.items() if value is not None},
    }


def check_call(options: Mapping[str, Any]) -> None:
    """Raise ValueError if an option of a call is invalid, as `lab.explore` does. A schedule that is
    executed because it failed the last time has no use for most options, so it would hide that."""
    _strategy(options.get("strategy", "mixed"))
    cancelling(options.get("cancel", False))
    Options(**{name: options[name] for name in NUMBERS if name in options})


def of_ini(config: pytest.Config) -> dict[str, Any]:
    """Return the options that the ini file sets.

    Raises:
        UsageError: one of them is invalid.
    """
    options: dict[str, Any] = {}
    for option, name in INI.items():
        text = str(config.getini(option)).strip()
        if not text:
            continue
        try:
            options[name] = value = _READ[name](text)
            if name in NUMBERS:
                Options(**{name: value})
        except ValueError as error:
            raise pytest.UsageError(f"ini option {option}: {error}") from None
    if "html" in options:
        options["html"] = str(config.rootpath / options["html"])
    cancel, strategy = options.get("cancel"), options.get("strategy")
    if cancel and strategy is not None and not STRATEGIES[strategy].can_cancel:
        raise pytest.UsageError(
            f"ini option explore_strategy: {strategy} cannot cancel, as explore_cancel asks; leave "
            f"out one of them"
        )
    if cancel == "native" and "trio" in config.getini("explore_backends"):
        raise pytest.UsageError(
            "ini option explore_cancel: native is asyncio's, and explore_backends names trio; use "
            "true, which cancels in each way that a backend has"
        )
    return options


def _strategy(text: str) -> str:
    if text not in STRATEGIES:
        raise ValueError(f"no strategy {text!r}: expected one of {', '.join(STRATEGIES)}")
    return text


def _switch(text: str) -> bool:
    if text.lower() not in SWITCH:
        raise ValueError(f"{text!r}; expected true or false")
    return SWITCH[text.lower()]


def _number(text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"{text!r}; expected a whole number")
    return int(text)


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r}; expected seconds") from None


def _cancel(text: str) -> Any:
    if text.lower() in SWITCH or text in get_args(CancelWay):
        return SWITCH.get(text.lower(), text)
    meant = get_close_matches(text.lower(), ["true", "false", *get_args(CancelWay)], 1)
    if meant:
        raise ValueError(
            f"{text!r}; did you mean {meant[0]}? If a task has this name, write a pattern for it, "
            f"as [{text[0]}]{text[1:]}"
        )
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise ValueError(
            f"{text!r}; expected true, false, scope, native, or names of tasks with commas between "
            f"them"
        )
    return names


_READ: dict[str, Callable[[str], Any]] = {
    "cancel": _cancel,
    "html": str,
    "max_executions": _number,
    "max_preemptions": lambda text: None if text == "none" else _number(text),
    "max_seconds": _seconds,
    "require_complete": _switch,
    "seed": _number,
    "strategy": _strategy,
}


# --- backends


def backends_of(
    config: pytest.Config,
    options: Mapping[str, Any],
    function: Callable[..., Any],
    marks: Iterable[str],
) -> list[str]:
    """Return the backends of a test.

    Those of its mark, if it names any. Else those of the ini file, by default all that are
    installed; without trio if the test is for asyncio alone, and the other way round.

    Args:
        config: of pytest.
        options: of the mark.
        function: the coroutine function.
        marks: the names of the test's other marks.

    Raises:
        ValueError: the mark names none.
    """
    if "backends" in options:
        given = options["backends"]
        if isinstance(given, str) or not isinstance(given, Iterable) or not (names := [*given]):
            raise ValueError(f"takes one backend or more in backends, as ['trio'], not {given!r}")
        return list(dict.fromkeys(names))
    if "backend" in options:
        return [options["backend"]]
    backends = list(config.getini("explore_backends"))
    if not backends:
        backends = ["asyncio", *(["trio"] if importlib.util.find_spec("trio") else [])]
    only = _only_on(config, function, set(marks))
    return [only] if only is not None else backends


def backends_of_fixture(definitions: Sequence[Any] | None) -> set[str]:
    """Return the backends that the project's own fixture `anyio_backend` names: those of its
    parameters, or what it returns if it has no arguments. Return both if it is anyio's, or if only
    a test can call it.

    Args:
        definitions: those of this fixture which a test can see, of which the last one counts.
    """
    both = {"asyncio", "trio"}
    if not definitions or definitions[-1].func.__module__ == "anyio.pytest_plugin":
        return both
    function, values = definitions[-1].func, definitions[-1].params
    if values is None:
        special = (
            inspect.iscoroutinefunction,
            inspect.isgeneratorfunction,
            inspect.isasyncgenfunction,
        )
        if inspect.signature(function).parameters or any(kind(function) for kind in special):
            return both
        try:
            values = [function()]
        except Exception:  # noqa: BLE001 - the test will fail by it
            return both
    plain = (value.values[0] if isinstance(value, PARAMETER) else value for value in values)
    names = set(map(name_of_backend, plain))
    return {name for name in names if name is not None} or both


def name_of_backend(value: object) -> str | None:
    """Return the backend that a value of the fixture `anyio_backend` names, which may have options
    beside it; None if it names none that can be explored."""
    name = value[0] if isinstance(value, tuple) and value else value
    return name if name in ("asyncio", "trio") else None


def _only_on(config: pytest.Config, function: Callable[..., Any], marks: set[str]) -> str | None:
    """Return the backend that a test is for, or None if it is for both."""
    for names in (_used(function), marks):
        if "anyio" in names:
            return None
        if "asyncio" in names and "trio" not in names:
            return "asyncio"
        if "trio" in names and "asyncio" not in names:
            return "trio"
    for option, on, backend in (
        ("asyncio_mode", "auto", "asyncio"),
        ("trio_mode", "true", "trio"),
    ):
        try:
            value = config.getoption(option, None) or config.getini(option)
        except ValueError:  # the plugin is not there
            continue
        if str(getattr(value, "value", value)).lower() == on:
            return backend
    return None


def _used(function: Callable[..., Any]) -> set[str]:
    """Return which of asyncio, anyio and trio the code of a function names.

    If it names none, the functions of its module count that it names, with what the module imports
    of anyio and trio; and if these name none, the modules of the project that they name.
    """
    function = inspect.unwrap(function)
    variables = getattr(function, "__globals__", {})
    direct = _backends(map(_module_of, (variables.get(name) for name in _names_of(function))))
    if direct:
        return direct
    modules = set(map(_module_of, _named(function, variables)))
    helpers = _backends(modules)
    if helpers:
        return helpers | (_backends(map(_module_of, variables.values())) - {"asyncio"})
    seen = {getattr(function, "__module__", "")}
    while True:
        used = _backends(modules)
        new = {module for module in modules - seen if _is_of_project(module)}
        if used or not new:
            return used
        seen |= new
        values = [value for name in new for value in list(vars(sys.modules[name]).values())]
        modules = set(map(_module_of, values))


def _backends(modules: Iterable[str]) -> set[str]:
    """Return which of asyncio, anyio and trio are among some modules."""
    return {module.partition(".")[0] for module in modules} & {"asyncio", "anyio", "trio"}


def _names_of(function: Any) -> Iterator[str]:
    """Yield the global names in the code of a function."""
    code = getattr(function, "__code__", None)
    return iter(()) if code is None else _names(code)


def _named(function: Any, variables: Mapping[str, Any]) -> list[object]:
    """Return the values of the global names of a function, and of the functions of its module that
    it names, and so on."""
    values: list[object] = []
    pending, seen = [function], {id(function)}
    while pending:
        for name in _names_of(pending.pop()):
            value = inspect.unwrap(found) if callable(found := variables.get(name)) else found
            values.append(value)
            if getattr(value, "__globals__", None) is variables and id(value) not in seen:
                seen.add(id(value))
                pending.append(value)
    return values


def _module_of(value: object) -> str:
    """Return the name of a module, or of that of a function or a class; "" if it has none."""
    if isinstance(value, ModuleType):
        return value.__name__
    return str(getattr(value, "__module__", None) or "")


def _is_of_project(name: str) -> bool:
    """Return True for an imported module that no package installer has put where it is."""
    file = getattr(sys.modules.get(name), "__file__", None)
    others = sys.stdlib_module_names | {"mbufpools"}
    return file is not None and name.partition(".")[0] not in others and not is_installed(file)


def _names(code: CodeType) -> Iterator[str]:
    """Yield the global names of a function and of those inside of it."""
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield str(instruction.argval)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
