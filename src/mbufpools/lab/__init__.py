"""The lab: run async programs in virtual time, on asyncio and on trio.

It works for any program, and imports nothing of mbufpools outside of this package. It needs the
standard library and anyio; it loads trio only when a program runs on trio.

- `explore` runs a program under every schedule within a bound; `replay` repeats one of them.
- `cancellable` says which tasks `explore` cancels, how often and when; `has_cancelled` tells the
  program whether it has cancelled one.
- `invariant` and `eventually` say what must hold; `choose` is a value that is explored.
- `Shared` is a value whose accesses the lab can see.
- `run` runs a program once, in virtual time, and returns its result.
- `backend_options` gives the same clock to `anyio.run` and to anyio's pytest plugin.
- `VirtualTimeLoop` is the asyncio event loop behind both.
- `Stalled` is raised when every task waits and nothing can ever wake one.
- `hooks` is what a library may tell the lab about itself.
- `engine` is for a backend of your own.
- `pytest_plugin` explores the tests that bear ``@pytest.mark.explore``.

The modules, from the foundations to the entry points. Each imports only modules above it:

====================  ==================================================================
``_frames``           whose code a frame runs
``_outcome``          how an execution ended; what the lab refuses
``_hypothesis``       an exploration for one example of Hypothesis
``_private_names``    the private names of trio and anyio that the lab uses; checks them
``_options``          the options of an exploration, checked; the names of their values
``_steps``            steps, and what each touched
``_instants``         where the clock of an execution begins, and when a deadline has come
``_running``          whether the calling thread runs the program, and what time it is there
``_ordered_sets``     sets of tasks, threads and generators, walked in the order of their filling
``_fresh``            what is made anew before each execution: `reset` and `fresh`
``_other_loops``      objects of asyncio that an earlier execution has bound to its event loop
``_anyio_use``        whether the program uses anyio
``_outsiders``        threads that the program has not started, and timers of the system
``_real_locks``       the methods of real locks, also where a test has patched them
``_replaced``         replaces functions of modules, and the copies that other modules hold
``_redirected``       makes a function of C a function in Python, wherever a program holds it
``_time_travel``      the clocks of the package time-machine, beside the lab's
``_chance``           `random`, `os.urandom` and their kind, the same in every execution
``_program``          whether what `explore` is given is an `async def` without arguments
``_pickled``          a program on its way to a worker process
``hooks``             the protocol by which a library tells the lab about itself
``_hooks``            finds the hooks of the imported libraries, and asks them
``_library_state``    the shared state in the primitives of asyncio, anyio and trio
``_declare``          records what each step touches; `Shared`
``_clocks``           the clocks of `time` and `datetime`, in virtual time
``_chance_declared``  declares each draw of chance
``_leaks``            hears the warnings of leaked resources
``_interrupts``       Ctrl-C while the lab explores
``_lockstep``         threads of the program, which run one at a time, step by step
``_signals``          the signal handlers that the program gives to asyncio's event loop
``_locks``            the locks of the program's threads, also those that are older
``_wrong_backend``    refuses a program of asyncio that is explored on trio
``_threads``          makes the program's threads run in lock-step
``_lock_holders``     which task holds a lock that others wait for
``_cancellable``      which tasks the lab cancels
``_cancelling``       records which tasks a cancellation can reach
``_joins``            declares that a step looks whether several tasks of asyncio are over
``_background``       knows when only services that tick still run
``_virtual_time``     virtual time on asyncio, for `run` only; `Stalled`
``_virtual_clock``    virtual time on trio, for `run` only
``_run``              one run in virtual time: `run` and `backend_options`
``_stillness``        whether the clock moves although tasks can run
``_schedule``         the choices of one execution, and the rules that decide by default
``_story``            the steps of a failing execution, as data
``_page``             a failure as an HTML page
``_result``           `Failure` and `Exploration`
``_pages``            the pages of an exploration, as files
``_oracles``          `invariant`, `eventually` and `choose`
``_token``            a schedule as one line of text
``_repetition``       whether the program does the same in the same schedule
``_real_times``       variables that hold a time of the real clock
``_shrink``           finds fewer deviations that still fail
``_strategy``         what a strategy is
``_strategies``       fifo, random, PCT, exhaustive, replay
``_mixed``            the default: schedules by chance, then all
``_races``            which step happens before which, and which steps race
``_dpor``             partial-order reduction
``_task_dump``        where every task stands, what it waits for, and which task holds that
``_report``           a failure as a text for people
``_asyncio_tasks``    tasks, futures and handles of asyncio, which declare what they touch
``_nested_trio``      refuses a run of trio inside of the program
``_asyncio_backend``  runs a program on asyncio, step by step; refuses I/O
``_trio_clock``       the virtual clock of explorations on trio
``_trio_run``         what belongs to one run of trio, made anew for each execution
``_trio_threads``     trio's cache of threads, in lock-step
``_trio_backend``     runs a program on trio, step by step
``_covered``          what the executions of an exploration have covered
``_execute``          executes one schedule after another
``_parallel``         the same in several processes
``_explore``          `explore` and `replay`
``engine``            the parts for a backend of one's own
``_pytest_options``   options of explored tests: of marks, the command line and the ini file
``_pytest_outcomes``  by which functions of pytest a test ends without a failure
``_pytest_log``       what pytest keeps of the log, dropped while a test is explored
``_pytest_fixtures``  fixtures of function scope, made anew for each schedule
``_pytest_cache``     keeps the schedules that failed
``_pytest_subtests``  a subtest that fails is a failure of its schedule
``_pytest_progress``  how far a long exploration is
``pytest_plugin``     the mark and the fixture `explore`
====================  ==================================================================
"""

from __future__ import annotations

from ._cancellable import Cancel, Cancellable, TaskInfo, cancellable
from ._declare import Shared
from ._explore import explore, replay
from ._options import BackendName, CancelWay, FailureKind, Program, StrategyName, Verdict
from ._oracles import Violated, choose, eventually, has_cancelled, invariant
from ._outcome import LabError, Unsupported
from ._result import Exploration, ExplorationFailed, ExplorationIncomplete, Failure
from ._run import backend_options, run
from ._story import ScheduledStep
from ._virtual_time import Stalled, VirtualTimeLoop

__all__ = [
    "BackendName",
    "CancelWay",
    "Cancel",
    "Cancellable",
    "Exploration",
    "ExplorationFailed",
    "ExplorationIncomplete",
    "Failure",
    "FailureKind",
    "LabError",
    "Program",
    "ScheduledStep",
    "Shared",
    "Stalled",
    "StrategyName",
    "TaskInfo",
    "Unsupported",
    "Verdict",
    "Violated",
    "VirtualTimeLoop",
    "backend_options",
    "cancellable",
    "choose",
    "eventually",
    "explore",
    "has_cancelled",
    "invariant",
    "replay",
    "run",
]
