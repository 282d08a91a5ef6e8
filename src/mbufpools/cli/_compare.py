"""``mbufpools compare``: run the experiment, and print what each kernel does.

The questions and the workloads are in `mbufpools.experiment`. With ``--out`` the figures are kept
in a folder, from which an interrupted run continues; the pictures and ``report.html`` are written
there, too.
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import AbstractContextManager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbufpools.demokit import (
    Mistake,
    Parser,
    closest,
    closest_path,
    conjunction,
    fill,
    progress_line,
    whole_number,
)

from ._settings import read_settings

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from mbufpools.experiment import Cell, Question, Results

__all__ = ["add_to", "run"]

SEEDS = 3
"""Runs of each cell, if ``--seeds`` does not say how many."""


def add_to(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add the verb to the command line."""
    parser = commands.add_parser(
        "compare",
        help="compare kernels by experiment: the questions of the thread, with verdicts",
        description="Run the workloads of the experiment under each kernel, in virtual time, and "
        "print the tables and the verdicts.",
    )
    parser.add_argument(
        "question", nargs="?", metavar="QUESTION", help="a name or a letter; by default all"
    )
    parser.add_argument(
        "--seeds", type=whole_number(1, 10000), metavar="N", help=f"runs a cell ({SEEDS})"
    )
    parser.add_argument(
        "--workers",
        type=whole_number(1, 1024),
        metavar="N",
        help="processes (as many as there are CPUs)",
    )
    parser.add_argument("--dask", metavar="ADDRESS", help="run on a Dask scheduler instead")
    parser.add_argument(
        "--cpus",
        type=whole_number(1, 256),
        metavar="N",
        help="CPUs with caches, where a row has caches and states no other number (8)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="WORKLOAD.NAME=VALUE",
        help="change a parameter of a workload, such as incident.nmbclust=16384; one that the "
        "question varies cannot be changed",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="keep figures; write report.html")
    parser.add_argument(
        "--results", type=Path, metavar="FILE", help="run nothing; read packed results"
    )
    parser.add_argument("--pack", type=Path, metavar="FILE", help="pack the results into a file")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--list", action="store_true", help="list questions and parameters")
    only.add_argument("--verdicts", action="store_true", help="print the verdicts only")
    only.add_argument("--findings", action="store_true", help="print five findings only")
    only.add_argument("--mail", action="store_true", help="print the mails to the list only")
    parser.add_argument("--json", action="store_true", help="print JSON, one object a line")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the cells of the question that was named, or of all; print tables and verdicts.

    Returns 0. Raises Mistake if there is no such question, parameter, file or extra, and for
    options that do not go together.
    """
    from mbufpools import experiment

    questions = _questions(arguments)
    _check(arguments)
    if arguments.list:
        _list(questions, as_json=arguments.json)
        return 0
    results = _read(arguments.results) if arguments.results else _measure(questions, arguments)
    try:
        if arguments.findings:
            _print_findings(results, as_json=arguments.json)
        elif arguments.mail:
            _print_mails(results, as_json=arguments.json)
        else:
            for question in questions:
                _print(question, results, arguments)
    except LookupError as error:
        raise Mistake(str(error)) from None
    if arguments.pack is not None:
        experiment.pack(results, arguments.pack)
    if arguments.out is not None:
        from mbufpools.experiment.report import write_report

        file = write_report(questions, results, arguments.out)
        sys.stderr.write(f"written: {file}\n")
    return 0


def _questions(arguments: argparse.Namespace) -> tuple[Question, ...]:
    """Return the question that was named, or all."""
    from mbufpools import experiment

    asked: str | None = arguments.question
    if asked is None:
        return experiment.QUESTIONS
    try:
        return (experiment.find_question(asked.casefold()),)
    except KeyError:
        meant = closest(asked, [it.name for it in experiment.QUESTIONS])
        names = ", ".join(f"{it.letter} ({it.name})" for it in experiment.QUESTIONS)
        expected = f"did you mean {meant!r}? Expected" if meant else "expected"
        raise Mistake(f"no question {asked!r}; {expected} one of {names}") from None


RUNS = ("seeds", "workers", "dask", "cpus", "set")
"""The options that say how the cells are run."""
FILES = ("out", "results", "pack")
"""The options that name a file or a directory."""


def _check(arguments: argparse.Namespace) -> None:
    """Refuse what would fail after a long run, and options that would have no effect."""
    given = {name for name in (*RUNS, *FILES) if getattr(arguments, name) not in (None, [])}
    useless, why = set(), ""
    if arguments.list:
        useless, why = given, "--list runs nothing"
    elif arguments.results is not None:
        useless, why = given.intersection(RUNS), "--results runs nothing"
    elif arguments.dask is not None:
        useless, why = given & {"workers"}, "the scheduler of --dask has its own workers"
    if useless:
        options = [f"--{name}" for name in (*RUNS, *FILES) if name in useless]
        raise Mistake(f"{why}, so {conjunction(options)} would have no effect; leave one out")
    if arguments.out is not None:
        if find_spec("matplotlib") is None:
            raise Mistake("--out draws pictures, which needs: pip install 'mbufpools[report]'")
        if arguments.out.exists() and not arguments.out.is_dir():
            raise Mistake(f"argument --out: {arguments.out} is a file; expected a directory")
    if arguments.dask is not None and find_spec("distributed") is None:
        raise Mistake("--dask needs Dask: pip install 'mbufpools[dask]'")
    for option in ("pack", "mail", "findings"):
        if getattr(arguments, option) and (arguments.set or arguments.cpus):
            raise Mistake(
                f"--{option} is for results of the stated parameters; leave --set and --cpus out"
            )
    if arguments.pack is not None:
        if arguments.pack.is_dir():
            raise Mistake(f"argument --pack: {arguments.pack} is a directory; expected a file")
        if not arguments.pack.absolute().parent.is_dir():
            raise Mistake(f"argument --pack: there is no directory {arguments.pack.parent}")


def _read(file: Path) -> Results:
    import lzma

    from mbufpools import experiment

    try:
        return experiment.unpack(file)
    except OSError as error:
        meant = closest_path(file) if isinstance(error, FileNotFoundError) else None
        raise Mistake(
            f"argument --results: {file}: {error.strerror}; "
            + (f"did you mean {meant}?" if meant else "expected a file that --pack wrote")
        ) from None
    except (lzma.LZMAError, ValueError, KeyError):
        raise Mistake(
            f"argument --results: {file} is no file of results; expected one that --pack wrote"
        ) from None


def _measure(questions: tuple[Question, ...], arguments: argparse.Namespace) -> Results:
    from mbufpools import experiment

    cells: list[Cell] = [cell for question in questions for cell in question.cells]
    if arguments.findings or arguments.mail:
        cells += experiment.MAIL_CELLS
    changes = read_settings(arguments.set, questions)
    folder = None
    if arguments.out is not None:
        folder = experiment.Folder(arguments.out / "results")
    executor: AbstractContextManager[Executor] = experiment.processes(arguments.workers)
    if arguments.dask is not None:
        executor = experiment.dask_executor(arguments.dask)
    seeds = arguments.seeds or SEEDS
    runs = len({cell.key for cell in cells}) * seeds
    try:
        with executor as workers, progress_line(runs, "runs", time_left=True) as progress:
            results = experiment.run(
                cells,
                seeds,
                workers,
                changed=lambda cell: cell.changed(changes.get(cell.workload, {}), arguments.cpus),
                folder=folder,
                progress=progress,
            )
            results.changes, results.cpus = changes, arguments.cpus
            return results
    except ConnectionError as error:
        raise Mistake(f"argument --dask: {error}") from error
    except (ValueError, ArithmeticError) as error:
        if not changes:
            raise
        raise Mistake(
            f"argument --set: a workload fails with these parameters: {type(error).__name__}: "
            f"{error}"
        ) from error


def _print_findings(results: Results, *, as_json: bool) -> None:
    from mbufpools import experiment

    for finding in experiment.findings(results):
        line = json.dumps({"finding": finding}) if as_json else fill(f"- {finding}", indent="  ")
        sys.stdout.write(line + "\n")


def _print_mails(results: Results, *, as_json: bool) -> None:
    from mbufpools import experiment

    mails = experiment.mails(results)
    if as_json:
        lines = [json.dumps({"subject": it.subject, "text": it.text}) + "\n" for it in mails]
        sys.stdout.write("".join(lines))
    else:
        sys.stdout.write(f"\n{'=' * 72}\n\n".join(map(str, mails)))


def _print(question: Question, results: Results, arguments: argparse.Namespace) -> None:
    verdict = question.verdict(results)
    if arguments.json:
        plain: dict[str, Any] = {
            "question": question.name,
            "letter": question.letter,
            "asked": question.asked,
            "seeds": results.seeds_of(question.cells),
            "verdict": verdict,
        }
        if not arguments.verdicts:
            tables = question.tables(results)
            plain["tables"] = [{"title": it.title, "rows": it.rows} for it in tables]
        sys.stdout.write(json.dumps(plain) + "\n")
    elif arguments.verdicts:
        sys.stdout.write(f"{question.letter}. {question.asked}\n{fill(verdict)}\n\n")
    else:
        title = f"{question.letter}. {question.asked}"
        paragraphs = [
            f"{title}\n{'-' * len(title)}",
            fill(question.how(results)),
            *map(str, question.tables(results)),
            *map(fill, question.notes(results)),
            fill(_terms(question, results, arguments)),
            fill(f"Verdict: {verdict}"),
        ]
        sys.stdout.write("\n\n".join(paragraphs) + "\n\n")
    sys.stdout.flush()


def _terms(question: Question, results: Results, arguments: argparse.Namespace) -> str:
    from mbufpools.experiment import BRACKETS

    seeds, cpus = results.seeds_of(question.cells), arguments.cpus or 8
    terms = [f"Seeds: {seeds}. Caches are those of {cpus} CPUs, where nothing else is said."]
    if arguments.set:
        terms.append(
            f"Changed in every row that is simulated, whatever it says: {', '.join(arguments.set)}."
        )
    terms.append(BRACKETS)
    if find_spec("numpy") is None:
        terms.append("Without NumPy no mean has an interval: pip install 'mbufpools[report]'.")
    return " ".join(terms)


def _list(questions: tuple[Question, ...], *, as_json: bool) -> None:
    """List the questions, the parameters of their workloads, and which of these are stated."""
    from mbufpools.experiment import DESCRIBED, PARAMETERS

    used = {cell.workload for question in questions for cell in question.cells}
    workloads = {
        name: parameters
        for name, parameters in PARAMETERS.items()
        if name in used or len(questions) > 1
    }
    if as_json:
        lines = [
            json.dumps(
                {
                    "question": question.name,
                    "letter": question.letter,
                    "asked": question.asked,
                    "workloads": sorted({cell.workload for cell in question.cells}),
                    "stated": question.stated,
                }
            )
            for question in questions
        ]
        lines += [
            json.dumps(
                {
                    "workload": workload,
                    "parameters": defaults,
                    "units": {name: it.unit for name, it in DESCRIBED[workload].items()},
                    "meanings": {name: it.meaning for name, it in DESCRIBED[workload].items()},
                }
            )
            for workload, defaults in workloads.items()
        ]
    else:
        lines = [f"{it.letter}  {it.name:10}{it.asked}" for it in questions]
        for workload in workloads:
            lines += ["", f"{workload}: what --set {workload}.NAME=VALUE can change"]
            for name, it in DESCRIBED[workload].items():
                given = f"{name}={json.dumps(it.default)}"
                lines.append(f"  {given:16}  {it.meaning} ({it.unit})")
        lines += [
            "",
            "What a question states in its rows or words; --set cannot change it there:",
        ]
        lines += [f"{it.letter}  {', '.join(it.stated)}" for it in questions if it.stated]
    sys.stdout.write("\n".join(lines) + "\n")
