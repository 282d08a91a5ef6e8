"""Two threads that release one buffer, a release against the close, and any mix of them."""

from __future__ import annotations

import asyncio
import gc
import io
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import anyio
import anyio.to_thread
import pytest

from mbufpools import Buffer, BufferPools, DoubleRelease, PoolSpec

pytestmark = pytest.mark.real_time


def on_threads(*calls: Callable[[], None]) -> None:
    threads = [threading.Thread(target=call, daemon=True) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


def releasing(lease: Any, outcomes: list[str]) -> Callable[[], None]:
    def release() -> None:
        try:
            lease.release()
        except DoubleRelease:
            outcomes.append("refused")
        else:
            outcomes.append("released")

    return release


def no_memory_is_given_twice(pools: BufferPools) -> None:
    """Check that eight owners at once, which are all that fit, have memory of their own."""
    owners = [pools.get_nowait(2048) for _ in range(8)]
    for number, owner in enumerate(owners):
        owner.view[:1] = bytes([number])
    assert [owner.view[0] for owner in owners] == list(range(8))
    for owner in owners:
        owner.release()


class Interleaved:
    """Runs `call`, and at its n-th line inside the core `other`, to its end, on another thread."""

    def __init__(self, line: int, other: Callable[[], None]) -> None:
        self._line = line
        self._other = other
        self.lines = 0

    def __call__(self, call: Callable[[], None]) -> None:
        before = sys.gettrace()
        sys.settrace(self._trace)
        try:
            call()
        finally:
            sys.settrace(before)

    def _trace(self, frame: FrameType, event: str, arg: object) -> Any:
        if frame.f_globals.get("__name__", "").startswith("mbufpools._"):
            return self._step
        return None

    def _step(self, frame: FrameType, event: str, arg: object) -> Any:
        if event == "line":
            self.lines += 1
            if self.lines == self._line:
                on_threads(self._other)
        return self._step


LEASES = ["buffer", "view", "reservation", "waiter"]


@pytest.mark.parametrize("what", LEASES)
async def test_of_two_threads_that_release_one_lease_one_is_refused_wherever_the_first_is_stopped(
    what: str,
) -> None:
    assert await release_by_two_threads(what) > 2


async def the_loop_has_taken_home_what_came(pools: BufferPools) -> None:
    """The loop does it soon. On a busy machine that is after more than one turn of it."""
    with anyio.move_on_after(10):
        while (statistics := pools.statistics()).nout or statistics.reserved:  # noqa: ASYNC110 - no event
            await anyio.sleep(0.001)


async def release_by_two_threads(what: str) -> int:
    """Stop one thread at each line of its release, and let another release the same lease; return
    the number of lines."""
    line = 0
    while True:
        line += 1
        async with BufferPools("64 KiB", [PoolSpec(2048, max_items=8)]) as pools:
            lease: Any = await (pools.reserve(100) if what == "reservation" else pools.get(2048))
            if what == "view":
                lease.view[:1] = b"x"
            async with anyio.create_task_group() as group:
                others = [await pools.get(2048) for _ in range(7)] if what == "waiter" else []
                if others:
                    group.start_soon(_get_and_release, pools)
                    await anyio.sleep(0.001)
                outcomes: list[str] = []
                stopped = Interleaved(line, releasing(lease, outcomes))
                on_threads(lambda: stopped(releasing(lease, outcomes)))  # noqa: B023
                if stopped.lines >= line:
                    assert sorted(outcomes) == ["refused", "released"]
            for other in others:
                other.release()
            await the_loop_has_taken_home_what_came(pools)
            pools.check()
            statistics = pools.statistics()
            assert (statistics.nout, statistics.reserved) == (0, 0)
            no_memory_is_given_twice(pools)
        if stopped.lines < line:
            return line - 1


async def _get_and_release(pools: BufferPools) -> None:
    (await pools.get(2048)).release()


async def test_many_threads_that_release_the_same_buffers_take_each_back_once() -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        async with BufferPools("1 MiB", [2048]) as pools:
            for _ in range(20):
                buffers = [await pools.get(2048) for _ in range(40)]
                outcomes: list[str] = []

                def release_each() -> None:
                    for buffer in buffers:  # noqa: B023
                        releasing(buffer, outcomes)()  # noqa: B023

                on_threads(release_each, release_each, release_each)
                assert outcomes.count("released") == 40
                assert outcomes.count("refused") == 80
                await anyio.sleep(0.01)  # the loop settles the pages
                pools.check()
                assert pools.statistics().nout == 0
    finally:
        sys.setswitchinterval(interval)


@pytest.mark.parametrize("what", ["end of the lease", "end of the export", "both"])
async def test_a_tick_at_any_line_of_another_threads_call_brings_an_exported_item_home_once(
    what: str,
) -> None:
    assert await end_around_a_tick(what) > 2


async def end_around_a_tick(what: str) -> int:
    """Stop another thread at each line of its call, and let the gc run then; return the number of
    lines."""
    line = 0
    while True:
        line += 1
        async with BufferPools("16 KiB", [PoolSpec(2048, max_items=8)]) as pools:
            lease = await pools.get(2048)
            part = lease.view[:5]
            if what == "end of the export":
                lease.end()
            stopped_there, gc_has_run = threading.Event(), threading.Event()
            stopped = Interleaved(line, lambda: wait_for(gc_has_run, stopped_there))  # noqa: B023

            def call() -> None:
                if what != "end of the export":
                    lease.end()  # noqa: B023
                if what != "end of the lease":
                    part.release()  # noqa: B023

            thread = threading.Thread(target=lambda: stopped(call), daemon=True)  # noqa: B023
            thread.start()
            while thread.is_alive() and not stopped_there.wait(0.001):
                pass
            pools._gc()
            gc_has_run.set()
            thread.join(30)
            assert not thread.is_alive()
            part.release()
            await the_loop_has_taken_home_what_came(pools)
            pools.check()
            assert pools.statistics().nout == 0
            no_memory_is_given_twice(pools)
        if stopped.lines < line:
            return line - 1


def wait_for(event: threading.Event, stopped_there: threading.Event) -> None:
    stopped_there.set()
    assert event.wait(30)


async def test_an_export_that_ends_on_another_thread_before_a_tick_brings_its_item_home_once() -> (
    None
):
    async with BufferPools("16 KiB", [PoolSpec(2048, max_items=8)]) as pools:
        with await pools.get(2048) as lease:
            part = lease.view[:5]
        on_threads(part.release)  # what it asks of the loop waits in the mailbox
        pools._gc()
        await the_loop_has_taken_home_what_came(pools)
        pools.check()
        assert pools.statistics().nout == 0


def release_all(buffers: list[Buffer]) -> None:
    for buffer in buffers:
        buffer.release()


@contextmanager
def no_leak_report() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield


@pytest.mark.parametrize("what", ["buffer", "reservation"])
async def test_a_release_at_any_line_of_the_close_loses_no_page(what: str) -> None:
    assert await release_during_the_close(what) > 10


async def release_during_the_close(what: str) -> int:
    """Let another thread release a lease at each line of the close; return the number of lines."""
    line = 0
    while True:
        line += 1
        pools = BufferPools("1 MiB", [2048], reclaim="gc")
        await pools.__aenter__()
        lease: Any = await (pools.reserve(100) if what == "reservation" else pools.get(2048))
        for idle in [await pools.get(2048) for _ in range(24)]:
            idle.release()
        outcomes: list[str] = []
        stopped = Interleaved(line, releasing(lease, outcomes))
        with no_leak_report():
            stopped(pools._close)
            await pools.__aexit__(None, None, None)
        if not outcomes:
            lease.release()
        statistics = pools.statistics()
        assert (statistics.allocated, statistics.nout, statistics.reserved) == (0, 0, 0), line
        pools.check()
        if stopped.lines < line:
            return line - 1


async def test_threads_that_release_while_the_set_is_closed_lose_nothing() -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(20):
            pools = BufferPools("1 MiB", [2048], reclaim="gc")
            with no_leak_report():
                async with pools:
                    buffers = [await pools.get(2048) for _ in range(60)]
                    for buffer in buffers[::3]:
                        buffer.release()
                    threads = [
                        threading.Thread(
                            target=lambda part: [b.release() for b in part], args=(it,)
                        )
                        for it in (buffers[1::3], buffers[2::3])
                    ]
                    for thread in threads:
                        thread.start()
            for thread in threads:
                thread.join()
            assert pools.statistics().allocated == 0
            pools.check()
            gc.collect()
    finally:
        sys.setswitchinterval(interval)


class SlowFile(io.RawIOBase):
    """A file whose one read takes until `may_end` is set."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.may_end = threading.Event()

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        self.begun.set()
        assert self.may_end.wait(30)
        into[:5] = b"hello"
        return 5


@pytest.mark.parametrize("by", ["anyio", "asyncio"])
async def test_an_item_that_a_thread_reads_into_waits_for_the_thread_if_the_task_is_cancelled(
    by: str, anyio_backend_name: str
) -> None:
    if by == "asyncio" and anyio_backend_name == "trio":
        pytest.skip("asyncio.to_thread works on asyncio alone")

    async def load() -> None:
        with await pools.get(4096) as buffer:
            if by == "asyncio":
                await asyncio.to_thread(file.readinto1, buffer.view)
            else:
                await anyio.to_thread.run_sync(file.readinto1, buffer.view, abandon_on_cancel=True)

    slow = SlowFile()
    file = io.BufferedReader(slow)
    try:
        async with BufferPools(4096, [PoolSpec(4096, items_per_page=1)]) as pools:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(load)
                await anyio.to_thread.run_sync(slow.begun.wait, 30)
                tasks.cancel_scope.cancel()
            assert pools.statistics().quarantined == 1
            with pytest.raises(anyio.WouldBlock):
                pools.get_nowait(1)
            slow.may_end.set()
            with anyio.fail_after(10):
                (await pools.get(4096)).release()
            assert pools.statistics().quarantined == 0
    finally:
        slow.may_end.set()
