"""Minimum, maximum and limit: what is reserved, refused, owed and impossible; and reservations."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import anyio
import pytest

from mbufpools import (
    AccountedMemory,
    BufferPools,
    ConfigurationError,
    DoubleRelease,
    EventKind,
    ImpossibleRequest,
    Order,
    OversizeRequest,
    PoolSpec,
    RequestError,
    Reservation,
)
from tests.kit.getter import Getter
from tests.kit.grants import (
    KIB,
    ORDERED,
    Counted,
    GrantLog,
    entered,
    release_all,
    reserve,
    settle,
    small_and_large,
    taking,
)

PAGE = 4 * KIB


# The minimum


async def test_the_minimum_is_charged_at_the_entry_and_given_back_at_the_close() -> None:
    pools = BufferPools(
        10 * PAGE,
        [PoolSpec(KIB, items_per_page=4, min_items=5), PoolSpec(PAGE, items_per_page=1)],
        memory=AccountedMemory(),
    )
    assert pools.budget.allocated == 0
    async with entered(pools):
        assert pools.budget.allocated == 2 * PAGE
        assert pools.pools["1024"].statistics().nidle == 2
        with pytest.raises(ImpossibleRequest, match=f"of which the pools keep {2 * PAGE} as"):
            await pools.reserve(8 * PAGE + 1)
        async with pools.reserve(8 * PAGE):
            held = [pools.get_nowait(KIB) for _ in range(8)]
            with pytest.raises(anyio.WouldBlock):
                pools.get_nowait(KIB)
            release_all(held)
        assert pools.pools["1024"].statistics().nidle == 2, "it stays, under pressure too"


@pytest.mark.parametrize(
    "specs",
    [
        [PoolSpec(KIB, items_per_page=4, min_items=13)],
        [
            PoolSpec(KIB, items_per_page=4, min_items=8),
            PoolSpec(PAGE, items_per_page=1, min_items=2),
        ],
        # The minimum fits, but then no page is left for the other.
        [PoolSpec(KIB, items_per_page=4, min_items=12), PoolSpec(PAGE, items_per_page=1)],
    ],
)
def test_minima_that_do_not_fit_the_limit_are_refused(specs: list[PoolSpec]) -> None:
    with pytest.raises(ConfigurationError, match="too small for pool"):
        BufferPools(3 * PAGE, specs)


def test_minima_that_just_fit_are_not_refused() -> None:
    BufferPools(
        3 * PAGE,
        [
            PoolSpec(KIB, items_per_page=4, min_items=8),
            PoolSpec(PAGE, items_per_page=1, min_items=1),
        ],
    )


async def test_a_resize_below_the_minimum_is_refused_and_changes_nothing() -> None:
    pools = BufferPools(
        4 * PAGE,
        [PoolSpec(KIB, items_per_page=4, min_items=8), PoolSpec(PAGE, items_per_page=1)],
        memory=AccountedMemory(),
    )
    async with entered(pools):
        with pytest.raises(ConfigurationError, match=f"the pools keep {2 * PAGE} as their minimum"):
            pools.resize(2 * PAGE - 1)
        assert pools.budget.limit == 4 * PAGE
        pools.resize(2 * PAGE)
        assert pools.pools["1024"].set_low_water(4)
        pools.resize(PAGE)


async def test_a_low_water_that_would_not_fit_is_refused_and_changes_nothing() -> None:
    async with entered(small_and_large(2)) as pools:
        with pytest.raises(ConfigurationError, match="raise the limit first"):
            pools.pools["small"].set_low_water(9)
        assert pools.pools["small"].statistics().min_pages == 0
        with await pools.get_many([4000, 4000]):
            assert not pools.pools["small"].set_low_water(4), "not now, it says"
        with pools.get_nowait(1):
            pass
        assert pools.pools["small"].reclaim() == 0, "the page stays when it has come"


@pytest.mark.parametrize("order", list(Order))
async def test_a_lower_low_water_gives_its_pages_to_those_who_wait(order: Order) -> None:
    pools = BufferPools(
        2 * PAGE,
        [
            PoolSpec(KIB, name="small", items_per_page=4, min_items=4),
            PoolSpec(PAGE, name="large", items_per_page=1),
        ],
        order=order,
        memory=AccountedMemory(),
    )
    async with entered(pools), anyio.create_task_group() as tasks:
        held = await pools.get(4000)
        waiter = await taking(tasks, pools.get, 4000)
        assert waiter.waits
        pools.pools["small"].set_low_water(0)
        await settle()
        assert waiter.lease is not None
        release_all([held, waiter.lease])


@pytest.mark.parametrize("order", ORDERED)
async def test_a_higher_low_water_lets_those_within_it_pass(order: Order) -> None:
    pools = small_and_large(2, order=order, max_passes=0)
    async with entered(pools), anyio.create_task_group() as tasks:
        held = await pools.get(1000)
        claim = await taking(tasks, reserve, pools, PAGE + 1)
        waiter = await taking(tasks, pools.get, 1000)
        assert waiter.waits
        pools.pools["small"].set_low_water(2)
        await settle()
        assert waiter.lease is not None
        assert isinstance(claim.error, ImpossibleRequest), "the minimum takes the page for good"
        release_all([held, waiter.lease])


# The maximum


@pytest.mark.parametrize("order", list(Order))
async def test_no_more_are_out_than_the_maximum_and_the_next_is_served_by_a_release(
    order: Order,
) -> None:
    log = GrantLog()
    pools = BufferPools(
        "1 MiB", [PoolSpec(KIB, max_items=2)], order=order, memory=AccountedMemory(), hook=log
    )
    async with entered(pools), anyio.create_task_group() as tasks:
        held = [await pools.get(1), await pools.get(2)]
        waiting = [await taking(tasks, pools.get, number) for number in (3, 4)]
        with pytest.raises(anyio.WouldBlock):
            pools.get_nowait(5)
        release_all(held)
        await settle()
        assert log.granted == [3, 4]
        release_all(one.lease for one in waiting)


@pytest.mark.parametrize("order", ORDERED)
async def test_a_claim_whose_maximum_is_lowered_holds_up_nobody_any_more(order: Order) -> None:
    pools = BufferPools(
        2 * PAGE,
        [
            PoolSpec(KIB, name="small", items_per_page=4),
            PoolSpec(2 * KIB, name="middle", items_per_page=2),
        ],
        order=order,
        max_passes=0,
        memory=AccountedMemory(),
    )
    async with entered(pools), anyio.create_task_group() as tasks:
        held = [await pools.get(1000) for _ in range(4)]
        held.append(await pools.get(2000))
        claim = await taking(tasks, pools.get, 1000)
        behind = await taking(tasks, pools.get, 2000)
        assert behind.waits
        pools.pools["small"].set_hard_limit(4)
        await settle()
        assert behind.lease is not None
        release_all([*held, behind.lease])
        await settle()
        claim.release()


@pytest.mark.parametrize(("minimum", "max_passes"), [(4, 0), (0, 1)])
async def test_a_claim_that_comes_to_its_maximum_holds_up_nobody_any_more(
    minimum: int, max_passes: int
) -> None:
    pools = BufferPools(
        3 * PAGE,
        [
            PoolSpec(KIB, name="small", items_per_page=4, max_items=8, min_items=minimum),
            PoolSpec(2 * KIB, name="middle", items_per_page=2),
            PoolSpec(PAGE, name="large", items_per_page=1),
        ],
        order="bounded",
        max_passes=max_passes,
        memory=AccountedMemory(),
    )
    async with entered(pools), anyio.create_task_group() as tasks:
        held: list[Any] = [await pools.get(1000), await pools.get(2000), await pools.get(4000)]
        claim = await taking(tasks, pools.get_many, [1000] * 7)
        behind = await taking(tasks, pools.get_many, [2000])
        assert behind.waits
        held.append(pools.get_nowait(1000))  # goes past the claim, within the minimum or not
        await settle()
        assert behind.lease is not None, "the claim waits at its maximum now: 2 + 7 > 8"
        release_all(held)
        await settle()
        release_all([claim.lease, behind.lease])


# A limit below what is in use


@pytest.mark.parametrize("order", list(Order))
async def test_a_resize_below_usage_is_a_debt_that_pages_pay_before_any_new_one_comes(
    order: Order,
) -> None:
    log = GrantLog()
    pools = small_and_large(4, order=order, hook=log)
    async with entered(pools), anyio.create_task_group() as tasks:
        held = [await pools.get(4000) for _ in range(4)]
        pools.resize(2 * PAGE)
        assert pools.budget.debt == pools.statistics().debt == 2 * PAGE
        assert pools.budget.allocated == 4 * PAGE, "nothing is taken away"
        waiter = await taking(tasks, pools.get, 1000)
        log.clear()
        for debt in (1, 0):
            held.pop().release()
            await settle()
            assert pools.budget.debt == debt * PAGE
            assert waiter.waits
        held.pop().release()
        await settle()
        assert waiter.lease is not None
        assert log.pages == [("page out", "large")] * 3 + [("page in", "small")]
        release_all([*held, waiter.lease])


@pytest.mark.parametrize("order", list(Order))
async def test_idle_pages_pay_a_debt_at_once(order: Order) -> None:
    pools = small_and_large(4, order=order)
    async with entered(pools):
        held = await pools.get(4000)
        release_all([await pools.get(4000), await pools.get(1)])
        assert pools.budget.allocated == 3 * PAGE
        pools.resize(PAGE)
        assert pools.budget.debt == 0
        assert pools.budget.allocated == PAGE
        held.release()


@pytest.mark.parametrize("order", ORDERED)
@pytest.mark.parametrize("max_passes", [0, 1, 5, None])
@pytest.mark.parametrize("holders", [1, 3, 8, 32])
async def test_a_debt_under_steady_traffic_of_one_pool_is_paid_by_its_holders_and_passers(
    holders: int, max_passes: int | None, order: Order
) -> None:
    if order is Order.FIFO and max_passes is not None:
        return
    dice = random.Random(f"{holders} {max_passes} {order}")
    pools = BufferPools(
        holders * PAGE,
        [PoolSpec(KIB, items_per_page=4)],
        order=order,
        max_passes=max_passes,
        memory=AccountedMemory(),
    )
    releases = 0

    async def churn() -> None:
        nonlocal releases
        while True:
            with await pools.get(1):
                await anyio.sleep(dice.randint(1, 10) / 1000)
            releases += 1

    async with entered(pools), anyio.create_task_group() as tasks:
        spread = [await pools.get(1) for _ in range(4 * holders)]  # over all of the pages
        for _ in range(holders):
            tasks.start_soon(churn)
        for buffer in spread:
            buffer.release()
            await anyio.sleep(0.001)
        # Between two gets, a task holds nothing.
        while pools.statistics().nout < holders:  # noqa: ASYNC110 - a matter of a few turns
            await anyio.sleep(0.0001)
        out, used = pools.statistics().nout, pools.budget.allocated
        assert out == holders
        releases = 0
        passes = pools.statistics().waits.passes
        pools.resize(PAGE)
        debt = pools.budget.debt
        assert debt == used - PAGE or pools.budget.allocated < used
        allowed = 0 if order is Order.FIFO else out if max_passes is None else max_passes
        while pools.budget.debt:
            before = pools.budget.debt
            await anyio.sleep(0.001)
            assert pools.budget.debt <= before
            assert releases <= out + allowed
        assert pools.statistics().waits.passes - passes <= allowed
        tasks.cancel_scope.cancel()


async def test_barging_lets_one_pools_own_traffic_outrun_a_debt() -> None:
    pools = BufferPools(
        4 * PAGE, [PoolSpec(KIB, items_per_page=4)], order="barging", memory=AccountedMemory()
    )
    async with entered(pools), anyio.create_task_group() as tasks:

        async def churn() -> None:
            while True:
                with await pools.get(1):
                    await anyio.sleep(0.01)

        for _ in range(8):
            tasks.start_soon(churn)
            await anyio.sleep(0.001)
        assert pools.budget.allocated == 2 * PAGE
        pools.resize(PAGE)
        await anyio.sleep(10)
        assert pools.budget.debt == PAGE
        tasks.cancel_scope.cancel()


async def test_a_debt_does_not_renew_the_passes_of_a_claim() -> None:
    pools = small_and_large(5, order="bounded", max_passes=1)
    async with entered(pools), anyio.create_task_group() as tasks:
        held: list[Any] = [await pools.get(4000) for _ in range(4)]
        held.append(await pools.get(1000))
        claim = await taking(tasks, reserve, pools, 4 * PAGE)
        held.append(pools.get_nowait(1000))
        with pytest.raises(anyio.WouldBlock):
            pools.get_nowait(1000)
        pools.resize(4 * PAGE)
        with pytest.raises(anyio.WouldBlock):
            pools.get_nowait(1000)
        assert pools.statistics().waits.passes == 1
        release_all(held)
        await settle()
        claim.release()


async def test_a_debt_goes_before_those_whom_the_same_resize_has_set_free() -> None:
    pools = small_and_large(5, order="fifo")
    async with entered(pools), anyio.create_task_group() as tasks:
        held: list[Any] = [await pools.get(4000) for _ in range(4)]
        held.append(await pools.get(1000))
        claim = await taking(tasks, reserve, pools, 5 * PAGE)
        behind = await taking(tasks, pools.get, 1000)
        pools.resize(4 * PAGE)
        await settle()
        assert isinstance(claim.error, ImpossibleRequest)
        assert behind.waits, "the debt is the oldest claim of all"
        held.pop(0).release()
        await settle()
        assert behind.lease is not None
        release_all([*held, behind.lease])


@pytest.mark.parametrize("order", list(Order))
async def test_a_raised_limit_forgives_the_debt_and_serves(order: Order) -> None:
    pools = small_and_large(4, order=order)
    async with entered(pools), anyio.create_task_group() as tasks:
        held = [await pools.get(4000) for _ in range(3)]
        pools.resize(PAGE)
        waiter = await taking(tasks, pools.get, 1000)
        pools.resize("16 KiB")
        await settle()
        assert pools.budget.debt == 0
        assert waiter.lease is not None
        release_all([*held, waiter.lease])


# Requests that can never be served


async def test_impossible_requests_are_refused_at_once() -> None:
    pools = BufferPools(
        8 * PAGE,
        [
            PoolSpec(KIB, name="small", items_per_page=4, max_items=6),
            PoolSpec(8 * PAGE, name="whole", items_per_page=1),
        ],
        memory=AccountedMemory(),
    )
    async with entered(pools):
        with pytest.raises(ImpossibleRequest, match=r"of 32769 bytes .* the limit is 32768"):
            await pools.reserve(8 * PAGE + 1)
        with pytest.raises(ImpossibleRequest):
            pools.reserve_nowait(8 * PAGE + 1)
        with pytest.raises(ImpossibleRequest, match="at most 6 may be out"):
            await pools.get_many([1] * 7)
        pools.pools["small"].set_low_water(1)
        for take in (pools.get, pools.get_nowait):
            with pytest.raises(ImpossibleRequest, match=r"keep 4096 .* items_per_page"):
                result = take(8 * PAGE)
                await result  # type: ignore[misc]  # only the one of `get`
        assert pools.budget.allocated == PAGE


async def test_an_oversize_request_names_the_largest_class() -> None:
    async with entered(small_and_large(2)) as pools:
        for ask in (pools.get, pools.get_nowait, pools.pool_for):
            with pytest.raises(
                OversizeRequest, match=r"4097 bytes; the largest are of 4096 \(pool 'large'\)"
            ):
                result = ask(4097)
                await result  # type: ignore[misc]  # only the one of `get`


@pytest.mark.parametrize("order", list(Order))
@pytest.mark.parametrize("kind", ["get", "get_many", "reserve"])
@pytest.mark.parametrize("why", ["resize", "hard limit", "low water"])
async def test_queued_requests_fail_when_a_change_makes_them_impossible(
    why: str, kind: str, order: Order
) -> None:
    if (why, kind) == ("hard limit", "reserve"):
        return  # it is bound by no pool
    pools = BufferPools(
        4 * PAGE,
        [
            PoolSpec(KIB, name="small", items_per_page=4),
            PoolSpec(PAGE, name="large", items_per_page=1),
            PoolSpec(4 * PAGE, name="whole", items_per_page=1),
        ],
        order=order,
        memory=AccountedMemory(),
    )

    async def doomed() -> Any:
        if kind == "get":
            return await pools.get(4 * PAGE)
        if kind == "get_many":
            return await pools.get_many([1000] * 16)
        return await pools.reserve(4 * PAGE)

    async with entered(pools), anyio.create_task_group() as tasks:
        held = await pools.reserve(2 * PAGE)
        waiter = await taking(tasks, doomed)
        other = await taking(tasks, pools.get, 1)
        assert waiter.waits
        if why == "resize":
            pools.resize(3 * PAGE)
        elif why == "low water":
            pools.pools["large"].set_low_water(1)
        else:
            pools.pools["whole" if kind == "get" else "small"].set_hard_limit(
                0 if kind == "get" else 15
            )
        await settle()
        assert isinstance(waiter.error, ImpossibleRequest)
        assert other.lease is not None, "and whoever waited behind goes on"
        release_all([held, other.lease])


async def test_those_whom_a_change_does_not_concern_go_on_waiting() -> None:
    pools = small_and_large(4)
    async with entered(pools), anyio.create_task_group() as tasks:
        held = await pools.reserve(4 * PAGE)
        waiting = [
            await taking(tasks, reserve, pools, 3 * PAGE),
            await taking(tasks, pools.get_many, [4000] * 3),
            await taking(tasks, pools.get, 1),
        ]
        pools.resize(3 * PAGE)
        await settle()
        assert all(one.waits for one in waiting)
        held.release()
        for one in waiting:
            await settle()
            one.release()


async def test_under_one_item_to_a_page_buffers_of_64_kib_take_no_more() -> None:
    pools = BufferPools("256 KiB", [PoolSpec("64 KiB", items_per_page=1)], memory=AccountedMemory())
    async with entered(pools):
        assert pools.pools["65536"].page_size == 64 * KIB
        with await pools.get_many([64 * KIB] * 4):
            assert pools.budget.allocated == 256 * KIB
    with pytest.raises(ConfigurationError, match="lower items_per_page"):
        BufferPools("256 KiB", ["64 KiB"])  # eight to a page, by default


# Reservations


async def test_a_reservation_is_held_for_the_time_of_its_context() -> None:
    async with entered(small_and_large(4)) as pools:
        async with pools.reserve(5000) as reservation:
            assert isinstance(reservation, Reservation)
            assert reservation.nbytes == 5000
            assert "held" in repr(reservation)
            statistics = pools.statistics()
            assert (statistics.reserved, statistics.allocated) == (5000, 5000)
        assert reservation.released
        assert pools.budget.allocated == 0


async def test_a_reservation_may_be_awaited_and_released_later() -> None:
    async with entered(small_and_large(4)) as pools:
        reservation = await pools.reserve(5000)
        reservation.release()
        with pytest.raises(DoubleRelease, match="5000 bytes was released before"):
            reservation.release()
        with await pools.reserve(1) as reservation:
            assert pools.budget.allocated == 1
        assert pools.budget.allocated == 0
        async with pools.reserve(1) as reservation:
            reservation.release()  # inside of its context


async def test_one_reserve_may_be_entered_twice_and_each_entry_is_released() -> None:
    async with BufferPools("64 KiB", [2048]) as pools:
        reserving = pools.reserve(10)
        async with reserving:
            async with reserving:
                assert pools.statistics().reserved == 20
            assert pools.statistics().reserved == 10
        assert pools.statistics().reserved == 0


@pytest.mark.parametrize("start", ["create_task", "wait_for", "from a thread"])
def test_asyncio_takes_a_reserve_for_a_coroutine(start: str) -> None:
    async def main() -> None:
        async with BufferPools("64 KiB", [2048]) as pools:
            if start == "create_task":
                reservation = await asyncio.create_task(pools.reserve(10))
            elif start == "wait_for":
                reservation = await asyncio.wait_for(pools.reserve(10), 1)
            else:
                loop = asyncio.get_running_loop()
                call = asyncio.run_coroutine_threadsafe
                reservation = await asyncio.to_thread(
                    lambda: call(pools.reserve(10), loop).result(10)
                )
            assert pools.statistics().reserved == 10
            reservation.release()
            held = await pools.reserve(65536)
            waiting = asyncio.create_task(pools.reserve(10))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            held.release()
            assert pools.statistics().reserved == 0
            pools.reserve(10).close()  # nothing was begun

    asyncio.run(main())


async def test_a_reservation_is_released_when_the_body_raises() -> None:
    async with entered(small_and_large(4)) as pools:
        with pytest.raises(KeyError):
            async with pools.reserve(5000):
                raise KeyError
        assert pools.budget.allocated == 0


@pytest.mark.parametrize("nowait", [False, True])
async def test_a_reservation_that_the_limit_cannot_hold_is_told_of_the_limit_and_of_no_page(
    nowait: bool,
) -> None:
    async with entered(small_and_large(2)) as pools:
        with pytest.raises(ImpossibleRequest) as refusal:
            if nowait:
                pools.reserve_nowait(2 * PAGE + 1)
            else:
                await pools.reserve(2 * PAGE + 1)
    assert str(refusal.value) == (
        "a reservation of 8193 bytes can never be served: the limit is 8192 bytes; raise the "
        "limit, or reserve less at a time"
    )


async def test_reserve_nowait_takes_at_once_or_not_at_all() -> None:
    async with entered(small_and_large(1)) as pools:
        with (
            pools.reserve_nowait(PAGE),
            pytest.raises(anyio.WouldBlock, match=r"cannot reserve 1 bytes now .* `await reserve`"),
        ):
            pools.reserve_nowait(1)
        with pools.reserve_nowait(1):
            assert pools.budget.allocated == 1


@pytest.mark.parametrize("nbytes", [0, -1])
async def test_fewer_than_one_byte_is_refused(nbytes: int) -> None:
    async with entered(small_and_large(1)) as pools:
        with pytest.raises(RequestError, match="at least 1"):
            pools.reserve(nbytes)
        with pytest.raises(RequestError, match="at least 1"):
            pools.reserve_nowait(nbytes)
        with pytest.raises(TypeError):
            pools.reserve(1.5)  # type: ignore[arg-type]  # that is the point


async def test_a_reservation_is_a_checkpoint_when_it_succeeds_at_once() -> None:
    async with entered(small_and_large(1)) as pools:
        counted = Counted(pools.reserve(1))
        with await counted:
            assert counted.checkpoints > 0


@pytest.mark.parametrize("order", list(Order))
async def test_a_reservation_waits_for_pages_and_pages_wait_for_a_reservation(
    order: Order,
) -> None:
    log = GrantLog()
    pools = small_and_large(1, order=order, hook=log)
    async with entered(pools), anyio.create_task_group() as tasks:
        held = await pools.get(1)
        first: Getter = await taking(tasks, reserve, pools, PAGE)
        held.release()
        await settle()
        second = await taking(tasks, pools.get, 1)
        assert second.waits
        first.release()
        await settle()
        second.release()
        assert log.granted == [PAGE, 1]


@pytest.mark.parametrize("order", list(Order))
async def test_near_limit_is_safe_also_when_a_reservation_gives_back_more_than_a_page(
    order: Order,
) -> None:
    """All of the limit comes back at once, which leaves the limit farther away than any margin
    that is made for pages."""
    pools = small_and_large(256, order=order, wakeup="near-limit")
    async with entered(pools), anyio.create_task_group() as tasks:
        everything = await pools.reserve(256 * PAGE)
        sleeper = await taking(tasks, pools.get, 1)
        behind = await taking(tasks, pools.get, PAGE)
        everything.release()
        await settle()
        for one in (sleeper, behind):
            assert one.holds()
            one.release()


async def test_a_dropped_reservation_is_reported_and_its_bytes_come_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = GrantLog()
    async with entered(small_and_large(1, hook=log)) as pools:
        for nbytes in (100, 200):
            reservation = await pools.reserve(nbytes)
            with pytest.warns(ResourceWarning, match="00 bytes was dropped without a release"):
                del reservation
        await anyio.sleep(1)
        assert pools.budget.allocated == 0
        told = [(it.name, it.nbytes) for it in log.events if it.kind is EventKind.DROP]
        assert told == [("bytes", 100), ("bytes", 200)]
        assert pools._state.dropped == 2
    advice = "release each by `with`; debug=True records which task took it, and where"
    assert [record.getMessage() for record in caplog.records] == [
        f"a reservation of 100 bytes was dropped without a release; {advice}",
        f"a reservation of 200 bytes was dropped without a release; {advice}",
    ]


async def test_a_reservation_says_what_it_is() -> None:
    async with entered(small_and_large(1)) as pools:
        reservation = await pools.reserve(100)
        assert repr(reservation) == "<Reservation of 100 bytes, held>"
        reservation.release()
        assert repr(reservation) == "<Reservation of 100 bytes, released>"


async def test_what_reserve_returns_can_be_driven_as_a_coroutine() -> None:
    async with entered(small_and_large(1)) as pools:
        reserving = pools.reserve(1)
        with pytest.raises(TypeError, match="can't send non-None value to a just-started"):
            reserving.send(1)
        reserving.close()
        with pytest.raises(KeyError):
            pools.reserve(1).throw(KeyError())
        assert pools.budget.allocated == 0


async def test_a_reservation_tells_its_events_under_the_name_of_bytes() -> None:
    log = GrantLog()
    async with entered(small_and_large(1, hook=log)) as pools:
        with anyio.move_on_after(1):
            async with pools.reserve(PAGE):
                await pools.reserve(7)
        told = [(event.kind, event.nbytes) for event in log.events if event.name == "bytes"]
        assert told[-2:] == [(EventKind.WAIT, 7), (EventKind.CANCEL, 7)]
