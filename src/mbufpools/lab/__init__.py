"""The lab: run async programs in virtual time, on asyncio and on trio.

It knows nothing of the pools, and works for any program. It needs the standard library and
anyio; trio only when asked for it.

- `run` runs a program once, in virtual time, and returns its result.
- `backend_options` gives the same clock to `anyio.run` and to anyio's pytest plugin.
- `VirtualTimeLoop` is the asyncio event loop behind both.
- `Stalled` is raised when every task waits and nothing can ever wake one.
"""

from __future__ import annotations

from ._declare import Shared
from ._explore import explore, replay
from ._outcome import LabError, Unsupported
from ._result import Exploration, ExplorationFailed, Failure
from ._run import backend_options, run
from ._virtual_time import Stalled, VirtualTimeLoop

__all__ = [
    "Exploration",
    "ExplorationFailed",
    "Failure",
    "LabError",
    "Shared",
    "Stalled",
    "Unsupported",
    "VirtualTimeLoop",
    "backend_options",
    "explore",
    "replay",
    "run",
]
