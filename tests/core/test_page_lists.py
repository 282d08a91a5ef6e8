"""The pages of one pool, by themselves: lists, the current page, hidden items, check()."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest

from mbufpools import CurPage, DoubleRelease, PoolCorruption, UseAfterRelease
from mbufpools._memory import AccountedMemory
from mbufpools._page import Item, Page, PageLists

both_rules = pytest.mark.parametrize("rule", list(CurPage))


class Lists:
    """Page lists with a clock that is set by hand, and names for the pages."""

    def __init__(self, rule: CurPage = CurPage.REFRESHED, items: int = 2, pages: int = 0) -> None:
        self.now = 0
        self.lists = PageLists(items, rule, lambda: self.now)
        self.pages: list[Page] = []
        self.out: dict[tuple[Page, int], Item] = {}
        for _ in range(pages):
            self.insert()

    def insert(self) -> Page:
        page = Page(AccountedMemory().allocate(4096), self.lists)
        self.pages.append(page)
        self.lists.insert(page)
        self.check()
        return page

    def take(self) -> tuple[Page, int]:
        item = self.lists.take()
        self.out[item.page, item.index] = item
        self.check()
        return item.page, item.index

    def take_all(self, page: Page) -> list[int]:
        """Take the items of `page`, which must be the current one, until it is full."""
        items: list[int] = []
        while len(items) < self.lists.items_per_page and self.lists.curpage is page:
            taken, index = self.take()
            assert taken is page
            items.append(index)
        assert page.missing == self.lists.items_per_page
        return items

    def put(self, page: Page, index: int) -> None:
        self.lists.put_back(self.out.pop((page, index)))
        self.check()

    def current(self) -> int | None:
        """The number of the current page, counted from 0 in the order of insertion."""
        page = self.lists.curpage
        return None if page is None else self.pages.index(page)

    def idle(self) -> list[int]:
        return [self.pages.index(page) for page in self.lists.idle_pages()]

    def check(self) -> None:
        self.lists.check("tested")


@both_rules
def test_a_pool_without_pages_has_no_current_page(rule: CurPage) -> None:
    at = Lists(rule)
    at.check()
    assert at.current() is None
    assert at.lists.oldest_idle is None
    assert (at.lists.nfree, at.lists.nidle, at.lists.npages) == (0, 0, 0)


@both_rules
def test_the_first_page_becomes_current_and_a_second_does_not_replace_it(rule: CurPage) -> None:
    at = Lists(rule, pages=2)
    assert at.current() == 0
    assert at.idle() == [0, 1]
    assert (at.lists.npages, at.lists.npagealloc, at.lists.hiwat) == (2, 2, 2)


@both_rules
def test_items_come_from_the_current_page_until_it_is_full(rule: CurPage) -> None:
    at = Lists(rule, items=3, pages=2)
    assert [at.take()[0] for _ in range(3)] == [at.pages[0]] * 3
    assert at.current() == 1, "the first is full, the second is idle"
    assert at.idle() == [1]
    assert (at.lists.nout, at.lists.nfree) == (3, 3)


@both_rules
def test_no_item_is_out_twice(rule: CurPage) -> None:
    at = Lists(rule, items=5, pages=1)
    assert sorted(index for _, index in [at.take() for _ in range(5)]) == [0, 1, 2, 3, 4]
    assert at.current() is None


@both_rules
def test_the_item_that_came_back_last_goes_out_next(rule: CurPage) -> None:
    at = Lists(rule, items=4, pages=1)
    page = at.pages[0]
    indices = [at.take()[1] for _ in range(3)]
    at.put(page, indices[0])
    at.put(page, indices[2])
    assert at.take() == (page, indices[2])
    assert at.take() == (page, indices[0])


@both_rules
def test_a_full_page_is_followed_by_the_last_partial_one(rule: CurPage) -> None:
    at = Lists(rule, items=2, pages=4)
    first = at.take_all(at.pages[0])
    # The empty list is used from its end: the pages 3, 2, 1.
    assert at.current() == 3
    third = at.take_all(at.pages[3])
    assert at.current() == 2
    at.put(at.pages[0], first[0])
    at.put(at.pages[3], third[0])
    assert at.current() == 2, "a page that turns partial does not take over from the current one"
    at.take_all(at.pages[2])
    assert at.current() == 3, "the page that turned partial last"
    at.take_all(at.pages[3])
    assert at.current() == 0
    at.take_all(at.pages[0])
    assert at.current() == 1, "no partial page is left, so an empty one"


@both_rules
def test_a_full_page_without_another_leaves_no_current_page(rule: CurPage) -> None:
    at = Lists(rule, pages=1)
    at.take_all(at.pages[0])
    assert at.current() is None


@both_rules
def test_a_partial_page_is_chosen_before_the_page_that_has_just_become_empty(
    rule: CurPage,
) -> None:
    at = Lists(rule, items=2, pages=2)
    first = at.take_all(at.pages[0])
    (second,) = [at.take()[1]]
    assert at.current() == 1
    at.put(at.pages[0], first[0])
    assert at.current() == 1
    at.put(at.pages[1], second)
    assert at.idle() == [1]
    assert at.current() == 0, "page 1 is empty now, and page 0 is partial"


def test_refreshed_a_put_shows_the_item_of_a_full_page() -> None:
    at = Lists(CurPage.REFRESHED, items=3, pages=1)
    items = at.take_all(at.pages[0])
    assert at.current() is None
    at.put(at.pages[0], items[1])
    assert at.current() == 0
    assert at.take() == (at.pages[0], items[1])


def test_stale_a_put_hides_the_item_of_a_full_page_until_the_page_is_empty() -> None:
    at = Lists(CurPage.STALE, items=3, pages=1)
    items = at.take_all(at.pages[0])
    for hidden, index in enumerate(items[:2], 1):
        at.put(at.pages[0], index)
        assert at.current() is None
        assert at.lists.nfree == hidden, "free, but not seen"
    at.put(at.pages[0], items[2])
    assert at.current() == 0
    assert at.lists.nfree == 3


def test_stale_hidden_items_are_seen_again_once_another_page_is_full() -> None:
    at = Lists(CurPage.STALE, items=2, pages=1)
    items = at.take_all(at.pages[0])
    at.put(at.pages[0], items[0])
    assert at.current() is None
    at.insert()
    assert at.current() == 1, "a fresh page, while an item of page 0 is free"
    at.take_all(at.pages[1])
    assert at.current() == 0


def test_stale_only_a_pool_without_a_current_page_hides_items() -> None:
    at = Lists(CurPage.STALE, items=2, pages=2)
    items = at.take_all(at.pages[0])
    at.put(at.pages[0], items[0])
    assert at.current() == 1
    at.take_all(at.pages[1])
    assert at.current() == 0, "chosen when page 1 became full"


@both_rules
def test_idle_pages_stand_in_the_order_in_which_they_became_idle(rule: CurPage) -> None:
    at = Lists(rule, items=1, pages=3)
    for number in (0, 2, 1):
        assert at.current() == number
        at.take()
    for now, number in ((10, 1), (20, 0), (30, 2)):
        at.now = now
        at.put(at.pages[number], 0)
    assert at.idle() == [1, 0, 2]
    assert at.lists.oldest_idle is at.pages[1]
    assert [page.empty_since for page in at.pages] == [20, 10, 30]
    assert at.current() == 2, "the last of the idle ones"


@both_rules
def test_a_fresh_page_is_idle_from_its_insertion(rule: CurPage) -> None:
    at = Lists(rule)
    at.now = 77
    assert at.insert().empty_since == 77


@both_rules
def test_a_page_that_leaves_is_counted_and_is_not_current_any_more(rule: CurPage) -> None:
    at = Lists(rule, items=1, pages=2)
    at.lists.remove(at.pages[0])
    at.check()
    assert at.current() == 1
    at.lists.remove(at.pages[1])
    at.check()
    assert at.current() is None
    counts = (at.lists.npages, at.lists.npagealloc, at.lists.npagefree, at.lists.hiwat)
    assert counts == (0, 2, 2, 2)
    at.insert()
    assert at.lists.hiwat == 2, "the most there ever were at once"


@both_rules
def test_a_page_that_leaves_makes_way_for_a_partial_one(rule: CurPage) -> None:
    at = Lists(rule, items=2, pages=2)
    first = at.take_all(at.pages[0])
    assert at.current() == 1
    at.put(at.pages[0], first[0])
    at.lists.remove(at.pages[1])
    at.check()
    assert at.current() == 0, "choosing again finds it under either rule"


def test_stale_a_page_that_leaves_shows_what_was_hidden() -> None:
    at = Lists(CurPage.STALE, items=2, pages=1)
    first = at.take_all(at.pages[0])
    at.put(at.pages[0], first[0])
    at.insert()
    assert at.current() == 1
    at.lists.remove(at.pages[1])
    at.check()
    assert at.current() == 0


# What check() finds: each of these breaks one invariant of a sound structure of four pages.


def _on_the_wrong_list(lists: PageLists, pages: list[Page]) -> None:
    del lists._partial[pages[2]]
    lists._full[pages[2]] = None


def _an_idle_page_on_the_partial_list(lists: PageLists, pages: list[Page]) -> None:
    del lists._empty[pages[1]]
    lists._partial[pages[1]] = None


def _on_two_lists(lists: PageLists, pages: list[Page]) -> None:
    lists._partial[pages[0]] = None


def _an_item_lost(lists: PageLists, pages: list[Page]) -> None:
    kept.append(pages[2].free.pop())


kept: list[Item] = []
"""Tokens that must not die: they would report themselves."""


def _an_item_free_twice(lists: PageLists, pages: list[Page]) -> None:
    kept.append(pages[1].free[0])
    pages[1].free[0] = pages[1].free[1]


def _an_item_of_another_page(lists: PageLists, pages: list[Page]) -> None:
    kept.append(pages[1].free[0])
    pages[1].free[0] = pages[3].free[0]


def _a_token_too_many(lists: PageLists, pages: list[Page]) -> None:
    pages[2].free.append(Item(pages[2], pages[2].made))


def _too_many_out(lists: PageLists, pages: list[Page]) -> None:
    lists.nget += 1


def _too_few_out(lists: PageLists, pages: list[Page]) -> None:
    lists.nput += 1


def _a_page_off_all_lists(lists: PageLists, pages: list[Page]) -> None:
    del lists._full[pages[0]]


def _a_deaf_page(lists: PageLists, pages: list[Page]) -> None:
    pages[0].alarm = 2


def _a_page_that_left(lists: PageLists, pages: list[Page]) -> None:
    pages[3].left = True


def _a_high_water_too_low(lists: PageLists, pages: list[Page]) -> None:
    lists.hiwat = lists.npages - 1


def _idle_pages_out_of_order(lists: PageLists, pages: list[Page]) -> None:
    lists._empty.move_to_end(pages[1])


def _a_full_current_page(lists: PageLists, pages: list[Page]) -> None:
    lists.curpage = pages[0]


def _a_current_page_that_left(lists: PageLists, pages: list[Page]) -> None:
    lists.curpage = page = Page(AccountedMemory().allocate(4096), lists)
    page.make_tokens()


def _no_current_page(lists: PageLists, pages: list[Page]) -> None:
    lists.curpage = None


ON_THE_LIST = "that a page with {} of 2 items out is not on the {} list does not hold"

CORRUPTIONS: list[tuple[Callable[[PageLists, list[Page]], None], str]] = [
    (_on_the_wrong_list, ON_THE_LIST.format(1, "full")),
    (_an_idle_page_on_the_partial_list, ON_THE_LIST.format(0, "partial")),
    (_on_two_lists, ON_THE_LIST.format(2, "partial")),
    (_an_item_lost, ON_THE_LIST.format(2, "partial")),
    (_an_item_free_twice, "that an item is free only once does not hold"),
    (_an_item_of_another_page, "that a free item is one of its page does not hold"),
    (_a_token_too_many, ON_THE_LIST.format(0, "partial")),
    (_too_many_out, "that nout (4) is the number of missing items (3) does not hold"),
    (_too_few_out, "that nout (2) is the number of missing items (3) does not hold"),
    (_a_page_off_all_lists, "that nout (3) is the number of missing items (1) does not hold"),
    (
        _a_deaf_page,
        "that the next put that changes the state of a page raises its alarm does not hold",
    ),
    (_a_page_that_left, "that a page that left is on no list does not hold"),
    (
        _a_high_water_too_low,
        "that hiwat is the most pages there ever were does not hold",
    ),
    (
        _idle_pages_out_of_order,
        "that the idle pages are in the order in which they became idle does not hold",
    ),
    (_a_full_current_page, "that the current page has a free item does not hold"),
    (_a_current_page_that_left, "that the current page is on a list does not hold"),
]


def sound(rule: CurPage) -> Lists:
    """A full page, two idle ones of different age, and a partial one, which is current."""
    at = Lists(rule, items=2, pages=1)
    at.take_all(at.pages[0])
    at.insert()
    at.now += 1
    at.insert()
    at.lists.curpage = at.pages[2]
    at.take()
    at.now += 1
    at.insert()
    assert at.idle() == [1, 3]
    assert at.current() == 2
    return at


@both_rules
@pytest.mark.parametrize(
    ("corrupt", "message"),
    [pytest.param(*row, id=row[0].__name__.strip("_")) for row in CORRUPTIONS],
)
def test_check_finds(
    rule: CurPage, corrupt: Callable[[PageLists, list[Page]], None], message: str
) -> None:
    at = sound(rule)
    corrupt(at.lists, at.pages)
    with pytest.raises(PoolCorruption) as caught:
        at.check()
    assert str(caught.value) == f"pool 'tested': {message}"


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (CurPage.REFRESHED, "that a pool with free items has a current page does not hold"),
        (CurPage.STALE, "that a pool with an idle page has a current page does not hold"),
    ],
)
def test_check_finds_a_current_page_that_is_missing(rule: CurPage, message: str) -> None:
    at = sound(rule)
    _no_current_page(at.lists, at.pages)
    with pytest.raises(PoolCorruption) as caught:
        at.check()
    assert str(caught.value) == f"pool 'tested': {message}"


def test_check_lets_a_stale_pool_hide_the_items_of_partial_pages() -> None:
    at = Lists(CurPage.STALE, items=2, pages=1)
    items = at.take_all(at.pages[0])
    at.put(at.pages[0], items[0])
    assert at.current() is None
    assert at.lists.nfree == 1
    at.check()


def test_a_lost_item_comes_home_by_its_new_token() -> None:
    at = Lists(items=2, pages=1)
    at.take()
    at.out.clear()
    (token,) = at.lists.lost
    assert token.index == ~0
    token.index = 0
    at.lists.recover(token)
    at.check()
    assert (at.lists.nout, at.lists.nidle) == (0, 1)


def test_a_token_whose_loss_was_reported_refuses_every_use_and_is_not_reported_again() -> None:
    at = Lists(items=2, pages=1)
    item = at.lists.take()
    item.__del__()  # as the garbage collector calls it while a lease is in the same garbage
    item.__del__()
    assert len(at.lists.lost) == 1
    supply: Any = item.page.lists
    with pytest.raises(DoubleRelease, match=r"^this buffer was dropped .*; release it in time$"):
        supply.put_watched(item, 1)
    assert supply.window(item, 1) is supply
    with pytest.raises(UseAfterRelease, match=r"^this buffer was dropped .*; get a new one$"):
        supply.shared  # noqa: B018
    supply.end_lease(item, 1)
    assert supply.watched


@both_rules
def test_rebuild_sorts_the_pages_by_their_free_lists(rule: CurPage) -> None:
    at = Lists(rule, items=8, pages=4)
    lists, (full, half, idle, drained) = at.lists, at.pages
    for page, count in ((full, 8), (half, 3), (drained, 4)):
        lists.curpage = page
        for _ in range(count):
            item = lists.take()
            at.out[page, item.index] = item
    assert drained.made == 8, "the last of the first tokens was taken, so more were made"
    drained.free.clear()
    drained.made = 4  # an exception ended the get before that
    for page, wrong in ((full, lists._empty), (half, lists._full), (idle, lists._partial)):
        page.on.pop(page)
        page.on = wrong
        wrong[page] = None
        page.alarm = 77
    lists.nput = 99
    lists.hiwat = 0
    lists.curpage = full
    assert lists.rebuild() == []
    at.check()
    assert [page.on for page in at.pages] == [
        lists._full,
        lists._partial,
        lists._empty,
        lists._partial,
    ]
    assert (lists.nout, lists.nidle, lists.hiwat) == (15, 1, 4)
    assert (len(drained.free), drained.made) == (4, 8)
    assert lists.curpage in (half, drained)
    assert all(value is None for value in (*lists._full.values(), *lists._empty.values()))


def test_rebuild_leaves_the_current_page_of_a_stale_pool_if_it_is_fit() -> None:
    at = Lists(CurPage.STALE, items=2, pages=3)
    _, second, third = at.pages
    at.lists.rebuild()
    assert at.current() == 0
    at.lists.curpage = None
    at.lists.rebuild()
    assert at.current() == 2
    at.lists.curpage = second
    second.left = True
    assert at.lists.rebuild() == [second]
    assert at.current() == 2
    taken = [third.free.pop(), third.free.pop()]
    at.lists.nget += 2
    at.lists.rebuild()
    assert at.current() == 0
    assert [item.page for item in taken] == [third, third]
    at.check()


def test_rebuild_of_a_refreshed_pool_chooses_its_current_page_anew() -> None:
    at = Lists(CurPage.REFRESHED, items=2, pages=2)
    item = at.lists.take()
    at.lists.curpage = at.pages[1]
    at.lists.rebuild()
    assert at.lists.curpage is at.pages[0], "a partial page comes first"
    assert item.page is at.pages[0]


def test_a_token_that_dies_before_its_page_is_on_a_list_is_no_lost_item() -> None:
    lists = PageLists(4, CurPage.REFRESHED, lambda: 0)
    page = Page(AccountedMemory().allocate(4096), lists)

    class Full(list[Item]):
        def append(self, item: Item) -> None:
            raise MemoryError

    page.free = Full()
    with pytest.raises(MemoryError):
        lists.insert(page)
    gc.collect()
    assert page.made == 1
    assert not lists.lost
    assert not lists.npages
