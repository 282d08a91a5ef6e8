"""The task queue, seen with trio's own tools: instruments, its mock clock, and Ctrl-C."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator

import pytest
import trio
from trio.testing import MockClock

from mbufpools import Task, TaskQueue


class Steps(trio.abc.Instrument):
    """Counts the steps of each task, by its name."""

    def __init__(self) -> None:
        self.steps: Counter[str] = Counter()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.steps[task.name] += 1


async def test_the_runner_bears_the_name_of_its_queue_and_takes_no_step_without_work(
    autojump_clock: MockClock,
) -> None:
    async with TaskQueue("systq") as queue:
        await queue.barrier()
        steps = Steps()
        trio.lowlevel.add_instrument(steps)
        await trio.sleep(3600)
        assert "mbufpools systq" not in steps.steps
        queue.add(Task(lambda: None))
        await queue.barrier()
        assert steps.steps["mbufpools systq"] == 1


async def test_a_task_at_one_hertz_costs_at_most_two_steps_a_second(
    autojump_clock: MockClock,
) -> None:
    def tick() -> None:
        queue.add_later(task, 1)

    task = Task(tick)
    async with TaskQueue("systq") as queue:
        queue.add(task)
        steps = Steps()
        trio.lowlevel.add_instrument(steps)
        await trio.sleep(1000.5)
        assert task.runs == 1001
        assert steps.steps["mbufpools systq"] <= 2 * 1001


async def test_a_discarded_timer_does_not_wake_the_runner(autojump_clock: MockClock) -> None:
    discarded, kept = Task(lambda: None), Task(lambda: None)
    async with TaskQueue("systq") as queue:
        queue.add_later(discarded, 1)
        await trio.sleep(0.5)
        queue.discard(discarded)
        queue.add_later(kept, 5)
        await trio.sleep(0.1)
        steps = Steps()
        trio.lowlevel.add_instrument(steps)
        await trio.sleep(4)
        assert "mbufpools systq" not in steps.steps
        await trio.sleep(2)
        assert (discarded.runs, kept.runs) == (0, 1)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Gives SIGINT its default handler for one test.

    trio watches for Ctrl-C only where Python's own handler is in place. Under ``nohup`` the
    process inherits SIGINT as ignored, and the signal would do nothing.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_while_the_last_tasks_run_is_not_lost() -> None:
    ended: list[bool] = []

    async def interrupt() -> None:
        signal.raise_signal(signal.SIGINT)  # trio delivers it to the main task
        try:
            await trio.sleep_forever()
        finally:
            ended.append(True)

    async def main() -> None:
        async with TaskQueue() as queue:
            queue.add(Task(interrupt))

    with pytest.raises(BaseException) as caught:  # noqa: PT011 - bare, or in a group
        trio.run(main, restrict_keyboard_interrupt_to_checkpoints=True)
    error: BaseException = caught.value
    while isinstance(error, BaseExceptionGroup):
        (error,) = error.exceptions
    assert isinstance(error, KeyboardInterrupt)
    assert ended == [True]
