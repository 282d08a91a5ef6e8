"""The budget of all the pools (uipc_mbuf.c: m_pool_alloc, m_pool_free, m_pool_wakeup,
nmbclust_update).
"""

from __future__ import annotations

from ._kern_task import task_add
from ._kernel import Kernel, Pool, Task
from ._processors import ATOMIC, Code
from ._rules import Charge, Mark, Wakeup
from ._subr_pool import pool_wakeup

__all__ = ["Budget"]


class Budget:
    """The page allocator of all pools, and the wakeup (``m_pool_allocator``)."""

    def __init__(self, k: Kernel) -> None:
        self.k = k
        self.task = Task(k.processors, "mbuf_mem_wakeup", self.wakeup)

    def alloc(self, pool: Pool, may_sleep: bool) -> Code[bool]:
        """Charge a page to the budget, and take it from the system; False if the limit or the
        system refuses it (``m_pool_alloc``)."""
        if not (yield from self._charge(pool)):
            return False
        k = self.k
        if not k.rules.page_refused:
            return True
        yield ATOMIC
        while may_sleep and k.short.load():
            k.say("km_alloc: sleeps until the system has a page")
            yield k.short_channel
        if not k.short.load():
            return True
        k.drops += 1
        k.say("m_pool_alloc(%s): the system has no page", pool.name)
        yield ATOMIC
        total = k.mem_alloc.add(-pool.page_size)
        k.say(
            "m_pool_alloc(%s): takes %d bytes back, which leaves %d",
            pool.name, pool.page_size, total,
        )  # fmt: skip
        return False

    def _charge(self, pool: Pool) -> Code[bool]:
        """Charge a page to the budget; False if the limit refuses it."""
        k, size = self.k, pool.page_size
        if k.rules.charge is Charge.COMPARE:
            yield ATOMIC
            limit = k.mem_limit.load()
            yield ATOMIC
            total = k.mem_alloc.load() + size
            if total <= limit:
                k.mem_alloc.add(size)
                k.say("m_pool_alloc(%s): %d of %d bytes allocated", pool.name, total, limit)
                return True
            k.drops += 1
            k.say(
                "m_pool_alloc(%s): refused, %d bytes would exceed %d",
                pool.name,
                total,
                limit,
            )
            return False
        yield ATOMIC
        total = k.mem_alloc.add(size)
        k.say("m_pool_alloc(%s): adds %d bytes, which makes %d", pool.name, size, total)
        yield ATOMIC
        limit = k.mem_limit.load()
        if total <= limit:
            return True
        k.say("m_pool_alloc(%s): refused, the limit is %d", pool.name, limit)
        k.drops += 1
        yield ATOMIC
        total = k.mem_alloc.add(-size)
        k.say("m_pool_alloc(%s): takes %d bytes back, which leaves %d", pool.name, size, total)
        if k.rules.charge is Charge.RETRY:
            yield from task_add(k, self.task)
        return False

    def free(self, pool: Pool) -> Code[None]:
        """Credit a page that has left to the budget, and cause the wakeup (``m_pool_free``)."""
        k, rules = self.k, self.k.rules
        peeked = False
        if rules.mark is Mark.EARLY and rules.wakeup is Wakeup.DEFERRED:
            yield ATOMIC
            if self.task.onqueue.load():
                k.say("reads the mark of mbuf_mem_wakeup too early: the task is queued already")
                yield from self._credit(pool)
                return
            peeked = True
        if not rules.credit_first:
            yield from task_add(k, self.task)
        total = yield from self._credit(pool)
        if not rules.credit_first or rules.wakeup is Wakeup.NONE:
            return
        if rules.margin is not None:
            yield ATOMIC
            if k.mem_limit.load() - total >= rules.margin:
                k.say("m_pool_free(%s): the limit is not near, so there is no wakeup", pool.name)
                return
        if rules.wakeup is Wakeup.WANTED:
            yield ATOMIC
            if k.wanted.load():
                k.wanted.store(0)
                k.say("m_pool_free(%s): a sleeper wants a page", pool.name)
                yield from self.wakeup()
            else:
                k.say("m_pool_free(%s): no sleeper wants a page", pool.name)
        elif rules.wakeup is Wakeup.DIRECT:
            yield from self.wakeup()
        else:
            yield from task_add(k, self.task, peeked=peeked)

    def give_back(self, pool: Pool) -> Code[None]:
        """Give a page back that has no header; the kernel does it by ``m_pool_free``."""
        if self.k.rules.given_back_wakes:
            yield from self.free(pool)
        else:
            yield from self._credit(pool)

    def want(self, pool: Pool) -> Code[bool]:
        """Set the flag that a page is wanted, then look at the budget again.

        Returns True if a page fits by now: its free may have come before the flag, and it wakes no
        request then.
        """
        k = self.k
        yield ATOMIC
        k.wanted.store(1)
        k.say("pool_runqueue(%s): sets the flag that a page is wanted", pool.name)
        if not k.rules.flag_rechecks:
            return False
        yield ATOMIC
        limit = k.mem_limit.load()
        yield ATOMIC
        return k.mem_alloc.load() + pool.page_size <= limit

    def _credit(self, pool: Pool) -> Code[int]:
        yield ATOMIC
        total = self.k.mem_alloc.add(-pool.page_size)
        self.k.say(
            "m_pool_free(%s): %d bytes go back to the budget, which leaves %d allocated",
            pool.name, pool.page_size, total,
        )  # fmt: skip
        return total

    def wakeup(self) -> Code[None]:
        """Serve the requests of all pools (``m_pool_wakeup``)."""
        self.k.wakeup_runs += 1
        for pool in self.k.pools:
            yield from pool_wakeup(self.k, pool)

    def update(self, limit: int) -> Code[None]:
        """Set the limit in bytes, and cause the wakeup (``nmbclust_update``)."""
        k = self.k
        yield ATOMIC
        k.mem_limit.store(limit)
        k.say("nmbclust_update: the limit is %d", limit)
        if k.rules.wakeup is Wakeup.DEFERRED:
            yield from task_add(k, self.task)
            return
        for pool in k.pools:
            yield from pool_wakeup(k, pool)
