"""What the demos share.

- `Processes` are the actors of a scenario; `sleeps_for_ever` says that one of them is never served.
- `Demo`, `Report`, `Table`, `plural` and `tell` are a demo's command line and what it prints.
"""

from __future__ import annotations

from ._demo import Demo, Options
from ._processes import Process, Processes, sleeps_for_ever
from ._report import Report, Table, plural, tell

__all__ = [
    "Demo",
    "Options",
    "Process",
    "Processes",
    "Report",
    "Table",
    "plural",
    "sleeps_for_ever",
    "tell",
]
