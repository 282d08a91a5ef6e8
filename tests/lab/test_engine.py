"""A backend outside the lab drives the public engine as its docstring says: here two generators
that each add 1 to a counter, in two steps."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mbufpools.lab import engine


class Counter:
    """The whole backend: two threads, and one shared integer."""

    def __init__(self) -> None:
        self.value = 0
        self.accesses: engine.Accesses = {}

    def add(self) -> Iterator[None]:
        self.accesses.setdefault(("value",), False)
        seen = self.value
        yield
        self.accesses["value",] = True
        self.value = seen + 1

    def run(self, schedule: engine.Schedule) -> engine.Outcome:
        threads = {engine.MAIN: self.add(), (*engine.MAIN, 0): self.add()}
        ready = {name: engine.Ready(0, 0) for name in threads}
        while ready:
            try:
                name = schedule.choose(ready)
            except engine.Stop:
                return engine.Outcome(stopped=True)
            assert not isinstance(name, engine.Cancel)
            self.accesses = schedule.begin(name, ready[name].causes).accesses
            ready[name] = engine.Ready(len(schedule.steps), 0)
            if next(threads[name], "over") == "over":
                del ready[name]
        if self.value != 2:
            return engine.Outcome("exception", f"the counter is {self.value}")
        return engine.Outcome()


def execute(strategy: engine.Strategy) -> tuple[engine.Outcome, engine.Schedule]:
    schedule = engine.Schedule(strategy)
    outcome = Counter().run(schedule)
    strategy.end(schedule, outcome.kind is not None)
    return outcome, schedule


@pytest.mark.parametrize("strategy", [engine.Dpor(), engine.Exhaustive(None)])
def test_every_schedule_of_a_backend_is_explored(
    strategy: engine.Dpor | engine.Exhaustive,
) -> None:
    found = set()
    while strategy.begin():
        outcome, _ = execute(strategy)
        if not outcome.stopped:
            found.add(outcome.message)
    assert strategy.complete
    assert found == {"", "the counter is 1"}


def test_a_failure_of_a_backend_is_shrunk_and_replayed_from_its_token() -> None:
    strategy = engine.Random(100, seed=1)
    while True:
        assert strategy.begin()
        outcome, schedule = execute(strategy)
        if outcome.kind is not None:
            break

    def fails(deviations: engine.Deviations) -> engine.Deviations | None:
        again = engine.Replay(deviations, schedule.rule)
        assert again.begin()
        outcome, found = execute(again)
        return found.deviations if outcome.kind is not None else None

    deviations, _ = engine.shrink(schedule.deviations, fails)
    assert len(deviations) == 1
    token = engine.spell_token("counter", deviations, schedule.rule)
    backend, parsed, rule = engine.parse_token(token)
    assert (backend, parsed, rule) == ("counter", deviations, schedule.rule)
    replay = engine.Replay(parsed, rule)
    assert replay.begin()
    outcome, _ = execute(replay)
    assert (outcome.message, replay.misfits) == ("the counter is 1", [])
