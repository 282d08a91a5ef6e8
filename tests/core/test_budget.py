"""The budget: charges, drops, credits, debts, the low-memory flag, and who is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbufpools import Budget, BudgetStatistics, PoolCorruption


def test_a_charge_that_fits_is_granted_to_the_last_byte() -> None:
    budget = Budget(100)
    assert budget.charge(60)
    assert budget.charge(40)
    assert budget.allocated == budget.limit == 100
    assert budget.available == 0
    assert budget.drops == 0


def test_a_charge_one_byte_too_large_is_refused_and_counted_and_changes_nothing_else() -> None:
    budget = Budget(100)
    assert budget.charge(60)
    assert not budget.charge(41)
    assert not budget.charge(1000)
    assert budget.statistics() == BudgetStatistics(
        limit=100, allocated=60, peak=60, drops=2, used_percent=60, low_memory=False
    )
    assert budget.charge(40)


def test_a_credit_makes_room_again() -> None:
    budget = Budget("1 KiB")
    assert budget.charge(1024)
    assert not budget.charge(1)
    budget.credit(24)
    assert budget.available == 24
    assert budget.charge(24)
    assert budget.drops == 1


def test_the_peak_is_the_most_ever_charged_at_once() -> None:
    budget = Budget(100)
    budget.charge(70)
    budget.credit(70)
    budget.charge(30)
    assert not budget.charge(71), "what was refused was never charged"
    assert budget.peak == 70
    budget.charge(41)
    assert budget.peak == 71


@pytest.mark.parametrize("charged", [0, 40])
def test_a_credit_of_more_than_is_charged_is_corruption_and_changes_nothing(charged: int) -> None:
    told: list[int] = []
    budget = Budget(100)
    budget.on_credit = told.append
    assert budget.charge(charged)
    with pytest.raises(PoolCorruption, match=rf"credited {charged + 1} bytes, more than"):
        budget.credit(charged + 1)
    assert budget.allocated == charged
    assert told == []
    budget.credit(charged)
    assert told == [charged]


def test_the_subtraction_precedes_the_callback() -> None:
    """OpenBSD `m_pool_free`: a wakeup before the subtraction would find nothing."""
    seen: list[tuple[int, int, bool]] = []
    budget = Budget(100)

    def take_what_came_back(nbytes: int) -> None:
        seen.append((nbytes, budget.allocated, budget.charge(nbytes)))

    budget.on_credit = take_what_came_back
    assert budget.charge(100)
    budget.credit(60)
    assert seen == [(60, 40, True)]
    assert budget.allocated == 100


class _Sum(int):
    """A sum that, when it is compared with the limit, lets a small charge come between."""

    budget: Budget
    small_ones: list[bool]

    def __gt__(self, limit: int) -> bool:
        self.small_ones.append(self.budget.charge(10))
        return int(self) > limit

    def __add__(self, other: int) -> int:
        return int(self) + other


class _Large(int):
    budget: Budget
    small_ones: list[bool]

    def __radd__(self, other: int) -> _Sum:
        total = _Sum(other + int(self))
        total.budget = self.budget
        total.small_ones = self.small_ones
        return total


def test_m_pool_alloc_a_large_charge_that_fails_never_makes_a_small_one_fail_meanwhile() -> None:
    """OpenBSD `m_pool_alloc` adds and then checks: a small request that comes in between fails
    for want of memory that is not taken, and nobody wakes it when the sum is taken back."""
    budget = Budget(100)
    assert budget.charge(50)
    large = _Large(60)
    large.budget, large.small_ones = budget, []
    assert not budget.charge(large)
    assert large.small_ones == [True]
    assert budget.allocated == 60
    assert budget.drops == 1, "only the large one was dropped"


def test_a_limit_below_what_is_charged_makes_a_debt_that_credits_pay_before_any_charge() -> None:
    budget = Budget(100)
    assert budget.charge(80)
    assert budget.debt == 0
    budget.resize(50)
    assert (budget.limit, budget.allocated) == (50, 80)
    assert (budget.debt, budget.available) == (30, 0)
    budget.credit(30)
    assert (budget.debt, budget.available) == (0, 0)
    assert not budget.charge(1)
    budget.credit(1)
    assert budget.charge(1)
    assert budget.peak == 80


def test_a_resize_is_told_after_the_new_limit_holds() -> None:
    seen: list[tuple[int, bool]] = []
    budget = Budget(100)
    budget.charge(100)
    budget.on_resize = lambda: seen.append((budget.limit, budget.charge(20)))
    budget.resize("110")
    budget.resize(120)
    assert seen == [(110, False), (120, True)]


def test_a_budget_that_nobody_listens_to_works() -> None:
    budget = Budget(10)
    budget.charge(10)
    budget.credit(10)
    budget.resize(5)
    assert budget.available == 5


@pytest.mark.parametrize(
    ("limit", "allocated", "percent"),
    [(100, 0, 0), (100, 100, 100), (3, 1, 33), (3, 2, 66), (1000, 809, 80), (1 << 40, 1, 0)],
)
def test_used_percent_is_rounded_down(limit: int, allocated: int, percent: int) -> None:
    budget = Budget(limit)
    assert budget.charge(allocated)
    assert budget.used_percent == percent


def test_used_percent_may_exceed_a_hundred_in_debt() -> None:
    budget = Budget(100)
    budget.charge(100)
    budget.resize(40)
    assert budget.used_percent == 250


def test_low_memory_comes_above_80_percent_and_goes_below_60() -> None:
    budget = Budget(1000)
    story = []
    for allocated in (800, 809, 810, 800, 600, 599, 700, 800, 810):
        change = allocated - budget.allocated
        if change > 0:
            assert budget.charge(change)
        else:
            budget.credit(-change)
        story.append((allocated, budget.low_memory))
    assert story == [
        (800, False),
        (809, False),  # 80 % whole, as the kernel counts
        (810, True),
        (800, True),
        (600, True),
        (599, False),
        (700, False),
        (800, False),
        (810, True),
    ]


def test_low_memory_follows_a_resize_before_anybody_is_told() -> None:
    seen: list[bool] = []
    budget = Budget(100)
    budget.on_resize = lambda: seen.append(budget.low_memory)
    budget.charge(50)
    budget.resize(60)
    budget.resize(83)  # 60 %
    budget.resize(84)  # 59 %
    assert seen == [True, True, False]


def test_low_memory_follows_a_credit_before_anybody_is_told() -> None:
    seen: list[bool] = []
    budget = Budget(100)
    budget.on_credit = lambda nbytes: seen.append(budget.low_memory)
    budget.charge(90)
    budget.credit(30)
    budget.credit(1)
    assert seen == [True, False]


def test_a_refused_charge_does_not_raise_the_low_memory_flag() -> None:
    budget = Budget(100)
    assert not budget.charge(101)
    assert not budget.low_memory


def test_the_repr_tells_how_much_is_used() -> None:
    budget = Budget("64 KiB")
    budget.charge(4096)
    assert repr(budget) == "<Budget 4 KiB of 64 KiB>"


@given(
    st.lists(
        st.tuples(st.sampled_from(["charge", "credit", "resize"]), st.integers(0, 200)),
        max_size=50,
    )
)
def test_any_mix_of_calls_keeps_the_sums(calls: list[tuple[str, int]]) -> None:
    budget = Budget(100)
    limit, allocated, peak, drops = 100, 0, 0, 0
    credited: list[int] = []
    budget.on_credit = credited.append
    expected_credits: list[int] = []
    for call, nbytes in calls:
        if call == "charge":
            fits = nbytes <= limit - allocated
            assert budget.charge(nbytes) == fits
            allocated += nbytes * fits
            drops += not fits
            peak = max(peak, allocated)
        elif call == "credit":
            nbytes = min(nbytes, allocated)
            budget.credit(nbytes)
            expected_credits.append(nbytes)
            allocated -= nbytes
        else:
            limit = nbytes + 1
            budget.resize(limit)
        assert (budget.limit, budget.allocated) == (limit, allocated)
        assert budget.available - budget.debt == limit - allocated
        assert budget.available == 0 or budget.debt == 0
        assert (budget.peak, budget.drops) == (peak, drops)
    assert credited == expected_credits
