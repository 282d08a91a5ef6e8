"""Cells run on any executor, and an interrupted run goes on where it ended."""

from __future__ import annotations

import importlib
import importlib.util
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mbufpools.experiment import (
    KERNELS,
    Cell,
    Folder,
    Results,
    dask_executor,
    measure,
    pack,
    processes,
    run,
    unpack,
)
from mbufpools.experiment import _results as results_module

CELLS = [Cell.of("hidden", KERNELS[name], pool="mcl2k", pages=2) for name in ("patch", "curpage")]


class AtOnce(Executor):
    """Runs each call at once, and counts them."""

    def __init__(self) -> None:
        self.calls = 0

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.calls += 1
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def test_each_cell_is_run_with_each_seed_once() -> None:
    executor, seen = AtOnce(), list[int]()
    found = run([*CELLS, CELLS[0]], 2, executor, progress=seen.append)
    assert executor.calls == 4
    assert seen == [0, 1, 2, 3, 4]
    assert found.seeds_of(CELLS) == 2
    assert found.all(CELLS[0]) == [
        measure("hidden", KERNELS["patch"], {"pool": "mcl2k", "pages": 2}, seed) for seed in (1, 2)
    ]


def test_threads_and_processes_find_the_same() -> None:
    with ThreadPoolExecutor(2) as threads, processes(1) as others:
        assert run(CELLS, 1, threads) == run(CELLS, 1, others)


@pytest.mark.skipif(importlib.util.find_spec("distributed") is None, reason="needs Dask")
@pytest.mark.real_time
@pytest.mark.filterwarnings("ignore")
def test_dask_finds_the_same() -> None:
    distributed: Any = importlib.import_module("distributed")
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
        ) as cluster,
        dask_executor(cluster.scheduler_address) as workers,
    ):
        assert run(CELLS, 1, workers) == run(CELLS, 1, AtOnce())


def test_an_interrupted_run_continues_where_it_ended(tmp_path: Path) -> None:
    run(CELLS, 1, AtOnce(), folder=Folder(tmp_path))
    executor, seen = AtOnce(), list[int]()
    found = run(CELLS, 3, executor, folder=Folder(tmp_path), progress=seen.append)
    assert executor.calls == 4
    assert seen == [2, 3, 4, 5, 6]
    assert found == run(CELLS, 3, AtOnce())
    nothing = AtOnce()
    assert run(CELLS, 3, nothing, folder=Folder(tmp_path)) == found
    assert nothing.calls == 0


def test_a_line_that_was_cut_off_is_run_again(tmp_path: Path) -> None:
    found = run(CELLS[:1], 2, AtOnce(), folder=Folder(tmp_path))
    file = tmp_path / CELLS[0].file_name
    file.write_bytes(file.read_bytes()[:-10])
    executor = AtOnce()
    assert run(CELLS[:1], 2, executor, folder=Folder(tmp_path)) == found
    assert executor.calls == 1
    assert file.read_text("utf-8").count("\n") == 3


def test_results_of_other_code_are_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(CELLS[:1], 1, AtOnce(), folder=Folder(tmp_path))
    monkeypatch.setattr(results_module, "fingerprint", lambda: "other")
    executor = AtOnce()
    run(CELLS[:1], 1, executor, folder=Folder(tmp_path))
    assert executor.calls == 1


def test_a_changed_cell_is_measured_in_the_place_of_the_cell_that_was_asked_for() -> None:
    found = run(CELLS[:1], 1, AtOnce(), changed=lambda cell: cell.changed({"pages": 1}, None))
    assert found.values(CELLS[0], "items") == [8]


def test_the_number_of_cpus_changes_where_there_are_caches() -> None:
    cell = Cell.of("idle", KERNELS["patch"].on(8))
    assert cell.changed({}, 4).kernel.caches == 4
    assert CELLS[0].changed({}, 4) == CELLS[0]
    stated = Cell.of("incident", KERNELS["patch"].on(1))
    assert stated.changed({}, 4) == stated


def test_packed_results_are_the_same_bytes_and_come_out_again(tmp_path: Path) -> None:
    found = run(CELLS, 2, AtOnce())
    pack(found, tmp_path / "one")
    pack(unpack(tmp_path / "one"), tmp_path / "other")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()
    assert unpack(tmp_path / "one").values(CELLS[1], "put") == found.values(CELLS[1], "put")


def test_a_cell_without_results_is_an_error_that_names_it() -> None:
    with pytest.raises(LookupError, match="hidden"):
        Results().all(CELLS[0])


def test_an_error_of_a_run_comes_out() -> None:
    class Broken(AtOnce):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            future: Future[Any] = Future()
            future.set_exception(ZeroDivisionError("planted"))
            return future

    with pytest.raises(ZeroDivisionError, match="planted"):
        run(CELLS, 1, Broken())
