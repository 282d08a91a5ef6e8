"""What the demos share, and what all command lines of the project share.

- `Demo`, with its `Options`, is a demo's command line; `Report` and `Table` are what it prints.
  `plural`, `conjunction` and `tell` build sentences out of results.
- `Processes` are the actors of a scenario, each a `Process`. `sleeps_for_ever` says whether a
  process sleeps and will never be woken.
- `Parser`, with `one_of`, `whole_number` and `installed_backend` as types of arguments,
  `Mistake`, `progress_line` and `run_command` are for any command line.
"""

from __future__ import annotations

from ._command_line import (
    INTERRUPTED,
    Mistake,
    Parser,
    installed_backend,
    one_of,
    progress_line,
    run_command,
    whole_number,
)
from ._demo import Demo, Options
from ._processes import Process, Processes, sleeps_for_ever
from ._report import Report, Table, conjunction, fill, plural, tell

__all__ = [
    "INTERRUPTED",
    "Demo",
    "Mistake",
    "Options",
    "Parser",
    "Process",
    "Processes",
    "Report",
    "Table",
    "conjunction",
    "fill",
    "installed_backend",
    "one_of",
    "plural",
    "progress_line",
    "run_command",
    "sleeps_for_ever",
    "tell",
    "whole_number",
]
