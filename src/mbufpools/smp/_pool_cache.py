"""The per-CPU caches of a pool (subr_pool.c: pool_cache_get, pool_cache_put, pool_cache_gc).

`mbufpools._pool_cache` has the lists and the depot, and the rules by which items move between them.
Here are the locks, and the moments at which other CPUs may act. What a CPU does to its own lists is
one step, because the CPU blocks interrupts during it.
"""

from __future__ import annotations

from collections.abc import Iterable

from mbufpools._pool_cache import in_order_of_return

from ._kernel import Kernel, Page, Pool
from ._processors import ATOMIC, LEAVE, Code

__all__ = ["cache_drain", "cache_gc", "cache_get", "cache_put", "list_put", "put"]


def cache_get(k: Kernel, pool: Pool, cpu: int) -> Code[Page | None]:
    """Take an item from the cache of a CPU, or else from a list of the depot; None if both are
    empty (``pool_cache_get``)."""
    cache = pool.caches[cpu]
    yield ATOMIC
    cache.touched.writes()
    page = cache.lists.take()
    if page is not None:
        k.say("pool_cache_get(%s): takes an item from the cache", pool.name)
        return page
    yield pool.cache_lock
    pool.depot_touched.writes()
    items = pool.depot.take()
    yield LEAVE
    pool.cache_lock.leave()
    if not items:
        k.say("pool_cache_get(%s): the cache and the depot are empty", pool.name)
        return None
    k.say("pool_cache_get(%s): takes a list from the depot", pool.name)
    yield ATOMIC
    cache.touched.writes()
    cache.lists.refill(items)
    return cache.lists.take()


def cache_put(k: Kernel, pool: Pool, cpu: int, page: Page) -> Code[None]:
    """Put an item into the cache of a CPU. A list that is full goes to the depot
    (``pool_cache_put``)."""
    yield ATOMIC
    yield from list_put(k, pool, put(k, pool, cpu, page))


def put(k: Kernel, pool: Pool, cpu: int, page: Page) -> list[Page]:
    """Put an item into the cache of a CPU, in one step; return a full list for the depot, or an
    empty one."""
    cache = pool.caches[cpu]
    cache.touched.writes()
    full = cache.lists.put(page, k.rules.list_items)
    k.say("pool_cache_put(%s): the item goes to the cache", pool.name)
    return full


def list_put(k: Kernel, pool: Pool, items: list[Page]) -> Code[None]:
    """Put a list into the depot, unless it is empty (``pool_cache_list_free``)."""
    if items:
        yield pool.cache_lock
        pool.depot_touched.writes()
        pool.depot.add(items, k.now)
        k.say("pool_cache_put(%s): a full list goes to the depot", pool.name)
        yield LEAVE
        pool.cache_lock.leave()


def cache_drain(k: Kernel, pool: Pool) -> Code[None]:
    """Move the items of all caches and of the depot back to the pages. The kernel does so only
    when it destroys a pool."""
    lists: list[list[Page]] = []
    for cache in pool.caches:
        yield ATOMIC
        cache.touched.writes()
        lists += cache.lists.empty()
    yield pool.cache_lock
    pool.depot_touched.writes()
    while pool.depot:
        lists.append(pool.depot.take())
    yield LEAVE
    pool.cache_lock.leave()
    if lists:
        yield pool.lock
        _return(k, pool, lists)
        k.say("moves the items in the caches of %s to its pages", pool.name)
        yield LEAVE
        pool.lock.leave()


def cache_gc(k: Kernel, pool: Pool, wait: int) -> Code[bool]:
    """Move a list of the depot back to the pages (``pool_cache_gc``).

    It does nothing if the depot got its first list, or lost one here, within the last `wait`
    microseconds.

    Returns True if the caller must serve the waiting requests. The kernel does not serve them.
    """
    yield ATOMIC
    if not pool.cache_lock.enter_try():
        return False
    pool.depot_touched.writes()
    items = pool.depot.take_for_gc(k.now, wait)
    yield LEAVE
    pool.cache_lock.leave()
    if not items:
        return False
    yield pool.lock
    _return(k, pool, [items])
    k.say("pool_cache_gc(%s): a list of the depot goes back to the pages", pool.name)
    yield LEAVE
    pool.lock.leave()
    return k.rules.lists_serve


def _return(k: Kernel, pool: Pool, lists: Iterable[list[Page]]) -> None:
    """Put the items of lists back into their pages; the caller holds the pool's lock. They stay
    counted as out, as in the kernel (``pool_cache_list_put``)."""
    for items in lists:
        for page in in_order_of_return(items):
            pool.put_back(page, k.now)
