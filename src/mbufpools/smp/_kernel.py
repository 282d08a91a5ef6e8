"""What the threads of the kernel share: the pools, the budget, the task queue.

Names are the kernel's, without their prefixes. Uses `_processors` and `_rules`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ._processors import Channel, Code, Corrupted, Data, Mutex, Processors, Word
from ._rules import Rules

__all__ = ["SECOND", "Cache", "Kernel", "Page", "Pool", "Request", "Shape", "Task"]

SECOND = 1_000_000
"""Microseconds."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A pool, before it is one."""

    name: str
    page_size: int
    per_page: int


class Page:
    """``struct pool_page_header``."""

    __slots__ = ("missing", "since")

    def __init__(self, now: int) -> None:
        self.missing = 0
        self.since = now
        """When it became empty, in microseconds."""


class Request:
    """``struct pool_request`` and ``struct pool_get_memory``: who sleeps, and what he gets."""

    __slots__ = ("_data", "_page", "channel", "lock", "who")

    def __init__(self, processors: Processors, who: str) -> None:
        self.who = who
        self.lock = Mutex(processors)
        self._data = Data(processors, f"mem of {who}")
        self._page: Page | None = None
        self.channel = Channel(processors, f"mem of {who}")

    @property
    def page(self) -> Page | None:
        """Of the item, once there is one; under the lock."""
        self._data.reads()
        return self._page

    @page.setter
    def page(self, page: Page) -> None:
        self._data.writes()
        self._page = page


class Cache:
    """``struct pool_cache``: the lists of one CPU, an item being the page that it is of."""

    __slots__ = ("active", "previous", "touched")

    def __init__(self, processors: Processors, name: str) -> None:
        self.active: list[Page] = []
        self.previous: list[Page] = []
        self.touched = Data(processors, name)


class Pool:
    """``struct pool``."""

    def __init__(self, processors: Processors, shape: Shape, rules: Rules, cpus: int) -> None:
        self.name = shape.name
        self.page_size = shape.page_size
        self.per_page = shape.per_page
        self.stale = rules.stale
        self.lock = Mutex(processors)
        self._pages = Data(processors, f"{shape.name} pages")
        self.empty: list[Page] = []
        self.partial: list[Page] = []
        self.full: list[Page] = []
        self.curpage: Page | None = None
        self.spare = Word(processors, f"{shape.name} nidle")
        """Whether any page is idle; the gc looks at it without the lock."""
        self.requests_lock = Mutex(processors)
        self._queue = Data(processors, f"{shape.name} requests")
        self.requests: list[Request] = []
        self.requesting = 0
        self.listed = Word(processors, f"{shape.name} list")
        """Whether there are requests on the list; wakeups look at it without the lock."""
        self.unserved = 0
        self.counted = Word(processors, f"{shape.name} count")
        """Whether any request is not served yet; the same."""
        self.hard_limit: int | None = None
        self.maxpages = 8
        self.nout = self.nget = self.nput = self.nfail = 0
        self.npagealloc = self.npagefree = self.hiwat = 0
        self.caches = [Cache(processors, f"{shape.name} cache of {cpu}") for cpu in range(cpus)]
        self.lists: list[list[Page]] = []
        """The depot."""
        self.lists_since = 0
        self.depot = Data(processors, f"{shape.name} depot")
        self.cache_lock = Mutex(processors)

    @property
    def npages(self) -> int:
        return len(self.empty) + len(self.partial) + len(self.full)

    @property
    def nidle(self) -> int:
        return len(self.empty)

    @property
    def cached(self) -> list[Page]:
        """The pages of the items in the caches and in the depot."""
        lists = [items for it in self.caches for items in (it.active, it.previous)]
        return [page for items in (*lists, *self.lists) for page in items]

    @property
    def kept_by_caches(self) -> int:
        """Pages of which nobody has an item, but a cache."""
        cached = self.cached
        return sum(page.missing == cached.count(page) for page in set(cached))

    @property
    def nfree(self) -> int:
        """Items in the pages, whether the pool sees them or not."""
        return sum(self.per_page - page.missing for page in (*self.empty, *self.partial))

    # The pages, under the lock

    def reserve(self, items: int) -> None:
        """Count items out, before they are (``pr_nout``)."""
        self.nout += items
        if self.hard_limit is not None:
            self._pages.writes()

    @property
    def exhausted(self) -> bool:
        """No more items may be out."""
        return self.hard_limit is not None and self.nout >= self.hard_limit

    @property
    def dry(self) -> bool:
        """The pool sees no free item."""
        self._pages.reads()
        return self.curpage is None

    def _changed(self) -> None:
        self._pages.writes()
        self.spare.store(bool(self.empty))

    def _update_curpage(self) -> None:
        pages = self.partial or self.empty
        self.curpage = pages[-1] if pages else None

    def take(self) -> Page:
        """Take an item of the current page."""
        page = self.curpage
        assert page is not None
        page.missing += 1
        if page.missing == 1:
            self.empty.remove(page)
            self.partial.append(page)
        if page.missing == self.per_page:
            self.partial.remove(page)
            self.full.append(page)
            self._update_curpage()
        self.nget += 1
        self._changed()
        return page

    def put_back(self, page: Page, now: int) -> None:
        """Put an item back (``pool_do_put``)."""
        if page.missing == self.per_page:
            self.full.remove(page)
            self.partial.append(page)
            if self.curpage is None and not self.stale:
                self.curpage = page
        page.missing -= 1
        if not page.missing:
            page.since = now
            self.partial.remove(page)
            self.empty.append(page)
            self._update_curpage()
        self._changed()

    def insert(self, now: int) -> None:
        """Add a page, of which an item is to be taken at once (``pool_p_insert``)."""
        page = Page(now)
        if self.curpage is None:
            self.curpage = page
        self.empty.append(page)
        self.npagealloc += 1
        self.hiwat = max(self.hiwat, self.npages)

    def idle_for(self, now: int) -> int:
        """For how long the oldest idle page has been idle; -1 if there is none."""
        self._pages.reads()
        return now - self.empty[0].since if self.empty else -1

    def remove(self) -> None:
        """Take the page off that has been idle for the longest (``pool_p_remove``)."""
        del self.empty[0]
        self.npagefree += 1
        self._update_curpage()
        self._changed()

    # The requests, under their lock

    def enqueue(self, request: Request) -> None:
        self.requests.append(request)
        self.unserved += 1

    def take_requests(self) -> list[Request]:
        requests, self.requests = self.requests, []
        return requests

    def show_requests(self) -> None:
        """Before the lock is left: what can be seen without it is as it shall be seen."""
        self._queue.writes()
        self.listed.store(bool(self.requests))
        self.counted.store(bool(self.unserved))


class Task:
    """``struct task``."""

    __slots__ = ("function", "name", "onqueue")

    def __init__(
        self, processors: Processors, name: str, function: Callable[[], Code[None]]
    ) -> None:
        self.name = name
        self.function = function
        self.onqueue = Word(processors, f"{name} onqueue")


class Kernel:
    """All of it."""

    page_alloc: Callable[[Pool], Code[bool]]
    """The page allocator of the pools: charge a page, or refuse it."""
    page_free: Callable[[Pool], Code[None]]

    def __init__(self, rules: Rules, shapes: Sequence[Shape], limit: int, *, cpus: int = 1) -> None:
        self.processors = processors = Processors()
        self.say = processors.say
        self.rules = rules
        self.now = 0
        """Microseconds since the start."""
        self.pools = [Pool(processors, shape, rules, cpus) for shape in shapes]
        """In the order in which they are woken."""
        self.mem_alloc = Word(processors, "mbuf_mem_alloc")
        self.mem_limit = Word(processors, "mbuf_mem_limit", limit)
        self.tq_lock = Mutex(processors)
        self.tq = Data(processors, "systqmp")
        self.tq_channel = Channel(processors, "systqmp")
        self.worklist: list[Task] = []
        self.drops = 0
        self.wakeup_runs = 0
        self.granted: list[tuple[str, int]] = []
        """Who got an item that he was ready to wait for, in the order in which it was decided,
        and when, in microseconds."""

    def pool(self, name: str) -> Pool:
        return next(pool for pool in self.pools if pool.name == name)

    def queue(self, task: Task) -> None:
        """Under the queue's lock: put a task on its list."""
        if task in self.worklist:
            raise Corrupted(f"task {task.name} is put on the list of systqmp twice")
        task.onqueue.store(1)
        self.tq.writes()
        self.worklist.append(task)
