"""What the demos share, and what all command lines of the project share.

- `Demo`, with its `Options`, is a demo's command line; `Report` and `Table` are what it prints.
  `plural`, `conjunction` and `tell` build sentences out of results.
- `Processes` are the actors of a scenario, each a `Process`. `idle_pages` gives a pool idle pages.
  `left_asleep` says whether a process sleeps, and only a call from outside can wake it.
- `Parser`, with `one_of`, `whole_number` and `installed_backend` as types of arguments,
  `Mistake`, `progress_line` and `run_command` are for any command line. `unknown`, `closest` and
  `closest_path` say which name was meant.
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
from ._processes import Process, Processes, idle_pages, left_asleep
from ._report import Cell, Report, Table, conjunction, fill, plural, tell
from ._suggest import closest, closest_path, unknown

__all__ = [
    "INTERRUPTED",
    "Cell",
    "Demo",
    "Mistake",
    "Options",
    "Parser",
    "Process",
    "Processes",
    "Report",
    "Table",
    "closest",
    "closest_path",
    "conjunction",
    "fill",
    "idle_pages",
    "installed_backend",
    "left_asleep",
    "one_of",
    "plural",
    "progress_line",
    "run_command",
    "tell",
    "unknown",
    "whole_number",
]
