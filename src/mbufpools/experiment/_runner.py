"""Runs cells on any `concurrent.futures` executor, and keeps each result as soon as it is there."""

from __future__ import annotations

import importlib
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from typing import Any

from ._kernels import Kernel
from ._results import Cell, Figures, Folder, Results
from ._workloads import measure

__all__ = ["dask_executor", "processes", "run", "run_one"]


def run_one(
    workload: str, kernel: dict[str, Any], parameters: dict[str, Any], seed: int
) -> Figures:
    """Measure one run. All arguments are JSON values, so any executor can send them."""
    return measure(workload, Kernel(**kernel), parameters, seed)


def run(
    cells: Iterable[Cell],
    seeds: int,
    executor: Executor,
    *,
    changed: Callable[[Cell], Cell] = lambda cell: cell,
    folder: Folder | None = None,
    progress: Callable[[int], None] | None = None,
) -> Results:
    """Measure each cell with the seeds 1 to `seeds`, and return all results.

    Blocks until all is done. What `folder` has already is not run again, and each result is
    written to it at once: an interrupted run continues where it ended.

    Args:
        cells: the cells; equal ones are run once.
        seeds: how many runs of each.
        executor: runs them. It is not shut down.
        changed: returns the cell that is measured in the place of a cell; the result stands under
            the cell that was asked for.
        folder: where results are kept.
        progress: called with the number of runs that are done, first with those that `folder` had.

    Raises what a run raises, after cancelling the others.
    """
    measured = Results()
    asked = list({cell.key: cell for cell in cells}.values())
    wanted = list({(cell := changed(each)).key: cell for each in asked}.values())
    if folder is not None:
        folder.read(wanted, measured)
    # All cells with the first seed, then with the second: an early interruption leaves fewer seeds.
    jobs = [
        (cell, seed)
        for seed in range(1, seeds + 1)
        for cell in wanted
        if not measured.has(cell, seed)
    ]
    kept = len(wanted) * seeds - len(jobs)
    if progress is not None:
        progress(kept)
    running: dict[Future[Figures], tuple[Cell, int]] = {}
    try:
        for cell, seed in jobs:
            plain = cell.plain()
            future = executor.submit(
                run_one, plain["workload"], plain["kernel"], plain["parameters"], seed
            )
            running[future] = (cell, seed)
        for done, future in enumerate(as_completed(running), kept + 1):
            cell, seed = running[future]
            measured.add(cell, seed, future.result())
            if folder is not None:
                folder.keep(cell, seed, future.result())
            if progress is not None:
                progress(done)
    except BaseException:
        for future in running:
            future.cancel()
        raise
    results = Results()
    for cell in asked:
        for seed in range(1, seeds + 1):
            results.add(cell, seed, measured.runs[changed(cell).key][seed])
    return results


@contextmanager
def processes(workers: int | None = None) -> Iterator[Executor]:
    """An executor with so many processes; by default as many as there are CPUs. They are spawned,
    because a fork of a process with threads may hang."""
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers or os.cpu_count(), spawned) as executor:
        try:
            yield executor
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            raise


@contextmanager
def dask_executor(address: str) -> Iterator[Executor]:
    """An executor on the workers of the Dask scheduler at `address`; each needs mbufpools.

    Raises ImportError without ``distributed`` (the extra ``dask``); ConnectionError if nobody
    answers within ten seconds, or if it is no address.
    """
    distributed: Any = importlib.import_module("distributed")
    try:
        client = distributed.Client(address, timeout=10)
    except (OSError, ValueError) as error:
        raise ConnectionError(f"no Dask scheduler at {address!r}: {error}") from error
    with client:
        yield client.get_executor()
