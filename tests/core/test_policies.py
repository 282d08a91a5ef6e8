"""The choices: each can be said as a string, and a wrong one is answered with the right ones."""

from __future__ import annotations

import enum
import inspect
import pydoc
import re
from typing import Any, get_args

import anyio
import pytest

import mbufpools
from mbufpools import (
    AccountedMemory,
    BufferPools,
    ConfigurationError,
    CurPage,
    CurPageName,
    Drain,
    DrainName,
    ImpossibleRequest,
    MbufPools,
    Order,
    OrderName,
    PoolSpec,
    Reclaim,
    ReclaimName,
    Wakeup,
    WakeupName,
)
from mbufpools._cached_pool import CachedSupply
from mbufpools._order import Precedence
from mbufpools._page import PageLists
from mbufpools._policies import APPLICATION, KERNEL, Rules, choose
from mbufpools._reclaim import Reclaimer
from mbufpools._supply import Supply
from mbufpools._waiters import Waiters
from tests.kit.naive_kernel import NaiveKernel
from tests.kit.order_oracle import OrderOracle

CHOICES: dict[str, type[enum.StrEnum]] = {
    "wakeup": Wakeup,
    "order": Order,
    "reclaim": Reclaim,
    "curpage": CurPage,
    "drain": Drain,
}
OF_MBUFS_ONLY = ("curpage", "drain")
every_member = [(choice, member) for choice, kind in CHOICES.items() for member in kind]


@pytest.mark.parametrize(("choice", "member"), every_member)
def test_a_policy_may_be_said_as_a_member_or_as_its_string(
    choice: str, member: enum.StrEnum
) -> None:
    for said in (member, str(member)):
        kind: Any = CHOICES[choice]
        assert choose(kind, said) is member
        arguments: dict[str, str] = {choice: said}
        MbufPools(memory=AccountedMemory(), caches=2, **arguments)  # type: ignore[arg-type]  # by name
        if choice not in OF_MBUFS_ONLY:
            BufferPools("1 MiB", [512], **arguments)  # type: ignore[arg-type]  # by name


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("wrong", ["sometimes", "", None, 1, "Deferred "])
def test_an_unknown_policy_is_answered_with_the_right_ones(choice: str, wrong: object) -> None:
    arguments = {choice: wrong}
    with pytest.raises(ConfigurationError) as refusal:
        MbufPools(**arguments)  # type: ignore[arg-type]  # the mistake itself
    members = ", ".join(f"'{member}'" for member in CHOICES[choice])
    assert str(refusal.value) == f"{choice} is {wrong!r}; expected one of {members}"
    if choice not in OF_MBUFS_ONLY:
        with pytest.raises(ConfigurationError, match=f"^{choice} is "):
            BufferPools("1 MiB", [512], **arguments)  # type: ignore[arg-type]  # the same


def test_a_type_checker_accepts_the_right_names_and_refuses_a_wrong_one() -> None:
    """`mypy` holds the types: it complains of an error that is not ignored, and of an ignore of
    what is no error."""
    MbufPools(wakeup="near-limit", order="fifo", reclaim="pressure", curpage="stale")
    BufferPools("1 MiB", [512], wakeup="none", order="barging", reclaim="gc")
    with pytest.raises(ConfigurationError, match="'fifoo'; expected one of 'fifo', 'bounded'"):
        BufferPools("1 MiB", [512], order="fifoo")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="'defered'; expected one of 'none', 'deferred'"):
        BufferPools("1 MiB", [512], wakeup="defered")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="'idle'; expected one of 'pressure', 'gc'"):
        BufferPools("1 MiB", [512], reclaim="idle")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="'fresh'; expected one of 'refreshed', 'stale'"):
        MbufPools(curpage="fresh")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="'all'; expected one of 'never', 'depots'"):
        MbufPools(caches=8, drain="all")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (WakeupName, Wakeup),
        (OrderName, Order),
        (ReclaimName, Reclaim),
        (CurPageName, CurPage),
        (DrainName, Drain),
    ],
)
def test_the_type_of_the_names_lists_every_member(names: Any, kind: type[enum.StrEnum]) -> None:
    assert list(get_args(names)) == [str(member) for member in kind]


@pytest.mark.parametrize("wakeup", list(Wakeup))
def test_the_naive_kernel_knows_what_each_wakeup_policy_does(wakeup: Wakeup) -> None:
    """The random tests compare with it, but they may come late to a policy that it does not
    know."""
    kernel = NaiveKernel(4096, wakeup, True, 4096)
    kernel.credit(0)
    kernel.set_limit(8192)


@pytest.mark.parametrize("order", list(Order))
def test_the_oracle_of_the_order_knows_each_order(order: Order) -> None:
    OrderOracle({}, order=order, pressure=True, allowance=None, wakes=True)


def test_the_naive_kernel_and_the_oracle_refuse_a_policy_that_they_do_not_know() -> None:
    kernel = NaiveKernel(4096, "unheard of", True, 0)
    with pytest.raises(NotImplementedError, match="'unheard of'"):
        kernel.credit(0)
    with pytest.raises(NotImplementedError, match="'unheard of'"):
        kernel.set_limit(8192)
    with pytest.raises(NotImplementedError, match="'unheard of'"):
        OrderOracle({}, order="unheard of", pressure=True, allowance=None, wakes=True)


def _exists(name: str) -> bool:
    """True if a class of the core has the method ``Class._method`` of that name."""
    owner, _, method = name.partition(".")
    classes = {
        "BufferPools": BufferPools,
        "CachedSupply": CachedSupply,
        "MbufPools": MbufPools,
        "PageLists": PageLists,
        "Supply": Supply,
        "Waiters": Waiters,
        "Precedence": Precedence,
        "Reclaimer": Reclaimer,
    }
    return hasattr(classes[owner], method)


def meanings(kind: type[enum.Enum]) -> dict[str, str]:
    """Return what the docstring of an enum, which `help` prints, says of each member."""
    _, _, section = (inspect.getdoc(kind) or "").partition("\n\nAttributes:\n")
    entries = re.findall(r"^ {4}([A-Z_]+): (.*(?:\n {8}.*)*)", section, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}


PUBLIC_ENUMS = [
    value
    for name in mbufpools.__all__
    if isinstance(value := getattr(mbufpools, name), enum.EnumMeta)
]


@pytest.mark.parametrize("kind", PUBLIC_ENUMS)
def test_the_help_of_an_enum_says_what_each_member_means(kind: type[enum.Enum]) -> None:
    assert [*meanings(kind)] == [*kind.__members__]
    text = " ".join(pydoc.plain(pydoc.render_doc(kind)).replace("|", "").split())
    assert all(f"{name}: {meaning}" in text for name, meaning in meanings(kind).items())


@pytest.mark.parametrize("kind", CHOICES.values())
def test_each_member_says_where_its_behaviour_is_implemented(kind: type[enum.StrEnum]) -> None:
    said = meanings(kind)
    assert [*said] == [*kind.__members__]
    for name, meaning in said.items():
        _, implemented, where = meaning.partition("Implemented in")
        places = re.findall(r"`([A-Z]\w+\.\w+)`", where)
        assert implemented, name
        assert places, name
        assert all(_exists(place) for place in places), f"{name}: {places}"


def test_the_policies_are_strings_by_the_names_of_the_design() -> None:
    assert {str(policy) for policy in Wakeup} == {
        "none",
        "deferred",
        "direct",
        "near-limit",
        "wanted",
    }
    assert {str(policy) for policy in CurPage} == {"refreshed", "stale"}
    assert {str(policy) for policy in Drain} == {"never", "depots", "caches"}
    assert {"barging"} <= {str(policy) for policy in Order} <= {"barging", "fifo", "bounded"}
    assert {"gc"} <= {str(policy) for policy in Reclaim} <= {"gc", "pressure"}
    assert f"{Wakeup.NEAR_LIMIT}" == "near-limit"


def test_the_two_sets_of_rules_are_a_table_that_cannot_be_changed() -> None:
    assert MbufPools._rules is KERNEL
    assert BufferPools._rules is APPLICATION
    differ = {name for name in Rules._fields if getattr(KERNEL, name) != getattr(APPLICATION, name)}
    assert differ >= {"refuse_impossible", "hard_limit_wakes"}
    with pytest.raises(AttributeError):
        KERNEL.refuse_impossible = True  # type: ignore[misc]  # the mistake itself


async def _served_by_a_raised_hard_limit(pools: BufferPools, name: str) -> bool:
    served = False

    async def wait() -> None:
        nonlocal served
        with await pools.pools[name].get():
            served = True

    async with pools:
        pool = pools.pools[name]
        pool.set_hard_limit(1)
        with await pool.get():
            async with anyio.create_task_group() as group:
                group.start_soon(wait)
                await anyio.sleep(0.5)
                pool.set_hard_limit(2)
                await anyio.sleep(20)
                group.cancel_scope.cancel()
        pools.check()
    return served


async def test_a_raised_hard_limit_serves_an_applications_waiters_and_not_the_kernels() -> None:
    assert await _served_by_a_raised_hard_limit(BufferPools("1 MiB", [512]), "512")
    assert not await _served_by_a_raised_hard_limit(MbufPools(1024), "mbufpl")


async def test_an_impossible_request_fails_in_an_application_and_sleeps_in_the_kernel() -> None:
    sizes: list[int | PoolSpec] = [512, PoolSpec(65536, name="large")]
    async with BufferPools("1 MiB", sizes, memory=AccountedMemory()) as pools:
        pools.resize("64 KiB")
        with (
            anyio.fail_after(1),
            pytest.raises(ImpossibleRequest, match=r"pool 'large' can never be served"),
        ):
            await pools.get(65536)
        assert pools.statistics().waiting == 0
        pools.check()
    async with MbufPools(8, memory=AccountedMemory()) as kernel:
        with anyio.move_on_after(100) as scope:
            await kernel.get(65536)
        assert scope.cancelled_caught
        kernel.check()


async def _sleeps_after_a_page_left(wakeup: Wakeup) -> bool:
    """The stall: all of the budget comes back to another pool than the sleeper's."""
    sizes = [PoolSpec(4096, items_per_page=1, name="a"), PoolSpec(8192, items_per_page=1, name="b")]
    asleep = True

    async def wait() -> None:
        nonlocal asleep
        with await pools.get(8192):
            asleep = False

    async with BufferPools(
        8192, sizes, memory=AccountedMemory(), wakeup=wakeup, reclaim="gc"
    ) as pools:
        buffer = await pools.get(1)
        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            await anyio.sleep(0.5)
            buffer.release()
            pools.pools["a"].reclaim()
            await anyio.sleep(100)
            assert pools.budget.available == 8192, "all of it is free, whoever sleeps"
            group.cancel_scope.cancel()
        pools.check()
    return asleep


@pytest.mark.parametrize("wakeup", list(Wakeup))
async def test_without_a_wakeup_a_sleeper_never_hears_of_the_page_that_left(wakeup: Wakeup) -> None:
    """OpenBSD `m_pool_free`: a page back in the budget wakes only its own pool."""
    assert await _sleeps_after_a_page_left(wakeup) == (wakeup is Wakeup.NONE)
