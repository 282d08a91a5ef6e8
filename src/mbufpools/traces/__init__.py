"""Recordings of the real kernel, and their replay through this library.

- `read_trace` reads a recording and returns a `Trace` of `Step`s. It raises `TraceError` for a file
  that is not a recording. `read_recordings` reads the texts of a file or of an archive, which
  `parse_trace` makes a `Trace` of.
- `replay` runs a recording through `MbufPools`, operation by operation, and compares every field
  of every line. A `Disagreement` names the first field that differs.
"""

from __future__ import annotations

from ._files import read_recordings, read_trace
from ._recording import Step, Trace, TraceError, parse_trace
from ._replay import Disagreement, replay

__all__ = [
    "Disagreement",
    "Step",
    "Trace",
    "TraceError",
    "parse_trace",
    "read_recordings",
    "read_trace",
    "replay",
]
