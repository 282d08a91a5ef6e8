"""Each mistake is answered with what was wrong, what was expected and what to do, and changes
nothing."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from mbufpools import (
    AccountedMemory,
    Budget,
    BufferPools,
    ConfigurationError,
    ImpossibleRequest,
    LimitRangeError,
    MbufPools,
    OversizeRequest,
    PoolSpec,
    RequestError,
)

MIB = 1 << 20


def refused(call: Callable[[], object], error: type[Exception], *telling: str) -> None:
    """Expect exactly `error` of `call`, with all the telling parts in its message."""
    with pytest.raises(error) as refusal:
        call()
    assert refusal.type is error
    message = str(refusal.value)
    for part in telling:
        assert part in message


# Numbers of bytes

TAKES_BYTES = [
    pytest.param(Budget, "the limit of a Budget", 1, id="Budget"),
    pytest.param(
        lambda value: BufferPools(value, [512]), "the limit of a Budget", 1, id="BufferPools"
    ),
    pytest.param(
        lambda value: BufferPools(MIB, [512]).resize(value),
        "the limit of a Budget",
        1,
        id="resize",
    ),
    pytest.param(PoolSpec, "the item size of a pool", 1, id="PoolSpec"),
    pytest.param(
        lambda value: BufferPools(MIB, [512, value]), "the item size of a pool", 1, id="sizes"
    ),
]


@pytest.mark.parametrize(("call", "what", "least"), TAKES_BYTES)
@pytest.mark.parametrize("wrong", [0, -1, -4096, "0 B", "0 KiB"])
def test_too_few_bytes_are_refused(
    call: Callable[[Any], object], what: str, least: int, wrong: int | str
) -> None:
    number = 0 if isinstance(wrong, str) else wrong
    refused(
        lambda: call(wrong),
        ConfigurationError,
        f"{what} is {number}; expected at least {least} bytes",
    )


@pytest.mark.parametrize(("call", "what", "least"), TAKES_BYTES)
@pytest.mark.parametrize("wrong", [True, False, 4096.0, 1e6, None, b"64 MiB", [4096]])
def test_what_is_no_integer_of_bytes_is_refused(
    call: Callable[[Any], object], what: str, least: int, wrong: object
) -> None:
    refused(
        lambda: call(wrong), TypeError, f"{what} is {wrong!r}; expected an integer number of bytes"
    )


@pytest.mark.parametrize(("call", "what", "least"), TAKES_BYTES)
@pytest.mark.parametrize("wrong", ["64 MB", "64 megabytes", "64,0 KiB", "lots"])
def test_a_wrong_unit_is_answered_with_the_right_ones(
    call: Callable[[Any], object], what: str, least: int, wrong: str
) -> None:
    refused(
        lambda: call(wrong),
        ConfigurationError,
        f"{what} is {wrong!r}",
        'a string such as "64 MiB"',
        "(units: B, KiB, MiB, GiB, TiB)",
    )


def test_a_refused_limit_changes_nothing() -> None:
    told: list[int] = []
    budget = Budget(4096)
    budget.on_resize = lambda: told.append(budget.limit)
    for wrong in (0, -1, "many"):
        with pytest.raises(ConfigurationError):
            budget.resize(wrong)
    assert budget.limit == 4096
    assert told == []


# The specification of a pool


@pytest.mark.parametrize(
    ("argument", "wrong", "expected"),
    [
        ("items_per_page", 0, "at least 1 items"),
        ("items_per_page", -8, "at least 1 items"),
        ("min_items", -1, "at least 0 items"),
        ("max_items", 0, "at least 1 items"),
        ("max_items", -1, "at least 1 items"),
        ("max_idle_items", -1, "at least 0 items"),
    ],
)
def test_a_number_of_a_pool_that_is_too_small_is_refused_by_name(
    argument: str, wrong: int, expected: str
) -> None:
    numbers: dict[str, Any] = {argument: wrong}
    refused(
        lambda: PoolSpec(512, name="frames", **numbers),
        ConfigurationError,
        f"{argument} of pool 'frames' is {wrong}; expected {expected}",
    )


@pytest.mark.parametrize("argument", ["items_per_page", "min_items", "max_items", "max_idle_items"])
@pytest.mark.parametrize("wrong", [True, 8.0, "8", [8]])
def test_a_number_of_a_pool_that_is_no_integer_is_refused_by_name(
    argument: str, wrong: object
) -> None:
    numbers: dict[str, Any] = {argument: wrong}
    refused(
        lambda: PoolSpec(512, name="frames", **numbers),
        TypeError,
        f"{argument} of pool 'frames' is {wrong!r}; expected an integer number of",
    )


def test_a_maximum_below_the_minimum_is_refused_with_both() -> None:
    refused(
        lambda: PoolSpec(512, name="frames", min_items=9, max_items=8),
        ConfigurationError,
        "pool 'frames' has min_items=9 above max_items=8",
        "lower the one or raise the other",
    )
    assert PoolSpec(512, min_items=8, max_items=8).max_items == 8


@pytest.mark.parametrize("wrong", [512, b"frames", ["frames"], 0])
def test_a_name_that_is_no_string_is_refused(wrong: Any) -> None:
    refused(
        lambda: PoolSpec(512, name=wrong),
        TypeError,
        f"the name of a pool is {wrong!r}; expected a string",
    )


# The pools of a set


def test_a_set_without_sizes_is_refused() -> None:
    refused(
        lambda: BufferPools(MIB, [], name="relay"),
        ConfigurationError,
        "relay has no sizes; give at least one item size",
    )


@pytest.mark.parametrize(
    "sizes",
    [
        [512, 512],
        [512, "512 B"],
        [512, 1024, PoolSpec(2048, name="512")],
        [PoolSpec(1024, name="512"), PoolSpec(2048, name="512")],
    ],
)
def test_two_pools_of_one_name_are_refused_by_that_name(sizes: list[int | str | PoolSpec]) -> None:
    refused(
        lambda: BufferPools(MIB, sizes, name="relay"),
        ConfigurationError,
        "relay has 2 pools named '512'",
        "give each a name of its own by PoolSpec(..., name=...)",
    )


def test_two_pools_of_one_size_may_have_names_of_their_own() -> None:
    pools = BufferPools(MIB, [512, PoolSpec(512, name="again")])
    assert set(pools.pools) == {"512", "again"}


@pytest.mark.parametrize("wrong", ["2048", "48", 2048, None], ids=repr)
def test_one_size_in_the_place_of_the_sizes_is_refused(wrong: Any) -> None:
    """A string is a sequence of strings: "48" would make pools of 4 and of 8 bytes."""
    refused(lambda: BufferPools(MIB, wrong, name="relay"), TypeError, "relay", f"sizes {wrong!r}")


@pytest.mark.parametrize("make", [BufferPools, MbufPools])
@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"hook": "print"}, "the event hook is 'print'; expected a function of one Event"),
        ({"memory": "mmap"}, "memory is 'mmap'; expected an instance, as AccountedMemory()"),
        ({"memory": AccountedMemory}, "expected an instance, as AccountedMemory()"),
    ],
    ids=["hook", "memory", "memory that is a class"],
)
def test_a_hook_or_a_memory_of_the_wrong_kind_is_refused_when_the_set_is_made(
    make: type[BufferPools], wrong: dict[str, Any], expected: str
) -> None:
    arguments: list[Any] = [MIB, [512]] if make is BufferPools else []
    refused(lambda: make(*arguments, **wrong), TypeError, expected)


async def test_what_is_no_buffer_no_list_or_no_task_is_refused_with_what_is() -> None:
    async with BufferPools(MIB, [512], name="relay") as pools:
        wrong: Any = 512
        with pytest.raises(TypeError, match="relay was asked for 512; expected several sizes"):
            await pools.get_many(wrong)
        with pytest.raises(TypeError, match="cannot put 512 into pool '512'; expected a Buffer"):
            pools.pools["512"].put(wrong)
        wrong = print
        with pytest.raises(
            TypeError, match=r"is no Task; make one of a function, Task\(function\)"
        ):
            pools.taskq.add(wrong)
        pools.check()


@pytest.mark.parametrize(
    ("limit", "sizes", "pool", "needed"),
    [
        (4095, [512], "512", 4096),
        (16384, [512, 4096], "4096", 32768),
        ("60 KiB", [PoolSpec("64 KiB", items_per_page=1)], "65536", 65536),
        # The minimum of every pool, and beside it a page of the one that keeps none.
        (16383, [PoolSpec(512, min_items=17), 512 + 64], "576", 12288 + 8192),
        # The minima alone.
        (12287, [PoolSpec(512, min_items=8), PoolSpec(1024, min_items=8)], "512", 12288),
        (8191, [PoolSpec(512, min_items=9)], "512", 8192),
    ],
)
def test_a_limit_too_small_for_a_page_beside_the_minimums_is_refused(
    limit: int | str, sizes: list[int | str | PoolSpec], pool: str, needed: int
) -> None:
    refused(
        lambda: BufferPools(limit, sizes, name="relay"),
        ConfigurationError,
        f"too small for pool '{pool}'",
        f"one page of it and the minimum of every pool make {needed}",
        "raise the limit, or lower items_per_page or min_items",
    )
    assert BufferPools(needed, sizes).budget.limit == needed, "so much is enough"


def test_the_kernels_limit_may_be_smaller_than_a_page() -> None:
    assert MbufPools(1).budget.limit == 2048


@pytest.mark.parametrize(("wrong", "error"), [(-1, ConfigurationError), (1.5, TypeError)])
def test_a_wrong_margin_is_refused_by_name(wrong: Any, error: type[Exception]) -> None:
    for make in (
        lambda: BufferPools(MIB, [512], near_limit_margin=wrong),
        lambda: MbufPools(near_limit_margin=wrong),
    ):
        refused(make, error, f"near_limit_margin is {wrong}", " bytes")


# The number of clusters


@pytest.mark.parametrize("wrong", [0, -1, (1 << 52), 1 << 64])
def test_a_number_of_clusters_out_of_range_is_the_kernels_erange(wrong: int) -> None:
    pools = MbufPools(64, memory=AccountedMemory())
    for call in (lambda: MbufPools(wrong), lambda: pools.nmbclust_update(wrong)):
        refused(
            call,
            LimitRangeError,
            f"nmbclust is {wrong}; expected 1 to {(1 << 52) - 1} clusters of 2048 bytes",
        )
    assert LimitRangeError.errno == errno.ERANGE
    assert issubclass(LimitRangeError, ValueError)
    assert (pools.nmbclust, pools.budget.limit) == (64, 64 * 2048)


@pytest.mark.parametrize("wrong", [True, 64.0, "64", None])
def test_a_number_of_clusters_that_is_no_integer_is_refused(wrong: Any) -> None:
    pools = MbufPools(64)
    for call in (lambda: MbufPools(wrong), lambda: pools.nmbclust_update(wrong)):
        refused(call, TypeError, f"nmbclust is {wrong!r}; expected an integer of clusters")
    assert pools.nmbclust == 64


def test_the_most_clusters_that_the_kernel_allows_are_allowed() -> None:
    most = (1 << 52) - 1
    assert MbufPools(most).budget.limit == most * 2048


# Requests


SETS = pytest.mark.parametrize(
    "make",
    [lambda: BufferPools(MIB, [512, 2048], name="relay"), lambda: MbufPools(name="relay")],
    ids=["BufferPools", "MbufPools"],
)


async def _refused_in_every_call(
    pools: BufferPools, nbytes: Any, error: type[Exception], *telling: str
) -> None:
    refused(lambda: pools.pool_for(nbytes), error, *telling)
    async with pools:
        refused(lambda: pools.get_nowait(nbytes), error, *telling)
        with pytest.raises(error) as refusal:
            await pools.get(nbytes)
        assert refusal.type is error
        assert telling[0] in str(refusal.value)
        statistics = pools.statistics()
        assert (statistics.nout, statistics.waiting, statistics.allocated) == (0, 0, 0)
        assert sum(pool.nfail for pool in statistics.pools.values()) == 0
        pools.check()


@SETS
@pytest.mark.parametrize("nbytes", [0, -1, -512])
async def test_a_get_of_fewer_than_one_byte_is_refused(
    make: Callable[[], BufferPools], nbytes: int
) -> None:
    await _refused_in_every_call(
        make(), nbytes, RequestError, f"relay was asked for {nbytes} bytes; expected at least 1"
    )


@SETS
@pytest.mark.parametrize("nbytes", ["x", True, 512.0, None, b"512"])
async def test_a_get_of_what_is_no_integer_is_refused(
    make: Callable[[], BufferPools], nbytes: object
) -> None:
    await _refused_in_every_call(
        make(), nbytes, TypeError, f"relay was asked for {nbytes!r}; expected an integer of bytes"
    )


@pytest.mark.parametrize("nbytes", [2049, 1 << 40])
async def test_an_oversize_get_names_the_largest_class(nbytes: int) -> None:
    await _refused_in_every_call(
        BufferPools(MIB, [512, PoolSpec(2048, name="frames")], name="relay"),
        nbytes,
        OversizeRequest,
        f"relay has no buffers of {nbytes} bytes",
        "the largest are of 2048 (pool 'frames')",
        "take several, or add a larger size",
    )
    assert issubclass(OversizeRequest, RequestError)
    assert issubclass(RequestError, ValueError)


@pytest.mark.parametrize("nbytes", [65537, 1 << 40])
async def test_an_oversize_cluster_names_the_largest_class(nbytes: int) -> None:
    await _refused_in_every_call(
        MbufPools(),
        nbytes,
        OversizeRequest,
        f"there is no cluster of {nbytes} bytes",
        "the largest are of 65536 (pool 'mcl64k')",
    )


def test_a_cluster_of_fewer_than_one_byte_is_refused() -> None:
    pools = MbufPools(name="relay")
    wrong: Any = "2k"
    refused(lambda: pools.m_clpool(0), RequestError, "relay was asked for 0 bytes")
    refused(lambda: pools.m_clpool(wrong), TypeError, "relay was asked for '2k'")
    refused(lambda: pools.m_clpool(65537), OversizeRequest, "largest are of 65536 (pool 'mcl64k')")


async def test_an_impossible_get_tells_the_page_the_limit_and_what_the_others_keep() -> None:
    sizes = [PoolSpec(512, min_items=8), PoolSpec(2048, name="large")]
    async with BufferPools(MIB, sizes, memory=AccountedMemory()) as pools:
        pools.resize(16384)
        refusals: list[str] = []
        with pytest.raises(ImpossibleRequest) as refusal:
            await pools.get(2048)
        refusals.append(str(refusal.value))
        with pytest.raises(ImpossibleRequest) as refusal:
            pools.get_nowait(2048)
        refusals.append(str(refusal.value))
        for message in refusals:
            for part in (
                "'large' can never be served",
                "it takes 16384 bytes",
                "the limit is 16384",
                "the pools keep 4096 as their minimum",
                "raise the limit",
                "items_per_page",
            ):
                assert part in message
        assert pools.statistics().waiting == 0
        pools.resize(16384 + 4096)
        with await pools.get(2048), await pools.get(512):
            pools.check()


# The settings of a pool

SETTINGS = [
    pytest.param("set_low_water", "min_items of pool 'frames'", id="low water"),
    pytest.param("set_high_water", "max_idle_items of pool 'frames'", id="high water"),
    pytest.param("set_hard_limit", "max_items of pool 'frames'", id="hard limit"),
    pytest.param("prime", "the items to prime pool 'frames' with", id="prime"),
]


@pytest.mark.parametrize(("setting", "what"), SETTINGS)
@pytest.mark.parametrize("wrong", [-1, -100])
async def test_a_negative_setting_is_refused_and_changes_nothing(
    setting: str, what: str, wrong: int
) -> None:
    async with BufferPools(MIB, [PoolSpec(512, name="frames", max_items=50)]) as pools:
        pool = pools.pools["frames"]
        before = pool.statistics()
        refused(
            lambda: getattr(pool, setting)(wrong),
            ConfigurationError,
            f"{what} is {wrong}; expected at least 0 items",
        )
        assert pool.statistics() == before
        await anyio.sleep(1)
        pools.check()


@pytest.mark.parametrize(("setting", "what"), SETTINGS)
@pytest.mark.parametrize("wrong", [True, 8.0, "8"])
async def test_a_setting_that_is_no_integer_is_refused_and_changes_nothing(
    setting: str, what: str, wrong: object
) -> None:
    async with BufferPools(MIB, [PoolSpec(512, name="frames", max_items=50)]) as pools:
        pool = pools.pools["frames"]
        before = pool.statistics()
        refused(
            lambda: getattr(pool, setting)(wrong),
            TypeError,
            f"{what} is {wrong!r}; expected an integer number of items",
        )
        assert pool.statistics() == before
        await anyio.sleep(1)
        pools.check()


async def test_a_hard_limit_below_what_is_out_is_refused_and_changes_nothing() -> None:
    async with BufferPools(MIB, [PoolSpec(512, name="frames", max_items=5)]) as pools:
        pool = pools.pools["frames"]
        buffers = [await pools.get(1) for _ in range(3)]
        before = pool.statistics()
        refused(
            lambda: pool.set_hard_limit(2),
            ConfigurationError,
            "max_items of pool 'frames' cannot be 2 while 3 items are out",
            "wait until enough are released",
        )
        assert pool.statistics() == before
        buffers += [await pools.get(1), await pools.get(1)]
        with pytest.raises(anyio.WouldBlock):
            pools.get_nowait(1)
        for buffer in buffers[:2]:
            buffer.release()
        pool.set_hard_limit(3)
        assert pool.statistics().hard_limit == 3
        for buffer in buffers[2:]:
            buffer.release()
        pools.check()


def test_a_low_water_that_cannot_be_filled_outside_a_loop_changes_nothing() -> None:
    pool = BufferPools(MIB, [512]).pools["512"]
    before = pool.statistics()
    with pytest.raises(RuntimeError, match="is not entered"):
        pool.set_low_water(8)
    assert pool.statistics() == before


# Asking for several, and for bytes


@pytest.mark.parametrize(
    ("wrong", "error", "telling"),
    [
        (0, RequestError, "relay was asked for 0 bytes; expected at least 1"),
        (-4096, RequestError, "relay was asked for -4096 bytes; expected at least 1"),
        (True, TypeError, "relay was asked for True; expected an integer of bytes"),
        ("4 KiB", TypeError, "relay was asked for '4 KiB'; expected an integer of bytes"),
        (MIB + 1, ImpossibleRequest, f"the limit is {MIB}"),
    ],
)
async def test_a_reservation_that_cannot_be_is_refused_and_takes_nothing(
    wrong: Any, error: type[Exception], telling: str
) -> None:
    async with BufferPools(MIB, [512], name="relay") as pools:
        with pytest.raises(error) as refusal:
            await pools.reserve(wrong)
        assert telling in str(refusal.value)
        refused(lambda: pools.reserve_nowait(wrong), error, telling)
        assert (pools.budget.allocated, pools.statistics().waiting) == (0, 0)
        pools.check()


@pytest.mark.parametrize(
    ("wrong", "error", "telling"),
    [
        ([], RequestError, "relay was asked for no buffers; give at least one size"),
        ([512, 0], RequestError, "relay was asked for 0 bytes; expected at least 1"),
        ([512, "512"], TypeError, "relay was asked for '512'; expected an integer of bytes"),
        ([512, 4096], OversizeRequest, "the largest are of 2048 (pool '2048')"),
        ([512] * 6, ImpossibleRequest, "6 items of pool '512'"),
        ([2048] * 513, ImpossibleRequest, f"the limit is {MIB}"),
    ],
)
async def test_a_get_of_several_that_cannot_be_is_refused_and_takes_nothing(
    wrong: Any, error: type[Exception], telling: str
) -> None:
    sizes = [PoolSpec(512, max_items=5), PoolSpec(2048)]
    async with BufferPools(MIB, sizes, name="relay", memory=AccountedMemory()) as pools:
        with pytest.raises(error) as refusal:
            await pools.get_many(wrong)
        assert refusal.type is error
        assert telling in str(refusal.value)
        statistics = pools.statistics()
        assert (statistics.nout, statistics.waiting, statistics.allocated) == (0, 0, 0)
        pools.check()


@pytest.mark.parametrize(("wrong", "error"), [(-1, ConfigurationError), (1.5, TypeError)])
def test_a_wrong_number_of_passes_is_refused_by_name(wrong: Any, error: type[Exception]) -> None:
    refused(
        lambda: BufferPools(MIB, [512], max_passes=wrong),
        error,
        f"max_passes is {wrong}; expected",
        "passes",
    )


async def test_a_limit_below_what_the_pools_keep_is_refused_and_changes_nothing() -> None:
    sizes = [PoolSpec(512, min_items=9)]
    async with BufferPools(MIB, sizes, memory=AccountedMemory()) as pools:
        refused(
            lambda: pools.resize(8191),
            ConfigurationError,
            "8191 bytes",
            "the pools keep 8192 as their minimum",
            "set_min_items",
        )
        assert pools.budget.limit == MIB
        pools.resize(8192)
        with await pools.get(512):
            pools.check()


async def test_a_low_water_beyond_the_limit_is_refused_and_changes_nothing() -> None:
    async with BufferPools(8192, [512], memory=AccountedMemory()) as pools:
        pool = pools.pools["512"]
        refused(
            lambda: pool.set_low_water(17),
            ConfigurationError,
            "min_items of pool '512' cannot be 17",
            "12288 bytes",
            "the limit is 8192",
            "raise the limit first",
        )
        assert pool.statistics().min_pages == 0
        assert pool.set_low_water(16)
        assert pool.statistics().npages == 2
        pools.check()
