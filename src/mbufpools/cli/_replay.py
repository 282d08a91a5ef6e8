"""``mbufpools replay``: does the library still agree with the kernel?"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mbufpools.demokit import Parser, closest_path, installed_backend

if TYPE_CHECKING:
    from mbufpools.traces import TraceError

__all__ = ["add_to", "run"]

EXPECTED = "a .jsonl file or a .tar of such files; each may also end in .xz or .gz"
"""What a FILE may be."""


def add_to(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add the verb to the command line."""
    parser = commands.add_parser(
        "replay",
        help="replay recordings of the kernel, and compare",
        description="Replay recordings of the kernel's pools, and compare every field.",
    )
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help=EXPECTED,
    )
    parser.add_argument(
        "--backend",
        type=installed_backend,
        metavar="BACKEND",
        default="asyncio",
        help="asyncio (the default) or trio",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, one object a file")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Replay each recording of each file, and print whether every field agrees.

    Returns the worst exit status: 1 after a disagreement, 2 after a file that is no recording.
    """
    from mbufpools import lab
    from mbufpools.traces import TraceError, parse_trace, replay

    status = lines = agreeing = recordings = 0
    for file, name, text in _recordings(arguments.files):
        recordings += 1
        try:
            if isinstance(text, TraceError):
                raise text
            trace = parse_trace(text, name)
            disagreement = lab.run(replay, trace, backend=arguments.backend)
        except TraceError as error:
            status = _complain(arguments, str(error))
            continue
        if disagreement is None:
            agreeing += 1
            lines += len(trace.steps)
            told = f"{trace.name}: {len(trace.steps)} lines agree in every field"
        else:
            status = max(status, 1)
            told = str(disagreement)
        if arguments.json:
            plain = disagreement and dataclasses.asdict(disagreement)
            told = json.dumps(
                {
                    "file": file,
                    "recording": trace.name,
                    "lines": len(trace.steps),
                    "disagreement": plain,
                }
            )
        sys.stdout.write(f"{told}\n")
    if recordings > 1 and not arguments.json:
        sys.stdout.write(f"{agreeing} of {recordings} recordings agree, {lines} lines in all\n")
    return status


def _recordings(files: Iterable[str]) -> Iterator[tuple[str, str, str | TraceError]]:
    """Yield each recording of each file: the file, and the recording's name and text, or what is
    wrong with the file."""
    from mbufpools.traces import TraceError, read_recordings

    for file in files:
        try:
            for name, text in read_recordings(file):
                yield file, name, text
        except TraceError as error:
            yield file, file, error
        except OSError as error:
            yield file, file, TraceError(_unreadable(Path(file), error))


def _unreadable(file: Path, error: OSError) -> str:
    meant = closest_path(file, "*.jsonl*") if isinstance(error, FileNotFoundError) else None
    return f"{file}: {error.strerror}; " + (
        f"did you mean {meant}?" if meant else f"expected {EXPECTED}"
    )


def _complain(arguments: argparse.Namespace, message: str) -> int:
    """Report a bad file without ending the command, as the other files are replayed too."""
    sys.stderr.write(f"{arguments.parser.prog}: {message}\n")
    return 2
