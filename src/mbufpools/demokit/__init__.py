"""What the demos share, and what all command lines of the project share.

- `Demo`, with its `Options`, is a demo's command line; `Report` and `Table` are what it prints.
  `plural`, `conjunction` and `tell` build sentences out of results.
- `Processes` are the actors of a scenario, each a `Process`. `sleeps_for_ever` says whether a
  process sleeps and will never be woken.
- `Parser`, with `one_of`, `whole_number` and `installed_backend` as types of arguments,
  `Mistake` and `progress_line` are for any command line.
"""

from __future__ import annotations

from ._command_line import (
    Mistake,
    Parser,
    installed_backend,
    one_of,
    progress_line,
    whole_number,
)
from ._demo import Demo, Options
from ._processes import Process, Processes, sleeps_for_ever
from ._report import Report, Table, conjunction, fill, plural, tell

__all__ = [
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
    "sleeps_for_ever",
    "tell",
    "whole_number",
]
