"""The library under every schedule of small programs: a quick form, and that it would find bugs."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from anyio.lowlevel import checkpoint

from mbufpools import TaskQueue, lab
from mbufpools._request import Request
from mbufpools._taskq import Task
from mbufpools._waiters import Waiters
from mbufpools.net._byte_queue import ByteQueue
from tests.proofs.__main__ import Job, jobs
from tests.proofs.programs import POLICIES, SUBJECTS, Policy

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = (ROOT / "docs" / "guarantees.md").read_text("utf-8")
BOUNDED = Policy("bounded", "deferred", "pressure")


def in_turn(job: Job) -> bool:
    """Each subject on one backend in turn, the other of which is left to the long proofs."""
    backends = SUBJECTS[job.subject].backends
    return job.backend == backends[job.subject % len(backends)]


@pytest.mark.parametrize(
    "job",
    [
        pytest.param(
            job,
            id=f"{SUBJECTS[job.subject].name}, {job.policy}, {job.backend}",
            marks=[] if in_turn(job) else [pytest.mark.prove],
        )
        for job in jobs(quick=True)
    ],
)
def test_no_schedule_of_the_library_fails(job: Job, caplog: pytest.LogCaptureFixture) -> None:
    exploration = job.run()
    exploration.assert_holds()
    assert exploration.complete
    assert not caplog.records, "`python -m tests.proofs` would print them beside its table"


def explore(
    subject: str,
    backend: lab.BackendName = "asyncio",
    strategy: lab.StrategyName = "exhaustive",
) -> lab.Exploration:
    (found,) = (it for it in SUBJECTS if it.name == subject)
    bound = 1 if strategy == "exhaustive" else None
    return lab.explore(
        found.make(BOUNDED), backend=backend, strategy=strategy, max_preemptions=bound
    )


everywhere = pytest.mark.parametrize(
    ("backend", "strategy"),
    [(b, s) for b in ("asyncio", "trio") for s in ("exhaustive", "dpor")],
)


@everywhere
def test_the_proof_finds_a_queue_that_does_not_run_again_when_its_head_leaves(
    backend: lab.BackendName, strategy: lab.StrategyName, monkeypatch: pytest.MonkeyPatch
) -> None:
    withdraw = Waiters._withdraw

    def careless(waiters: Waiters, *args: Any) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(waiters, "run", lambda *_args, **_options: None)
            withdraw(waiters, *args)

    monkeypatch.setattr(Waiters, "_withdraw", careless)
    (failure,) = explore("the head of the queue leaves", backend, strategy).failures
    assert failure.kind == "exception"
    assert "TimeoutError" in failure.report


@everywhere
def test_the_proof_finds_a_grant_that_is_lost_to_a_cancellation(
    backend: lab.BackendName, strategy: lab.StrategyName, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost: list[Any] = []  # kept, because the garbage collector would find it at its own time
    monkeypatch.setattr("mbufpools._waiters._release", lost.append)
    (failure,) = explore("cancel a waiter by its scope", backend, strategy).failures
    assert failure.kind in ("exception", "leak")
    for lease in lost:
        lease.end()


@everywhere
def test_the_proof_finds_a_request_that_looks_before_it_joins(
    backend: lab.BackendName, strategy: lab.StrategyName, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An item that comes back between the look and the join is not seen, nor is it reported."""
    acquire = Waiters.acquire

    async def late(waiters: Waiters, *args: Any, **options: Any) -> Any:
        await checkpoint()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(waiters, "run", lambda *_args, **_options: None)
            coroutine = acquire(waiters, *args, **options)
            return await coroutine

    monkeypatch.setattr(Waiters, "acquire", late)
    assert explore("get and put, 3 tasks", backend, strategy).failures


@everywhere
def test_the_proof_finds_a_mark_that_is_cleared_after_the_run(
    backend: lab.BackendName, strategy: lab.StrategyName, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_one = TaskQueue._run_one

    async def late(queue: TaskQueue, task: Task) -> None:
        task._queue = queue
        function = task.function

        def restore() -> Any:
            task._queue = queue  # `_run_one` has cleared it
            return function()

        task.function = restore
        try:
            await run_one(queue, task)
        finally:
            task.function = function
            task._queue = None

    monkeypatch.setattr(TaskQueue, "_run_one", late)
    (failure,) = explore("task queue: add while it runs", backend, strategy).failures
    assert failure.kind == "exception"
    assert "the last change was not looked at" in failure.report


def test_the_proof_finds_a_cancelled_receiver_that_wakes_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def careless(queue: ByteQueue[Any], requests: Iterable[Request[bool]]) -> None:
        for request in requests:
            queue.parked.remove(request)
            queue.woken.discard(request)

    monkeypatch.setattr(ByteQueue, "leave", careless)
    (failure,) = explore("stream: natively, backwards").failures
    assert failure.kind == "exception"
    assert "TimeoutError" in failure.report


def test_the_proof_finds_an_end_that_is_told_while_a_woken_receiver_may_leave_an_item(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def early(queue: ByteQueue[Any]) -> bool:
        return not (queue.senders_open or queue.spare or queue.delayed)

    monkeypatch.setattr(ByteQueue, "ended", property(early))
    (failure,) = explore("stream: cancel 2 receivers").failures
    assert "the end came before the last item" in failure.report


def test_the_proof_finds_items_that_belong_to_a_receiver_before_it_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def handed(queue: ByteQueue[Any], request: Request[bool]) -> Any:
        place = sorted(woken.number for woken in queue.woken).index(request.number)
        queue.woken.remove(request)
        queue.ready.rotate(-place)
        item = queue.take()
        queue.ready.rotate(place)
        return item

    monkeypatch.setattr(ByteQueue, "take_as", handed)
    (failure,) = explore("stream: cancel 2 receivers").failures
    assert "out of order" in failure.report


def test_the_document_tells_of_every_proof() -> None:
    for subject in SUBJECTS:
        for backend in subject.backends:
            policies = len(POLICIES) if len(subject.policies) > 1 else "-"
            row = rf"{re.escape(subject.name)} +{backend} +{policies} +{subject.preemptions} +all "
            assert re.search(row + r"\d+ +none", DOCUMENT), (subject.name, backend)
    assert re.search(r"Verdict: in \d+ schedules, all within their bounds and none", DOCUMENT)


def prove(module: str) -> str:
    """Run a proof in full; return the last line that it prints."""
    proof = subprocess.run(
        [sys.executable, "-m", module], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert proof.returncode == 0, proof.stdout + proof.stderr
    return proof.stdout.strip().splitlines()[-1]


@pytest.mark.prove
def test_an_exception_at_any_place_of_any_call_loses_nothing() -> None:
    assert "nothing was lost at any of them" in prove("tests.proofs.places")


@pytest.mark.prove
def test_the_library_is_proved_in_full() -> None:
    verdict = prove("tests.proofs")
    assert verdict in DOCUMENT, f"docs/guarantees.md is out of date: {verdict}"
