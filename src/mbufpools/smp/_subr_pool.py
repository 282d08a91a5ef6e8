"""A pool: get, put, and the requests that wait (subr_pool.c: pool_get, pool_do_get, pool_put,
pool_runqueue, pool_wakeup, pool_p_free, pool_gc_pages).

``yield lock`` enters a mutex, and what follows until ``lock.leave()`` is done under it.
"""

from __future__ import annotations

from ._kernel import SECOND, Kernel, Page, Pool, Request
from ._pool_cache import cache_drain, cache_gc, cache_get, cache_put, list_put, put
from ._processors import ATOMIC, LEAVE, Code
from ._rules import Caches, Look, Wakeup

__all__ = ["gc_pages", "pool_get", "pool_put", "pool_reclaim", "pool_wakeup", "work_for_gc"]

WAIT_FREE = SECOND
"""A put frees a page only if it has been idle for longer than this (``pool_wait_free``)."""
WAIT_GC = 8 * SECOND
"""The gc frees a page only if it has been idle for longer than this (``pool_wait_gc``)."""


def pool_get(
    k: Kernel, pool: Pool, cpu: int, process: str, *, wait: bool = True
) -> Code[Page | None]:
    """Take an item; sleeps until there is one, or returns None if it may not wait
    (``pool_get``)."""
    if k.rules.caches is not Caches.NONE:
        page = yield from cache_get(k, pool, cpu)
        if page is not None:
            if wait:
                k.granted.append((process, k.now))
            return page
    yield pool.lock
    page, added = None, False
    if not pool.exhausted:
        page, added = yield from _do_get(k, pool, may_sleep=wait)
    if page is None and not wait:
        pool.nfail += 1
    if page is not None and wait:
        k.granted.append((process, k.now))
    yield LEAVE
    pool.lock.leave()
    if page is not None or not wait:
        if page is not None:
            k.say("pool_get(%s): takes an item", pool.name)
        if added and k.rules.page_serves:
            yield from pool_wakeup(k, pool)
        return page
    request = Request(k.processors, process)
    yield pool.requests_lock
    pool.enqueue(request)
    k.say("pool_get(%s): enqueues a request", pool.name)
    left = k.rules.second_try and (yield from _runqueue(k, pool))
    pool.show_requests()
    yield LEAVE
    pool.requests_lock.leave()
    if left:
        yield from _recheck(k, pool)
    return (yield from _sleep(k, pool, request))


def _sleep(k: Kernel, pool: Pool, request: Request) -> Code[Page]:
    yield request.lock
    while request.page is None:
        k.say("pool_get(%s): sleeps", pool.name)
        request.lock.leave()
        yield request.channel
        yield request.lock
    page = request.page
    k.say("pool_get(%s): wakes with its item", pool.name)
    yield LEAVE
    request.lock.leave()
    return page


def _get_done(k: Kernel, pool: Pool, request: Request, page: Page) -> Code[None]:
    """Hand a page's item to a request, and wake its process (``pool_get_done``)."""
    yield request.lock
    request.page = page
    k.granted.append((request.process, k.now))
    k.say("pool_get_done(%s): hands an item to %s", pool.name, request.process)
    yield LEAVE
    request.lock.leave()
    yield ATOMIC
    request.channel.wakeup_one()


def _do_get(k: Kernel, pool: Pool, *, may_sleep: bool) -> Code[tuple[Page | None, bool]]:
    """Take an item, or add a page and take one of its items (``pool_do_get``).

    The caller holds the pool's lock, which is left while the budget is asked for a page. Returns
    the item's page or None, and True if a page was added.
    """
    pool.reserve(1)
    added = False
    if pool.dry:
        yield LEAVE
        pool.lock.leave()
        added = yield from _page_alloc(k, pool, may_sleep=may_sleep)
        yield pool.lock
        if not added:
            pool.reserve(-1)
            return None, False
        pool.insert(k.now)
    return pool.take(), added


def _page_alloc(k: Kernel, pool: Pool, *, may_sleep: bool) -> Code[bool]:
    """Ask for a page and for its header; False if either is refused (``pool_p_alloc``)."""
    if not (yield from k.page_alloc(pool, may_sleep)):
        return False
    if k.rules.header_refused:
        yield ATOMIC
        while may_sleep and k.short.load():
            k.say("pool_p_alloc(%s): sleeps until there is a header", pool.name)
            yield k.short_channel
        if k.short.load():
            k.say("pool_p_alloc(%s): there is no header for the page", pool.name)
            yield from k.page_give_back(pool)
            return False
    return True


def _runqueue(k: Kernel, pool: Pool) -> Code[bool]:
    """Serve the requests in their order (``pool_runqueue``).

    The caller holds the lock of the requests, which is left while they are served. Returns True if
    requests are on their list at the end; False if none is, or if another CPU serves them.
    """
    if pool.requesting:
        if k.rules.bump:
            pool.requesting += 1
            k.say("pool_runqueue(%s): another CPU runs it, and must go round again", pool.name)
        else:
            k.say("pool_runqueue(%s): another CPU runs it", pool.name)
        return False
    mine: list[Request] = []
    while True:
        pool.requesting = 1
        mine += pool.take_requests()
        if mine:
            k.say("pool_runqueue(%s): takes the requests off their list", pool.name)
            served = yield from _serve(k, pool, mine)
            yield pool.requests_lock
            pool.unserved -= served
        pool.requesting -= 1
        if not pool.requesting:
            break
    if mine:
        k.say("pool_runqueue(%s): puts %s back on the list", pool.name, _names(mine))
    pool.requests += mine
    return bool(pool.requests)


def _serve(k: Kernel, pool: Pool, requests: list[Request]) -> Code[int]:
    """Remove the requests that can be served from the list, oldest first; return how many."""
    pool.show_requests()
    yield LEAVE
    pool.requests_lock.leave()
    yield pool.lock
    pages: list[Page] = []
    while len(pages) < len(requests) and not pool.exhausted:
        page, _ = yield from _do_get(k, pool, may_sleep=False)
        if page is not None:
            pages.append(page)
        elif not (yield from _try_again(k, pool)):
            break
    yield LEAVE
    pool.lock.leave()
    for page in pages:
        yield from _get_done(k, pool, requests.pop(0), page)
    return len(pages)


def _try_again(k: Kernel, pool: Pool) -> Code[bool]:
    """A request was refused a page, and will sleep. True if it must be tried again at once.

    The caller holds the pool's lock, which is left while the flag of ``wanted`` is set.
    """
    if k.rules.wakeup is not Wakeup.WANTED:
        return False
    yield LEAVE
    pool.lock.leave()
    again = yield from k.want(pool)
    yield pool.lock
    return again


def _names(requests: list[Request]) -> str:
    return " and ".join(request.process for request in requests)


def pool_wakeup(k: Kernel, pool: Pool) -> Code[None]:
    """Serve the requests of a pool, if it has any (``pool_wakeup``)."""
    look = k.rules.look
    if look is not Look.LOCKED:
        words = {
            Look.LIST: [pool.requests_seen],
            Look.COUNT: [pool.unserved_seen],
            Look.REQUESTING: [pool.requesting_seen, pool.requests_seen],
            Look.LIST_FIRST: [pool.requests_seen, pool.requesting_seen],
        }[look]
        for word in words:
            yield ATOMIC
            if word.load():
                break
        else:
            k.say("pool_wakeup(%s): sees no request", pool.name)
            return
    yield pool.requests_lock
    k.say("pool_wakeup(%s): runs the requests", pool.name)
    left = yield from _runqueue(k, pool)
    pool.show_requests()
    yield LEAVE
    pool.requests_lock.leave()
    if left:
        yield from _recheck(k, pool)


def _recheck(k: Kernel, pool: Pool) -> Code[None]:
    """The requests are back on their list: run them again if the pool has got an item meanwhile."""
    if k.rules.recheck_curpage:
        yield ATOMIC
        if pool.curpage_seen.load() and not pool.exhausted:
            yield from pool_wakeup(k, pool)


def pool_put(k: Kernel, pool: Pool, cpu: int, page: Page) -> Code[None]:
    """Put an item back, and serve the requests that wait (``pool_put``)."""
    if k.rules.caches is Caches.LOCKED:
        if (yield from _put_under_lock(k, pool, cpu, page)):
            return
    elif k.rules.caches is not Caches.NONE:
        yield ATOMIC
        if not pool.requests_seen.load():
            k.say("pool_put(%s): sees no request, so the item goes to the cache", pool.name)
            yield from cache_put(k, pool, cpu, page)
            return
    yield pool.lock
    pool.put_back(page, k.now)
    pool.reserve(-1)
    pool.nput += 1
    k.say("pool_put(%s): the item goes back to its page", pool.name)
    leaves = pool.nidle > pool.maxpages and pool.idle_for(k.now) > WAIT_FREE
    if leaves:
        pool.remove()
        k.say("pool_put(%s): an idle page leaves", pool.name)
    yield LEAVE
    pool.lock.leave()
    if leaves:
        yield from k.page_free(pool)
    yield from pool_wakeup(k, pool)


def _put_under_lock(k: Kernel, pool: Pool, cpu: int, page: Page) -> Code[bool]:
    """Put an item into the cache if there is no request; none can arrive before the item is in."""
    full: list[Page] = []
    yield pool.requests_lock
    lands = not pool.unserved
    if lands:
        k.say("pool_put(%s): there is no request, so the item goes to the cache", pool.name)
        full = put(k, pool, cpu, page)
    pool.show_requests()
    yield LEAVE
    pool.requests_lock.leave()
    yield from list_put(k, pool, full)
    return lands


def pool_reclaim(k: Kernel, pool: Pool) -> Code[int]:
    """Free all idle pages; return how many (``pool_reclaim``)."""
    yield pool.lock
    pages = pool.nidle
    for _ in range(pages):
        pool.remove()
    yield LEAVE
    pool.lock.leave()
    for _ in range(pages):
        yield from k.page_free(pool)
    return pages


def gc_pages(k: Kernel) -> Code[None]:
    """Free one page of each pool, if it has been idle for long enough (``pool_gc_pages``)."""
    if k.rules.caches is Caches.DRAINED:
        yield from _drain(k)
    for pool in reversed(k.pools):
        if k.rules.caches is not Caches.NONE and (yield from cache_gc(k, pool, WAIT_GC)):
            yield from pool_wakeup(k, pool)
        yield ATOMIC
        if not pool.nidle_seen.load():
            continue
        yield ATOMIC
        if not pool.lock.enter_try():
            k.say("pool_gc_pages: %s is locked", pool.name)
            continue
        leaves = pool.idle_for(k.now) > WAIT_GC
        if leaves:
            pool.remove()
            k.say("pool_gc_pages: an idle page of %s leaves", pool.name)
        yield LEAVE
        pool.lock.leave()
        if leaves:
            yield from k.page_free(pool)
    if k.rules.gc_retries:
        for pool in k.pools:
            yield from pool_wakeup(k, pool)


def _drain(k: Kernel) -> Code[None]:
    """Empty the caches of all pools if a request waits in any pool."""
    waiting = False
    for pool in k.pools:
        yield ATOMIC
        waiting = waiting or bool(pool.unserved_seen.load())
    if waiting:
        for pool in k.pools:
            yield from cache_drain(k, pool)
            yield from pool_wakeup(k, pool)


def work_for_gc(k: Kernel) -> int | None:
    """The time in microseconds at which the gc will find something to do, if nothing else happens;
    None if it never will."""
    if (
        k.rules.caches is Caches.DRAINED
        and any(pool.unserved_seen.value for pool in k.pools)
        and any(pool.cached for pool in k.pools)
    ):
        return (k.now // SECOND + 1) * SECOND
    if k.rules.gc_retries and any(map(k.can_serve, k.pools)):
        return (k.now // SECOND + 1) * SECOND
    since = [pool.empty[0].since for pool in k.pools if pool.empty]
    since += [pool.depot.since for pool in k.pools if pool.depot]
    if not since:
        return None
    first = max(min(since) + WAIT_GC, k.now)
    return (first // SECOND + 1) * SECOND
