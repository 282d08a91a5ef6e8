"""Calls of the core that an exception interrupts at a line, and what must hold afterwards.

Every item is held or at home, every request that can be served is served within one second of the
loop's clock, every invariant holds, and the set can be closed.
"""

from __future__ import annotations

import functools
import gc
import itertools
import sys
import warnings
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio

import mbufpools
from mbufpools import AccountedMemory, BufferPools, Pool, PoolSpec, lab
from tests.kit.grants import settle
from tests.kit.injection import Injector, Steps

KIB = 1024
ERRORS: list[type[BaseException]] = [KeyboardInterrupt, RecursionError, MemoryError]


class Trial:
    """One pool set, what is held of it, and who waits."""

    def __init__(self, limit: int, **options: Any) -> None:
        self.pools = BufferPools(
            limit * 4 * KIB,
            [
                PoolSpec(KIB, name="small", items_per_page=4),
                PoolSpec(4 * KIB, name="large", items_per_page=1),
            ],
            memory=options.pop("memory", None) or AccountedMemory(),
            **options,
        )
        self.small: Pool = self.pools.pools["small"]
        self.held: list[Any] = []
        self.waiting: list[str] = []

    def wait(self, group: Any, name: str, take: Callable[[], Awaitable[Any]]) -> None:
        async def waiter() -> None:
            self.waiting.append(name)
            try:
                lease = await take()
            except (anyio.ClosedResourceError, MemoryError, mbufpools.ImpossibleRequest):
                pass  # a page that cannot be had fails the request, and so does a new limit
            else:
                lease.release()
            self.waiting.remove(name)

        group.start_soon(waiter)

    def take_nowait(self, pool: str, count: int) -> None:
        self.held += [self.pools.pools[pool].get_nowait() for _ in range(count)]


async def release_with_a_waiter(trial: Trial, group: Any, do: Any) -> None:
    trial.take_nowait("small", 8)
    trial.wait(group, "small", trial.small.get)
    await settle()
    await do(trial.held[3].release)


async def release_of_a_view(trial: Trial, group: Any, do: Any) -> None:
    trial.take_nowait("small", 8)
    trial.wait(group, "small", trial.small.get)
    await settle()
    bytes(trial.held[3].view[:3])
    await do(trial.held[3].release)


async def release_that_makes_room(trial: Trial, group: Any, do: Any) -> None:
    trial.take_nowait("small", 1)
    trial.take_nowait("large", 1)
    trial.wait(group, "large", trial.pools.pools["large"].get)
    await settle()
    await do(trial.held[0].release)


async def release_of_several(trial: Trial, group: Any, do: Any) -> None:
    trial.held.append(await trial.pools.get_many([KIB, 4 * KIB]))
    trial.wait(group, "large", trial.pools.pools["large"].get)
    trial.wait(group, "bytes", lambda: _reserve(trial.pools, 4 * KIB))
    await settle()
    await do(trial.held[0].release)


async def release_of_a_reservation(trial: Trial, group: Any, do: Any) -> None:
    trial.held.append(await trial.pools.reserve(8 * KIB))
    trial.wait(group, "small", trial.small.get)
    await settle()
    await do(trial.held[0].release)


async def end_of_a_with(trial: Trial, group: Any, do: Any) -> None:
    trial.take_nowait("small", 8)
    trial.wait(group, "small", trial.small.get)
    await settle()
    part = trial.held[3].view[:3]
    await do(lambda: trial.held[3].__exit__(None, None, None))
    del part


async def get_of_a_free_item(trial: Trial, group: Any, do: Any) -> None:
    trial.take_nowait("small", 1)
    trial.held.append(await do(trial.pools.get, KIB))


async def get_that_takes_a_page(trial: Trial, group: Any, do: Any) -> None:
    trial.small.get_nowait().release()
    trial.held.append(await do(trial.pools.get, 4 * KIB))


async def get_that_waits(trial: Trial, group: Any, do: Any) -> None:
    trial.take_nowait("large", 2)

    async def later() -> None:
        await anyio.sleep(0.1)
        trial.held.pop(0).end()

    group.start_soon(later)
    trial.held.append(await do(trial.pools.get, KIB))


async def get_nowait_of_the_last_item(trial: Trial, group: Any, do: Any) -> None:
    trial.take_nowait("small", 3)
    trial.held.append(await do(lambda: trial.pools.get_nowait(KIB)))


async def get_nowait_of_one_pool(trial: Trial, group: Any, do: Any) -> None:
    trial.take_nowait("small", 3)
    trial.held.append(await do(lambda: trial.small.get_nowait()))


async def get_nowait_that_reclaims(trial: Trial, group: Any, do: Any) -> None:
    trial.take_nowait("large", 1)
    trial.small.get_nowait().release()
    trial.held.append(await do(lambda: trial.pools.get_nowait(4 * KIB)))


async def get_many(trial: Trial, group: Any, do: Any) -> None:
    trial.small.get_nowait().release()
    trial.held.append(await do(trial.pools.get_many, [KIB, KIB, 4 * KIB]))


async def get_many_that_waits(trial: Trial, group: Any, do: Any) -> None:
    trial.take_nowait("large", 2)

    async def later() -> None:
        await anyio.sleep(0.1)
        for _ in range(2):
            trial.held.pop(0).end()

    group.start_soon(later)
    trial.held.append(await do(trial.pools.get_many, [KIB, KIB, 4 * KIB]))


async def reserve(trial: Trial, group: Any, do: Any) -> None:
    trial.small.get_nowait().release()
    trial.held.append(await do(_reserve, trial.pools, 8 * KIB))


async def reserve_at_once(trial: Trial, group: Any, do: Any) -> None:
    trial.held.append(await do(_reserve, trial.pools, 8 * KIB))


async def reserve_that_waits(trial: Trial, group: Any, do: Any) -> None:
    trial.take_nowait("large", 1)

    async def later() -> None:
        await anyio.sleep(0.1)
        trial.held.pop(0).end()

    group.start_soon(later)
    trial.held.append(await do(_reserve, trial.pools, 8 * KIB))


async def reclaim(trial: Trial, group: Any, do: Any) -> None:
    trial.take_nowait("small", 8)
    while trial.held:
        trial.held.pop().release()
    await do(trial.small.reclaim)


async def resize_up(trial: Trial, group: Any, do: Any) -> None:
    trial.take_nowait("large", 2)
    trial.wait(group, "small", trial.small.get)
    trial.wait(group, "large", trial.pools.pools["large"].get)
    await settle()
    await do(lambda: trial.pools.resize(16 * KIB))


async def resize_down(trial: Trial, group: Any, do: Any) -> None:
    trial.take_nowait("large", 2)
    trial.wait(group, "large", trial.pools.pools["large"].get)
    await settle()
    await do(lambda: trial.pools.resize(4 * KIB))


async def close(trial: Trial, group: Any, do: Any) -> None:
    trial.take_nowait("small", 5)
    trial.held.pop().release()
    trial.wait(group, "large", trial.pools.pools["large"].get)
    await settle()
    await do(trial.pools.__aexit__, None, None, None)


async def _reserve(pools: BufferPools, nbytes: int) -> Any:
    return await pools.reserve(nbytes)


async def release_by_put(trial: Trial, group: Any, do: Any) -> None:
    trial.take_nowait("small", 8)
    trial.wait(group, "small", trial.small.get)
    await settle()
    await do(lambda: trial.small.put(trial.held[3]))


async def view_and_its_parts(trial: Trial, group: Any, do: Any) -> None:
    trial.take_nowait("small", 2)

    def look() -> None:
        part = trial.held[0].view[1:3]
        del part
        with trial.held[1].view as view:
            bytes(view)
        bytes(trial.held[1].view)

    await do(look)


async def end_of_a_reservation(trial: Trial, group: Any, do: Any) -> None:
    trial.held.append(await trial.pools.reserve(8 * KIB))
    trial.wait(group, "small", trial.small.get)
    await settle()
    await do(lambda: trial.held[0].__exit__(None, None, None))


async def get_nowait_that_is_refused(trial: Trial, group: Any, do: Any) -> None:
    trial.take_nowait("large", 1)
    trial.take_nowait("small", 1)
    with suppress(anyio.WouldBlock):
        await do(lambda: trial.pools.get_nowait(4 * KIB))


async def get_and_its_end(trial: Trial, group: Any, do: Any) -> None:
    async def get(nbytes: int) -> None:
        with await trial.pools.get(nbytes):
            pass

    await do(get, KIB)


async def get_that_is_cancelled(trial: Trial, group: Any, do: Any) -> None:
    trial.take_nowait("large", 2)

    async def get(nbytes: int) -> None:
        with anyio.move_on_after(0.1):
            await trial.pools.get(nbytes)

    await do(get, KIB)


async def get_many_that_is_cancelled(trial: Trial, group: Any, do: Any) -> None:
    trial.take_nowait("large", 2)
    trial.wait(group, "small", trial.small.get)
    await settle()

    async def get(sizes: list[int]) -> None:
        with anyio.move_on_after(0.1):
            await trial.pools.get_many(sizes)

    await do(get, [KIB, KIB, 4 * KIB])


async def reserve_and_its_end(trial: Trial, group: Any, do: Any) -> None:
    async def reserve(nbytes: int) -> None:
        async with trial.pools.reserve(nbytes):
            pass

    await do(reserve, 8 * KIB)


async def reserve_that_is_cancelled(trial: Trial, group: Any, do: Any) -> None:
    trial.take_nowait("large", 1)
    trial.wait(group, "small", trial.small.get)
    await settle()

    async def reserve(nbytes: int) -> None:
        with anyio.move_on_after(0.1):
            await trial.pools.reserve(nbytes)

    await do(reserve, 8 * KIB)


async def reserve_nowait(trial: Trial, group: Any, do: Any) -> None:
    trial.small.get_nowait().release()
    trial.held.append(await do(lambda: trial.pools.reserve_nowait(8 * KIB)))


async def reserve_nowait_that_is_refused(trial: Trial, group: Any, do: Any) -> None:
    trial.take_nowait("large", 1)
    trial.small.get_nowait().release()
    with suppress(anyio.WouldBlock):
        await do(lambda: trial.pools.reserve_nowait(8 * KIB))


async def resize_that_makes_a_request_impossible(trial: Trial, group: Any, do: Any) -> None:
    async def two() -> Any:
        return await trial.pools.get_many([4 * KIB, 4 * KIB])

    trial.take_nowait("large", 1)
    trial.wait(group, "two", two)
    await settle()
    await do(lambda: trial.pools.resize(4 * KIB))


async def wakeup(trial: Trial, group: Any, do: Any) -> None:
    trial.take_nowait("large", 2)
    trial.wait(group, "small", trial.small.get)
    await settle()
    trial.held[0].release()
    await do(trial.small.wakeup)


async def prime(trial: Trial, group: Any, do: Any) -> None:
    await do(lambda: trial.small.prime(8))


async def min_items_up(trial: Trial, group: Any, do: Any) -> None:
    trial.take_nowait("large", 1)
    trial.wait(group, "large", trial.pools.pools["large"].get)
    await settle()
    await do(lambda: trial.small.set_min_items(4))
    trial.small.set_min_items(0)


async def min_items_up_makes_a_request_impossible(trial: Trial, group: Any, do: Any) -> None:
    async def two() -> Any:
        return await trial.pools.get_many([4 * KIB, 4 * KIB])

    trial.take_nowait("large", 1)
    trial.wait(group, "two", two)
    await settle()
    await do(lambda: trial.small.set_min_items(4))
    trial.small.set_min_items(0)


async def min_items_down(trial: Trial, group: Any, do: Any) -> None:
    trial.small.set_min_items(4)
    trial.take_nowait("large", 1)
    await do(lambda: trial.small.set_min_items(0))
    trial.small.set_min_items(0)


async def max_items_up(trial: Trial, group: Any, do: Any) -> None:
    trial.small.set_max_items(1)
    trial.take_nowait("small", 1)
    trial.wait(group, "small", trial.small.get)
    await settle()
    await do(lambda: trial.small.set_max_items(None))


async def max_items_down(trial: Trial, group: Any, do: Any) -> None:
    trial.take_nowait("small", 2)
    trial.wait(group, "large", trial.pools.pools["large"].get)
    await settle()
    await do(lambda: trial.small.set_max_items(3))
    trial.small.set_max_items(None)


async def max_idle_items(trial: Trial, group: Any, do: Any) -> None:
    trial.take_nowait("small", 8)
    while trial.held:
        trial.held.pop().release()
    await do(lambda: trial.small.set_max_idle_items(0))


async def looks(trial: Trial, group: Any, do: Any) -> None:
    trial.take_nowait("small", 7)
    trial.wait(group, "large", trial.pools.pools["large"].get)
    await settle()

    def look() -> None:
        trial.pools.statistics()
        trial.pools.check()
        str(trial.pools.explain())
        repr([trial.pools, *trial.pools.pools.values()])

    await do(look)


CALLS: list[Callable[[Trial, Any, Any], Awaitable[None]]] = [
    release_with_a_waiter,
    release_of_a_view,
    release_that_makes_room,
    release_of_several,
    release_of_a_reservation,
    end_of_a_with,
    get_of_a_free_item,
    get_that_takes_a_page,
    get_that_waits,
    get_nowait_of_the_last_item,
    get_nowait_of_one_pool,
    get_nowait_that_reclaims,
    get_many,
    get_many_that_waits,
    reserve,
    reserve_at_once,
    reserve_that_waits,
    reclaim,
    resize_up,
    resize_down,
    close,
    release_by_put,
    view_and_its_parts,
    end_of_a_reservation,
    get_nowait_that_is_refused,
    get_and_its_end,
    get_that_is_cancelled,
    get_many_that_is_cancelled,
    reserve_and_its_end,
    reserve_that_is_cancelled,
    reserve_nowait,
    reserve_nowait_that_is_refused,
    resize_that_makes_a_request_impossible,
    wakeup,
    prime,
    min_items_up,
    min_items_up_makes_a_request_impossible,
    min_items_down,
    max_items_up,
    max_items_down,
    max_idle_items,
    looks,
]


async def attempt(call: Any, injector: Injector, options: dict[str, Any]) -> list[str]:
    """Make one call with an injection; return what is wrong afterwards."""
    wrong: list[str] = []
    if call in (release_of_a_view, end_of_a_with, view_and_its_parts):
        options = {**options, "memory": mbufpools.MappedMemory()}
    if call is reserve_at_once:
        options = {**options, "fast_acquire": True}
    trial = Trial(2, **options)
    pools = trial.pools

    async def do(function: Callable[..., Any], *args: Any) -> Any:
        if args or call is close:
            return await Steps(function(*args), injector)
        with injector:
            return function()

    async with anyio.create_task_group() as group:
        await pools.__aenter__()
        try:
            await call(trial, group, do)
        except BaseException as error:  # noqa: ASYNC103 - the injected one
            if "injected" not in str(error) and "no stack is left" not in str(error):
                raise
        gc.collect()
        for lease in trial.held:  # what its release left held can be released again
            parts = lease if isinstance(lease, tuple) else (lease,)
            for part in parts:
                if not part.released and "waits" not in call.__name__:
                    part.release()
        await anyio.sleep(1.2)
        for lease in trial.held:
            for part in lease if isinstance(lease, tuple) else (lease,):
                if not part.released:
                    part.release()
        await anyio.sleep(0.2)
        if call is close and not pools._owner_loop.closed:
            await pools.aclose()
            await anyio.sleep(0.2)
        if trial.waiting:
            wrong.append(f"{trial.waiting} wait for ever")
            group.cancel_scope.cancel()
        try:
            pools.check()
        except mbufpools.PoolCorruption as error:
            wrong.append(str(error))
        statistics = pools.statistics()
        closed = pools._owner_loop.closed
        if statistics.nout or statistics.reserved:
            wrong.append(f"{statistics.nout} items and {statistics.reserved} bytes are lost")
        if closed and pools.budget.allocated:
            wrong.append(f"{pools.budget.allocated} bytes stay charged after the close")
        if not closed:
            await pools.__aexit__(None, None, None)
        if pools.budget.allocated:
            wrong.append(f"{pools.budget.allocated} bytes stay charged")
    return wrong


def inject(
    call: Any, error: type[BaseException], place: int, backend: Any, line: str = "", **options: Any
) -> Injector:
    """Try one place of `call`, which is none if the call ends before it."""
    injector = Injector(error, place, line)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        wrong = lab.run(lambda: attempt(call, injector, options), backend=backend)
    assert not wrong, f"{error.__name__} at {injector.where}, place {place}: {wrong}"
    return injector


def inject_everywhere(call: Any, error: type[BaseException], backend: Any) -> int:
    """Try every place of `call`; return how many there are."""
    for place in itertools.count(1):
        if not inject(call, error, place, backend).raised:
            return place - 1
    raise AssertionError("not reached")


@functools.cache
def lines_of(call: Any, backend: str) -> dict[str, None]:
    """The lines of the core that `call` runs."""
    return inject(call, KeyboardInterrupt, sys.maxsize, backend).lines
