"""What the pools tell the lab about themselves: their shared state, the runner of their task queue,
what a getter waits for, and which task holds the memory.

Only `mbufpools.lab` imports this module, which it finds by ``mbufpools.__lab_hooks__``, so the core
pays nothing for it. `mbufpools.lab.hooks` says what each name means.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Any

from . import mbufs as _mbufs  # noqa: F401 - loads the classes below that are imported late
from ._explain import explain
from ._request import Request
from ._taskq import TaskQueue
from ._waiters import Waiters
from .lab.hooks import CHANGED, VALUE, State, Wait, short_path

__all__ = ["STATE", "holders", "is_service", "only_ticks", "waits_for"]

STATE: State = {
    "mbufpools._budget": {
        "Budget": {
            "_allocated": VALUE,
            "_drops": VALUE,
            "_limit": VALUE,
            "_low_from": VALUE,
            "_low_memory": VALUE,
            "_peak": VALUE,
        },
    },
    "mbufpools._buffer": {"Buffer": {"_item": VALUE}},
    "mbufpools._bufferpools": {
        "BufferPools": {
            "_collected": VALUE,
            "_grants_at_tick": VALUE,
            "_pool_of": CHANGED,
            "_wakeup_runs": VALUE,
        }
    },
    "mbufpools._cached_pool": {"CachedSupply": {"_cpu_of": CHANGED, "uncounted": VALUE}},
    "mbufpools._order": {
        "Precedence": {"debt_pass_limit": VALUE, "passes": VALUE, "short": CHANGED},
    },
    "mbufpools._owner_loop": {
        "OwnerLoop": {
            "_state": VALUE,
            "deferred": CHANGED,
            "lost": CHANGED,
            "open_to": VALUE,
            "thread": VALUE,
        },
    },
    "mbufpools._page": {
        "Item": {"window": VALUE},
        "Page": {
            "alarm": VALUE,
            "empty_since": VALUE,
            "free": CHANGED,
            "left": VALUE,
            "made": VALUE,
            "on": VALUE,
        },
        "PageLists": {
            "_empty": CHANGED,
            "_full": CHANGED,
            "_partial": CHANGED,
            "curpage": CHANGED,
            "hiwat": VALUE,
            "nget": VALUE,
            "npagefree": VALUE,
            "nput": VALUE,
            "stock": CHANGED,
        },
    },
    "mbufpools._pool_cache": {
        "CpuLists": {"active": CHANGED, "nget": VALUE, "nput": VALUE, "previous": CHANGED},
        "Depot": {"_lists": CHANGED, "list_items": VALUE, "nitems": VALUE, "since": VALUE},
    },
    "mbufpools._request": {
        "Request": {"error": VALUE, "granted": VALUE},
    },
    "mbufpools._reservation": {"Reservation": {"_held": VALUE}},
    "mbufpools._set_state": {
        "SetState": {
            "_unmap_error": VALUE,
            "broken": VALUE,
            "claim_numbers": CHANGED,
            "claims": CHANGED,
            "dropped": VALUE,
            "exporting": CHANGED,
            "failure": VALUE,
            "numbers": CHANGED,
            "of_memory": VALUE,
            "quarantine": CHANGED,
            "reserved_min_bytes": VALUE,
            "supplies_with_idle": CHANGED,
            "waiting": VALUE,
        },
    },
    "mbufpools._supply": {
        "Supply": {
            "max_idle_items": VALUE,
            "max_items": VALUE,
            "min_items": VALUE,
            "nfail": VALUE,
            "nwait": VALUE,
            "quarantined": CHANGED,
            "wanted": VALUE,
            "watched": VALUE,
        },
    },
    "mbufpools._taskq": {
        "Task": {"_clock": VALUE, "_queue": VALUE, "_runs": VALUE},
        "TaskQueue": {
            "_added": VALUE,
            "_armed": VALUE,
            "_coalesced": VALUE,
            "_discarded": VALUE,
            "_draining": VALUE,
            "_due": CHANGED,
            "_ended": VALUE,
            "_queue": CHANGED,
            "_runner": VALUE,
            "_running": VALUE,
            "_runs": VALUE,
            "_scope": VALUE,
            "_timers": CHANGED,
            "_work": VALUE,
            "error": VALUE,
        },
    },
    "mbufpools._wait_queues": {"WaitQueue": {"requests": CHANGED}},
    "mbufpools._waiters": {
        "Waiters": {
            "_again": VALUE,
            "_cancellations": VALUE,
            "_histogram": CHANGED,
            "_many_queues": CHANGED,
            "_peak": VALUE,
            "_running": VALUE,
            "_waits": VALUE,
            "active": CHANGED,
            "grants": VALUE,
            "must_queue": VALUE,
            "page_wanted": VALUE,
        },
    },
    "mbufpools.mbufs": {"MbufPools": {"_drains": VALUE, "_nmbclust": VALUE}},
}
"""Every attribute of the core that changes after ``__init__`` and that more than one task uses; a
test compares it with the source."""


def is_service(name: str) -> bool:
    """Return True if a task of this name runs a task queue."""
    return name.startswith("mbufpools ")


def only_ticks(coroutine: Any) -> bool:
    """Return True if a task queue has nothing queued, and only the gc of pools is due."""
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None)
        if frame is None:
            return False
        queue = frame.f_locals.get("self")
        if isinstance(queue, TaskQueue):
            names = (getattr(task.function, "__qualname__", "") for task in queue._due)
            return not queue._queue and all(name == "BufferPools._gc" for name in names)
        coroutine = coroutine.cr_await
    return False


def waits_for(frame: FrameType) -> Wait | None:
    """Say what a getter waits for, by the frame of `Waiters.acquire` that parks it."""
    if frame.f_code is not Waiters.acquire.__code__:
        return None
    waiters: Waiters = frame.f_locals["self"]
    request: Request[Any] = frame.f_locals["request"]
    what = (
        f"{frame.f_locals['queue'].what}: nothing has served it (a release, a page that leaves, a "
        f"raised limit and the wakeup task would)"
    )
    return Wait(what, None if request.settled else waiters, request.task_id)


def holders(waiters: Waiters, names: Mapping[int, str]) -> Iterator[str]:
    """Say what is allocated, in which pools, and in debug mode which task holds it.

    What `explain` says of each waiter is left out: its number, and how long it has waited, would
    make one failure look like several.
    """
    state = waiters._state
    explained = explain(state, waiters, wakeup=False)
    text = str(explained).splitlines()
    _, _, allocated = text[0].partition("; ")
    yield f"{state.owner_loop.name}: {allocated}"
    for supply in waiters.reclaimer.supplies:
        it = supply.statistics(0)
        if it.npages:
            most = "" if it.hard_limit is None else f" of at most {it.hard_limit}"
            yield (
                f"pool {it.name!r}: {it.npages * it.page_size} bytes of pages, "
                f"{it.in_use} items out{most}, {supply.nfree} free"
                f"{'' if it.caches is None else f', {it.caches.items} in caches'}"
            )
    if explained.exported:
        yield text[1]
    leases = state.tracker.holders() if state.tracker is not None else []
    for holder, count in Counter(
        sorted(
            (holder._replace(where=short_path(holder.where)) for holder in leases),
            key=lambda it: (
                *(it.task, names.get(it.task_id, ""), it.pool, it.nbytes, it.where),
                *(it.connection, it.ended),
            ),
        )
    ).items():
        name = names.get(holder.task_id)
        waits = f", which waits itself (task {name})" if name is not None else ""
        yield f"held: {f'{count} x ' if count > 1 else ''}{holder}{waits}"
    if explained.stuck or (explained.allocated and explained.stuck is None):
        yield text[-1]
