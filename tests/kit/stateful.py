"""The vocabulary of the state machines: what can be done to any pool set, in any order.

A machine drives a real pool set (`World`) and compares it with a model. The model has a method for
each operation, which is called after the operation was done; `judge` then compares. What a machine
adds is its pools, its model, and how the two are compared.

A step may choose "one of the waiters": that is an integer, taken modulo their number.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from mbufpools import Buffers, ConfigurationError, LimitRangeError, Pool
from tests.kit.getter import Getter
from tests.kit.stepped_loop import RefusingMemory, World

__all__ = ["PoolsMachine", "which"]

which = st.integers(0, 1000)
"""Chooses one of those there are."""
cancellations = st.sampled_from(["by scope", "natively"])
durations = st.sampled_from([0.25, 1.0, 1.25, 2.0, 8.25, 9.0])
"""Seconds, which a float counts exactly."""


class PoolsMachine(RuleBasedStateMachine):
    """The getters, the rules by which they act, and the end, when all is released."""

    world: World[Any]
    memory: RefusingMemory
    model: Any
    """What is expected."""

    backend: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.takers: dict[str, Getter] = {}
        """The getters that hold something or wait."""
        self.count = 0
        self.judged = 0
        """Steps of the world, up to the last that was judged and found good."""

    # What differs

    def pool(self, which: int) -> Pool:
        """One of the pools."""
        raise NotImplementedError

    def limit(self, which: int) -> int:
        """A limit in bytes."""
        raise NotImplementedError

    def too_low(self) -> int:
        """A limit that is refused."""
        raise NotImplementedError

    def change_limit(self, nbytes: int) -> None:
        """Set the limit."""
        raise NotImplementedError

    def compare(self) -> None:
        """Fail unless the pools are as the model expects."""
        raise NotImplementedError

    def compare_after_race(self, expect: tuple[str, Any], name: str, keeps: bool) -> None:
        """The same, after `expect` of the model and a cancellation of `name` at one moment.

        If it `keeps` what it may have been granted, it was cancelled too late.
        """
        raise NotImplementedError

    # Who is there

    def new_names(self, how_many: int) -> list[str]:
        self.count += how_many
        return [f"#{number}" for number in range(self.count - how_many + 1, self.count + 1)]

    def holders(self) -> list[str]:
        return [name for name, taker in self.takers.items() if taker.holds()]

    def waiters(self) -> list[str]:
        return [name for name, taker in self.takers.items() if taker.waits]

    def some_hold(self) -> bool:
        return bool(self.holders())

    def some_wait(self) -> bool:
        return bool(self.waiters())

    def few_wait(self) -> bool:
        return len(self.waiters()) < 8

    def how(self, how: str) -> str:
        return how if self.backend == "asyncio" else "by scope"

    def judge(self, compare: Callable[[], None] | None = None) -> None:
        """End a step: compare, and forget the getters that neither hold nor wait."""
        assert not self.world.warnings(), "nothing was lost"
        (compare or self.compare)()
        self.judged = self.world.steps
        self.takers = {
            name: taker for name, taker in self.takers.items() if taker.holds() or taker.waits
        }

    def teardown(self) -> None:
        """Release all, and fail if anything is charged; after a failure just leave."""
        if not hasattr(self, "world"):
            return  # it never began
        if self.judged == self.world.steps:
            try:
                self.give_all_back()
            except BaseException:
                self.abandon()
                raise
            self.world.end()
        else:
            self.abandon()

    def abandon(self) -> None:
        """Leave the world after a failure, and suppress what else goes wrong."""
        for taker in self.takers.values():
            if taker.lease is not None:
                with contextlib.suppress(Exception):
                    self.world.do(taker.lease.release)
        with contextlib.suppress(Exception):
            self.world.end()

    def give_all_back(self) -> None:
        """Fail unless in the end nothing is out and nothing charged."""
        raise NotImplementedError

    # The rules

    @precondition(few_wait)
    @rule(pool=which)
    def get(self, pool: int) -> None:
        self.get_several(pool, 1)

    @precondition(few_wait)
    @rule(pool=which, times=st.integers(2, 5))
    def get_several(self, pool: int, times: int) -> None:
        the_pool = self.pool(pool)
        names = self.new_names(times)
        self.takers |= self.world.take(names, the_pool.get)
        for name in names:
            self.model.get(name, the_pool.name)
        self.judge()

    @rule(pool=which)
    def get_nowait(self, pool: int) -> None:
        self.get_until_refused(pool, 1)

    @rule(pool=which, times=st.sampled_from([100, 17, 8]))
    def get_until_refused(self, pool: int, times: int) -> None:
        the_pool = self.pool(pool)
        taken = self.world.take_nowait(self.new_names(times), the_pool.get_nowait)
        self.takers |= taken
        for name in taken:
            self.model.attempt(name, the_pool.name)
        self.judge()

    @precondition(few_wait)
    @rule(pool=which, how=cancellations)
    def get_and_cancel(self, pool: int, how: str) -> None:
        """Cancel it as soon as it has begun, and perhaps taken."""
        the_pool = self.pool(pool)
        (name,) = self.new_names(1)
        taker = self.world.take_and_cancel(name, self.how(how), the_pool.get)
        self.takers[name] = taker
        self.model.get(name, the_pool.name)
        if taker.cancelled:
            self.model.give_up(name)
        self.judge()

    @precondition(some_hold)
    @rule(
        first=which,
        stride=st.sampled_from([1, 2, 7]),
        times=st.sampled_from([1, 1, 2, 8, 1000]),
    )
    def put(self, first: int, stride: int, times: int) -> None:
        names = self.holders()
        names = names[first % len(names) :: stride][:times]
        leases = [self.takers.pop(name).lease for name in names]
        self.world.do(lambda: [lease.release() for lease in leases])
        for name in names:
            self.model.put(name)
        self.judge()

    @precondition(some_hold)
    @rule(holder=which, how=st.sampled_from(["from another thread", "by dropping it"]))
    def put_in_another_way(self, holder: int, how: str) -> None:
        name = pick(self.holders(), holder)
        if how == "from another thread":
            lease = self.takers.pop(name).lease

            def step() -> None:
                thread = threading.Thread(target=lease.release)
                thread.start()
                thread.join()

            self.world.do(step)
        else:
            taker = self.takers.pop(name)
            leases = len(taker.lease) if isinstance(taker.lease, Buffers) else 1
            self.world.do(partial(setattr, taker, "lease", None))
            told = self.world.warnings()
            assert len(told) == leases
            assert all("dropped without a release" in text for text in told)
        self.model.put(name)
        self.judge()

    @precondition(some_wait)
    @rule(waiter=which, how=cancellations)
    def cancel(self, waiter: int, how: str) -> None:
        name = pick(self.waiters(), waiter)
        taker = self.takers[name]
        self.world.do(lambda: taker.cancel(self.how(how)))
        assert taker.cancelled, "a wait that is cancelled ends"
        self.model.give_up(name)
        self.judge()

    @precondition(some_wait)
    @rule(
        waiter=which,
        how=cancellations,
        order=st.sampled_from(["wake, then cancel", "cancel, then wake"]),
        by=st.sampled_from(["a put", "a limit"]),
        chosen=which,
    )
    def cancel_at_the_moment(self, waiter: int, how: str, order: str, by: str, chosen: int) -> None:
        """Cancel a waiter at the moment when something is released, or the limit changes."""
        name = pick(self.waiters(), waiter)
        taker = self.takers[name]
        how = self.how(how)
        wake: Callable[[], object]
        expect: tuple[str, Any]
        if by == "a put" and self.holders():
            giver = pick(self.holders(), chosen)
            wake, expect = self.takers.pop(giver).lease.release, ("put", giver)
        else:
            nbytes = self.limit(chosen)
            wake, expect = partial(self.change_limit, nbytes), ("set_limit", nbytes)
        woken_first = order == "wake, then cancel"

        def step() -> None:
            if not woken_first:
                taker.cancel(how)
            wake()
            if woken_first:
                taker.cancel(how)

        self.world.do(step)
        keeps = woken_first and how == "by scope"
        assert taker.cancelled or taker.error or (keeps and taker.holds())
        self.judge(partial(self.compare_after_race, expect, name, keeps))

    @rule(seconds=durations)
    def advance(self, seconds: float) -> None:
        self.world.advance(seconds)
        self.model.advance(seconds)
        self.judge()

    @rule(limit=which)
    def set_the_limit(self, limit: int) -> None:
        nbytes = self.limit(limit)
        self.world.do(partial(self.change_limit, nbytes))
        self.model.set_limit(nbytes)
        with pytest.raises((LimitRangeError, ConfigurationError)):
            self.world.do(partial(self.change_limit, self.too_low()))
        self.judge()

    @rule(pool=which, items=st.sampled_from([None, 0, 1, 2, 3, 5, 8, 16]))
    def set_hard_limit(self, pool: int, items: int | None) -> None:
        the_pool = self.pool(pool)
        if self.model.set_hard_limit(the_pool.name, items):
            self.world.do(lambda: the_pool.set_hard_limit(items))
        else:
            with pytest.raises(ConfigurationError, match="items are out"):
                self.world.do(lambda: the_pool.set_hard_limit(items))
        self.judge()


def pick(names: list[str], which: int) -> str:
    return names[which % len(names)]
