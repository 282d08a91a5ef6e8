"""An oracle of the waiting order: it knows what `BufferPools` promises, and watches.

It has no rule of its own that chooses which request to serve. It follows the events, counts items,
pages and bytes from them, and fails a test when a request is served out of turn, when more is out
or charged than may be, and, when nothing more can happen, if a request waits that could be served.

What an order promises, in its terms: an older request is *in the way* of a request, unless the
older one only waits at the maximum of pools that the request does not want, or behind such a
request for these pools. With none in the way, the request may be served. With one in the way, only
a get of one buffer may pass, with a free item, as often as the allowance says (FIFO: never). A
request within a reserved minimum passes all others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from mbufpools import EventKind, PoolsStatistics
from tests.kit.stepped_loop import Seen

__all__ = ["Claimant", "NaiveShelf", "OrderOracle"]


@dataclass
class NaiveShelf:
    """What the oracle knows of a pool."""

    page_size: int
    per_page: int
    minimum: int = 0
    maximum: int | None = None
    out: int = 0
    pages: int = 0
    idle: int = 0
    """Pages, as last told."""

    @property
    def free(self) -> int:
        return self.pages * self.per_page - self.out

    @property
    def kept(self) -> int:
        """Pages that it keeps."""
        return -(-self.minimum // self.per_page)

    @property
    def spare(self) -> int:
        """Idle pages that it can do without."""
        return min(self.idle, max(0, self.pages - self.kept))


@dataclass(eq=False)
class Claimant:
    """A request, or the debt."""

    name: str
    needs: Counter[str] = field(default_factory=Counter)
    """Items of pools."""
    nbytes: int = 0
    """Bytes without a buffer."""
    alone: bool = False
    """A get of one buffer."""
    passed: int = 0
    """How many requests had passed another when it came."""


class OrderOracle:
    """Follows a pool set.

    Args:
        shelves: the pools by name, in the order of their sizes.
        order: ``fifo``, ``bounded`` or ``barging``.
        pressure: idle pages leave for waiting requests.
        allowance: how many may pass a claim; None if it depends.
        wakes: every request that can be served is woken.
    """

    def __init__(
        self,
        shelves: dict[str, NaiveShelf],
        *,
        order: str,
        pressure: bool,
        allowance: int | None,
        wakes: bool,
    ) -> None:
        if order not in ("fifo", "bounded", "barging"):
            raise NotImplementedError(f"say in {__name__} what is in the way under {order!r}")
        self.shelves = shelves
        self.limit = 0
        """Bytes."""
        self.ordered = order != "barging"
        self.bounded = order == "bounded"
        self.pressure = pressure
        self.allowance = 0 if order == "fifo" else allowance
        self.wakes = wakes
        self.known: dict[str, Claimant] = {}
        self.waiting: list[Claimant] = []
        """The oldest first."""
        self.held: dict[str, Claimant] = {}
        self.debt: Claimant | None = None
        self.passes = 0
        self.most_out = 0
        """Leases out at once, at most."""
        self.reserved = 0
        self.failed: set[str] = set()
        """Who must have been told in this step that it will never be served."""
        self.leaving: set[str] = set()
        """Who was cancelled in this step."""
        self.before_it_left: list[Claimant] | None = None
        """Who waited before the one who was cancelled left, if a grant may have come before."""
        self.unruly = False
        """In this step a request leaves at a moment that no event tells."""
        self.primed = False
        """Pages came in this step that no request had asked for."""
        self.system_refuses = False
        self.closed = False

    # What is done

    def get(self, who: str, pool: str) -> None:
        self.known[who] = Claimant(who, Counter([pool]), alone=True)

    attempt = get

    def get_many(self, who: str, pools: Iterable[str]) -> None:
        self.known[who] = Claimant(who, Counter(pools))

    def reserve(self, who: str, nbytes: int) -> None:
        self.known[who] = Claimant(who, nbytes=nbytes)

    def put(self, who: str) -> None:
        self.reserved -= self.held.pop(who).nbytes

    def give_up(self, who: str, *, meanwhile: bool = False) -> None:
        """A request is cancelled; `meanwhile` if the step does something else, too."""
        self.leaving.add(who)
        if meanwhile:
            self.before_it_left = self.waiting
        self.waiting = [one for one in self.waiting if one.name != who]

    def set_limit(self, nbytes: int) -> bool:
        if nbytes < max(1, self.kept_bytes()):
            return False
        self.limit = nbytes
        if self.debt is None and self.allocated() > nbytes:
            self.debt = Claimant("the debt", passed=self.passes)
        self.fail_impossible()
        return True

    def set_hard_limit(self, name: str, items: int | None) -> bool:
        if items is not None and items < self.shelves[name].out:
            return False
        self.shelves[name].maximum = items
        self.fail_impossible()
        return True

    def advance(self, seconds: float) -> None:
        """Time changes nothing that was promised."""

    def set_low_water(self, name: str, items: int) -> bool:
        shelf = self.shelves[name]
        before, shelf.minimum = shelf.minimum, items
        if self.kept_bytes() > self.limit:
            shelf.minimum = before
            return False
        self.primed = True
        self.fail_impossible()
        return True

    def prime(self, name: str, items: int) -> int:
        """Return how many items may come."""
        self.primed = True
        shelf = self.shelves[name]
        if (self.ordered or self.pressure) and (self.debt or self.some_are_short()):
            return 0
        affordable = max(0, self.limit - self.allocated()) // shelf.page_size
        return min(-(-items // shelf.per_page), affordable) * shelf.per_page

    def close(self) -> None:
        self.closed = True
        self.waiting.clear()

    # What can be said of it

    def allocated(self) -> int:
        """Bytes."""
        pages = sum(shelf.pages * shelf.page_size for shelf in self.shelves.values())
        return pages + self.reserved

    def kept_bytes(self) -> int:
        """Bytes of all pages that are kept as a minimum."""
        return sum(shelf.kept * shelf.page_size for shelf in self.shelves.values())

    def is_impossible(self, one: Claimant) -> bool:
        """No release by anybody could serve it."""
        least = one.nbytes
        for name, shelf in self.shelves.items():
            if shelf.maximum is not None and one.needs[name] > shelf.maximum:
                return True
            least += max(shelf.kept, -(-one.needs[name] // shelf.per_page)) * shelf.page_size
        return bool(least > self.limit)

    def fail_impossible(self) -> None:
        self.failed = {one.name for one in self.waiting if self.is_impossible(one)}
        self.waiting = [one for one in self.waiting if one.name not in self.failed]

    def wanted(self, one: Claimant) -> list[tuple[NaiveShelf, int]]:
        """The pools that it wants items of, and how many."""
        return [(self.shelves[name], count) for name, count in one.needs.items()]

    def at_maximum(self, one: Claimant) -> bool:
        """It waits at the maximum of one of its pools."""
        return any(
            shelf.maximum is not None and shelf.out + count > shelf.maximum
            for shelf, count in self.wanted(one)
        )

    def within_minimum(self, one: Claimant) -> bool:
        """What its pools reserve covers it."""
        return bool(one.needs) and all(
            shelf.out + count <= shelf.minimum and shelf.free >= count
            for shelf, count in self.wanted(one)
        )

    def cost(self, one: Claimant) -> int:
        """Bytes that must be charged for it."""
        pages = (
            max(0, -(-(count - shelf.free) // shelf.per_page)) * shelf.page_size
            for shelf, count in self.wanted(one)
        )
        return one.nbytes + sum(pages)

    def room(self, one: Claimant) -> int:
        """Bytes that could be charged for it."""
        room = self.limit - self.allocated()
        if self.pressure:
            others = (shelf for name, shelf in self.shelves.items() if not one.needs[name])
            room += sum(shelf.spare * shelf.page_size for shelf in others)
        return room

    def in_the_way(self, one: Claimant) -> tuple[list[Claimant], list[Claimant]]:
        """The older requests in its way: those that only wait for a pool, and the claims."""
        older = self.waiting[: self.waiting.index(one)] if one in self.waiting else self.waiting
        if not self.ordered:
            line = (one.needs, one.alone)
            return [], [other for other in older if (other.needs, other.alone) == line]
        held_up: set[str] = set()
        waits_for_a_pool, claims = [], [] if self.debt is None else [self.debt]
        for other in older:
            if self.at_maximum(other) or held_up & other.needs.keys():
                held_up |= other.needs.keys()
                if other.needs & one.needs:
                    waits_for_a_pool.append(other)
            else:
                claims.append(other)
        return waits_for_a_pool, claims

    def can_be_served(self, one: Claimant) -> bool:
        """The rules would let it be served, and what it needs is free."""
        if self.at_maximum(one):
            return False
        if self.ordered and self.within_minimum(one):
            return True
        waits_for_a_pool, claims = self.in_the_way(one)
        if not self.ordered and claims:
            return False
        if waits_for_a_pool or claims:
            if not self.bounded or not one.alone or self.allowance is None:
                return False  # or the oracle cannot tell
            if claims and self.cost(one):
                return False
            passed = min(other.passed for other in waits_for_a_pool + claims)
            if self.passes - passed >= self.allowance:
                return False
        return self.cost(one) <= self.room(one)

    # What happens

    def follow(self, news: Iterable[Seen]) -> None:
        """Follow what the hook was told in a step."""
        new_pages: Counter[str] = Counter()
        for seen in news:
            kind, name = seen.event.kind, seen.event.name
            if seen.allocated <= seen.limit:
                self.debt = None
            if kind is EventKind.PAGE_IN:
                self.shelves[name].pages += 1
                new_pages[name] += 1
                assert seen.allocated <= seen.limit, f"{name} got a page beyond the limit"
            elif kind is EventKind.PAGE_OUT:
                shelf = self.shelves[name]
                shelf.pages -= 1
                new_pages.clear()
                assert shelf.pages >= shelf.kept or self.closed, f"{name} fell below its minimum"
            elif kind is EventKind.PUT:
                self.shelves[name].out -= 1
            elif kind is EventKind.WAIT:
                one = self.known[seen.who]
                one.passed = self.passes
                if one.name not in self.leaving:
                    self.waiting.append(one)
            elif kind in (EventKind.GET, EventKind.GRANT):
                if self.primed:
                    new_pages.clear()
                self.judge(seen, new_pages)
                new_pages.clear()
        for who in self.leaving & self.held.keys():
            self.put(who)  # it was granted, and gave it back

    def judge(self, seen: Seen, new_pages: Counter[str]) -> None:
        """Somebody was served."""
        one = self.known[seen.who]
        newcomer = seen.event.kind is EventKind.GET
        if not self.system_refuses and (newcomer or one.name not in self.leaving):
            self.judge_turn_meanwhile(one, newcomer, new_pages)
        self.waiting = [other for other in self.waiting if other is not one]
        self.held[one.name] = one
        self.reserved += one.nbytes
        if one.nbytes:
            assert seen.allocated <= seen.limit, "bytes were reserved beyond the limit"
        for name, count in one.needs.items():
            shelf = self.shelves[name]
            shelf.out += count
            assert shelf.maximum is None or shelf.out <= shelf.maximum, (
                f"{name} is over its maximum"
            )
            assert shelf.free >= 0, f"more of {name} are out than there are"
        out = sum(sum(other.needs.values()) or 1 for other in self.held.values())
        self.most_out = max(self.most_out, out)

    def judge_turn_meanwhile(self, one: Claimant, newcomer: bool, new_pages: Counter[str]) -> None:
        """Judge a turn. The hook is told that a request was cancelled when it has left its queue
        and others were served for that. So in such a step a turn is right before or after."""
        if self.before_it_left is not None:
            waiting, passes = self.waiting, self.passes
            self.waiting = [
                other
                for other in self.before_it_left
                if other in waiting or other.name in self.leaving
            ]
            try:
                self.judge_turn(one, newcomer, new_pages)
            except AssertionError:
                self.passes = passes
                self.before_it_left = None  # it must have left by now
            finally:
                self.waiting = waiting
            if self.before_it_left is not None:
                return
        self.judge_turn(one, newcomer, new_pages)

    def judge_turn(self, one: Claimant, newcomer: bool, new_pages: Counter[str]) -> None:
        waits_for_a_pool, claims = self.in_the_way(one)
        if not self.ordered:
            assert newcomer or not claims, f"{one.name} overtook {claims[0].name} in its own line"
            return
        if not waits_for_a_pool and not claims:
            return
        if not new_pages and self.within_minimum(one):
            return
        whom = (waits_for_a_pool + claims)[0].name
        assert self.bounded, f"{one.name} overtook {whom}"
        assert one.alone, f"{one.name} passed {whom}, though it is no get of one buffer"
        assert not claims or not new_pages, f"{one.name} got a page before {whom}"
        self.passes += 1
        allowance = self.most_out if self.allowance is None else self.allowance
        for other in waits_for_a_pool + claims:
            passes = self.passes - other.passed
            assert passes <= allowance, f"{passes} passed {other.name}, and {allowance} may"

    def settled(self, statistics: PoolsStatistics) -> None:
        """All is quiet."""
        for name, shelf in self.shelves.items():
            pool = statistics.pools[name]
            shelf.idle = pool.nidle
            assert pool.npages == shelf.pages, f"{name} has {pool.npages} pages, not {shelf.pages}"
            held = sum(one.needs[name] for one in self.held.values())
            assert pool.nout == shelf.out == held, f"{pool.nout} of {name} are out, {held} are held"
        held = sum(one.nbytes for one in self.held.values())
        assert statistics.reserved == self.reserved == held, "the bytes reserved are those held"
        assert statistics.allocated == self.allocated(), "all that is charged is held or in a page"
        assert statistics.limit == self.limit, "the limit is what was set"
        if self.allocated() <= self.limit:
            self.debt = None
        if self.ordered and not self.unruly:
            assert statistics.waits.passes == self.passes, "every pass is counted"
        self.passes = statistics.waits.passes
        vain = [one.name for one in self.waiting if self.is_impossible(one)]
        assert not vain, f"{vain} wait for what can never be"
        if self.wakes:
            for one in self.waiting:
                assert not self.can_be_served(one), f"{one.name} waits, though it can be served"
            if self.pressure and (self.debt or self.some_are_short()):
                idle = [name for name, shelf in self.shelves.items() if shelf.spare]
                assert not idle, f"{idle} keep idle pages while a request waits for them"
        self.failed.clear()
        self.leaving.clear()
        self.before_it_left = None
        self.unruly = self.primed = False

    def some_are_short(self) -> bool:
        """A request with none in its way waits for what the budget refuses."""
        return any(
            not self.at_maximum(one) and self.in_the_way(one) == ([], []) for one in self.waiting
        )
