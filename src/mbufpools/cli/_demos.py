"""Where the demo scripts are, and the options that ``mbufpools demo`` and ``stat`` pass to them.

In an installed package the scripts are inside the package, in a source checkout beside it.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import mbufpools
from mbufpools import Wakeup
from mbufpools.demokit import Demo, Mistake, Parser, unknown

__all__ = [
    "GROUPS",
    "NAMES",
    "add_demo_arguments",
    "command",
    "demo_options",
    "find_demo",
    "load",
    "title",
    "titles",
]

GROUPS = {
    "the kernel's pools": (
        "stall",
        "coalesce",
        "backlog",
        "nmbclust",
        "hidden-items",
        "nine-seconds",
        "steal",
        "hold-and-wait",
        "incident",
    ),
    "applications": ("order", "app", "relay"),
}
"""The demos by what they are about, in the order in which they are best read."""
NAMES = tuple(name for names in GROUPS.values() for name in names)
"""All demos, in the same order."""


def add_demo_arguments(parser: Parser) -> None:
    """Add the name of a demo and the options that a demo may have; the demo checks their values."""
    groups = "; ".join(f"of {group}: {', '.join(names)}" for group, names in GROUPS.items())
    parser.add_argument("name", nargs="?", metavar="NAME", help=f"one of the demos {groups}")
    parser.add_argument("--policy", help=f"one of {', '.join(Wakeup)}")
    parser.add_argument("--backend", help="asyncio or trio")
    parser.add_argument("--nmbclust", metavar="N", help="the limit, in clusters of 2 KiB")
    parser.add_argument("--json", action="store_true", help="print JSON, one object a line")


def demo_options(arguments: argparse.Namespace) -> list[str]:
    """The options that were given, as the demo's own command line."""
    options = [
        f"--{name}={value}"
        for name in ("policy", "backend", "nmbclust")
        if (value := getattr(arguments, name)) is not None
    ]
    return [*options, "--json"] if arguments.json else options


def command(arguments: argparse.Namespace) -> str:
    """The command as it was typed, up to the name of the demo, if one was given."""
    prog: str = arguments.parser.prog
    return f"{prog} {arguments.name}" if arguments.name else prog


def titles() -> Iterator[str]:
    """Lines with the name and the title of every demo, by group."""
    width = max(map(len, NAMES)) + 4
    for number, (group, names) in enumerate(GROUPS.items()):
        yield from ([""] if number else [])
        yield f"Demos of {group}:"
        for name in names:
            line = f"{'  ' + name:{width}}{title(name)}"
            yield from textwrap.wrap(line, 78, subsequent_indent=" " * width)


def title(name: str) -> str:
    """What the demo `name` is about, in one line."""
    whole = find_demo(name).title
    return whole.partition(": ")[2] or whole


def find_demo(name: str) -> Demo:
    """Return the demo `name`. Raises Mistake, which lists the names."""
    demo: Demo = load(name).DEMO
    return demo


def load(name: str) -> ModuleType:
    """Import the script of the demo `name`. Raises Mistake, which lists the names."""
    if name not in NAMES:
        raise Mistake(f"no demo {unknown(name, NAMES)}")
    file = name.replace("-", "_") + ".py"
    package = Path(mbufpools.__file__).parent
    folders = (package / "_demos", package.parent.parent / "demos")
    for folder in folders:
        path = folder / file
        if path.is_file():
            return _import(f"mbufpools_demo_{path.stem}", path)
    raise Mistake(f"{file} is neither in {folders[0]} nor in {folders[1]}; reinstall mbufpools")


def _import(module_name: str, path: Path) -> ModuleType:
    if module_name in sys.modules:
        return sys.modules[module_name]
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses look up their module there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise
    return module
