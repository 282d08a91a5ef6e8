"""``mbufpools explore``: does a program hold in every schedule?"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from mbufpools.demokit import (
    Mistake,
    Parser,
    closest,
    installed_backend,
    one_of,
    progress_line,
    unknown,
    whole_number,
)

from ._program import Program, load_program, load_reset, missing

if TYPE_CHECKING:
    from concurrent.futures import ProcessPoolExecutor

    from mbufpools import lab
    from mbufpools.lab import BackendName, Verdict

__all__ = ["add_to", "run"]

STATUS: dict[Verdict, int] = {"found": 1, "ran out": 3, "proved": 0}
"""The exit status for each verdict, the worst first; 2 is for a mistake on the command line."""
BACKENDS = {"asyncio": ("asyncio",), "trio": ("trio",), "both": ("asyncio", "trio")}


# --- the command line


def add_to(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add the verb to the command line."""
    parser = commands.add_parser(
        "explore",
        help="execute an async program in every schedule, and say what fails",
        description="Execute an `async def` without arguments in many schedules, in virtual time, "
        "and say what fails and how to see it again. The exit status is 0 if all schedules within "
        "the bound were executed and none failed (proved), 1 if one failed (found), and 3 if none "
        "failed so far, but there are more (ran out).",
    )
    parser.add_argument("program", metavar="PROGRAM", help="module:function or file.py:function")
    parser.add_argument(
        "--strategy",
        metavar="NAME",
        default="mixed",
        help="mixed (the default), exhaustive, dpor, random, pct or fifo",
    )
    parser.add_argument(
        "--backend",
        dest="backends",
        type=_backends,
        metavar="BACKEND",
        default="asyncio",
        help="asyncio (the default), trio or both",
    )
    for name, kind, default, purpose in (
        ("max-preemptions", _bound, "2", "of mixed, exhaustive: a bound, or none (default: 2)"),
        ("max-executions", whole_number(1), "10000", "stop after so many (default: 10000)"),
        ("seed", whole_number(0), "0", "of the schedules by chance (default: 0)"),
        ("depth", whole_number(1), "3", "of mixed, pct: constraints of the bug (default: 3)"),
        (
            "slice-steps",
            whole_number(1),
            "20",
            "of mixed, exhaustive: steps in a row after which a task gives way (default: 20)",
        ),
        ("jobs", whole_number(1), "1", "processes (default: 1)"),
    ):
        parser.add_argument(f"--{name}", type=kind, metavar="N", default=default, help=purpose)
    parser.add_argument(
        "--max-seconds",
        type=_seconds,
        metavar="SECONDS",
        help="stop after so long, and say what is left",
    )
    parser.add_argument(
        "--cancel",
        action="store_true",
        help="also cancel each task of the program at each await point",
    )
    parser.add_argument(
        "--cancel-task",
        dest="cancel_tasks",
        metavar="NAME",
        action="append",
        default=[],
        help="as --cancel, but only the tasks of this name (may be given several times; * and ?)",
    )
    parser.add_argument(
        "--cancel-file",
        dest="cancel_files",
        metavar="PATH",
        action="append",
        default=[],
        help="as --cancel, and also the tasks that this file or directory makes",
    )
    parser.add_argument(
        "--cancel-times",
        type=whole_number(1),
        metavar="N",
        help="as --cancel, but up to N times in one execution",
    )
    parser.add_argument(
        "--cancel-mid-wait",
        action="store_true",
        help="as --cancel, but also in the middle of a wait",
    )
    parser.add_argument(
        "--cancel-by",
        type=one_of(["scope", "native"]),
        metavar="WAY",
        help="as --cancel, but only by scope, or only native: Task.cancel()",
    )
    parser.add_argument(
        "--reset",
        metavar="FUNCTION",
        help="a plain function, given as the program is, to call before each execution",
    )
    parser.add_argument(
        "--fresh",
        metavar="MODULE",
        action="append",
        default=[],
        help="a module to execute again before each execution (may be given several times; "
        "`.` is the program's own)",
    )
    parser.add_argument(
        "--ignore",
        metavar="KIND",
        action="append",
        default=[],
        choices=["stall", "livelock", "exception", "leak"],
        help="pass over failures of this kind: stall, livelock, exception or leak",
    )
    parser.add_argument(
        "--real-clocks",
        action="store_true",
        help="leave time and datetime real; by default they move with the virtual clock",
    )
    parser.add_argument(
        "--real-chance",
        action="store_true",
        help="leave random, secrets, uuid and os.urandom to chance; by default they are seeded",
    )
    parser.add_argument("--token", help="execute only the schedule of this token")
    parser.add_argument(
        "--html",
        metavar="DIRECTORY",
        help="write an HTML page a failure, which shows its schedule",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, one object a line")
    parser.set_defaults(run=run)


def _backends(value: str) -> tuple[str, ...]:
    return tuple(map(installed_backend, BACKENDS[one_of(list(BACKENDS))(value)]))


def _bound(value: str) -> int | None:
    if value == "none":
        return None
    try:
        return whole_number(0)(value)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error} or none") from None


def _seconds(value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{value!r}; expected a number of seconds above 0")
    return seconds


# --- what it does


def run(arguments: argparse.Namespace) -> int:
    """Explore a program, and print what was found and how to see it again.

    Returns the exit status, of `STATUS`; with several backends, the worst of them. Raises Mistake
    for what the lab refuses, such as a program that cannot be explored.
    """
    from concurrent.futures import BrokenExecutor

    from mbufpools.lab import LabError

    _check(arguments)
    if arguments.cancel_by == "native" and "trio" in arguments.backends:
        raise Mistake("argument --cancel-by: native is asyncio's; on trio there is only scope")
    if arguments.jobs > 1 and arguments.strategy == "dpor":
        raise Mistake("argument --jobs: dpor goes from one schedule to the next, in one process")
    arguments.out = sys.stdout
    try:
        # What the program prints would come between the objects.
        with redirect_stdout(sys.stderr) if arguments.json else nullcontext():
            program = load_program(arguments.program)
            if arguments.reset is not None:
                arguments.reset = load_reset(arguments.reset, program)
            arguments.fresh = [_fresh(name, program) for name in arguments.fresh]
            if arguments.token is not None:
                return _replay(program, arguments)
            verdicts = [_explore(program, arguments, backend) for backend in arguments.backends]
        return next(STATUS[it] for it in STATUS if it in verdicts)
    except (ImportError, ValueError, LabError, BrokenExecutor) as error:
        raise Mistake(" ".join(str(error).split("\n"))) from error


def _check(arguments: argparse.Namespace) -> None:
    """Raise Mistake for an option of which the lab would see only later that it is wrong."""
    from mbufpools import lab

    strategies = get_args(lab.StrategyName)
    if arguments.strategy not in strategies:
        raise Mistake(f"argument --strategy: {unknown(arguments.strategy, strategies)}")
    for name in arguments.cancel_files:
        if not Path(name).exists():
            raise Mistake(f"argument --cancel-file: {missing(Path(name))}")
    if arguments.html is not None and Path(arguments.html).is_file():
        raise Mistake(f"argument --html: {arguments.html} is a file; expected a directory")


def _fresh(name: str, program: Program) -> str:
    """Return the name of a module that is to be executed again."""
    if name == ".":
        return program.__module__
    if name not in sys.modules:
        meant = closest(name, sys.modules)
        raise Mistake(
            f"argument --fresh: {program.__module__} imports no module {name!r}"
            + (f"; did you mean {meant!r}?" if meant else "; expected a name as in `import NAME`")
        )
    return name


def _explore(program: Program, arguments: argparse.Namespace, backend: BackendName) -> Verdict:
    from mbufpools import lab

    with (
        _workers(arguments.jobs, prints_aside=arguments.json) as executor,
        progress_line(arguments.max_executions, "executions", at_most=True) as progress,
    ):
        found = lab.explore(
            program,
            strategy=arguments.strategy,
            backend=backend,
            max_preemptions=arguments.max_preemptions,
            max_executions=arguments.max_executions,
            max_seconds=arguments.max_seconds,
            seed=arguments.seed,
            depth=arguments.depth,
            slice_steps=arguments.slice_steps,
            cancel=_cancel(arguments),
            ignore=arguments.ignore,
            executor=executor,
            on_progress=progress,
            reset=arguments.reset,
            fresh=arguments.fresh,
            clocks=not arguments.real_clocks,
            chance=not arguments.real_chance,
        )
    _print(arguments, _with_pages(arguments, found, program), str(found))
    return found.verdict


def _cancel(arguments: argparse.Namespace) -> bool | lab.Cancellable:
    """Return what the options say of cancellations."""
    from mbufpools import lab

    options = (
        arguments.cancel_by,
        arguments.cancel_tasks,
        arguments.cancel_files,
        arguments.cancel_times,
        arguments.cancel_mid_wait,
    )
    if not any(options):
        return bool(arguments.cancel)
    return lab.cancellable(
        *arguments.cancel_tasks,
        files=arguments.cancel_files,
        by=arguments.cancel_by,
        times=arguments.cancel_times or 1,
        mid_wait=arguments.cancel_mid_wait,
    )


def _replay(program: Program, arguments: argparse.Namespace) -> int:
    from mbufpools import lab

    found = lab.replay(
        program,
        arguments.token,
        reset=arguments.reset,
        fresh=arguments.fresh,
        clocks=not arguments.real_clocks,
        chance=not arguments.real_chance,
    )
    found = _with_pages(arguments, found, program)
    _print(arguments, found, "" if found.failures else "the schedule of the token does not fail")
    return 1 if found.failures else 0


@contextmanager
def _workers(jobs: int, *, prints_aside: bool) -> Iterator[ProcessPoolExecutor | None]:
    """Yields the processes that share the work, or None if there is only this process. What they
    print may go to standard error."""
    if jobs == 1:
        yield None
        return
    from mbufpools.lab.engine import kill_workers, workers

    out = os.dup(1) if prints_aside else None
    try:
        if out is not None:
            os.dup2(2, 1)
        executor = workers(jobs)
    finally:
        if out is not None:
            os.dup2(out, 1)
            os.close(out)
    try:
        yield executor
    except BaseException:
        kill_workers(executor)
        raise
    executor.shutdown()


# --- what it prints


def _print(arguments: argparse.Namespace, found: lab.Exploration, summary: str) -> None:
    if arguments.json:
        arguments.out.write(json.dumps(_as_json(arguments.program, found)) + "\n")
        return
    for failure in found.failures:
        sys.stdout.write(f"{_report(arguments.program, failure)}\n")
        if summary:
            sys.stdout.write("\n")
    if summary:
        sys.stdout.write(f"{summary}\n")


def _with_pages(
    arguments: argparse.Namespace, found: lab.Exploration, program: Program
) -> lab.Exploration:
    """Write the pages that ``--html`` asks for."""
    from mbufpools.lab.engine import with_pages

    if arguments.html is None:
        return found
    return with_pages(found, arguments.html, program, partial(_command, arguments.program))


def _report(target: str, failure: lab.Failure) -> str:
    return failure.report_with(_command(target, failure.token))


def _command(target: str, token: str) -> str:
    return shlex.join(["mbufpools", "explore", target, "--token", token])


def _as_json(target: str, found: lab.Exploration) -> dict[str, Any]:
    names = (
        "verdict",
        "strategy",
        "backend",
        "executions",
        "complete",
        "bound",
        "left",
        "redundant",
        "seconds",
    )
    failures = [
        {
            **{
                name: getattr(failure, name)
                for name in ("kind", "token", "found_at", "replays", "repeated", "page")
            },
            "schedule": [asdict(step) for step in failure.schedule],
            "report": _report(target, failure),
        }
        for failure in found.failures
    ]
    return {
        "program": target,
        **{name: getattr(found, name) for name in names},
        "failures": failures,
    }
