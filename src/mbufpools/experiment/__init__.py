"""Experiments on the pools: recordings of the real kernel, their replay, a soak, and what demos
share.

- `read_trace` and `replay` run a recording of the kernel through the library.
- `soak` does a great many random operations, and sees that nothing breaks.
- `Processes` are the actors of a scenario; `sleeps_for_ever` says that one is lost.
- `Demo`, `Report`, `Table`, `plural` and `tell` are a demo's command line and what it prints.
"""

from __future__ import annotations

from ._demo import Demo, Options
from ._processes import Process, Processes, sleeps_for_ever
from ._replay import Disagreement, replay
from ._report import Report, Table, plural, tell
from ._soak import Soak, soak
from ._trace import Step, Trace, TraceError, read_trace

__all__ = [
    "Demo",
    "Disagreement",
    "Options",
    "Process",
    "Processes",
    "Report",
    "Soak",
    "Step",
    "Table",
    "Trace",
    "TraceError",
    "plural",
    "read_trace",
    "replay",
    "sleeps_for_ever",
    "soak",
    "tell",
]
