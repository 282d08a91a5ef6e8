"""The command ``python -m benchmarks``."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import anyio

from mbufpools.demokit import Parser, one_of

from . import _ablation, _crowds, _fixed, _footprint, _handing, _pairs, _proxy, _scale
from ._forms import FORMS, Form
from ._record import Record, ablations, environment, heading, headlines, line, verdict
from ._rows import Row, Show

__all__ = ["BACKENDS", "GROUPS", "main"]

BACKENDS = ("asyncio", "uvloop", "trio")

Group = Callable[[str, Form, Show], Awaitable[None]]
GROUPS: dict[str, Group] = {
    "pairs": _pairs.rows,
    "ablation": _ablation.rows,
    "handing": _handing.rows,
    "crowds": _crowds.rows,
    "footprint": _footprint.rows,
    "scale": _scale.rows,
    "fixed": _fixed.rows,
    "proxy": _proxy.rows,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmarks, or show a record of them."""
    parser = Parser(prog="python -m benchmarks", description="What the library costs.")
    parser.add_argument(
        "backends",
        nargs="*",
        type=one_of(list(BACKENDS)),
        metavar="BACKEND",
        help="asyncio, uvloop or trio",
    )
    parser.add_argument("--form", choices=FORMS, default="short", help="default: short")
    parser.add_argument(
        "--only", choices=[*GROUPS, "import"], action="append", help="only this group of rows"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to FILE, too")
    parser.add_argument(
        "--headlines", type=Path, metavar="FILE", help="show the main ratios of a record"
    )
    parser.add_argument(
        "--about", default="", metavar="TEXT", help="of these only the rows whose name has TEXT"
    )
    parser.add_argument(
        "--ablations", type=Path, metavar="FILE", help="show what each promise costs in a record"
    )
    arguments = parser.read(argv)
    if arguments.headlines is not None:
        print(headlines(Record.read(arguments.headlines), arguments.about))
        return 0
    if arguments.ablations is not None:
        print(ablations(Record.read(arguments.ablations)))
        return 0
    backends = arguments.backends or [
        name for name in BACKENDS if importlib.util.find_spec(name) is not None
    ]
    record = Record(environment(arguments.form), [])
    groups = arguments.only or [*GROUPS, "import"]
    print("\n".join(f"{name}: {value}" for name, value in record.environment.items()), end="\n\n")
    measure(record, backends, groups, FORMS[arguments.form])
    if (
        arguments.form != "smoke"
    ):  # which shows that the rows can be measured, and not their figures
        print(verdict(record.rows))
    if arguments.json is not None:
        record.write(arguments.json)
    return 0


def measure(record: Record, backends: Sequence[str], groups: Sequence[str], form: Form) -> None:
    """Run the groups on each backend, print each row at once, and keep it in `record`."""

    def show(row: Row) -> None:
        record.rows.append(row)
        print(line(row), flush=True)

    async def run(backend: str) -> None:
        for group in groups:
            if group in GROUPS:
                await GROUPS[group](backend, form, show)

    for backend in backends:
        print(f"{backend}\n{heading()}", flush=True)
        anyio.run(
            run,
            backend,
            backend="trio" if backend == "trio" else "asyncio",
            backend_options={"use_uvloop": True} if backend == "uvloop" else {},
        )
        print()
    if "import" in groups:
        print(f"python\n{heading()}")
        show(_fixed.imports(form))
        print()


if __name__ == "__main__":
    sys.exit(main())
