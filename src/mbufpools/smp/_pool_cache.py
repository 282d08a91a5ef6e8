"""The per-CPU caches of a pool (subr_pool.c: pool_cache_get, pool_cache_put, pool_cache_gc).

What a CPU does to its own lists is one step, because the CPU blocks interrupts during it.
"""

from __future__ import annotations

from ._kernel import Kernel, Page, Pool
from ._processors import ATOMIC, LEAVE, Code

__all__ = ["cache_drain", "cache_gc", "cache_get", "cache_put", "list_put", "put"]


def cache_get(k: Kernel, pool: Pool, cpu: int) -> Code[Page | None]:
    """Take an item from the cache of a CPU, or else from a list of the depot; None if both are
    empty (``pool_cache_get``)."""
    cache = pool.caches[cpu]
    yield ATOMIC
    cache.touched.writes()
    if not cache.active:
        cache.active, cache.previous = cache.previous, []
    if cache.active:
        k.say("pool_cache_get(%s): takes an item from the cache", pool.name)
        return cache.active.pop()
    yield pool.cache_lock
    pool.depot.writes()
    items = pool.lists.pop(0) if pool.lists else []
    yield LEAVE
    pool.cache_lock.leave()
    if not items:
        k.say("pool_cache_get(%s): the cache and the depot are empty", pool.name)
        return None
    k.say("pool_cache_get(%s): takes a list from the depot", pool.name)
    yield ATOMIC
    cache.touched.writes()
    page = items.pop()
    cache.active = items
    return page


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
    full: list[Page] = []
    if len(cache.active) >= k.rules.list_items:
        full, cache.previous, cache.active = cache.previous, cache.active, []
    cache.active.append(page)
    k.say("pool_cache_put(%s): the item goes to the cache", pool.name)
    return full


def list_put(k: Kernel, pool: Pool, items: list[Page]) -> Code[None]:
    """Put a list into the depot, unless it is empty (``pool_cache_list_free``)."""
    if items:
        yield pool.cache_lock
        pool.depot.writes()
        if not pool.lists:
            pool.lists_since = k.now
        pool.lists.append(items)
        k.say("pool_cache_put(%s): a full list goes to the depot", pool.name)
        yield LEAVE
        pool.cache_lock.leave()


def cache_drain(k: Kernel, pool: Pool) -> Code[None]:
    """Move the items of all caches and of the depot back to the pages. The kernel does so only
    when it destroys a pool."""
    items: list[Page] = []
    for cache in pool.caches:
        yield ATOMIC
        cache.touched.writes()
        items += cache.active + cache.previous
        cache.active, cache.previous = [], []
    yield pool.cache_lock
    pool.depot.writes()
    for full in pool.lists:
        items += full
    pool.lists = []
    yield LEAVE
    pool.cache_lock.leave()
    if items:
        yield pool.lock
        for page in items:
            pool.put_back(page, k.now)
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
    pool.depot.writes()
    items: list[Page] = []
    if pool.lists and k.now - pool.lists_since > wait:
        items = pool.lists.pop(0)
        pool.lists_since = k.now
    yield LEAVE
    pool.cache_lock.leave()
    if not items:
        return False
    yield pool.lock
    for page in items:
        pool.put_back(page, k.now)
    k.say("pool_cache_gc(%s): a list of the depot goes back to the pages", pool.name)
    yield LEAVE
    pool.lock.leave()
    return k.rules.lists_serve
