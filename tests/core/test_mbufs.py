"""`MbufPools`: OpenBSD's table, its rules, and the two stalls of the mailing list."""

from __future__ import annotations

import errno

import anyio
import pytest

from mbufpools import (
    BufferPools,
    ConfigurationError,
    CurPage,
    LimitRangeError,
    MbufPools,
    OversizeRequest,
    RequestError,
    Wakeup,
)
from mbufpools.demokit import left_asleep
from mbufpools.mbufs import LONG_MAX, MCLBYTES, MSIZE, NMBCLUSTERS
from tests.kit.getters import Scene
from tests.kit.grants import WAKING

# What the real pool_init prints: name, item, page, items per page.
GEOMETRY = [
    ("mbufpl", 256, 4096, 16),
    ("mcl2k", 2048, 16384, 8),
    ("mcl2k2", 2112, 32768, 15),
    ("mcl4k", 4096, 32768, 8),
    ("mcl8k", 8192, 65536, 8),
    ("mcl9k", 9216, 131072, 14),
    ("mcl12k", 12288, 131072, 10),
    ("mcl16k", 16384, 131072, 8),
    ("mcl64k", 65536, 524288, 8),
]
MCL9K128 = ("mcl9k128", 9344, 131072, 14)


def geometry(pools: BufferPools) -> list[tuple[str, int, int, int]]:
    return [
        (pool.name, pool.item_size, pool.page_size, pool.items_per_page)
        for pool in pools.pools.values()
    ]


# The table


def test_the_geometry_is_the_kernels() -> None:
    assert geometry(MbufPools()) == GEOMETRY


def test_since_1_305_the_9k_class_is_larger_and_has_another_name() -> None:
    expected = [MCL9K128 if row[0] == "mcl9k" else row for row in GEOMETRY]
    pools = MbufPools(mcl9k128=True)
    assert geometry(pools) == expected
    assert pools.m_clpool(9216).name == "mcl9k128"
    assert pools.m_clpool(9344).name == "mcl9k128"
    assert pools.m_clpool(9345).name == "mcl12k"


def test_the_constants_are_the_kernels() -> None:
    assert (MSIZE, MCLBYTES, NMBCLUSTERS, LONG_MAX) == (256, 2048, 262144, 2**63 - 1)


def test_the_default_limit_is_half_a_gibibyte() -> None:
    pools = MbufPools()
    assert pools.nmbclust == 262144
    assert pools.budget.limit == 512 << 20


def test_every_pool_keeps_eight_idle_pages_and_has_no_hard_limit() -> None:
    for pool in MbufPools().statistics().pools.values():
        assert (pool.max_idle_pages, pool.min_pages, pool.hard_limit) == (8, 0, None)
        assert (pool.max_idle_items, pool.min_items) == (8 * pool.items_per_page, 0)


def test_mbpool_and_mclpools_are_the_pools_of_mbufs_and_of_clusters() -> None:
    pools = MbufPools()
    assert pools.mbpool.name == "mbufpl"
    assert [pool.name for pool in pools.mclpools] == [row[0] for row in GEOMETRY[1:]]
    assert [pools.mbpool, *pools.mclpools] == list(pools.pools.values())


@pytest.mark.parametrize(
    ("nbytes", "name"),
    [
        (1, "mcl2k"),
        (256, "mcl2k"),
        (2047, "mcl2k"),
        (2048, "mcl2k"),
        (2049, "mcl2k2"),
        (2050, "mcl2k2"),
        (2051, "mcl4k"),
        (2112, "mcl4k"),
        (4096, "mcl4k"),
        (4097, "mcl8k"),
        (8192, "mcl8k"),
        (8193, "mcl9k"),
        (9216, "mcl9k"),
        (9217, "mcl12k"),
        (12288, "mcl12k"),
        (12289, "mcl16k"),
        (16384, "mcl16k"),
        (16385, "mcl64k"),
        (65536, "mcl64k"),
    ],
)
def test_m_clpool_takes_the_smallest_cluster_that_holds_it(nbytes: int, name: str) -> None:
    """A cluster of 2050 has 2112 bytes for its alignment; they are not for sale."""
    pools = MbufPools()
    assert pools.m_clpool(nbytes).name == name
    assert pools.pool_for(nbytes).name == (name if nbytes > 256 else "mbufpl")


def test_m_clpool_refuses_what_no_cluster_holds() -> None:
    pools = MbufPools()
    for refused in (pools.m_clpool, pools.pool_for):
        with pytest.raises(OversizeRequest, match=r"of 65537 bytes; .* 65536 \(pool 'mcl64k'\)"):
            refused(65537)
        for nbytes in (0, -1):
            with pytest.raises(RequestError, match=f"asked for {nbytes} bytes"):
                refused(nbytes)
        for wrong in (True, 1.0, "1"):
            with pytest.raises(TypeError, match="expected an integer of bytes"):
                refused(wrong)  # type: ignore[arg-type]  # what it refuses


def test_an_mbuf_is_for_what_fits_into_256_bytes() -> None:
    pools = MbufPools()
    assert pools.pool_for(256) is pools.mbpool
    assert pools.pool_for(257) is pools.m_clpool(257)


async def test_get_goes_by_size_and_the_buffer_is_as_long_as_asked() -> None:
    async with Scene(MbufPools) as scene:
        with (
            await scene.pools.get(200) as mbuf,
            await scene.pools.get(2049) as cluster,
            scene.pools.get_nowait(65536) as large,
        ):
            scene.check()
            assert [buffer.pool.name for buffer in (mbuf, cluster, large)] == [
                "mbufpl",
                "mcl2k2",
                "mcl64k",
            ]
            assert [len(buffer.view) for buffer in (mbuf, cluster, large)] == [200, 2049, 65536]
            assert scene.pools.budget.allocated == 4096 + 32768 + 524288


async def test_an_item_of_the_2050_pool_has_the_aligned_size() -> None:
    async with Scene(MbufPools) as scene:
        with scene.pools.pools["mcl2k2"].get_nowait() as buffer:
            assert len(buffer.view) == 2112


# nmbclust


@pytest.mark.parametrize("nmbclust", [1, 2, LONG_MAX // MCLBYTES])
def test_nmbclust_may_be_from_one_to_what_a_long_of_bytes_holds(nmbclust: int) -> None:
    pools = MbufPools(nmbclust)
    assert pools.nmbclust == nmbclust
    assert pools.budget.limit == nmbclust * 2048
    pools = MbufPools()
    pools.nmbclust_update(nmbclust)
    assert pools.nmbclust == nmbclust
    assert pools.budget.limit == nmbclust * 2048


@pytest.mark.parametrize("nmbclust", [0, -1, LONG_MAX // MCLBYTES + 1, 2**80])
async def test_nmbclust_out_of_range_is_erange_and_changes_nothing(nmbclust: int) -> None:
    async with Scene(MbufPools, 8) as scene:
        for refused in (scene.pools.nmbclust_update, MbufPools):
            with pytest.raises(LimitRangeError) as caught:
                refused(nmbclust)
            assert caught.value.errno == errno.ERANGE
            assert isinstance(caught.value, ValueError)
            assert str(caught.value) == (
                f"nmbclust is {nmbclust}; expected 1 to 4503599627370495 clusters of 2048 bytes"
            )
        await scene.settle()
        assert scene.pools.nmbclust == 8
        assert scene.pools.budget.limit == 16384
        assert scene.pools.statistics().wakeup_runs == 0


@pytest.mark.parametrize("nmbclust", [True, False, 8.0, "8", None])
def test_nmbclust_that_is_no_integer_is_a_type_error(nmbclust: object) -> None:
    pools = MbufPools(8)
    for refused in (pools.nmbclust_update, MbufPools):
        with pytest.raises(TypeError, match="expected an integer of clusters"):
            refused(nmbclust)  # type: ignore[arg-type]  # what it refuses
    assert pools.nmbclust == 8


RUNS_FOR_A_NEW_LIMIT = {
    Wakeup.NONE: 0,
    Wakeup.DEFERRED: 1,
    Wakeup.DIRECT: 0,
    Wakeup.NEAR_LIMIT: 1,
    Wakeup.WANTED: 0,
}
"""How often the task of the wakeup runs for a new limit; without a run the pools are woken at
once."""


@pytest.mark.parametrize("wakeup", list(Wakeup), ids=str)
async def test_nmbclust_update_wakes_every_pool_in_the_order_of_the_sizes(wakeup: Wakeup) -> None:
    runs = RUNS_FOR_A_NEW_LIMIT[wakeup]
    async with Scene(MbufPools, 1, wakeup=wakeup) as scene:
        for name, *_ in reversed(GEOMETRY):
            await scene.get(name, name)
        scene.pools.nmbclust_update(1)
        scene.pools.nmbclust_update(1000)
        scene.check()
        if runs:
            assert scene.granted == [], "by the task, and once for both"
        await scene.settle()
        scene.check()
        assert scene.granted == [name for name, *_ in GEOMETRY]
        assert scene.pools.statistics().wakeup_runs == runs


async def test_nmbclust_may_be_lowered_below_what_is_allocated() -> None:
    async with Scene(MbufPools, 100) as scene:
        for n in range(9):
            await scene.get(f"{n}", "mcl2k")
        scene.pools.nmbclust_update(1)
        await scene.settle()
        scene.check()
        assert scene.pools.budget.debt == 2 * 16384 - 2048
        with pytest.raises(anyio.WouldBlock):
            scene.pools.mbpool.get_nowait()
        assert scene.try_get("an item of a page that is there", "mcl2k")


@pytest.mark.parametrize(
    ("nmbclust", "percent"),
    [(2, 100), (3, 66), (4, 50), (5, 40), (100, 2), (262144, 0)],
)
async def test_m_pool_used_is_a_whole_percentage(nmbclust: int, percent: int) -> None:
    async with Scene(MbufPools, nmbclust) as scene:
        assert scene.pools.m_pool_used() == 0
        with scene.pools.get_nowait(1):
            assert scene.pools.m_pool_used() == percent


async def test_m_pool_used_is_above_a_hundred_after_the_limit_was_lowered() -> None:
    async with Scene(MbufPools, 8) as scene:
        with scene.pools.get_nowait(2048):
            scene.pools.nmbclust_update(3)
            assert scene.pools.m_pool_used() == 16384 * 100 // 6144 == 266


def test_an_unknown_policy_is_refused_and_the_known_ones_are_listed() -> None:
    with pytest.raises(ConfigurationError, match=r"curpage is 'fresh'; .*'refreshed', 'stale'"):
        MbufPools(curpage="fresh")  # type: ignore[arg-type]  # the mistake itself


# The kernel's rules


async def test_a_limit_smaller_than_a_page_is_legal_and_a_get_sleeps_for_ever() -> None:
    async with Scene(MbufPools, 1) as scene:
        await scene.get("sleeper", "mbufpl")
        with pytest.raises(anyio.WouldBlock):
            scene.pools.mbpool.get_nowait()
        await anyio.sleep(3600)
        scene.check()
        assert scene.waiting() == ["sleeper"]
        scene.pools.nmbclust_update(2)
        await scene.settle()
        assert scene.granted == ["sleeper"]


async def test_a_request_that_can_never_be_served_sleeps_also_when_the_limit_is_lowered() -> None:
    async with Scene(MbufPools, 8) as scene:
        await scene.get("holder", "mcl2k")
        await scene.get("sleeper", "mcl64k")
        scene.pools.nmbclust_update(1)
        scene.getters["holder"].release()
        await anyio.sleep(3600)
        await scene.settle()
        scene.check()
        assert scene.waiting() == ["sleeper"]
        assert left_asleep(scene.pools.statistics())


# The stall of the thread


async def stall(scene: Scene[MbufPools]) -> None:
    """A limit of eight clusters. Process 1 takes a 2k cluster, the whole limit; process 2 waits
    for an mbuf; process 1 puts. The gc frees the page nine seconds later."""
    await scene.get("process 1", "mcl2k")
    assert scene.pools.m_pool_used() == 100
    await scene.get("process 2", "mbufpl")
    assert scene.waiting() == ["process 2"]
    scene.getters["process 1"].release()
    scene.check()
    await anyio.sleep_until(8.999)
    assert scene.waiting() == ["process 2"]
    assert scene.pools.m_pool_used() == 100
    await anyio.sleep_until(9)
    await scene.settle()
    scene.check()


async def test_before_the_patch_a_process_sleeps_for_ever_beside_memory_that_is_all_free() -> None:
    async with Scene(MbufPools, 8, wakeup="none") as scene:
        await stall(scene)
        assert scene.pools.m_pool_used() == 0, "all free"
        assert scene.waiting() == ["process 2"]
        assert left_asleep(scene.pools.statistics())
        await anyio.sleep(3600)
        scene.check()
        assert scene.granted == ["process 1"]
        assert scene.pools.m_pool_used() == 0


@pytest.mark.parametrize("wakeup", WAKING, ids=str)
async def test_with_the_patch_or_an_alternative_it_wakes_after_nine_seconds(
    wakeup: Wakeup,
) -> None:
    async with Scene(MbufPools, 8, wakeup=wakeup) as scene:
        await stall(scene)
        await scene.getters["process 2"].ended.wait()
        assert scene.granted == ["process 1", "process 2"]
        assert scene.getters["process 2"].served_at == 9.0
        assert scene.pools.budget.allocated == 4096
        assert scene.pools.statistics().wakeup_runs == 1


async def test_an_nmbclust_update_ends_the_stall_before_the_patch_too() -> None:
    async with Scene(MbufPools, 8, wakeup="none") as scene:
        await stall(scene)
        scene.pools.nmbclust_update(8)
        assert scene.granted == ["process 1", "process 2"]


async def test_nine_seconds_is_the_best_case() -> None:
    """A page of 64k clusters needs all that 128 idle pages of mbufs take: one leaves a second."""
    async with Scene(MbufPools, 256) as scene:
        assert scene.pools.mbpool.prime(128 * 16) == 128 * 16
        sleeper = await scene.get("sleeper", "mcl64k")
        await anyio.sleep_until(135.5)
        assert scene.waiting() == ["sleeper"]
        await sleeper.ended.wait()
        scene.check()
        assert sleeper.served_at == 8 + 128


# The second stall: hidden items


async def one_page_of_clusters_is_out(scene: Scene[MbufPools]) -> None:
    for n in range(8):
        await scene.get(f"{n}", "mcl2k")
    await scene.get("sleeper", "mcl2k")
    assert scene.waiting() == ["sleeper"]


async def test_stale_seven_puts_wake_nobody_and_the_eighth_does() -> None:
    async with Scene(MbufPools, 8, curpage=CurPage.STALE) as scene:
        await one_page_of_clusters_is_out(scene)
        for n in range(7):
            scene.getters[f"{n}"].release()
            scene.check()
            assert scene.waiting() == ["sleeper"], f"after put {n + 1}"
            await anyio.sleep(100)
        scene.getters["7"].release()
        scene.check()
        assert scene.granted[-1] == "sleeper"


async def test_stale_the_patch_does_not_cure_it() -> None:
    async with Scene(MbufPools, 8, curpage="stale", wakeup="deferred") as scene:
        await one_page_of_clusters_is_out(scene)
        scene.getters["0"].release()
        await anyio.sleep(3600)
        assert scene.waiting() == ["sleeper"]
        with pytest.raises(anyio.WouldBlock):
            scene.pools.m_clpool(2048).get_nowait()


async def test_refreshed_the_first_put_wakes_the_sleeper() -> None:
    async with Scene(MbufPools, 8, curpage="refreshed") as scene:
        await one_page_of_clusters_is_out(scene)
        scene.getters["3"].release()
        scene.check()
        assert scene.granted[-1] == "sleeper"


async def test_stale_a_pool_below_its_limit_takes_another_page_beside_its_hidden_items() -> None:
    for curpage, pages in (("stale", 2), ("refreshed", 1)):
        async with Scene(MbufPools, 16, curpage=curpage) as scene:
            for n in range(8):
                await scene.get(f"{n}", "mcl2k")
            scene.getters["0"].release()
            await scene.get("ninth", "mcl2k")
            scene.check()
            assert scene.of("mcl2k").npages == pages
