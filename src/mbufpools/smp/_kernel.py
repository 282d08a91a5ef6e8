"""The data that the threads of the kernel share: the pools, the budget, the task queue.

The names are the kernel's, without their prefixes. A name that ends in ``_seen`` is a word that
other CPUs read without the mutex; it is stored before the mutex is left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mbufpools._pool_cache import CpuLists, Depot

from ._processors import Channel, Code, Corrupted, Data, Mutex, Processors, Word
from ._rules import Rules

__all__ = ["SECOND", "Cache", "Kernel", "Page", "Pool", "Request", "Shape", "Task"]

SECOND = 1_000_000
"""One second in microseconds, the unit of all times here."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a pool is made of: its page size in bytes, and its items per page."""

    name: str
    page_size: int
    per_page: int


class Page:
    """A page of items (``struct pool_page_header``)."""

    __slots__ = ("missing", "since")

    def __init__(self, now: int) -> None:
        self.missing = 0
        """The number of its items that are not in the page."""
        self.since = now
        """The time at which the page became empty, in microseconds."""


class Request:
    """A sleeping process and the item that it gets (``struct pool_request`` and ``struct
    pool_get_memory``)."""

    __slots__ = ("_data", "_page", "channel", "lock", "process")

    def __init__(self, processors: Processors, process: str) -> None:
        self.process = process
        self.lock = Mutex(processors)
        self._data = Data(processors, f"mem of {process}")
        self._page: Page | None = None
        self.channel = Channel(processors, f"mem of {process}")

    @property
    def page(self) -> Page | None:
        """The page of the granted item, or None; read and written under the lock."""
        self._data.reads()
        return self._page

    @page.setter
    def page(self, page: Page) -> None:
        self._data.writes()
        self._page = page


class Cache:
    """The lists of one CPU (``struct pool_cache``). An item is represented by its page."""

    __slots__ = ("lists", "touched")

    def __init__(self, processors: Processors, name: str) -> None:
        self.lists = CpuLists[Page]()
        self.touched = Data(processors, name)


class Pool:
    """A pool (``struct pool``)."""

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
        self.curpage_seen = Word(processors, f"{shape.name} curpage")
        """1 if there is a current page; `Rules.recheck_curpage` reads it without the lock."""
        self.nidle_seen = Word(processors, f"{shape.name} nidle")
        """1 if a page is idle; the gc reads it without the lock."""
        self.requests_lock = Mutex(processors)
        self._queue = Data(processors, f"{shape.name} requests")
        self.requests: list[Request] = []
        self.requesting = 0
        self.requesting_seen = Word(processors, f"{shape.name} requesting")
        """1 if a CPU runs the queue; wakeups read it without the lock."""
        self.requests_seen = Word(processors, f"{shape.name} list")
        """1 if the list has requests; wakeups read it without the lock."""
        self.unserved = 0
        self.unserved_seen = Word(processors, f"{shape.name} count")
        """1 if a request is not served yet; wakeups read it without the lock."""
        self.hard_limit: int | None = None
        self.maxpages = 8
        self.nout = self.nget = self.nput = self.nfail = 0
        self.npagealloc = self.npagefree = self.hiwat = 0
        self.caches = [Cache(processors, f"{shape.name} cache of {cpu}") for cpu in range(cpus)]
        self.depot = Depot[Page]()
        """Full lists of items, which any CPU can take."""
        self.depot_touched = Data(processors, f"{shape.name} depot")
        self.cache_lock = Mutex(processors)

    @property
    def npages(self) -> int:
        return len(self.empty) + len(self.partial) + len(self.full)

    @property
    def nidle(self) -> int:
        return len(self.empty)

    @property
    def cached(self) -> list[Page]:
        """The items in the caches and in the depot, each as its page."""
        lists = (cache.lists for cache in self.caches)
        return [page for items in (*lists, *self.depot) for page in items]

    @property
    def kept_by_caches(self) -> int:
        """The number of pages whose missing items are all in caches."""
        cached = self.cached
        return sum(page.missing == cached.count(page) for page in set(cached))

    @property
    def nfree(self) -> int:
        """The number of free items in the pages, whether the pool sees them or not."""
        return sum(self.per_page - page.missing for page in (*self.empty, *self.partial))

    # The pages; the caller holds the lock

    def reserve(self, items: int) -> None:
        """Count items as out before they are taken (``pr_nout``)."""
        self.nout += items
        if self.hard_limit is not None:
            self._pages.writes()

    @property
    def exhausted(self) -> bool:
        """True if the hard limit allows no more items out."""
        return self.hard_limit is not None and self.nout >= self.hard_limit

    @property
    def dry(self) -> bool:
        """True if the pool sees no free item."""
        self._pages.reads()
        return self.curpage is None

    def _changed(self) -> None:
        self._pages.writes()
        self.nidle_seen.store(bool(self.empty))
        self.curpage_seen.store(self.curpage is not None)

    def _update_curpage(self) -> None:
        pages = self.partial or self.empty
        self.curpage = pages[-1] if pages else None

    def take(self) -> Page:
        """Take an item from the current page."""
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
        """Add a page; the caller takes an item from it at once (``pool_p_insert``)."""
        page = Page(now)
        if self.curpage is None:
            self.curpage = page
        self.empty.append(page)
        self.npagealloc += 1
        self.hiwat = max(self.hiwat, self.npages)

    def idle_for(self, now: int) -> int:
        """The microseconds for which the oldest idle page has been idle; -1 if there is none."""
        self._pages.reads()
        return now - self.empty[0].since if self.empty else -1

    def remove(self) -> None:
        """Remove the page that has been idle the longest (``pool_p_remove``)."""
        del self.empty[0]
        self.npagefree += 1
        self._update_curpage()
        self._changed()

    # The requests; the caller holds their lock

    def enqueue(self, request: Request) -> None:
        """Append a request to the list."""
        self.requests.append(request)
        self.unserved += 1

    def take_requests(self) -> list[Request]:
        """Take all requests off the list."""
        requests, self.requests = self.requests, []
        return requests

    def show_requests(self) -> None:
        """Store the words that other CPUs read without the lock. Called before the lock is left."""
        self._queue.writes()
        self.requesting_seen.store(bool(self.requesting))
        self.requests_seen.store(bool(self.requests))
        self.unserved_seen.store(bool(self.unserved))


class Task:
    """A task of the task queue (``struct task``)."""

    __slots__ = ("function", "name", "onqueue")

    def __init__(
        self, processors: Processors, name: str, function: Callable[[], Code[None]]
    ) -> None:
        self.name = name
        self.function = function
        self.onqueue = Word(processors, f"{name} onqueue")


class Kernel:
    """The state of the kernel, and the allocator of its pages."""

    page_alloc: Callable[[Pool, bool], Code[bool]]
    """The page allocator of the pools: charges a page to the budget; False if it is refused. The
    second argument is True if the caller may sleep until the system has a page."""
    page_free: Callable[[Pool], Code[None]]
    """Returns a page to the budget."""
    page_give_back: Callable[[Pool], Code[None]]
    """Returns a page that has no header."""
    want: Callable[[Pool], Code[bool]]
    """A request was refused a page. True if it must be tried again."""

    def __init__(self, rules: Rules, shapes: Sequence[Shape], limit: int, *, cpus: int = 1) -> None:
        self.processors = processors = Processors()
        self.say = processors.say
        self.rules = rules
        self.now = 0
        """The time in microseconds since the start."""
        self.pools = [Pool(processors, shape, rules, cpus) for shape in shapes]
        """The pools, in the order in which they are woken."""
        self.mem_alloc = Word(processors, "mbuf_mem_alloc")
        self.mem_limit = Word(processors, "mbuf_mem_limit", limit)
        self.tq_lock = Mutex(processors)
        self.tq = Data(processors, "systqmp")
        self.tq_channel = Channel(processors, "systqmp")
        self.worklist: list[Task] = []
        self.wanted = Word(processors, "PA_WANT")
        """1 if a sleeper was refused a page, under the policy ``wanted``."""
        self.short = Word(processors, "free pages of the system")
        """1 if the system is short of memory; see `Rules.page_refused`."""
        self.short_channel = Channel(processors, "km_alloc")
        self.drops = 0
        self.wakeup_runs = 0
        self.granted: list[tuple[str, int]] = []
        """The processes that got an item from a get that may wait, in the order of the grants, each
        with the time in microseconds."""

    def pool(self, name: str) -> Pool:
        """The pool of that name."""
        return next(pool for pool in self.pools if pool.name == name)

    def can_serve(self, pool: Pool) -> bool:
        """True if a request waits in the pool, and one more run of its queue would serve it."""
        room = self.mem_limit.value - self.mem_alloc.value
        return bool(pool.unserved) and (pool.curpage is not None or room >= pool.page_size)

    def queue(self, task: Task) -> None:
        """Put a task on the list of the queue; the caller holds the queue's lock."""
        if task in self.worklist:
            raise Corrupted(f"task {task.name} is put on the list of systqmp twice")
        task.onqueue.store(1)
        self.tq.writes()
        self.worklist.append(task)
