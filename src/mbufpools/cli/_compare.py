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

from mbufpools.demokit import Mistake, Parser, fill, progress_line, whole_number

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from mbufpools.experiment import Cell, Question, Results

__all__ = ["add_to", "run"]


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
        "--seeds", type=whole_number(1, 10000), default=3, metavar="N", help="runs a cell (3)"
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
        help="CPUs with caches, where a kernel has caches (8)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="WORKLOAD.NAME=VALUE",
        help="change a parameter of a workload, such as incident.nmbclust=16384",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="keep figures; write report.html")
    parser.add_argument(
        "--results", type=Path, metavar="FILE", help="run nothing; read packed results"
    )
    parser.add_argument("--pack", type=Path, metavar="FILE", help="pack the results into a file")
    parser.add_argument("--list", action="store_true", help="list questions and parameters")
    parser.add_argument("--json", action="store_true", help="print JSON, one object a question")
    parser.add_argument("--verdicts", action="store_true", help="print the verdicts only")
    parser.add_argument("--findings", action="store_true", help="print five findings only")
    parser.add_argument("--mail", action="store_true", help="print a mail to the list only")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the cells of the question that was named, or of all; print tables and verdicts.

    Returns 0. Raises Mistake if there is no such question, parameter, file or extra.
    """
    from mbufpools import experiment

    if arguments.list:
        _list()
        return 0
    if arguments.question is None:
        questions: tuple[Question, ...] = experiment.QUESTIONS
    else:
        try:
            questions = (experiment.find_question(arguments.question),)
        except KeyError:
            names = ", ".join(f"{it.letter} ({it.name})" for it in experiment.QUESTIONS)
            raise Mistake(f"no question {arguments.question!r}; expected one of {names}") from None
    if arguments.out is not None and find_spec("matplotlib") is None:
        raise Mistake("--out draws pictures: pip install mbufpools[report]")
    if arguments.pack is not None and (arguments.set or arguments.cpus):
        raise Mistake(
            "--pack keeps the results of the stated parameters; leave --set and --cpus out"
        )
    results = _read(arguments.results) if arguments.results else _measure(questions, arguments)
    try:
        if arguments.findings:
            for finding in experiment.findings(results):
                sys.stdout.write(fill(f"- {finding}", indent="  ") + "\n")
        elif arguments.mail:
            sys.stdout.write(experiment.mail(results))
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


def _changes(arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Read the options ``--set``: new parameters by workload."""
    from mbufpools import experiment

    changes: dict[str, dict[str, Any]] = {}
    for option in arguments.set:
        name, _, value = option.partition("=")
        workload, _, parameter = name.partition(".")
        known = experiment.PARAMETERS.get(workload, {})
        if parameter not in known:
            names = ", ".join(
                f"{each}.{it}"
                for each in experiment.PARAMETERS
                for it in experiment.PARAMETERS[each]
            )
            raise Mistake(f"argument --set: no parameter {name!r}; expected one of {names}")
        try:
            changes.setdefault(workload, {})[parameter] = json.loads(value)
        except ValueError:
            raise Mistake(
                f"argument --set: {value!r} is no value; expected a number, true or false"
            ) from None
    return changes


def _read(file: Path) -> Results:
    import lzma

    from mbufpools import experiment

    try:
        return experiment.unpack(file)
    except OSError as error:
        raise Mistake(f"{file}: {error.strerror}; expected a file that --pack wrote") from None
    except (lzma.LZMAError, ValueError, KeyError):
        raise Mistake(f"{file} is no file of results; expected one that --pack wrote") from None


def _measure(questions: tuple[Question, ...], arguments: argparse.Namespace) -> Results:
    from mbufpools import experiment

    cells: list[Cell] = [cell for question in questions for cell in question.cells]
    if arguments.findings or arguments.mail:
        cells += experiment.MAIL_CELLS
    changes = _changes(arguments)
    folder = None
    if arguments.out is not None:
        folder = experiment.Folder(arguments.out / "results")
    executor: AbstractContextManager[Executor] = experiment.processes(arguments.workers)
    if arguments.dask is not None:
        if find_spec("distributed") is None:
            raise Mistake("--dask needs Dask: pip install mbufpools[dask]")
        executor = experiment.dask_executor(arguments.dask)
    runs = len({cell.key for cell in cells}) * arguments.seeds
    try:
        with executor as workers, progress_line(runs, "runs", time_left=True) as progress:
            return experiment.run(
                cells,
                arguments.seeds,
                workers,
                changed=lambda cell: cell.changed(changes.get(cell.workload, {}), arguments.cpus),
                folder=folder,
                progress=progress,
            )
    except ConnectionError as error:
        raise Mistake(f"argument --dask: {error}") from error


def _print(question: Question, results: Results, arguments: argparse.Namespace) -> None:
    verdict = question.verdict(results)
    if arguments.json:
        tables = [{"title": it.title, "rows": it.rows} for it in question.tables(results)]
        plain = {
            "question": question.name,
            "letter": question.letter,
            "asked": question.asked,
            "seeds": results.seeds_of(question.cells),
            "tables": tables,
            "verdict": verdict,
        }
        sys.stdout.write(json.dumps(plain) + "\n")
    elif arguments.verdicts:
        sys.stdout.write(f"{question.letter}. {question.asked}\n{fill(verdict)}\n\n")
    else:
        title = f"{question.letter}. {question.asked}"
        paragraphs = [
            f"{title}\n{'-' * len(title)}",
            fill(question.how),
            *map(str, question.tables(results)),
            *map(fill, question.notes),
            fill(_terms(question, results, arguments)),
            fill(f"Verdict: {verdict}"),
        ]
        sys.stdout.write("\n\n".join(paragraphs) + "\n\n")
    sys.stdout.flush()


def _terms(question: Question, results: Results, arguments: argparse.Namespace) -> str:
    seeds, cpus = results.seeds_of(question.cells), arguments.cpus or 8
    terms = [f"Seeds: {seeds}. Caches are those of {cpus} CPUs."]
    if arguments.set:
        terms.append(f"Changed: {', '.join(arguments.set)}.")
    if find_spec("numpy") is None:
        terms.append("Without NumPy there are no intervals: pip install mbufpools[report].")
    else:
        terms.append("In brackets: 95 % of the bootstrapped means.")
    return " ".join(terms)


def _list() -> None:
    from mbufpools import experiment

    lines = [f"{it.letter}  {it.name:10}{it.asked}" for it in experiment.QUESTIONS]
    lines.append("")
    for workload, parameters in experiment.PARAMETERS.items():
        given = ", ".join(f"{name}={json.dumps(value)}" for name, value in parameters.items())
        lines.append(f"{workload}: {given}")
    sys.stdout.write("\n".join(lines) + "\n")
