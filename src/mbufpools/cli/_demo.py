"""``mbufpools demo``: find the demo scripts and run them.

In an installed package they lie beside the library, in a source checkout in its own directory.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import mbufpools

__all__ = ["NAMES", "DemoError", "demo", "load"]

NAMES = (
    "stall",
    "coalesce",
    "backlog",
    "nmbclust",
    "hidden-items",
    "nine-seconds",
    "hold-and-wait",
    "order",
    "app",
    "relay",
)
"""The demos, in the order in which they are best read."""


class DemoError(Exception):
    """No such demo, or no demos at all."""


def demo(name: str | None, options: Sequence[str]) -> int:
    """Run the demo `name`, or all in turn; return the worst exit status."""
    try:
        modules = [load(each) for each in ([name] if name else NAMES)]
    except DemoError as error:
        sys.stderr.write(f"mbufpools demo: {error}\n")
        return 2
    for module in modules:
        module.DEMO.options(options)  # a mistake is told before anything has run
    as_json = "--json" in options
    status = 0
    for number, module in enumerate(modules):
        if number and not as_json:
            sys.stdout.write("\n\n")
        status = max(status, module.main(options))
    return status


def load(name: str) -> ModuleType:
    """Import the script of the demo `name`. Raises DemoError, which lists the names."""
    if name not in NAMES:
        raise DemoError(f"no demo {name!r}; expected one of {', '.join(NAMES)}")
    file = name.replace("-", "_") + ".py"
    package = Path(mbufpools.__file__).parent
    places = (package / "_demos", package.parent.parent / "demos")
    for place in places:
        path = place / file
        if path.is_file():
            return _import(f"mbufpools_demo_{path.stem}", path)
    raise DemoError(f"{file} is neither in {places[0]} nor in {places[1]}; install mbufpools anew")


def _import(module_name: str, path: Path) -> ModuleType:
    if module_name in sys.modules:
        return sys.modules[module_name]
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses look themselves up there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise
    return module
