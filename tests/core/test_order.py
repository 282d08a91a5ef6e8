"""One wait order across pools: what FIFO, BOUNDED and BARGING promise, and what each costs."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Any

import anyio
import pytest

from mbufpools import (
    AccountedMemory,
    Block,
    Buffer,
    BufferPools,
    Event,
    EventKind,
    ImpossibleRequest,
    Order,
    OrderName,
    PoolSpec,
)
from tests.kit.grants import (
    KIB,
    ORDERED,
    GrantLog,
    entered,
    release_all,
    reserve,
    settle,
    small_and_large,
    taking,
)

ITEM = KIB
PAGE = 4 * ITEM
HOLDERS = [1, 3, 8, 32]
CLAIMS = ["reserve", "get_many", "one page"]

# A claim on the whole budget under endless small traffic


@dataclass
class Witness:
    """An event hook: counts the releases from the arrival of the claim to its grant."""

    claim: str
    waits: bool = False
    granted: bool = False
    releases: int = 0
    out: int = 0
    """Items out."""
    out_at_arrival: int = 0

    def __call__(self, event: Event) -> None:
        if event.name == self.claim and event.kind is EventKind.WAIT:
            self.waits, self.out_at_arrival = True, self.out
        elif event.name == self.claim and event.kind is EventKind.GRANT:
            self.waits, self.granted = False, True
        elif event.kind is EventKind.PUT:
            self.out -= 1
            self.releases += self.waits
        elif event.kind in (EventKind.GET, EventKind.GRANT):
            self.out += 1


def pages_for(holders: int) -> int:
    """A budget, in pages, that the holders of one item each can just about live with: a power of
    two, so that one page can be all of it."""
    return 1 << max(0, (holders - 1) // 2).bit_length()


async def claim_the_whole(
    order: Order, kind: str, holders: int, max_passes: int | None = None, releases: int = 1000
) -> tuple[Witness, int]:
    """Let `holders` tasks take and release items of 1 KiB for ever; claim the whole budget.

    Returns what was seen, and how many passed the claim. Ends when the claim is served, or after
    that many releases.
    """
    limit = pages_for(holders) * PAGE
    name = {"reserve": "bytes", "get_many": f"{limit // ITEM} x small", "one page": "whole"}[kind]
    witness = Witness(name)
    dice = random.Random(f"{order} {kind} {holders} {max_passes}")
    whole = [PoolSpec(limit, name="whole", items_per_page=1)] if kind == "one page" else []
    pools = BufferPools(
        limit,
        [PoolSpec(ITEM, name="small", items_per_page=4), *whole],
        order=order,
        max_passes=max_passes,
        memory=AccountedMemory(),
        hook=witness,
    )
    small = pools.pools["small"]

    async def churn() -> None:
        while True:
            with await small.get():
                await anyio.sleep(dice.randint(1, 10) / 1000)

    async def claim() -> None:
        if kind == "reserve":
            lease: Any = await pools.reserve(limit)
        elif kind == "get_many":
            lease = await pools.get_many([ITEM] * (limit // ITEM))
        else:
            lease = await pools.get(limit)
        lease.release()
        served.set()

    served = anyio.Event()
    async with entered(pools), anyio.create_task_group() as tasks:
        for _ in range(holders):
            tasks.start_soon(churn)
        await anyio.sleep(0.1)
        tasks.start_soon(claim)
        await settle()
        assert witness.waits
        while not served.is_set() and witness.releases < releases:  # noqa: ASYNC110 - and counted
            await anyio.sleep(0.001)
        seen = replace(witness), pools.statistics().waits.passes
        tasks.cancel_scope.cancel()
    return seen


@pytest.mark.parametrize("holders", HOLDERS)
@pytest.mark.parametrize("kind", CLAIMS)
async def test_fifo_serves_a_claim_on_everything_once_the_holders_of_its_time_have_released(
    kind: str, holders: int
) -> None:
    witness, passes = await claim_the_whole(Order.FIFO, kind, holders)
    assert witness.granted
    assert passes == 0
    assert witness.releases <= witness.out_at_arrival <= holders


@pytest.mark.parametrize("max_passes", [0, 1, 7, 64, None])
@pytest.mark.parametrize("holders", HOLDERS)
@pytest.mark.parametrize("kind", CLAIMS)
async def test_bounded_serves_a_claim_on_everything_once_holders_and_passers_have_released(
    kind: str, holders: int, max_passes: int | None
) -> None:
    witness, passes = await claim_the_whole(Order.BOUNDED, kind, holders, max_passes)
    allowed = witness.out_at_arrival if max_passes is None else max_passes
    assert witness.granted
    assert passes <= allowed
    assert witness.releases <= witness.out_at_arrival + passes <= holders + allowed


@pytest.mark.parametrize("holders", HOLDERS[1:])  # a single one cannot keep a page busy
@pytest.mark.parametrize("kind", CLAIMS)
async def test_barging_lets_a_claim_on_everything_starve(kind: str, holders: int) -> None:
    witness, _ = await claim_the_whole(Order.BARGING, kind, holders, releases=20 * holders)
    assert not witness.granted
    assert witness.releases >= 20 * holders


# Nobody overtakes, or only so many


async def test_under_fifo_nobody_overtakes_a_claim_in_any_pool_nor_without_waiting() -> None:
    log = GrantLog()
    pools = small_and_large(4, order="fifo", hook=log)
    async with entered(pools), anyio.create_task_group() as tasks:
        held: list[Any] = [await pools.get(1000), await pools.get(4000)]
        claim = await taking(tasks, reserve, pools, 4 * PAGE)
        assert pools.budget.available == 2 * PAGE, "there is room, and an item free in a page"
        with pytest.raises(anyio.WouldBlock):
            pools.get_nowait(1001)
        with pytest.raises(anyio.WouldBlock):
            pools.get_nowait(4001)
        with pytest.raises(anyio.WouldBlock):
            pools.reserve_nowait(1)
        later = [
            await taking(tasks, pools.get, 1002),
            await taking(tasks, pools.get, 4002),
            await taking(tasks, pools.get_many, [1003, 4003]),
            await taking(tasks, reserve, pools, 1),
        ]
        await settle()
        assert all(one.waits for one in later)
        release_all(held)
        await settle()
        assert log.granted == [4 * PAGE], "freed bytes gathered for the claim"
        claim.release()
        await settle()
        assert log.granted == [4 * PAGE, 1002, 4002, 1003 + 4003, 1], "and then in turn"
        release_all([one.lease for one in later])


@pytest.mark.parametrize("order", ORDERED)
async def test_those_who_wait_are_served_in_the_order_of_their_arrival_whatever_their_pool(
    order: Order,
) -> None:
    log = GrantLog()
    pools = small_and_large(2, order=order, max_passes=0, hook=log)
    async with entered(pools), anyio.create_task_group() as tasks:
        claim = await pools.reserve(2 * PAGE)
        arrivals = [4001, 1001, 1002, 4002, 1003, 4003, 4004, 1004, 1005]
        takings = [await taking(tasks, pools.get, nbytes) for nbytes in arrivals]
        claim.release()
        for _ in arrivals:
            await settle()
            for one in takings:
                if one.lease is not None and not one.lease.released:
                    one.release()
        assert log.granted == arrivals


@pytest.mark.parametrize("max_passes", [0, 1, 5])
async def test_bounded_lets_just_so_many_gets_of_free_items_pass_a_claim(max_passes: int) -> None:
    log = GrantLog()
    pools = small_and_large(4, order="bounded", max_passes=max_passes, hook=log)
    async with entered(pools), anyio.create_task_group() as tasks:
        held: list[Any] = [await pools.get(1000)]
        claim = await taking(tasks, reserve, pools, 4 * PAGE)
        for number in range(20):
            if number < max_passes:
                buffer = await pools.get(1000) if number % 2 else pools.get_nowait(1000)
                held.append(buffer)
                held.pop(0).release()  # so that the page always has a free item
            else:
                with pytest.raises(anyio.WouldBlock):
                    pools.get_nowait(1000)
        parked = await taking(tasks, pools.get, 1001)
        assert parked.waits, "then they wait, too"
        assert pools.statistics().waits.passes == max_passes
        release_all(held)
        await settle()
        assert log.granted == [4 * PAGE]
        claim.release()
        await settle()
        parked.release()


async def test_by_default_as_many_may_pass_as_there_are_leases_out_when_the_claim_comes() -> None:
    pools = small_and_large(8, order="bounded")
    async with entered(pools), anyio.create_task_group() as tasks:
        held: list[Any] = [await pools.get(1000) for _ in range(5)]
        held.append(await pools.reserve(1))
        held.append(await pools.get(4000))
        claim = await taking(tasks, reserve, pools, 8 * PAGE)
        for _ in range(7):
            buffer = pools.get_nowait(1000)
            release_all(held[:1])
            held = [*held[1:], buffer]
        with pytest.raises(anyio.WouldBlock):
            pools.get_nowait(1000)
        assert pools.statistics().waits.passes == 7
        release_all(held)
        await settle()
        claim.release()


async def test_only_a_get_that_needs_no_page_passes() -> None:
    pools = small_and_large(4, order="bounded", max_passes=100)
    async with entered(pools), anyio.create_task_group() as tasks:
        small = await pools.get(1000)
        claim = await taking(tasks, reserve, pools, 4 * PAGE)
        with pytest.raises(anyio.WouldBlock):
            pools.get_nowait(4000)  # would take a page ahead of the claim
        with pytest.raises(anyio.WouldBlock):
            pools.reserve_nowait(1)
        many = await taking(tasks, pools.get_many, [1000, 1000])
        assert many.waits, "get_many passes nobody, even where there are free items"
        many.cancel()
        await settle()
        rest = [pools.get_nowait(1000) for _ in range(3)]
        with pytest.raises(anyio.WouldBlock):
            pools.get_nowait(1000)  # the page is full
        release_all([small, *rest])
        await settle()
        claim.release()


async def test_passes_are_counted_per_claim_from_its_arrival() -> None:
    pools = small_and_large(4, order="bounded", max_passes=3)
    async with entered(pools), anyio.create_task_group() as tasks:
        held: list[Any] = [await pools.get(1000)]

        def passes_left() -> int:
            for count in range(100):
                try:
                    held.append(pools.get_nowait(1000))
                except anyio.WouldBlock:
                    return count
                held.pop(0).release()
            raise AssertionError("it can be passed for ever")

        first = await taking(tasks, reserve, pools, 4 * PAGE)
        held.append(pools.get_nowait(1000))
        held.pop(0).release()
        second = await taking(tasks, reserve, pools, 4 * PAGE)  # sees two of the three
        assert passes_left() == 2
        third = await taking(tasks, reserve, pools, 4 * PAGE)  # sees none of them
        assert passes_left() == 0
        first.cancel()
        await settle()
        assert passes_left() == 1, "the second had been passed twice while it was behind"
        second.cancel()
        await settle()
        assert passes_left() == 2, "and the third once"
        third.cancel()
        await settle()
        release_all(held)


# A pool's minimum


@pytest.mark.parametrize("order", ORDERED)
@pytest.mark.parametrize("how", ["get", "get_nowait", "get_many", "parked"])
async def test_those_served_from_a_minimum_pass_any_claim_and_do_not_count(
    order: Order, how: str
) -> None:
    pools = BufferPools(
        4 * PAGE,
        [
            PoolSpec(ITEM, name="small", items_per_page=4, min_items=2),
            PoolSpec(PAGE, name="large", items_per_page=1),
        ],
        order=order,
        max_passes=0,
        memory=AccountedMemory(),
    )
    async with entered(pools), anyio.create_task_group() as tasks:
        held: list[Any] = [await pools.get(4000)]
        if how == "parked":
            held += [await pools.get(1000) for _ in range(2)]
        claim = await taking(tasks, reserve, pools, 3 * PAGE)
        if how == "get":
            held += [await pools.get(1000) for _ in range(2)]
        elif how == "get_nowait":
            held += [pools.get_nowait(1000) for _ in range(2)]
        elif how == "get_many":
            held += await pools.get_many([1000, 1000])
        else:
            parked = await taking(tasks, pools.get, 1001)
            assert parked.waits, "the minimum is out"
            held.pop().release()
            await settle()
            held.append(parked.lease)
        assert pools.pools["small"]._supply.nout == 2
        with pytest.raises(anyio.WouldBlock):
            pools.get_nowait(1000)  # beyond the minimum, though the item is free
        assert pools.statistics().waits.passes == 0
        assert claim.waits
        release_all(held)
        await settle()
        claim.release()


@pytest.mark.parametrize("order", ORDERED)
@pytest.mark.parametrize("users", [1, 2, 4])
async def test_endless_traffic_within_a_minimum_holds_up_no_claim_on_the_rest(
    order: Order, users: int
) -> None:
    log = GrantLog()
    pools = BufferPools(
        4 * PAGE,
        [PoolSpec(ITEM, name="small", items_per_page=4, min_items=4)],
        order=order,
        memory=AccountedMemory(),
        hook=log,
    )
    rounds = 0

    async def churn() -> None:
        nonlocal rounds
        while True:
            with await pools.get(1000):
                await anyio.sleep(0.01)
            rounds += 1

    async with entered(pools), anyio.create_task_group() as tasks:
        others = [await pools.get(1001) for _ in range(12)]  # on all of the pages
        claim = await taking(tasks, reserve, pools, 3 * PAGE)
        for _ in range(users):
            tasks.start_soon(churn)
        await anyio.sleep(1)
        assert claim.waits
        release_all(others[:-users])
        await anyio.sleep(1)
        release_all(others)
        await settle()
        assert claim.lease is not None, "the holders of its time have released"
        before = rounds
        await anyio.sleep(1)
        assert rounds >= before + 90 * users, "and the minimum has its traffic all the while"
        tasks.cancel_scope.cancel()
        claim.release()


# A request at its own pool's maximum


@pytest.mark.parametrize("order", ORDERED)
async def test_a_request_at_its_own_pools_maximum_heads_no_queue(order: Order) -> None:
    log = GrantLog()
    pools = BufferPools(
        4 * PAGE,
        [
            PoolSpec(ITEM, name="small", items_per_page=4, max_items=1),
            PoolSpec(PAGE, name="large", items_per_page=1),
        ],
        order=order,
        memory=AccountedMemory(),
        hook=log,
    )
    async with entered(pools), anyio.create_task_group() as tasks:
        held: list[Any] = [await pools.get(1000)]
        at_maximum = await taking(tasks, pools.get, 1001)
        with pytest.raises(anyio.WouldBlock):
            pools.get_nowait(1002)
        held += [await pools.get(4000), pools.get_nowait(4000), pools.reserve_nowait(PAGE)]
        assert at_maximum.waits
        assert pools.statistics().waits.passes == 0, "who heads no queue is not passed"
        held.pop(0).release()
        await settle()
        assert log.granted == [1001]
        release_all([*held, at_maximum.lease])


@pytest.mark.parametrize("order", ORDERED)
async def test_one_at_its_maximum_does_not_hide_the_claim_behind_it(order: Order) -> None:
    log = GrantLog()
    pools = BufferPools(
        2 * PAGE,
        [
            PoolSpec(ITEM, name="small", items_per_page=4, max_items=1),
            PoolSpec(PAGE, name="large", items_per_page=1),
        ],
        order=order,
        max_passes=0,
        memory=AccountedMemory(),
        hook=log,
    )
    async with entered(pools), anyio.create_task_group() as tasks:
        held: list[Any] = [await pools.get(1000), await pools.get(4000)]
        takings = [await taking(tasks, pools.get, 1001)]
        takings.append(await taking(tasks, pools.get_many, [4001]))
        takings.append(await taking(tasks, pools.get, 4002))
        held.pop().release()
        await settle()
        assert log.granted == [4001], "the claim, and not who came after it"
        held.pop().release()
        await settle()
        assert log.granted == [4001, 1001], "who wants no page heads its own pool"
        for one in takings[:2]:
            one.release()
        await settle()
        assert log.granted == [4001, 1001, 4002]
        takings[2].release()


@pytest.mark.parametrize("free", ["an item", "a page"])
async def test_bounded_lets_some_pass_a_get_many_that_waits_at_the_maximum_of_one_pool(
    free: str,
) -> None:
    # It keeps its place in all of its pools. If nobody passed it there, one who holds what it
    # waits for and asks for a buffer of another of its pools would be stopped by it, for ever,
    # with nearly all memory free.
    pools = BufferPools(
        100 * PAGE,
        [
            PoolSpec(ITEM, name="small", items_per_page=4),
            PoolSpec(PAGE, name="large", items_per_page=1, max_items=1),
        ],
        order="bounded",
        max_passes=3,
        memory=AccountedMemory(),
    )
    async with entered(pools), anyio.create_task_group() as tasks:
        held: list[Any] = [await pools.get(4000)]
        if free == "an item":
            held.append(await pools.get(1000))
        many = await taking(tasks, pools.get_many, [1000, 4000])
        held += [(await taking(tasks, pools.get, 1001)).lease for _ in range(3)]
        assert None not in held
        assert pools.statistics().waits.passes == 3
        fourth = await taking(tasks, pools.get, 1001)
        assert fourth.waits, "or it would starve when its pools are at their maxima by turns"
        release_all(held)
        await settle()
        release_all([many.lease, fourth.lease])


# When the head leaves


class RefusingMemory:
    """Accounts only, and refuses the next page when it is told so."""

    def __init__(self) -> None:
        self.refuses = False

    def allocate(self, nbytes: int) -> Block:
        if self.refuses:
            self.refuses = False
            raise MemoryError(f"no page of {nbytes} bytes")
        return AccountedMemory().allocate(nbytes)


@pytest.mark.parametrize("order", ORDERED)
@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (kind, why)
        for kind in CLAIMS
        for why in ["cancelled", "timed out", "impossible", "no memory"]
        if (kind, why) != ("reserve", "no memory")  # it needs no page
    ],
)
async def test_when_the_head_leaves_everybody_behind_is_looked_at_again(
    kind: str, why: str, order: Order
) -> None:
    memory = RefusingMemory()
    whole = 8 * PAGE
    pools = BufferPools(
        whole,
        [
            PoolSpec(ITEM, name="small", items_per_page=4),
            PoolSpec(PAGE, name="large", items_per_page=1),
            PoolSpec(whole, name="whole", items_per_page=1),
        ],
        order=order,
        max_passes=0,
        memory=memory,
    )

    async def claim() -> Any:
        with anyio.fail_after(10 if why == "timed out" else None):
            if kind == "reserve":
                return await pools.reserve(whole)
            if kind == "get_many":
                return await pools.get_many([4000] * 8)
            return await pools.get(whole)

    async with entered(pools), anyio.create_task_group() as tasks:
        held: list[Any] = [await pools.get(1000), await pools.get(4000)]
        head = await taking(tasks, claim)
        behind = [
            await taking(tasks, pools.get, 1001),
            await taking(tasks, pools.get, 4001),
            await taking(tasks, pools.get_many, [1002, 4002]),
            await taking(tasks, reserve, pools, 10),
        ]
        assert all(one.waits for one in [head, *behind])
        if why == "timed out":
            await anyio.sleep(10)
        now = anyio.current_time()
        if why == "cancelled":
            head.cancel()
        elif why == "impossible":
            pools.resize(7 * PAGE)
        elif why == "no memory":
            memory.refuses = True
            release_all(held)
        await settle()
        assert all(one.lease is not None for one in behind), "at once"
        assert anyio.current_time() == now
        expected = {
            "cancelled": type(None),
            "timed out": TimeoutError,
            "impossible": ImpossibleRequest,
            "no memory": MemoryError,
        }
        assert type(head.error) is expected[why]
        assert head.cancelled == (why == "cancelled")
        if why != "no memory":
            release_all(held)
        release_all(one.lease for one in behind)


@pytest.mark.parametrize("order", ORDERED)
async def test_when_one_behind_the_head_leaves_nobody_gains(order: Order) -> None:
    log = GrantLog()
    pools = small_and_large(2, order=order, max_passes=0, hook=log)
    async with entered(pools), anyio.create_task_group() as tasks:
        held = await pools.get(1000)
        takings = [
            await taking(tasks, reserve, pools, 2 * PAGE),
            await taking(tasks, reserve, pools, PAGE),
            await taking(tasks, pools.get, 1001),
        ]
        await settle()
        takings[1].cancel()
        await settle()
        assert log.granted == []
        held.release()
        await settle()
        takings[0].release()
        await settle()
        takings[2].release()


# The deadlock


async def nested(pools: BufferPools, depth: int, done: list[int]) -> None:
    """Take one buffer after the other, holding those before."""
    held: list[Buffer] = []
    try:
        for _ in range(depth):
            held.append(await pools.get(1000))
            await anyio.sleep(0.01)
        done.append(depth)
    finally:
        release_all(held)


async def tie(pools: BufferPools, users: int, depth: int, done: list[int]) -> anyio.CancelScope:
    """Let `users` tasks take `depth` buffers one by one, and somebody claim the whole budget
    when each has the first. Returns the scope that they all live in, when nothing moves."""
    async with anyio.create_task_group() as tasks:

        async def claim() -> None:
            async with pools.reserve(pools.budget.limit):
                done.append(0)

        for _ in range(users):
            tasks.start_soon(nested, pools, depth, done, name="nested")
        await settle()
        tasks.start_soon(claim, name="claim")
        await anyio.sleep(1000)
        stuck = pools.explain().stuck
        if len(done) <= users:
            assert stuck, pools.explain()
            assert "deadlock: every holder waits itself" in str(pools.explain())
            tasks.cancel_scope.cancel()
        else:
            assert not stuck
    return tasks.cancel_scope


@pytest.mark.parametrize(
    ("order", "max_passes", "users", "depth", "ties"),
    [
        ("fifo", None, 1, 2, True),
        ("fifo", None, 100, 2, True),
        ("bounded", 0, 1, 2, True),
        ("bounded", 1, 1, 2, False),
        ("bounded", 64, 100, 2, True),
        ("bounded", None, 100, 2, False),  # as many pass as hold one: one more each
        ("bounded", None, 100, 3, True),
        ("barging", None, 100, 2, False),
        ("barging", None, 100, 3, False),
    ],
)
async def test_tasks_that_hold_one_buffer_and_ask_for_another_can_be_deadlocked_by_a_claim(
    order: OrderName, max_passes: int | None, users: int, depth: int, ties: bool
) -> None:
    done: list[int] = []
    pools = BufferPools(
        512 * KIB,
        [PoolSpec(KIB, items_per_page=512)],  # so that there always is a free item to pass with
        order=order,
        max_passes=max_passes,
        debug=True,
        memory=AccountedMemory(),
    )
    async with entered(pools):
        scope = await tie(pools, users, depth, done)
        assert scope.cancelled_caught == ties
        if ties:
            assert 0 not in done, "the claim needs what they hold"
            if max_passes is not None or order == "fifo":
                assert len(done) == (max_passes or 0), "these passed it, and no others"
        else:
            assert sorted(done) == [0] + [depth] * users


@pytest.mark.parametrize("order", list(Order))
async def test_get_many_unties_the_deadlock(order: Order) -> None:
    pools = small_and_large(10, order=order, debug=True)
    done: list[int] = []

    async def all_at_once() -> None:
        with await pools.get_many([1000] * 4):
            await anyio.sleep(0.01)
        done.append(4)

    async def claim() -> None:
        async with pools.reserve(pools.budget.limit):
            done.append(0)

    async with entered(pools):
        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                for number in range(100):
                    tasks.start_soon(all_at_once)
                    if number == 50:
                        await settle()
                        tasks.start_soon(claim)
        assert sorted(done) == [0] + [4] * 100


# Barging


async def test_barging_serves_a_newcomer_first_and_the_waiters_of_a_line_in_order() -> None:
    log = GrantLog()
    pools = small_and_large(2, order="barging", hook=log)
    async with entered(pools), anyio.create_task_group() as tasks:
        held: list[Any] = [await pools.get(4000), await pools.get(1000)]
        claims = [await taking(tasks, reserve, pools, 2 * PAGE - number) for number in range(3)]
        held += [await pools.get(1000), pools.get_nowait(1000)]
        assert log.granted == []
        release_all(held)
        for claim in claims:
            await settle()
            claim.release()
        assert log.granted == [2 * PAGE, 2 * PAGE - 1, 2 * PAGE - 2]


@pytest.mark.parametrize("order", ORDERED)
async def test_no_pool_is_primed_with_pages_whose_waiter_has_a_wakeup_on_its_way(
    order: Order,
) -> None:
    pools = small_and_large(2, order=order)
    async with entered(pools), anyio.create_task_group() as tasks:
        held = [await pools.get(PAGE), await pools.get(PAGE)]
        pools.resize(PAGE)
        waiter = await taking(tasks, pools.get, PAGE)
        pools.resize(3 * PAGE)
        assert pools.pools["small"].prime(1) == 0
        await settle()
        assert waiter.holds()
        release_all([*held, waiter.lease])


@pytest.mark.parametrize("order", ORDERED)
async def test_one_who_waits_at_a_maximum_keeps_no_other_pool_from_being_primed(
    order: Order,
) -> None:
    pools = small_and_large(2, order=order)
    async with entered(pools), anyio.create_task_group() as tasks:
        held = await pools.get(PAGE)
        pools.pools["large"].set_hard_limit(1)
        waiter = await taking(tasks, pools.get, PAGE)
        assert pools.pools["small"].prime(1) == 4
        held.release()
        await settle()
        release_all([waiter.lease])
