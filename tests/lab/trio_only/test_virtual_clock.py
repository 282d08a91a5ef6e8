"""The trio clock, seen with trio's own tools: instruments and `wait_all_tasks_blocked`."""

from __future__ import annotations

import math
import threading

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from mbufpools.lab import Stalled
from mbufpools.lab._virtual_clock import VirtualClock


class Steps(trio.abc.Instrument):
    """What `clock` showed at each step of each task, and each time when trio polled I/O."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.seen: list[float] = []
        self.polled_at: list[float] = []

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.seen.append(self.clock.current_time())

    def before_io_wait(self, timeout: float) -> None:
        assert timeout == 0, "a program with a timer pending never waits in real time"
        self.polled_at.append(self.clock.current_time())


@pytest.fixture
def virtual_clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def steps(virtual_clock: VirtualClock) -> Steps:
    return Steps(virtual_clock)


async def test_the_clock_shows_deadlines_and_nothing_between(
    virtual_clock: VirtualClock, steps: Steps, nursery: trio.Nursery
) -> None:
    deadlines = [0.1, 0.3, 0.1 + 0.2, 3600.7]
    for deadline in deadlines:
        nursery.start_soon(trio.sleep_until, deadline)
    await trio.sleep_until(3601)
    assert sorted(set(steps.seen)) == [0.0, *sorted(deadlines), 3601]


async def test_io_is_polled_before_each_jump(
    virtual_clock: VirtualClock, steps: Steps, nursery: trio.Nursery
) -> None:
    await trio.sleep(1)
    await trio.sleep(1)
    assert set(steps.polled_at) == {0.0, 1.0, 2.0}
    assert steps.polled_at.count(1.0) >= 2, "once on arrival, and once before leaving"


@pytest.mark.parametrize("cushion", [0.0, 0.001])
async def test_wait_all_tasks_blocked_comes_before_a_jump(
    virtual_clock: VirtualClock, nursery: trio.Nursery, cushion: float
) -> None:
    nursery.start_soon(trio.sleep, 5)
    await wait_all_tasks_blocked(cushion)
    assert trio.current_time() == 0.0


async def test_autojump_clock_is_in_virtual_time_too(autojump_clock: MockClock) -> None:
    await trio.sleep(3600)
    assert trio.current_time() == pytest.approx(3600)


def test_the_repr_shows_the_time() -> None:
    clock = VirtualClock()
    trio.run(trio.sleep, 1.5, clock=clock)
    assert repr(clock) == "<VirtualClock at 1.5 s>"


def test_the_patience_is_in_real_seconds() -> None:
    """The thread ends once trio has begun to wait for it, far less than a second later."""
    waiting = threading.Event()

    class TellTheThread(trio.abc.Instrument):
        def before_io_wait(self, timeout: float) -> None:
            if timeout > 0:
                assert 0 < timeout <= 60
                waiting.set()

    async def main() -> None:
        await trio.to_thread.run_sync(waiting.wait)

    trio.run(main, clock=VirtualClock(patience=60), instruments=[TellTheThread()])


def test_a_stall_is_raised_where_the_main_task_waits() -> None:
    clock = VirtualClock(patience=0)
    with pytest.raises(Stalled) as caught:
        trio.run(trio.sleep, math.inf, clock=clock)
    assert caught.value is clock.stalled
    assert "sleep_forever" in [entry.name for entry in caught.traceback]


def test_a_stall_in_a_nursery_cancels_its_children() -> None:
    cancelled = []

    async def child() -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            cancelled.append("child")
            raise

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)

    with pytest.RaisesGroup(Stalled):
        trio.run(main, clock=VirtualClock(patience=0))
    assert cancelled == ["child"]


def test_a_system_task_cannot_stall_the_end_of_a_run() -> None:
    async def shielded() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep_forever()

    async def main() -> str:
        trio.lowlevel.spawn_system_task(shielded)
        await trio.sleep(1)
        return "done"

    assert trio.run(main, clock=VirtualClock(patience=0)) == "done"


def test_a_program_that_swallows_everything_is_stopped_too() -> None:
    async def main() -> None:
        while True:
            try:
                await trio.sleep_forever()
            except Exception:  # noqa: BLE001  # what a bad program does
                pass

    clock = VirtualClock(patience=0)
    with pytest.raises(trio.Cancelled, match="every task waits and nothing is scheduled"):
        trio.run(main, clock=clock)
    assert clock.stalled is not None
