"""The system tasks that a program spawns itself, and what `run_sync_soon` calls."""

from __future__ import annotations

import pytest
import trio

from mbufpools import lab
from tests.lab.test_parallel import AtOnce


def failure_of(program: lab.Program) -> lab.Failure:
    """Return the failure that is found, after it was replayed."""
    (failure,) = lab.explore(program, backend="trio").failures
    (again,) = lab.replay(program, failure.token).failures
    assert again.report.partition("\n")[0] == failure.report.partition("\n")[0]
    return failure


def test_an_error_in_a_system_task_is_a_failure_with_a_token() -> None:
    async def breaks() -> None:
        raise ValueError("broken")

    async def program() -> None:
        trio.lowlevel.spawn_system_task(breaks)
        await trio.sleep(1)

    failure = failure_of(program)
    said = "exception: the system task 'breaks' failed, and trio with it: ValueError: broken"
    assert failure.report.startswith(said)
    assert isinstance(failure.error, ValueError)
    with pytest.raises(trio.TrioInternalError):
        trio.run(program)


def test_an_error_in_what_run_sync_soon_calls_is_a_failure_with_a_token() -> None:
    def breaks() -> None:
        raise ValueError("broken")

    async def program() -> None:
        trio.lowlevel.current_trio_token().run_sync_soon(breaks)
        await trio.sleep(1)

    said = "exception: a function that run_sync_soon has called failed, and trio with it: ValueErr"
    assert failure_of(program).report.startswith(said)


def test_an_error_of_a_system_task_that_is_cancelled_at_the_end_is_a_failure() -> None:
    async def breaks() -> None:
        try:
            await trio.sleep_forever()
        finally:
            if lab.choose("good", "bad") == "bad":
                raise ValueError("broken")

    async def program() -> None:
        trio.lowlevel.spawn_system_task(breaks)
        await trio.sleep(1)

    failure = failure_of(program)
    assert "the system task 'breaks' failed" in failure.report
    assert "here lab.choose takes 'bad'" in failure.report


def test_an_invariant_is_checked_when_a_system_task_is_cancelled_at_the_end() -> None:
    async def program() -> None:
        free = [1]
        lab.invariant(lambda: free)

        async def left() -> None:
            try:
                await trio.sleep_forever()
            finally:
                free.clear()

        trio.lowlevel.spawn_system_task(left)
        await trio.sleep(1)

    assert failure_of(program).report.startswith("exception: Violated: invariant")


async def races_with_a_system_task() -> None:
    seen: list[int] = []

    async def writes() -> None:
        await trio.lowlevel.checkpoint()
        seen.append(1)

    trio.lowlevel.spawn_system_task(writes)
    await trio.lowlevel.checkpoint()
    assert seen, "trio itself takes this order in half of its runs"


@pytest.mark.parametrize("jobs", [None, 1])
def test_a_proof_says_that_no_schedule_chooses_when_a_system_task_runs(jobs: int | None) -> None:
    executor = None if jobs is None else AtOnce()
    found = lab.explore(races_with_a_system_task, backend="trio", executor=executor)
    assert found.verdict == "proved"
    (remark,) = found.remarks
    assert remark.endswith("when trio runs what it keeps to itself (system task 'writes')")


def test_a_proof_says_that_no_schedule_chooses_when_run_sync_soon_calls() -> None:
    async def program() -> None:
        called: list[int] = []
        trio.lowlevel.current_trio_token().run_sync_soon(called.append, 1)
        await trio.lowlevel.checkpoint()
        assert called, "trio itself takes this order in half of its runs"

    (remark,) = lab.explore(program, backend="trio").remarks
    assert remark.endswith("when trio runs what it keeps to itself (run_sync_soon)")
    lab.explore(program, backend="trio", cancel=True).assert_holds()


def test_a_system_task_ends_with_its_execution() -> None:
    running: list[int] = []

    async def stays() -> None:
        running.append(1)
        try:
            await trio.sleep_forever()
        finally:
            running.pop()

    async def program() -> None:
        assert not running
        trio.lowlevel.spawn_system_task(stays)
        await trio.sleep(1)
        assert len(running) == 1

    lab.explore(program, backend="trio").assert_holds()
    assert not running
