"""Events and the library's own tasks share one virtual clock."""

from __future__ import annotations

from typing import Any

import pytest

from mbufpools import Buffer
from mbufpools.experiment._clock import Simulation, simulate
from mbufpools.experiment._kernels import KERNELS
from mbufpools.experiment._machine import Machine, percentile


def test_events_run_at_their_times_and_those_of_one_time_in_the_order_of_scheduling() -> None:
    async def program(simulation: Simulation) -> list[tuple[float, str]]:
        seen: list[tuple[float, str]] = []

        def note(name: str) -> None:
            seen.append((simulation.now, name))

        simulation.after(2.0, note, "late")
        simulation.after(1.0, note, "first")
        simulation.after(1.0, note, "second")
        simulation.every(0.7, lambda: note("tick"))
        await simulation.run(2.2)
        assert simulation.now == 2.2
        return seen

    assert simulate(program) == [
        (0.7, "tick"),
        (1.0, "first"),
        (1.0, "second"),
        (1.4, "tick"),
        (2.0, "late"),
        (pytest.approx(2.1), "tick"),
    ]


def test_a_sleeper_goes_on_at_the_moment_of_its_grant() -> None:
    async def program(simulation: Simulation) -> list[float]:
        served: list[float] = []
        async with Machine(simulation, KERNELS["patch"], 8, 1) as machine:
            pools = machine.pools
            cluster = machine.take(pools.m_clpool(2048))
            machine.wait_get(pools.mbpool, lambda buffer: served.append(simulation.now))
            machine.put(cluster)
            await simulation.run(20.0)
            assert machine.sleeps == [("mbufpl", 0.0, 9.0)]
            assert [(run.asleep, run.served) for run in pools.runs] == [(1, 1)]
        return served

    assert simulate(program) == [9.0]


def test_a_get_that_is_served_at_once_does_not_count_as_a_sleep() -> None:
    async def program(simulation: Simulation) -> dict[str, Any]:
        async with Machine(simulation, KERNELS["as it is"], 8, 1) as machine:
            machine.wait_get(machine.pools.mbpool, machine.put)
            return machine.account()

    account = simulate(program)
    assert (account["asked"], account["slept"], account["puts"]) == (1, 0, 1)


def test_what_still_sleeps_at_the_end_is_told() -> None:
    async def program(simulation: Simulation) -> dict[str, Any]:
        async with Machine(simulation, KERNELS["as it is"], 1, 1) as machine:
            machine.wait_get(machine.pools.m_clpool(2048), machine.put)
            assert machine.try_get(machine.pools.m_clpool(2048)) is None
            await simulation.run(3.0)
            return machine.account()

    account = simulate(program)
    assert (account["never"], account["oldest"], account["wait_max"]) == (1, 3.0, None)
    assert (account["tries"], account["refused"]) == (1, 1)


def test_what_a_machine_holds_at_its_end_is_put_back_and_a_real_leak_is_reported() -> None:
    leaked: list[Buffer] = []

    async def program(simulation: Simulation, leak: int) -> int:
        async with Machine(simulation, KERNELS["patch"], 8, 1) as machine:
            pools = machine.pools
            machine.wait_get(pools.mbpool, lambda buffer: None)
            machine.wait_get(pools.m_clpool(2048), lambda buffer: None)
            assert machine.sleeping
            assert pools.statistics().nout == 1
            leaked.extend(pools.mbpool.get_nowait() for _ in range(leak))
        return pools.statistics().nout

    assert simulate(lambda simulation: program(simulation, 0)) == 0
    with pytest.warns(ResourceWarning, match="buffers still out: 2 of pool 'mbufpl';"):
        assert simulate(lambda simulation: program(simulation, 2)) == 2
    for buffer in leaked:
        buffer.release()


def test_the_wakeup_of_a_queue_of_its_own_is_not_held_up() -> None:
    async def program(simulation: Simulation) -> int:
        async with Machine(simulation, KERNELS["patch + own queue"], 8, 1) as machine:
            cluster = machine.take(machine.pools.m_clpool(2048))
            machine.wait_get(machine.pools.mbpool, lambda buffer: None)
            machine.put(cluster)
            await simulation.run(9.0)
            assert machine.pools.own_queue is not None
            return machine.pools.own_queue.statistics().runs

    assert simulate(program) == 1


def test_each_actor_has_random_numbers_of_its_own() -> None:
    async def program(simulation: Simulation) -> list[float]:
        machine = Machine(simulation, KERNELS["patch"], 8, 7)
        return [machine.random(actor).random() for actor in ("one", "other", "one")]

    one, other, again = simulate(program)
    assert one == again != other


@pytest.mark.parametrize(
    ("percent", "value"), [(1, 1), (50, 2), (51, 3), (75, 3), (99, 4), (100, 4)]
)
def test_percentile(percent: float, value: float) -> None:
    assert percentile([1, 2, 3, 4], percent) == value


def test_the_percentile_of_nothing_is_none() -> None:
    assert percentile([], 50) is None
