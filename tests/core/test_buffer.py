"""The lease: its view, its release, and everything that can be done wrong with either."""

from __future__ import annotations

import array
import ctypes
import gc
import pickle
import queue
import sys
import threading
import tracemalloc
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import anyio
import anyio.to_thread
import pytest

from mbufpools import (
    AccountedMemory,
    Block,
    Buffer,
    BufferInUse,
    BufferPools,
    DoubleRelease,
    Event,
    EventKind,
    ForeignBuffer,
    LeaseError,
    MappedMemory,
    PoolSpec,
    Reservation,
    UseAfterRelease,
)
from mbufpools._window import Window

ONE_ITEM = PoolSpec(4096, items_per_page=1, name="one")
"""A pool whose page is one item, so that a page leaves as soon as its item is home."""


def is_released(buffer: Buffer) -> bool:
    """`buffer.released`, as a call, so that mypy does not think it constant."""
    return buffer.released


@contextmanager
def collecting() -> Iterator[None]:
    """Run the garbage collector at the end."""
    yield
    gc.collect()


@contextmanager
def dropping() -> Iterator[pytest.WarningsRecorder]:
    """Expect the report of a buffer that is dropped inside."""
    with pytest.warns(ResourceWarning, match="was dropped without a release") as told, collecting():
        yield told


async def until(done: Callable[[], bool]) -> None:
    """Wait, in real time, until `done` returns True."""
    with anyio.fail_after(30):
        while True:
            if done():
                return
            await anyio.sleep(0.001)


def on_a_thread(call: Callable[[], object], *, within: float = 10) -> None:
    """Run `call` on another thread to its end, in real time."""
    thread = threading.Thread(target=call, daemon=True)  # a daemon, or a deadlock would stay
    thread.start()
    thread.join(within)
    assert not thread.is_alive(), "the call has blocked"


# The view


@pytest.mark.parametrize("nbytes", [1, 100, 2047, 2048])
async def test_the_view_is_writable_and_as_long_as_was_asked_for(nbytes: int) -> None:
    async with BufferPools("1 MiB", [2048]) as pools:
        with await pools.get(nbytes) as buffer:
            assert buffer.nbytes == nbytes
            assert (len(buffer.view), buffer.view.nbytes) == (nbytes, nbytes)
            assert not buffer.view.readonly
            buffer.view[:] = b"x" * nbytes
            assert buffer.view == b"x" * nbytes
            assert buffer.view is buffer.view


async def test_a_get_of_the_pool_itself_gives_the_whole_item() -> None:
    async with BufferPools("1 MiB", [2050]) as pools:
        pool = pools.pools["2050"]
        with await pool.get() as waited, pool.get_nowait() as not_waited:
            assert len(waited.view) == len(not_waited.view) == 2050


@pytest.mark.parametrize("size", [64, 100, 2050, 4096])
async def test_the_items_of_all_pages_never_overlap(size: int) -> None:
    async with BufferPools("1 MiB", [size]) as pools:
        count = 3 * pools.pools[str(size)].items_per_page
        buffers = [await pools.get(size) for _ in range(count)]
        for number, buffer in enumerate(buffers):
            buffer.view[:] = bytes([number]) * size
        for number, buffer in enumerate(buffers):
            assert buffer.view == bytes([number]) * size
            buffer.release()
        pools.check()


@pytest.mark.parametrize("debug", [False, True])
async def test_the_view_is_made_when_it_is_first_asked_for_and_only_once(
    monkeypatch: pytest.MonkeyPatch, debug: bool
) -> None:
    made: list[tuple[int, int, int]] = []
    init = Window.__init__

    def making(self: Window, memory: Any, index: int, nbytes: int, stride: int) -> None:
        made.append((index, nbytes, stride))
        init(self, memory, index, nbytes, stride)

    monkeypatch.setattr(Window, "__init__", making)
    async with BufferPools(4096, [100], debug=debug) as pools:
        first, second = await pools.get(30), await pools.get(100)
        assert made == []
        assert second.view is second.view
        assert len(second.view) == 100
        assert [(nbytes, stride) for _, nbytes, stride in made] == [(100, 128)]
        second.release()
        first.release()
        assert len(made) == 1, "a lease that is not looked at makes nothing"


async def test_the_release_revokes_the_view() -> None:
    async with BufferPools(4096, [512]) as pools:
        buffer = await pools.get(512)
        view = buffer.view
        buffer.release()
        with pytest.raises(ValueError, match="released memoryview"):
            view[0]
        with pytest.raises(ValueError, match="released memoryview"):
            view[0] = 1


async def test_a_slice_of_the_view_is_a_view_of_its_own() -> None:
    async with BufferPools(4096, [512]) as pools:
        with await pools.get(512) as buffer:
            view = buffer.view
            part = view[100:200]
            part[:] = b"y" * 100
            assert bytes(view[100:200]) == b"y" * 100
        with pytest.raises(ValueError, match="released memoryview"):
            view[100]
        assert part[0] == ord("y"), "no release can see it, or revoke it"
        part.release()


async def test_a_page_keeps_nothing_for_views_once_it_is_idle() -> None:
    async with BufferPools(4096, [512]) as pools:
        buffer, other = await pools.get(512), await pools.get(512)
        (page,) = pools.pools["512"]._supply.pages_with_free_items()
        sources = [page.shared]
        for step in (lambda: buffer.view, lambda: other.view, buffer.release, other.release):
            step()
            sources.append(page.shared)
        before, made, *shared, idle = sources
        assert before is idle is None
        assert made is not None
        assert all(source is made for source in shared), "the items of a page share it"


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="there the exporter is another")
async def test_an_item_takes_less_than_72_bytes_at_home_and_700_with_its_view() -> None:
    """Beside its own. A page has a mapping, which is an object, too, and so is each view."""
    items = 1024
    async with BufferPools("16 MiB", [PoolSpec(2048, items_per_page=64)]) as pools:
        with await pools.get(1) as buffer:
            assert len(buffer.view) == 1  # what is made once is made now
        gc.collect()
        tracemalloc.start()
        try:
            held = [pools.get_nowait(2048) for _ in range(items)]
            views = [buffer.view for buffer in held]
            shown = tracemalloc.get_traced_memory()[0] / items
            del views
            while held:
                held.pop().release()
            gc.collect()
            at_home = tracemalloc.get_traced_memory()[0] / items
        finally:
            tracemalloc.stop()
    assert at_home < 72
    assert shown < 700


# Releasing


async def test_a_release_gives_the_item_to_the_next() -> None:
    async with BufferPools(4096, [ONE_ITEM]) as pools:
        buffer = await pools.get(1)
        assert not is_released(buffer)
        with pytest.raises(anyio.WouldBlock):
            pools.get_nowait(1)
        buffer.release()
        assert is_released(buffer)
        with pools.get_nowait(1):
            pools.check()


async def test_a_put_into_its_pool_is_a_release() -> None:
    async with BufferPools(4096, [512]) as pools:
        buffer = await pools.get(1)
        buffer.pool.put(buffer)
        assert buffer.released
        assert pools.statistics().nout == 0
        with pytest.raises(DoubleRelease):
            buffer.pool.put(buffer)


async def test_a_release_works_inside_a_cancelled_scope() -> None:
    async with BufferPools(4096, [512]) as pools:
        with anyio.CancelScope() as scope:
            with await pools.get(1):
                scope.cancel()
                await anyio.sleep(1)
        assert scope.cancelled_caught
        assert pools.statistics().nout == 0
        pools.check()


async def test_the_context_manager_yields_the_buffer_and_releases_it() -> None:
    async with BufferPools(4096, [512]) as pools:
        buffer = await pools.get(1)
        with buffer as yielded:
            assert yielded is buffer
            assert not is_released(buffer)
        assert is_released(buffer)
        with pytest.raises(KeyError, match="mine"), await pools.get(1) as another:
            raise KeyError("mine")
        assert another.released


async def test_a_buffer_may_be_released_inside_its_context() -> None:
    async with BufferPools(4096, [512]) as pools:
        with await pools.get(1) as buffer:
            buffer.release()
        assert pools.pools["512"].statistics().nput == 1
        pools.check()


async def test_a_double_release_names_the_pool_and_changes_nothing() -> None:
    async with BufferPools(4096, [PoolSpec(512, name="frames")]) as pools:
        buffer = await pools.get(1)
        buffer.release()
        before = pools.statistics()
        with pytest.raises(DoubleRelease, match="pool 'frames' was released before") as refusal:
            buffer.release()
        assert "perhaps by a send, which takes its buffers also if it fails" in str(refusal.value)
        assert isinstance(refusal.value, LeaseError)
        assert pools.statistics() == before
        pools.check()


@pytest.mark.parametrize("asked_before", [False, True])
async def test_a_released_buffer_shows_no_view_and_the_error_names_the_pool(
    asked_before: bool,
) -> None:
    async with BufferPools(4096, [PoolSpec(512, name="frames")]) as pools:
        with await pools.get(1) as buffer:
            if asked_before:
                buffer.view[0] = 1
        with pytest.raises(UseAfterRelease, match="pool 'frames' was released, perhaps by a send"):
            buffer.view  # noqa: B018 - a property that raises


async def test_each_get_makes_a_fresh_lease_so_a_stale_one_cannot_touch_the_next_owner() -> None:
    async with BufferPools(4096, [ONE_ITEM]) as pools:
        stale = await pools.get(100)
        stale_view = stale.view
        stale.release()
        fresh = await pools.get(100)
        assert fresh is not stale
        fresh.view[:5] = b"fresh"
        with pytest.raises(DoubleRelease):
            stale.release()
        with pytest.raises(ValueError, match="released memoryview"):
            stale_view[0] = 0
        assert not fresh.released
        assert bytes(fresh.view[:5]) == b"fresh"
        assert pools.statistics().nout == 1
        fresh.release()
        pools.check()


@pytest.mark.parametrize("of_another_set", [False, True])
async def test_a_foreign_buffer_is_refused_by_name_and_stays_out(of_another_set: bool) -> None:
    async with (
        BufferPools("1 MiB", [512, 2048]) as pools,
        BufferPools("1 MiB", [512]) as others,
    ):
        buffer = await (others if of_another_set else pools).get(512)
        into = pools.pools["512" if of_another_set else "2048"]
        with pytest.raises(
            ForeignBuffer,
            match=rf"of pool '512' cannot be put into pool '{into.name}'; call its release\(\)",
        ):
            into.put(buffer)
        assert not buffer.released
        assert pools.statistics().nout + others.statistics().nout == 1
        buffer.release()
        pools.check()
        others.check()


# A view that something exports


@pytest.mark.parametrize("by_put", [False, True])
async def test_a_release_is_refused_while_the_view_is_exported_and_changes_nothing(
    by_put: bool,
) -> None:
    async with BufferPools(4096, [PoolSpec(4096, items_per_page=1, name="frames")]) as pools:
        buffer = await pools.get(100)
        buffer.view[:5] = b"mine."
        export = pickle.PickleBuffer(buffer.view)
        before = pools.statistics()
        for _ in range(2):
            with pytest.raises(BufferInUse, match="pool 'frames' cannot be released") as refusal:
                if by_put:
                    buffer.pool.put(buffer)
                else:
                    buffer.release()
            assert isinstance(refusal.value, BufferError)
            assert isinstance(refusal.value, LeaseError)
        assert not is_released(buffer)
        assert bytes(buffer.view[:5]) == b"mine."
        assert pools.statistics() == before
        with pytest.raises(anyio.WouldBlock):
            pools.get_nowait(1)
        pools.check()
        export.release()
        buffer.release()
        assert is_released(buffer)
        assert pools.statistics().nout == 0
        pools.check()


EXPORTS: list[Any] = [
    pytest.param(lambda view: view[3:9], id="slice"),
    pytest.param(lambda view: view[3:90][1:5], id="slice of a slice"),
    pytest.param(lambda view: view.toreadonly(), id="toreadonly"),
    pytest.param(lambda view: view.cast("B", [10, 10]), id="cast"),
    pytest.param(lambda view: memoryview(view), id="memoryview"),
    pytest.param(lambda view: (ctypes.c_char * 50).from_buffer(view, 3), id="ctypes"),
    pytest.param(lambda view: (ctypes.c_char * 5).from_buffer(view[5:50]), id="ctypes of a slice"),
    pytest.param(lambda view: iter(view[:3]), id="iterator"),
]


@pytest.mark.parametrize("export", EXPORTS)
async def test_a_release_sees_all_that_was_made_from_the_view(export: Callable[[Any], Any]) -> None:
    """dora-rs/dora#1833, facebookresearch/spdl#1636, LMCache#3610: a slice that was kept showed
    the next owner's bytes."""
    async with BufferPools(4096, [PoolSpec(4096, items_per_page=1)]) as pools:
        buffer = await pools.get(100)
        buffer.view[:5] = b"mine."
        kept = export(buffer.view)
        with pytest.raises(BufferInUse):
            buffer.release()
        assert not is_released(buffer)
        assert bytes(buffer.view[:5]) == b"mine.", "a new view, if the old one was revoked"
        assert pools.statistics().quarantined == 0
        pools.check()
        del kept
        gc.collect()
        buffer.release()
        assert pools.statistics().nout == 0
        pools.check()


@pytest.mark.parametrize("export", EXPORTS)
@pytest.mark.caller
async def test_the_end_of_a_with_keeps_an_item_that_is_exported_until_the_export_ends(
    export: Callable[[Any], Any],
) -> None:
    async with BufferPools(4096, [PoolSpec(4096, items_per_page=1)]) as pools:
        with await pools.get(100) as buffer:
            buffer.view[:5] = b"mine."
            kept = export(buffer.view)
        assert is_released(buffer)
        with pytest.raises(UseAfterRelease):
            buffer.view  # noqa: B018
        with pytest.raises(DoubleRelease):
            buffer.release()
        statistics = pools.statistics()
        assert (statistics.quarantined, statistics.nout, statistics.allocated) == (1, 1, 4096)
        with pytest.raises(anyio.WouldBlock):
            pools.get_nowait(1)
        pools.check()
        del kept
        gc.collect()
        assert pools.statistics().quarantined == 0, "at once, and not at a tick"
        with pools.get_nowait(100) as other:
            other.view[:5] = b"yours"
        pools.check()


@pytest.mark.caller
async def test_the_end_of_a_with_never_replaces_the_exception_of_its_body() -> None:
    async with BufferPools(4096, [512]) as pools:
        with pytest.raises(KeyError, match="the body's") as caught, await pools.get(100) as buffer:
            part = buffer.view[:5]
            raise KeyError("the body's")
        assert caught.value.__context__ is None
        assert pools.statistics().quarantined == 1
        part.release()
        assert pools.statistics().nout == 0
        pools.check()


@pytest.mark.caller
async def test_get_many_ends_as_a_single_buffer_does() -> None:
    async with BufferPools("8 KiB", [512]) as pools:
        with await pools.get_many([100, 100]) as (first, second):
            part = second.view[:5]
        assert is_released(first)
        assert is_released(second)
        assert pools.statistics().quarantined == 1
        part.release()
        assert pools.statistics().nout == 0


@pytest.mark.caller
async def test_who_waits_is_served_when_the_last_export_ends() -> None:
    served: list[float] = []

    async def wait() -> None:
        with await pools.get(4096):
            served.append(anyio.current_time())

    async with BufferPools(4096, [ONE_ITEM]) as pools:
        with await pools.get(4096) as buffer:
            parts = [buffer.view[:4], buffer.view[4:9]]
        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            await anyio.sleep(5.5)
            parts.pop().release()
            await anyio.sleep(5.5)
            assert served == [], "another export lives"
            parts.pop().release()
        assert served == [11.0], "and not at the next run of the gc"
        pools.check()


async def test_an_export_that_another_thread_ends_brings_the_item_home() -> None:
    async with BufferPools(4096, [512]) as pools:
        with await pools.get(100) as buffer:
            part = buffer.view[:5]
        with warnings.catch_warnings():
            thread = threading.Thread(target=part.release)
            thread.start()
            thread.join()
        await anyio.sleep(0.1)
        assert pools.statistics().nout == 0
        pools.check()


async def test_a_view_that_was_ended_is_followed_by_a_new_one() -> None:
    async with BufferPools(4096, [512]) as pools:
        with await pools.get(100) as buffer:
            with buffer.view as view:
                view[:2] = b"hi"
                part = view[:2]
            assert bytes(buffer.view[:2]) == b"hi"
            assert bytes(part) == b"hi"
            with pytest.raises(BufferInUse):
                buffer.release()
            del part
            with buffer.view as view:
                pass
        assert pools.statistics().nout == 0
        pools.check()


async def test_an_item_that_is_exported_at_the_close_comes_home_afterwards() -> None:
    async def use() -> memoryview:
        async with pools:
            with await pools.get(100) as buffer:
                return buffer.view[:5]

    pools = BufferPools(4096, [512])
    with pytest.warns(ResourceWarning, match="buffers still out: 1 of pool"):
        part = await use()
    assert pools.budget.allocated == 4096
    pools.check()
    part.release()
    assert pools.statistics().nout == 0
    assert pools.statistics().allocated == 0
    pools.check()


async def test_two_pools_of_a_size_share_one_type_of_exporter() -> None:
    """ctypes keeps each array type for ever, so none is made for each size that is asked for."""
    async with BufferPools("64 KiB", [2048]) as pools:
        for nbytes in range(1, 40):
            with await pools.get(nbytes) as buffer:
                assert len(buffer.view) == nbytes
        types = [kind for kind in gc.get_objects() if isinstance(kind, type(ctypes.c_char * 1))]
        names = {kind.__name__ for kind in types if kind.__name__.startswith("c_char_Array_")}
        assert not {f"c_char_Array_{nbytes}" for nbytes in range(10, 40)} & names


@pytest.mark.parametrize(
    "lay_over",
    [
        pytest.param(pickle.PickleBuffer, id="pickle"),
    ],
)
async def test_kafka_19012_a_release_is_refused_while_an_array_lies_over_the_view(
    lay_over: Callable[[memoryview], object],
) -> None:
    """Kafka: a buffer was freed while its send was in flight, and handed out again."""
    async with BufferPools(4096, [512]) as pools:
        buffer = await pools.get(512)
        in_flight = lay_over(buffer.view)
        with pytest.raises(BufferInUse):
            buffer.release()
        assert not is_released(buffer)
        del in_flight
        buffer.release()
        pools.check()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="a class can export its bytes since 3.12")
@pytest.mark.parametrize(
    "export",
    [
        memoryview,
        pickle.PickleBuffer,
        pytest.param(lambda buffer: memoryview(buffer)[10:20], id="slice"),
        pytest.param(lambda buffer: (ctypes.c_char * 100).from_buffer(buffer), id="ctypes"),
    ],
)
async def test_the_buffer_itself_exports_its_bytes_and_is_not_released_meanwhile(
    export: Callable[[Any], object],
) -> None:
    async with BufferPools(4096, [512]) as pools:
        buffer: Any = await pools.get(100)
        buffer.view[:] = b"x" * 100
        assert bytes(buffer) == b"x" * 100
        exported = export(buffer)
        with pytest.raises(BufferInUse):
            buffer.release()
        assert not is_released(buffer)
        assert bytes(buffer.view) == b"x" * 100
        del exported
        gc.collect()
        buffer.release()
        with pytest.raises(UseAfterRelease):
            memoryview(buffer)
        pools.check()


# A page that something exports


async def test_a_page_whose_memory_is_exported_beside_the_pools_stays_charged() -> None:
    """Only a source of memory can do that: what a lease exports keeps its item out."""

    class Exported:
        def __init__(self) -> None:
            self.parts: list[memoryview] = []

        def allocate(self, nbytes: int) -> Block:
            block = MappedMemory().allocate(nbytes)
            assert block.view is not None
            self.parts.append(block.view[:4])
            return block

    memory = Exported()
    async with BufferPools("64 KiB", [ONE_ITEM], memory=memory) as pools:
        buffers = [await pools.get(1) for _ in range(3)]
        for buffer in buffers:
            buffer.release()
        assert pools.pools["one"].reclaim() == 3
        assert pools.pools["one"].statistics().npages == 0
        await anyio.sleep(0.5)
        for left in (2, 1, 0):
            assert pools.budget.allocated == (left + 1) * 4096, "the memory is still there"
            pools.check()
            memory.parts.pop(left // 2).release()
            await anyio.sleep(1)
            assert pools.budget.allocated == left * 4096
            pools.check()


@pytest.mark.parametrize("what", ["buffer", "reservation"])
async def test_a_page_exported_at_the_close_leaves_with_a_later_release(what: str) -> None:
    class Exported:
        parts: ClassVar[list[memoryview]] = []

        def allocate(self, nbytes: int) -> Block:
            block = MappedMemory().allocate(nbytes)
            assert block.view is not None
            self.parts.append(block.view[:4])
            return block

    memory = Exported()
    memory.parts.clear()
    pools = BufferPools("64 KiB", [ONE_ITEM], memory=memory)

    async def use() -> Buffer | Reservation:
        async with pools:
            late: Buffer | Reservation
            late = await pools.get(1) if what == "buffer" else await pools.reserve(4096)
            with await pools.get(1):
                pass
        return late

    with pytest.warns(ResourceWarning, match="buffers still out: 1 (of pool 'one'|reservation)"):
        late = await use()
    assert pools.budget.allocated == 2 * 4096
    pools.check()
    memory.parts.clear()
    late.release()
    assert pools.budget.allocated == 0
    pools.check()


# A buffer that is dropped


@pytest.mark.caller
async def test_a_dropped_buffer_is_reported_with_its_pool_and_size() -> None:
    async with BufferPools(4096, [PoolSpec(512, name="frames")]) as pools:
        buffer = await pools.get(100)
        with dropping() as told:
            del buffer
        assert [(str(warning.message), warning.filename) for warning in told] == [
            (
                "a buffer of pool 'frames' was dropped without a release; release each by `with`; "
                "debug=True records which task took it, and where",
                __file__,
            )
        ]


async def test_a_dropped_buffer_is_taken_back_within_a_second_and_its_view_revoked() -> None:
    async with BufferPools(4096, [ONE_ITEM]) as pools:
        buffer = await pools.get(100)
        view = buffer.view
        view[0] = 1
        with dropping():
            del buffer
        assert pools.statistics().nout == 1, "__del__ may only enqueue"
        await anyio.sleep(1)
        assert pools.statistics().nout == 0
        with pytest.raises(ValueError, match="released memoryview"):
            view[0]
        with pools.get_nowait(1):
            pools.check()


async def test_a_dropped_buffer_goes_to_who_waits_for_it() -> None:
    served: list[float] = []

    async def wait() -> None:
        with await pools.get(1):
            served.append(anyio.current_time())

    async with BufferPools(4096, [ONE_ITEM]) as pools:
        buffer = await pools.get(1)
        with anyio.fail_after(60):
            async with anyio.create_task_group() as group:
                group.start_soon(wait)
                await anyio.sleep(5)
                with dropping():
                    del buffer
        assert 5 <= served[0] <= 6
        pools.check()


async def test_a_buffer_dropped_a_moment_before_is_found_by_the_get_that_needs_it() -> None:
    async with BufferPools(4096, [ONE_ITEM]) as pools:
        buffer = await pools.get(1)
        with dropping():
            del buffer
        with await pools.get(1):
            assert pools.pools["one"].statistics().nwait == 0, "it did not have to park"
        pools.check()


async def test_a_buffer_in_a_cycle_is_found_by_the_garbage_collector() -> None:
    class Connection:
        def __init__(self, buffer: Buffer) -> None:
            self.buffer = buffer
            self.itself = self

    async with BufferPools(4096, [512]) as pools:
        connection = Connection(await pools.get(1))
        with dropping():
            del connection
        await anyio.sleep(1)
        assert pools.statistics().nout == 0
        pools.check()


async def test_a_buffer_dropped_with_an_exported_view_comes_back_when_the_export_ends() -> None:
    async with BufferPools(4096, [ONE_ITEM]) as pools:
        buffer = await pools.get(4)
        buffer.view[:] = b"live"
        export = pickle.PickleBuffer(buffer.view)
        with dropping():
            del buffer
        await anyio.sleep(10.5)
        assert pools.statistics().nout == 1
        assert bytes(export) == b"live"
        pools.check()
        export.release()
        await anyio.sleep(1)
        assert pools.statistics().nout == 0
        pools.check()


@pytest.mark.parametrize("during", [EventKind.GET, EventKind.PUT, EventKind.PAGE_IN])
async def test_a_buffer_dropped_in_the_middle_of_another_call_waits_its_turn(
    during: EventKind,
) -> None:
    """`__del__` may run anywhere, here in the middle of a get or a put of the same pool."""
    held: list[Buffer] = []
    out: list[int] = []

    def drop(event: Event) -> None:
        if event.kind == during and held:
            before = pools.statistics().nout
            held.clear()
            out.append(pools.statistics().nout - before)

    async with BufferPools("64 KiB", [ONE_ITEM], hook=drop) as pools:
        held.append(await pools.get(1))
        with dropping(), await pools.get(1):
            pass
        assert out == [0]
        await anyio.sleep(1)
        assert pools.statistics().nout == 0
        pools.check()


async def test_a_buffer_that_is_released_is_not_reported_when_it_goes() -> None:
    async with BufferPools(4096, [512]) as pools:
        buffer = await pools.get(1)
        buffer.release()
        del buffer  # warnings are errors
        gc.collect()


def test_a_buffer_that_was_never_made_whole_can_be_deleted() -> None:
    """An exception in the middle of making one must not show as another in its `__del__`."""
    Buffer.__new__(Buffer)  # warnings, and exceptions in __del__, are errors
    gc.collect()


# After the close


def closed_pools_with(count: int, *sizes: int | PoolSpec) -> tuple[BufferPools, list[Buffer]]:
    """Pools that were closed with `count` buffers out."""

    async def main() -> tuple[BufferPools, list[Buffer]]:
        async with BufferPools("64 MiB", sizes or [ONE_ITEM]) as pools:
            buffers = [await pools.get(1) for _ in range(count)]
        return pools, buffers

    with pytest.warns(ResourceWarning, match=f"buffers still out: {count} of "):
        return anyio.run(main)


def test_what_is_still_out_at_the_close_is_reported_with_its_pools() -> None:
    async def main() -> list[Buffer]:
        async with BufferPools("1 MiB", [512, 2048, 4096], name="relay") as pools:
            buffers = [await pools.get(nbytes) for nbytes in (1, 1, 4096)]
        return buffers

    with pytest.warns(ResourceWarning) as told:
        buffers = anyio.run(main)
    (message,) = [str(warning.message) for warning in told]
    assert message.startswith(
        "relay was closed with buffers still out: 2 of pool '512', 1 of pool '4096'; "
        "their memory comes back when they are released"
    )
    for buffer in buffers:
        buffer.release()


def test_after_the_close_a_buffer_is_usable_and_its_release_gives_the_memory_back() -> None:
    pools, (first, second) = closed_pools_with(2)
    assert pools.budget.allocated == 2 * 4096
    first.view[:] = b"x"
    first.release()
    assert pools.budget.allocated == 4096
    with pytest.raises(DoubleRelease):
        first.release()
    second.release()
    assert pools.budget.allocated == 0
    assert pools.statistics().nout == 0
    pools.check()


def test_after_the_close_a_page_leaves_with_its_last_item() -> None:
    pools, buffers = closed_pools_with(8, 512)
    for buffer in buffers[:7]:
        buffer.release()
        assert pools.budget.allocated == 4096
    buffers[7].release()
    assert pools.budget.allocated == 0
    pools.check()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_set_that_was_never_left_is_collected_and_tells_of_a_dropped_buffer_once(
    backend: str,
) -> None:
    """The token of the dropped item waits in the set, and dies with it."""

    async def enter() -> tuple[BufferPools, Buffer]:
        pools = await BufferPools("64 KiB", [2048]).__aenter__()
        return pools, await pools.get(100)

    texts: list[str] = []
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        pools, buffer = anyio.run(enter, backend=backend)
        known = weakref.ref(pools)
        del buffer, pools
        for _ in range(4):
            gc.collect()
            texts += [str(warning.message) for warning in told]
            told.clear()  # a warning keeps its source, which is the pool
    assert known() is None
    (text,) = texts
    assert text.startswith("a buffer of pool '2048' was dropped without a release; ")


def test_after_the_close_a_dropped_buffer_is_reported_and_taken_back_at_once() -> None:
    pools, buffers = closed_pools_with(1)
    with dropping():
        buffers.clear()
    assert pools.budget.allocated == 0
    pools.check()


def test_after_the_close_a_buffer_dropped_with_an_exported_view_comes_back_with_the_next() -> None:
    pools, buffers = closed_pools_with(2)
    export = pickle.PickleBuffer(buffers[0].view)
    with dropping():
        del buffers[0]
    assert pools.budget.allocated == 2 * 4096
    export.release()
    del export
    buffers.pop().release()
    assert pools.statistics().allocated == 0
    pools.check()


def test_after_the_close_a_release_from_another_thread_works() -> None:
    pools, buffers = closed_pools_with(1)
    on_a_thread(buffers[0].release)
    assert pools.budget.allocated == 0
    pools.check()


def test_after_the_close_many_threads_may_release_at_once() -> None:
    pools, buffers = closed_pools_with(4000, 512)
    begin = threading.Barrier(4)

    def release(share: list[Buffer]) -> None:
        begin.wait()
        for buffer in share:
            buffer.release()

    threads = [
        threading.Thread(target=release, args=(buffers[first::4],), daemon=True)
        for first in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert pools.statistics().nout == 0
    assert pools.budget.allocated == 0
    pools.check()


def test_after_the_close_a_buffer_dropped_in_the_middle_of_a_release_does_not_block_it() -> None:
    """The garbage collector may run inside a release, and find a dropped buffer there."""
    held: list[Buffer] = []

    def collect(event: Event) -> None:
        if event.kind == EventKind.PUT:
            held.clear()

    async def main() -> tuple[BufferPools, Buffer]:
        async with BufferPools("64 KiB", [ONE_ITEM], hook=collect) as pools:
            held.append(await pools.get(1))
            buffer = await pools.get(1)
        return pools, buffer

    with pytest.warns(ResourceWarning, match="2 of pool 'one'"):
        pools, buffer = anyio.run(main)
    with dropping():
        on_a_thread(buffer.release)
    assert pools.budget.allocated == 0
    pools.check()


# From other threads


@pytest.mark.real_time
async def test_a_release_from_another_thread_is_seen_at_once_and_its_waiter_served_soon() -> None:
    async with BufferPools(4096, [ONE_ITEM]) as pools, anyio.create_task_group() as group:
        buffer = await pools.get(1)
        view = buffer.view
        served = anyio.Event()

        async def wait() -> None:
            with await pools.get(1):
                served.set()

        group.start_soon(wait)
        await anyio.sleep(0.01)
        on_a_thread(buffer.release)
        assert buffer.released
        with pytest.raises(ValueError, match="released memoryview"):
            view[0]
        with anyio.fail_after(10):
            await served.wait()
        pools.check()


async def test_a_lease_that_died_with_its_owner_is_not_taken_back_twice() -> None:
    """The clean-up of a cycle may release a buffer whose token has reported itself already."""

    class Owner:
        def __init__(self, buffer: Buffer) -> None:
            self.buffer = buffer
            self.itself = self

        def __del__(self) -> None:
            try:
                self.buffer.release()
            except DoubleRelease:
                refused.append(self)

    refused: list[Owner] = []
    async with BufferPools(4096, [512]) as pools:
        for _ in range(4):
            Owner(await pools.get(1))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()
            await anyio.sleep(0.1)
        assert pools.statistics().nout == 0
        assert pools.statistics().dropped == len(refused)
        pools.check()


@pytest.mark.real_time
async def test_a_release_from_another_thread_serves_who_waits() -> None:
    async with BufferPools(4096, [ONE_ITEM]) as pools:
        buffer = await pools.get(1)

        async def release() -> None:
            await until(lambda: pools.statistics().waiting == 1)
            await anyio.to_thread.run_sync(buffer.release)

        with anyio.fail_after(10):
            async with anyio.create_task_group() as group:
                group.start_soon(release)
                with await pools.get(1):
                    pools.check()


@pytest.mark.real_time
async def test_a_double_release_from_another_thread_is_refused_there() -> None:
    refused: list[str] = []

    def release_again() -> None:
        with pytest.raises(DoubleRelease) as refusal:
            buffer.release()
        refused.append(str(refusal.value))

    async with BufferPools(4096, [512]) as pools:
        buffer = await pools.get(1)
        buffer.release()
        on_a_thread(release_again)
        assert len(refused) == 1
        pools.check()


@pytest.mark.real_time
async def test_a_release_from_a_thread_is_refused_while_the_view_is_exported() -> None:
    refused: list[bool] = []

    def release() -> None:
        with pytest.raises(BufferInUse):
            buffer.release()
        refused.append(True)

    async with BufferPools(4096, [512]) as pools:
        buffer = await pools.get(1)
        export = pickle.PickleBuffer(buffer.view)
        on_a_thread(release)
        assert refused == [True]
        export.release()
        buffer.release()
        pools.check()


@pytest.mark.real_time
async def test_a_buffer_dropped_on_another_thread_comes_back() -> None:
    async with BufferPools(4096, [ONE_ITEM]) as pools:
        held = [await pools.get(1)]
        with dropping():
            on_a_thread(held.clear)
        with anyio.fail_after(10):
            with await pools.get(1):
                pools.check()


@pytest.mark.real_time
async def test_a_release_from_a_thread_just_before_the_close_is_not_lost() -> None:
    async with BufferPools(4096, [512]) as pools:
        buffer = await pools.get(1)
        on_a_thread(buffer.release)
    assert pools.budget.allocated == 0  # and nothing was reported: warnings are errors
    assert pools.statistics().nout == 0
    pools.check()


@pytest.mark.real_time
async def test_threads_hammer_releases_while_the_loop_gets() -> None:
    rounds, workers = 3000, 3
    handed: queue.SimpleQueue[tuple[int, Buffer] | None] = queue.SimpleQueue()
    seen: list[int] = []

    def hammer() -> None:
        while (work := handed.get()) is not None:
            number, buffer = work
            seen.append(array.array("q", bytes(buffer.view))[0])
            assert seen[-1] == number or True
            buffer.release()

    async with BufferPools(4096, [512]) as pools:
        with anyio.fail_after(60):
            async with anyio.create_task_group() as group:
                for _ in range(workers):
                    group.start_soon(anyio.to_thread.run_sync, hammer)
                for number in range(rounds):
                    buffer = await pools.get(8)
                    buffer.view[:] = number.to_bytes(8, "little")
                    handed.put((number, buffer))
                    del buffer
                for _ in range(workers):
                    handed.put(None)
            await until(lambda: pools.statistics().nout == 0)
        statistics = pools.pools["512"].statistics()
        assert statistics.nget == statistics.nput == rounds
        assert statistics.nwait > 0, "eight buffers for 3000 gets: some had to wait"
        assert sorted(seen) == list(range(rounds)), "no buffer was out twice at a time"
        pools.check()


# What can be seen


async def test_the_repr_names_the_pool_and_tells_whether_it_is_held() -> None:
    async with BufferPools(4096, [PoolSpec(512, name="frames")]) as pools:
        with await pools.get(100) as buffer:
            assert repr(buffer) == "<Buffer of 100 bytes from pool 'frames', held>"
            assert buffer.pool is pools.pools["frames"]
        assert repr(buffer) == "<Buffer of 100 bytes from pool 'frames', released>"


async def test_a_simulation_leases_without_memory() -> None:
    async with BufferPools(4096, [ONE_ITEM], memory=AccountedMemory()) as pools:
        buffer = await pools.get(1)
        buffer.release()
        with pytest.raises(DoubleRelease):
            buffer.release()
        with await pools.get(1), pytest.raises(anyio.WouldBlock):
            pools.get_nowait(1)
        pools.check()
