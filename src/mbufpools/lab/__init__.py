"""The lab: run async programs in virtual time, on asyncio and on trio.

It knows nothing of the pools, and works for any program. It needs the standard library and
anyio; trio only when asked for it.

- `explore` runs a program under every schedule within a bound; `replay` does one of them again.
- `Shared` is a value whose accesses the lab can see.
- `run` runs a program once, in virtual time, and returns its result.
- `backend_options` gives the same clock to `anyio.run` and to anyio's pytest plugin.
- `VirtualTimeLoop` is the asyncio event loop behind both.
- `Stalled` is raised when every task waits and nothing can ever wake one.
- `pytest_plugin` explores the tests that bear ``@pytest.mark.explore``.


The rooms of the engine, each using only those before it:

==================  ====================================================================
``_trace``          steps, what each touched, and what came before what
``_outcome``        how an execution ended, and what the lab refuses
``_schedule``       one execution's choices; tokens
``_strategies``     fifo, random, PCT, exhaustive, replay
``_dpor``           partial-order reduction
``_declare``        what steps touch; ``_cancelling`` for cancellations
``_task_dump``        where every task stands; ``_housekeeping`` knows when only a gc still runs
``_on_asyncio``     the machine that steers asyncio, with ``_in_order`` for its sets; ``_on_trio``
                    the one for trio
``_report``         a failure as a story; ``_shrink`` makes it short
``_execute``        executions, one after another; ``_parallel`` on several processes
``_explore``        `explore` and `replay`
==================  ====================================================================
"""

from __future__ import annotations

from ._declare import Shared
from ._explore import explore, replay
from ._options import BackendName, CancelWay, FailureKind, StrategyName
from ._outcome import LabError, Unsupported
from ._result import Exploration, ExplorationFailed, Failure
from ._run import backend_options, run
from ._virtual_time import Stalled, VirtualTimeLoop

__all__ = [
    "BackendName",
    "CancelWay",
    "Exploration",
    "ExplorationFailed",
    "Failure",
    "FailureKind",
    "LabError",
    "Shared",
    "Stalled",
    "StrategyName",
    "Unsupported",
    "VirtualTimeLoop",
    "backend_options",
    "explore",
    "replay",
    "run",
]
