"""The lists of a CPU and the depot: plain data, after the kernel's rules."""

from __future__ import annotations

import pytest

from mbufpools._pool_cache import LIST_ITEMS, CpuLists, Depot, in_order_of_return

SECONDS = 1_000_000


def filled(count: int, list_items: int = LIST_ITEMS) -> tuple[CpuLists[int], list[list[int]]]:
    """The lists of a CPU after so many puts, and the lists that went to the depot."""
    lists = CpuLists[int]()
    return lists, [full for item in range(count) if (full := lists.put(item, list_items))]


# The lists of a CPU


def test_the_item_that_was_put_last_is_taken_first() -> None:
    lists, _ = filled(16)
    assert [lists.take() for _ in range(17)] == [*reversed(range(16)), None]


@pytest.mark.parametrize(
    ("puts", "active", "previous", "to_depot"),
    [(1, 1, 0, 0), (8, 8, 0, 0), (9, 1, 8, 0), (16, 8, 8, 0), (17, 1, 8, 1), (33, 1, 8, 3)],
)
def test_a_list_is_full_only_when_the_next_item_comes(
    puts: int, active: int, previous: int, to_depot: int
) -> None:
    lists, full = filled(puts)
    assert (len(lists.active), len(lists.previous), len(full)) == (active, previous, to_depot)
    assert len(lists) == active + previous
    assert [len(items) for items in full] == [8] * to_depot


def test_the_list_that_goes_to_the_depot_is_the_one_that_was_full_first() -> None:
    _, full = filled(25)
    assert full == [list(range(8)), list(range(8, 16))]


def test_gets_and_puts_by_turns_never_touch_the_depot() -> None:
    lists, _ = filled(16)
    for _ in range(100):
        item = lists.take()
        assert item is not None
        assert lists.put(item, LIST_ITEMS) == []


def test_a_get_that_finds_both_lists_empty_is_not_counted() -> None:
    lists, _ = filled(2)
    assert [lists.take() for _ in range(4)] == [1, 0, None, None]
    assert (lists.nget, lists.nput) == (2, 2)


def test_shorter_lists_are_full_earlier_and_those_that_are_longer_stay() -> None:
    lists, full = filled(20, list_items=20)
    assert full == []
    assert lists.put(20, 8) == []
    assert (len(lists.active), len(lists.previous)) == (1, 20)


def test_emptied_lists_are_those_that_had_items() -> None:
    lists, _ = filled(9)
    assert lists.empty() == [[8], list(range(8))]
    assert lists.empty() == []
    assert len(lists) == 0


def test_a_list_goes_back_to_its_pages_from_the_item_on_that_was_put_last() -> None:
    assert list(in_order_of_return([1, 2, 3])) == [3, 2, 1]


# The depot


def test_the_list_that_came_first_leaves_first() -> None:
    depot = Depot[int]()
    for items in ([1], [2, 2], [3]):
        depot.add(items, 0)
    assert (len(depot), depot.nitems) == (3, 4)
    assert [depot.take() for _ in range(4)] == [[1], [2, 2], [3], []]
    assert (len(depot), depot.nitems) == (0, 0)


def test_the_depot_has_one_time_for_all_lists() -> None:
    """It is that of the first list, until the gc takes one."""
    depot = Depot[int]()
    depot.add([1], 10 * SECONDS)
    depot.add([2], 17 * SECONDS)
    depot.add([3], 18 * SECONDS)
    assert depot.take_for_gc(18 * SECONDS, 8 * SECONDS) == [], "exactly eight seconds"
    assert depot.take_for_gc(18 * SECONDS + 1, 8 * SECONDS) == [1]
    assert depot.take_for_gc(26 * SECONDS + 1, 8 * SECONDS) == []
    assert depot.take_for_gc(27 * SECONDS, 8 * SECONDS) == [2]


def test_a_cpu_that_takes_a_list_does_not_change_the_time() -> None:
    depot = Depot[int]()
    depot.add([1], 0)
    depot.add([2], 5 * SECONDS)
    assert depot.take() == [1]
    assert depot.take_for_gc(9 * SECONDS, 8 * SECONDS) == [2]


def test_the_time_begins_anew_with_the_first_list_of_an_empty_depot() -> None:
    depot = Depot[int]()
    depot.add([1], 0)
    depot.take()
    depot.add([2], 5 * SECONDS)
    assert depot.take_for_gc(9 * SECONDS, 8 * SECONDS) == []


@pytest.mark.parametrize(
    ("contended", "items", "list_items", "then"),
    [
        (0, 1000, 8, 8),
        (0, 1000, 9, 8),
        (0, 0, 24, 23),
        (1, 1000, 24, 24),
        (8, 1000, 24, 24),
        (9, 63, 24, 24),
        (9, 64, 24, 32),
        (9, 64, 8, 16),
    ],
)
def test_the_lists_grow_with_contention_and_shrink_without(
    contended: int, items: int, list_items: int, then: int
) -> None:
    """On four CPUs a depot with 64 items, 16 a CPU, has enough for longer lists."""
    depot = Depot[int]()
    depot.list_items = list_items
    depot.add([0] * items, 0)
    depot.adjust(contended, cpus=4)
    assert depot.list_items == then
