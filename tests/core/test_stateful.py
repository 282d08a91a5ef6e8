"""Any mix of calls, in any order, against models that share no line with the library.

Two state machines of Hypothesis, with one vocabulary (`machine`):

- `KernelMachine`: `MbufPools` beside a naive copy of the kernel's pools (`naive_kernel`). Who was
  granted what in which order, who sleeps, and every counter agree after each step.
- `BufferMachine`: `BufferPools` in every order, before a oracle who knows the promises and sees
  what happens (`oracle`).

After each step every invariant holds; in the end all comes back, and nothing is charged. A failure
prints the steps that lead to it; it is kept, and tried first at the next run; and the line that
it prints, put as a decorator on the machine's class, replays it.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
from functools import partial
from typing import Any, get_args

import anyio
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule, run_state_machine_as_test

from mbufpools import (
    BufferPools,
    ConfigurationError,
    CurPageName,
    EventKind,
    ImpossibleRequest,
    MbufPools,
    Order,
    OrderName,
    Pool,
    PoolSpec,
    ReclaimName,
    WakeupName,
)
from tests.kit import grants
from tests.kit.grants import reserve
from tests.kit.naive_kernel import COUNTERS, NaiveKernel
from tests.kit.order_oracle import NaiveShelf, OrderOracle
from tests.kit.stateful import PoolsMachine, which
from tests.kit.stepped_loop import RefusingMemory, World

PAGE = 4096
WAKEUPS, ORDERS = get_args(WakeupName), get_args(OrderName)
WAKING = [str(wakeup) for wakeup in grants.WAKING]
SIZES = [("small", 1024, 4), ("pair", 3072, 2), ("large", 4096, 1)]
"""Names, bytes of an item, and items to a page."""
SHELVES = [("small", PAGE, 4), ("pair", 2 * PAGE, 2), ("large", PAGE, 1)]
"""Names, bytes of a page, and items in it."""
# How fast examples come on a busy machine says nothing.
SETTINGS = settings(stateful_step_count=40, suppress_health_check=list(HealthCheck))


class KernelMachine(PoolsMachine):
    """`MbufPools`, and the naive kernel."""

    world: World[MbufPools]
    model: NaiveKernel

    @initialize(
        clusters=st.integers(2, 48),
        kinds=st.integers(2, 4),
        wakeup=st.sampled_from(["deferred", *(it for it in WAKEUPS if it != "deferred")]),
        curpage=st.sampled_from(get_args(CurPageName)),
        margin=st.sampled_from([0, 4096, 20_000, 40_000, 1 << 20]),
        high_water=st.sampled_from([200, 0, 1, 17]),
    )
    def begin(
        self,
        clusters: int,
        kinds: int,
        wakeup: WakeupName,
        curpage: CurPageName,
        margin: int,
        high_water: int,
    ) -> None:
        self.kinds = kinds
        self.memory = RefusingMemory()
        make = partial(
            MbufPools,
            clusters,
            wakeup=wakeup,
            curpage=curpage,
            near_limit_margin=margin,
            memory=self.memory,
        )
        self.world = World(self.backend, make)
        refreshed = {"refreshed": True, "stale": False}[curpage]
        self.model = NaiveKernel(clusters * 2048, wakeup, refreshed, margin)
        for pool in range(kinds):
            self.manage("set_high_water", pool, high_water)

    def pool(self, which: int) -> Pool:
        names = ("mbufpl", "mcl2k", "mcl4k", "mcl2k2")
        return self.world.pools.pools[names[which % self.kinds]]

    def limit(self, which: int) -> int:
        return (1, 2, 4, 8, 9, 16, 24, 32, 48)[which % 9] * 2048

    def too_low(self) -> int:
        return 0

    def change_limit(self, nbytes: int) -> None:
        self.world.pools.nmbclust_update(nbytes // 2048)

    def compare(self) -> None:
        self.model.settle()
        self.agree([self.model])

    def compare_after_race(self, expect: tuple[str, Any], name: str, keeps: bool) -> None:
        # What wakes on the task queue and the task that was cancelled may have their turns in
        # either order; on trio that is chance.
        futures = []
        for woken_first in (False, True):
            model = copy.deepcopy(self.model)
            method, argument = expect
            getattr(model, method)(argument)
            if not (keeps and name in model.held):
                if woken_first:
                    model.settle()
                model.give_up(name)
            model.settle()
            futures.append(model)
        self.agree(futures)

    def agree(self, models: list[NaiveKernel]) -> None:
        """What is seen is what one of `models` says."""
        statistics = self.world.statistics
        waiting: dict[str, list[str]] = {}
        for waiter in self.world.explanation.waiters:
            waiting.setdefault(waiter.wants, []).append(self.world.numbers[waiter.number])
        seen = {
            "granted": [
                seen.who
                for seen in self.world.news()
                if seen.event.kind in (EventKind.GET, EventKind.GRANT)
            ],
            "held": sorted(self.holders()),
            "waiting": waiting,
            "limit": statistics.limit,
            "allocated": statistics.allocated,
            "drops": statistics.drops,
            "wakeup_runs": statistics.wakeup_runs,
            "pools": {
                name: {counter: getattr(pool, counter) for counter in COUNTERS}
                for name, pool in statistics.pools.items()
            },
        }
        self.model = next((model for model in models if model.state() == seen), models[0])
        expected = self.model.state()
        differs = [name for name, value in seen.items() if value != expected[name]]
        assert not differs, "; ".join(
            f"{name}: the pools say {seen[name]}, the naive kernel says {expected[name]}"
            for name in differs
        )
        assert sorted(self.waiters()) == sorted(itertools.chain(*waiting.values()))
        self.model.granted.clear()

    @precondition(lambda self: not self.some_wait())
    @rule(pool=which, waits=st.booleans())
    def get_when_the_system_has_no_page(self, pool: int, waits: bool) -> None:
        the_pool = self.pool(pool)
        (name,) = self.new_names(1)
        self.memory.refuses = self.model.system_refuses = True
        if waits:
            self.takers |= self.world.take([name], the_pool.get)
        else:
            self.takers |= self.world.take_nowait([name], the_pool.get_nowait)
        refused = False
        try:
            (self.model.get if waits else self.model.attempt)(name, the_pool.name)
        except MemoryError:
            refused = True
        error = self.takers[name].error
        assert isinstance(error, MemoryError) == refused, (
            f"the get: it raised {error!r}, the naive kernel says {refused}"
        )
        self.judge()
        self.memory.refuses = self.model.system_refuses = False

    @rule(
        call=st.sampled_from(["reclaim", "prime", "set_low_water", "set_high_water"]),
        pool=which,
        items=st.sampled_from([0, 1, 8, 17, 40]),
    )
    def manage(self, call: str, pool: int, items: int) -> None:
        the_pool = self.pool(pool)
        arguments = () if call == "reclaim" else (items,)
        result = self.world.do(partial(getattr(the_pool, call), *arguments))
        expected = getattr(self.model, call)(the_pool.name, *arguments)
        assert result == expected, (
            f"{call}: the pools say {result}, the naive kernel says {expected}"
        )
        self.judge()

    def give_all_back(self) -> None:
        while self.takers:
            if self.holders():
                self.put(0, 1, 1000)
            else:
                self.cancel(0, "by scope")
        for pool in range(self.kinds):
            self.manage("set_low_water", pool, 0)
            self.manage("reclaim", pool, 0)
        assert self.world.statistics.allocated == 0


class BufferMachine(PoolsMachine):
    """`BufferPools`, and the oracle."""

    world: World[BufferPools]
    model: OrderOracle

    @initialize(
        options=st.fixed_dictionaries(
            {
                "order": st.sampled_from(["bounded", *(it for it in ORDERS if it != "bounded")]),
                "reclaim": st.sampled_from(get_args(ReclaimName)),
                # The default comes first, and more often.
                "wakeup": st.sampled_from(
                    ["deferred", "deferred", *(it for it in WAKING if it != "deferred"), "none"]
                ),
                "max_passes": st.sampled_from([2, 1, 0, 3, None]),
                "debug": st.booleans(),
                "fast_acquire": st.booleans(),
            }
        ),
        pages=st.integers(2, 4),
        minima=st.sampled_from([(0, 0, 0), (1, 0, 0), (5, 1, 0), (0, 0, 1)]),
        maxima=st.sampled_from([(None, None, None), (6, None, None), (None, 2, 1)]),
        max_idle_pages=st.sampled_from([8, 0]),
        closes=st.booleans(),
    )
    def begin(
        self,
        options: dict[str, Any],
        pages: int,
        minima: tuple[int, ...],
        maxima: tuple[int | None, ...],
        max_idle_pages: int,
        closes: bool,
    ) -> None:
        self.closes = closes
        self.memory = RefusingMemory(mapped=options["debug"])
        specs = [
            PoolSpec(
                item_size,
                name=name,
                items_per_page=per_page,
                min_items=minimum,
                max_items=maximum,
                max_idle_items=max_idle_pages * per_page,
            )
            for (name, item_size, per_page), minimum, maximum in zip(
                SIZES, minima, maxima, strict=True
            )
        ]
        shelves = {
            name: NaiveShelf(page_size, per_page, minimum, maximum)
            for (name, page_size, per_page), minimum, maximum in zip(
                SHELVES, minima, maxima, strict=True
            )
        }
        self.model = OrderOracle(
            shelves,
            order=options["order"],
            pressure={"pressure": True, "gc": False}[options["reclaim"]],
            allowance=options["max_passes"],
            wakes=options["wakeup"] != "none",
        )
        limit = self.model.limit = self.model.kept_bytes() + pages * PAGE
        make = partial(BufferPools, limit, specs, memory=self.memory, **options)
        self.world = World(self.backend, make)
        self.judge()

    def pool(self, which: int) -> Pool:
        return list(self.world.pools.pools.values())[which % 3]

    def limit(self, which: int) -> int:
        more = (1, PAGE, 2 * PAGE, 2 * PAGE, 3 * PAGE, 3 * PAGE + 1, 5 * PAGE)[which % 7]
        return self.model.kept_bytes() + more

    def too_low(self) -> int:
        return max(0, self.model.kept_bytes() - 1)

    def change_limit(self, nbytes: int) -> None:
        self.world.pools.resize(nbytes)

    def compare(self) -> None:
        model = self.model
        errors = {name: taker.error for name, taker in self.takers.items() if taker.error}
        for name, error in errors.items():
            if isinstance(error, MemoryError):
                assert model.system_refuses, "there was a page to have"
                model.give_up(name)
            elif isinstance(error, anyio.ClosedResourceError):
                assert model.closed, "the pools are open"
            elif isinstance(error, ImpossibleRequest):
                assert model.is_impossible(model.known[name]), f"{name} could be served some time"
                model.failed.discard(name)
            elif not isinstance(error, anyio.WouldBlock | asyncio.CancelledError):
                raise error
        untold = model.failed - model.leaving
        assert not untold, f"{untold} can never be served, and were not told"
        model.follow(self.world.news())
        assert sorted(self.holders()) == sorted(model.held), "it holds what it was granted"
        waiting = [self.world.numbers[one.number] for one in self.world.explanation.waiters]
        assert waiting == [one.name for one in model.waiting], "those who wait are in order"
        assert sorted(self.waiters()) == sorted(waiting), "those who wait are known to the pools"
        could_judge = model.wakes and not model.system_refuses
        model.settled(self.world.statistics)
        for name, error in errors.items():
            if isinstance(error, anyio.WouldBlock) and could_judge:
                one = model.known[name]
                assert not model.is_impossible(one), f"{name} was told to wait for ever"
                assert not model.can_be_served(one), f"{name} was refused, though it can be served"

    def compare_after_race(self, expect: tuple[str, Any], name: str, keeps: bool) -> None:
        method, argument = expect
        getattr(self.model, method)(argument)
        if not self.takers[name].holds():
            self.model.give_up(name, meanwhile=True)
            self.model.unruly = True
        self.compare()

    # What only these pools have

    @precondition(PoolsMachine.few_wait)
    @rule(which=st.lists(st.integers(0, 2), min_size=1, max_size=4))
    def get_many(self, which: list[int]) -> None:
        pools = [self.pool(pool) for pool in which]
        (name,) = self.new_names(1)
        self.model.get_many(name, [pool.name for pool in pools])
        sizes = [pool.item_size for pool in pools]
        self.takers |= self.world.take([name], self.world.pools.get_many, sizes)
        self.judge()

    @precondition(PoolsMachine.few_wait)
    @rule(nbytes=st.sampled_from([PAGE, 1, 2 * PAGE, 3 * PAGE + 1, 6 * PAGE]), waits=st.booleans())
    def reserve(self, nbytes: int, waits: bool) -> None:
        (name,) = self.new_names(1)
        self.model.reserve(name, nbytes)
        if waits:
            self.takers |= self.world.take([name], reserve, self.world.pools, nbytes)
        else:
            take = self.world.pools.reserve_nowait
            self.takers |= self.world.take_nowait([name], take, nbytes)
        self.judge()

    @rule(which=st.lists(st.integers(0, 2), min_size=1, max_size=3), waits=st.booleans())
    def get_when_the_system_has_no_page(self, which: list[int], waits: bool) -> None:
        pools = [self.pool(pool) for pool in which]
        (name,) = self.new_names(1)
        self.memory.refuses = self.model.system_refuses = self.model.unruly = True
        if waits:
            self.model.get_many(name, [pool.name for pool in pools])
            sizes = [pool.item_size for pool in pools]
            self.takers |= self.world.take([name], self.world.pools.get_many, sizes)
        else:
            self.model.attempt(name, pools[0].name)
            self.takers |= self.world.take_nowait([name], pools[0].get_nowait)
        self.judge()
        self.memory.refuses = self.model.system_refuses = False

    @rule(
        call=st.sampled_from(["reclaim", "prime", "set_low_water", "set_high_water"]),
        pool=which,
        items=st.sampled_from([0, 1, 2, 5]),
    )
    def manage(self, call: str, pool: int, items: int) -> None:
        the_pool = self.pool(pool)
        shelf = self.model.shelves[the_pool.name]
        if call == "reclaim":
            spare = shelf.spare
            assert self.world.do(the_pool.reclaim) == spare
        elif call == "prime":
            expected = self.model.prime(the_pool.name, items)
            primed = self.world.do(lambda: the_pool.prime(items))
            assert primed == expected or not self.model.wakes
        elif call == "set_high_water":
            self.world.do(lambda: the_pool.set_high_water(items))
        elif self.model.set_low_water(the_pool.name, items):
            reached = self.world.do(lambda: the_pool.set_low_water(items))
            self.judge()
            assert reached == (shelf.pages >= shelf.kept)
        else:
            with pytest.raises(ConfigurationError, match="raise the limit first"):
                self.world.do(lambda: the_pool.set_low_water(items))
        self.judge()

    def give_all_back(self) -> None:
        if self.closes:
            self.close()
        rounds = 0
        while self.takers:
            if self.holders():
                self.put(0, 1, 1000)
            else:
                self.advance(10.0)
                if not self.model.wakes:  # but a new limit always does
                    self.world.do(partial(self.change_limit, self.model.limit))
                    self.judge()
            rounds += 1
            assert rounds < 1000, f"{self.waiters()} wait for ever"
        if not self.closes:
            for pool in range(3):
                self.manage("set_low_water", pool, 0)
                self.manage("reclaim", pool, 0)
        assert self.world.statistics.allocated == 0

    def close(self) -> None:
        """Leave the pools while some wait and some hold; what comes back late comes back."""
        self.world.close()
        self.model.close()
        told = self.world.warnings()
        self.judge()
        assert not self.waiters()
        assert len(told) == bool(self.holders())
        assert all("was closed with buffers still out" in text for text in told)
        self.get_nowait(0)
        for how in ("from another thread", "by dropping it"):
            if self.holders():
                self.put_in_another_way(0, how)


class KernelOnAsyncio(KernelMachine):
    backend = "asyncio"


class KernelOnTrio(KernelMachine):
    backend = "trio"


class BuffersOnAsyncio(BufferMachine):
    backend = "asyncio"


class BuffersOnTrio(BufferMachine):
    backend = "trio"


def of_examples(few: int) -> pytest.MarkDecorator:
    """So many examples, and many times more among the long proofs."""
    many = pytest.param(20 * few, marks=pytest.mark.prove)
    return pytest.mark.parametrize("examples", [few, many])


@of_examples(30)
@pytest.mark.parametrize("machine", [KernelOnAsyncio, KernelOnTrio])
def test_the_kernels_pools_do_what_a_naive_kernel_does(
    machine: type[KernelMachine], examples: int
) -> None:
    run_state_machine_as_test(machine, settings=settings(SETTINGS, max_examples=examples))


@of_examples(60)
@pytest.mark.parametrize("machine", [BuffersOnAsyncio, BuffersOnTrio])
def test_buffer_pools_keep_their_promises_in_any_mix_of_calls(
    machine: type[BufferMachine], examples: int
) -> None:
    run_state_machine_as_test(machine, settings=settings(SETTINGS, max_examples=examples))


@pytest.mark.parametrize("machine", [BuffersOnAsyncio, BuffersOnTrio])
@pytest.mark.parametrize("order", list(Order))
def test_what_is_granted_just_before_a_request_is_cancelled_is_judged_with_that_request(
    machine: type[BufferMachine], order: Order
) -> None:
    """A request waits for the one large item, and holds up those behind it that want small ones.
    Bytes come back, others are served past all of these, and then the first one is cancelled."""
    state = machine()
    options = {
        "order": str(order),
        "reclaim": "pressure",
        "wakeup": "deferred",
        "max_passes": 2,
        "debug": False,
        "fast_acquire": False,
    }
    state.begin(options, 4, (0, 0, 1), (None, 2, 1), 8, False)
    state.reserve(nbytes=3 * PAGE + 1, waits=False)
    state.get_nowait(pool=2)
    state.get_many(which=[2, 0])
    state.get_many(which=[0])
    state.set_the_limit(limit=2)
    state.get_several(pool=1, times=4)
    state.get_several(pool=0, times=2)
    state.cancel_at_the_moment(
        by="a put", chosen=0, how="by scope", order="wake, then cancel", waiter=0
    )
    state.teardown()
