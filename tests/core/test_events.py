"""The event hook: each step is told once, with the right words and numbers, and costs nothing."""

from __future__ import annotations

import logging
from collections import Counter

import anyio
import pytest

from mbufpools import (
    AccountedMemory,
    BufferPools,
    Event,
    EventKind,
    MbufPools,
    PoolSpec,
    PoolsStatistics,
    Task,
    TaskQueue,
)
from tests.kit.memory import ExportedMemory

SIZES = [PoolSpec(4096, items_per_page=1, name="a"), PoolSpec(8192, items_per_page=1, name="b")]


def two_pools(hook: object = None) -> BufferPools:
    """Room for one `b` or two `a`."""
    assert hook is None or callable(hook)
    return BufferPools(8192, SIZES, memory=AccountedMemory(), wakeup="deferred", hook=hook)


def without_gc(events: list[Event]) -> list[Event]:
    return [event for event in events if event.name != "gc"]


async def test_each_step_of_an_item_and_its_page_is_told() -> None:
    events: list[Event] = []
    await anyio.sleep(7)  # the times count from the entry
    async with two_pools(events.append) as pools:
        first = await pools.get(100)
        await anyio.sleep(0.5)
        first.release()
        pools.pools["a"].reclaim()
        second = pools.get_nowait(4096)
        second.release()
        await pools.taskq.barrier()
    assert without_gc(events) == [
        Event(EventKind.PAGE_IN, 0.0, "a", 4096, 0),
        Event(EventKind.GET, 0.0, "a", 100, 0),
        Event(EventKind.PUT, 0.5, "a", 100, 0),
        Event(EventKind.PAGE_OUT, 0.5, "a", 4096, 0),
        Event(EventKind.QUEUED, 0.5, "wakeup", 0, 0),
        Event(EventKind.PAGE_IN, 0.5, "a", 4096, 0),
        Event(EventKind.GET, 0.5, "a", 4096, 0),
        Event(EventKind.PUT, 0.5, "a", 4096, 0),
        Event(EventKind.QUEUED, 0.5, "barrier", 0, 0),
        Event(EventKind.RUN, 0.5, "wakeup", 0, 0),
        Event(EventKind.RUN, 0.5, "barrier", 0, 0),
        Event(EventKind.PAGE_OUT, 0.5, "a", 4096, 0),
    ]


async def test_a_wait_is_told_with_its_number_and_then_its_grant() -> None:
    events: list[Event] = []

    async def wait(nbytes: int) -> None:
        with await pools.get(nbytes):
            pass

    async with two_pools(events.append) as pools:
        first, second = await pools.get(1), await pools.get(2)
        with anyio.fail_after(60):
            async with anyio.create_task_group() as group:
                await anyio.sleep(0.25)
                group.start_soon(wait, 3)
                await anyio.sleep(0.25)
                group.start_soon(wait, 4)
                await anyio.sleep(0.25)
                second.release()
                first.release()
    told = [event for event in events if event.kind in ("wait", "grant", "cancel")]
    assert told == [
        Event(EventKind.WAIT, 0.25, "a", 3, 1),
        Event(EventKind.WAIT, 0.5, "a", 4, 2),
        Event(EventKind.GRANT, 0.75, "a", 3, 1),
        Event(EventKind.GRANT, 0.75, "a", 4, 2),
    ]
    kinds = Counter(event.kind for event in events)
    assert kinds[EventKind.GET] == 2, "a get that had to wait is told as a grant"
    assert kinds[EventKind.PUT] == 4


async def test_a_grant_by_a_page_that_left_is_told_after_all_that_led_to_it() -> None:
    events: list[Event] = []

    async def wait() -> None:
        with await pools.get(5000):
            pass

    async with two_pools(events.append) as pools:
        buffer = await pools.get(1)
        with anyio.fail_after(60):
            async with anyio.create_task_group() as group:
                group.start_soon(wait)
                await anyio.sleep(0.5)
                buffer.release()
                pools.pools["a"].reclaim()
    assert [(event.kind, event.name) for event in without_gc(events)][2:9] == [
        ("wait", "b"),
        ("put", "a"),
        ("page out", "a"),
        ("queued", "wakeup"),
        ("run", "wakeup"),
        ("page in", "b"),
        ("grant", "b"),
    ]


async def test_pages_that_leave_because_somebody_waits_are_told_after_the_wait() -> None:
    events: list[Event] = []
    async with two_pools(events.append) as pools:
        with await pools.get(1):
            pools.pools["a"].prime(1)
            events.clear()
            with anyio.move_on_after(0.25):
                await pools.get(8192)
    assert [(event.kind, event.name) for event in without_gc(events)][:3] == [
        ("wait", "b"),
        ("page out", "a"),
        ("queued", "wakeup"),
    ]


async def test_a_cancelled_wait_is_told_with_its_number() -> None:
    events: list[Event] = []
    async with two_pools(events.append) as pools:
        with await pools.get(8192):
            with anyio.move_on_after(0.25):
                await pools.get(7)
            with anyio.move_on_after(0.25):
                await pools.get(8192)
    told = [event for event in events if event.kind in ("wait", "grant", "cancel")]
    assert told == [
        Event(EventKind.WAIT, 0.0, "a", 7, 1),
        Event(EventKind.CANCEL, 0.25, "a", 7, 1),
        Event(EventKind.WAIT, 0.25, "b", 8192, 2),
        Event(EventKind.CANCEL, 0.5, "b", 8192, 2),
    ]


@pytest.mark.parametrize("nowait", [True, False])
async def test_what_is_served_at_once_by_a_reclaim_is_told_once_and_as_a_get(nowait: bool) -> None:
    events: list[Event] = []
    async with BufferPools(
        8192, SIZES, memory=AccountedMemory(), reclaim="pressure", hook=events.append
    ) as pools:
        with await pools.get(1):
            pass
        events.clear()
        with pools.get_nowait(5000) if nowait else await pools.get(5000):
            pass
    told = [(event.kind, event.name, event.request) for event in without_gc(events)]
    assert [step for step in told if step[0] in ("get", "wait", "grant")] == [("get", "b", 0)]


async def test_two_page_frees_before_the_wakeup_runs_are_told_as_coalesced() -> None:
    events: list[Event] = []
    async with two_pools(events.append) as pools:
        for buffer in [await pools.get(1), await pools.get(1)]:
            buffer.release()
        pools.pools["a"].reclaim()
        await pools.taskq.barrier()
    assert [event.kind for event in events if event.name == "wakeup"] == [
        EventKind.QUEUED,
        EventKind.COALESCED,
        EventKind.RUN,
    ]


async def test_the_gc_is_told_each_second() -> None:
    events: list[Event] = []
    async with two_pools(events.append):
        await anyio.sleep(3.5)
    assert events == [
        event
        for second in (1.0, 2.0, 3.0)
        for event in (
            Event(EventKind.QUEUED, second, "gc", 0, 0),
            Event(EventKind.RUN, second, "gc", 0, 0),
        )
    ]


async def test_the_pages_of_a_minimum_are_told_at_the_entry_and_at_the_close() -> None:
    events: list[Event] = []
    async with BufferPools("1 MiB", [PoolSpec(512, min_items=9)], hook=events.append):
        pass
    assert events == [
        Event(EventKind.PAGE_IN, 0.0, "512", 4096, 0),
        Event(EventKind.PAGE_IN, 0.0, "512", 4096, 0),
        Event(EventKind.PAGE_OUT, 0.0, "512", 4096, 0),
        Event(EventKind.PAGE_OUT, 0.0, "512", 4096, 0),
    ]


async def test_a_page_that_leaves_the_quarantine_is_told_then_and_by_its_pools_name() -> None:
    events: list[Event] = []
    memory = ExportedMemory()
    async with BufferPools(4096, [SIZES[0]], hook=events.append, memory=memory) as pools:
        (await pools.get(1)).release()
        pools.pools["a"].reclaim()
        await anyio.sleep(1.5)
        assert EventKind.PAGE_OUT not in [event.kind for event in events]
        memory.parts.clear()
        await anyio.sleep(1)
    assert [event for event in events if event.kind == EventKind.PAGE_OUT] == [
        Event(EventKind.PAGE_OUT, 2.0, "a", 4096, 0)
    ]


async def test_the_kernels_set_tells_with_the_kernels_names() -> None:
    events: list[Event] = []
    async with MbufPools(1024, memory=AccountedMemory(), hook=events.append) as pools:
        with await pools.get(200), await pools.m_clpool(2049).get():
            pass
    assert [(event.name, event.nbytes) for event in events if event.kind == "get"] == [
        ("mbufpl", 200),
        ("mcl2k2", 2112),
    ]


async def test_the_budget_is_as_after_the_step_when_it_is_told() -> None:
    seen: list[tuple[str, int]] = []

    def look(event: Event) -> None:
        if event.kind in (EventKind.PAGE_IN, EventKind.PAGE_OUT):
            seen.append((event.kind, pools.budget.allocated))

    async with two_pools(look) as pools:
        with await pools.get(1):
            pass
        pools.pools["a"].reclaim()
    assert seen == [("page in", 4096), ("page out", 0)]


async def test_the_items_are_as_after_the_step_when_it_is_told() -> None:
    seen: list[tuple[str, int, int]] = []

    def look(event: Event) -> None:
        if event.name == "a":
            now = pools.pools["a"].statistics()
            seen.append((event.kind, now.nout, now.waiting))

    async def wait() -> None:
        with await pools.get(1):
            pass

    async with two_pools(look) as pools:
        pools.pools["a"].set_hard_limit(1)
        async with anyio.create_task_group() as group:
            with await pools.get(1):
                group.start_soon(wait)
                await anyio.sleep(0.5)
                with anyio.move_on_after(0.1):
                    await pools.get(1)
    assert [step for step in seen if step[0] not in ("page in", "page out")] == [
        ("get", 1, 0),
        ("wait", 1, 1),
        ("wait", 1, 2),
        ("cancel", 1, 1),
        ("put", 0, 1),
        ("grant", 1, 0),
        ("put", 0, 0),
    ]


# A hook that fails, and none


class Broken:
    """A hook that raises each time, and counts."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, event: Event) -> None:
        self.calls += 1
        raise KeyError(f"cannot note a {event.kind}")

    def __repr__(self) -> str:
        return "<the broken hook>"


async def test_a_hook_that_raises_is_logged_and_breaks_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hook = Broken()
    with caplog.at_level(logging.ERROR, "mbufpools"):
        async with two_pools(hook) as pools:
            with await pools.get(1), await pools.get(1):
                assert pools.statistics().nout == 2
            pools.check()
    record = caplog.records[0]
    assert record.name == "mbufpools"
    assert record.getMessage() == "the event hook <the broken hook> raised and has been removed"
    assert "cannot note a page in" in caplog.text


async def test_a_hook_that_raises_is_called_no_more_by_the_set_nor_by_its_task_queue(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hook = Broken()
    with caplog.at_level(logging.ERROR, "mbufpools"):
        async with two_pools(hook) as pools:
            with await pools.get(1):
                pass
            pools.pools["a"].reclaim()
            await pools.taskq.barrier()
    assert hook.calls == 1
    assert len(caplog.records) == 1


async def test_a_queue_runs_its_tasks_though_its_hook_raises(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hook = Broken()
    task = Task(lambda: None)
    with caplog.at_level(logging.ERROR, "mbufpools"):
        async with TaskQueue(hook=hook) as queue:
            queue.add(task)
            await queue.barrier()
    assert task.runs == 1
    assert hook.calls == 1
    assert len(caplog.records) == 1


async def _some_traffic(pools: BufferPools) -> PoolsStatistics:
    async def wait() -> None:
        with anyio.move_on_after(1.25), await pools.get(5000):
            await anyio.sleep(0.1)

    async with pools:
        buffers = [await pools.get(1), await pools.get(1)]
        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            for buffer in buffers:
                await anyio.sleep(0.3)
                buffer.release()
            pools.pools["a"].reclaim()
            await anyio.sleep(0.25)
            group.start_soon(wait)
        await pools.taskq.barrier()
        pools.check()
    return pools.statistics()


async def test_a_hook_changes_nothing_of_what_it_sees() -> None:
    events: list[Event] = []
    seen = await _some_traffic(two_pools(events.append))
    assert await _some_traffic(two_pools()) == seen
    assert len(events) > 10


async def test_without_a_hook_no_event_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError(f"an event was made for nobody: {args}")

    monkeypatch.setattr("mbufpools._events.Event", refuse)
    await _some_traffic(two_pools())


def test_the_kinds_are_the_words_of_the_design() -> None:
    assert [str(kind) for kind in EventKind] == [
        "get",
        "put",
        "wait",
        "grant",
        "cancel",
        "drop",
        "page in",
        "page out",
        "queued",
        "coalesced",
        "run",
    ]
