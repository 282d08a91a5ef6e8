"""A forked child has a copy of everything, and must not disturb its parent."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import warnings
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import pytest

from mbufpools import Buffer, BufferPools, MappedMemory, PoolSpec, Task, TaskQueue

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def in_a_child(look: Callable[[], object]) -> Any:
    """Return what `look` returns in a forked child, or the type and text of its exception."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of 3.12, if a thread is left over
        pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(10)  # a child that hangs is ended, and its parent reads an empty answer
            try:
                answer = look()
            except RuntimeError as error:
                answer = (type(error).__name__, str(error))
            os.write(writing, pickle.dumps(answer))
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        answered = pipe.read()
    os.waitpid(pid, 0)
    return pickle.loads(answered)


def begin(coroutine: Coroutine[Any, Any, object]) -> None:
    """Run `coroutine` to its first pause, as the child has no loop to run it."""
    try:
        coroutine.send(None)
    finally:
        coroutine.close()


def test_what_a_child_writes_does_not_reach_its_parent() -> None:
    """The default mapping of Python is shared: the child would write into its parent."""
    block = MappedMemory().allocate(4096)
    view = block.view
    assert view is not None
    view[:5] = b"mine."

    def write() -> bytes:
        before = bytes(view[:5])
        view[:5] = b"yours"
        return before + bytes(view[:5])

    assert in_a_child(write) == b"mine.yours"
    assert bytes(view[:5]) == b"mine."
    view.release()
    assert block.unmap()


async def test_a_get_in_a_child_is_refused() -> None:
    async with BufferPools(4096, [512], name="frames") as pools:
        refusal = (
            "UsageError",
            "frames was entered before this process was forked; make a new pool set here",
        )
        assert in_a_child(lambda: pools.get_nowait(1)) == refusal
        assert in_a_child(lambda: begin(pools.get(1))) == refusal
        assert in_a_child(lambda: pools.pools["512"].prime(1)) == refusal
        look = pools.statistics
        assert in_a_child(lambda: str(look())) == str(look()), "looking is allowed"
        with await pools.get(1):
            pools.check()


async def test_a_child_may_make_pools_of_its_own() -> None:
    async def use() -> int:
        async with BufferPools(4096, [512]) as pools:
            buffer = await pools.get(100)
            buffer.release()
        return pools.statistics().pools["512"].nget

    def run() -> int:
        # The child begins inside its parent's loop; a fresh thread is inside of none.
        with ThreadPoolExecutor(1) as executor:
            return executor.submit(anyio.run, use).result()

    async with BufferPools(4096, [512]):
        assert in_a_child(run) == 1


async def test_a_release_in_a_child_does_not_touch_the_parent() -> None:
    async with BufferPools(4096, [PoolSpec(4096, items_per_page=1, name="p")]) as pools:
        buffer = await pools.get(4096)
        buffer.view[:6] = b"parent"

        def release() -> tuple[bool, int, int]:
            buffer.release()
            return buffer.released, pools.statistics().nout, pools.budget.allocated

        assert in_a_child(release) == (True, 0, 0), "the child has let go of its copy"
        assert not buffer.released
        assert bytes(buffer.view[:6]) == b"parent"
        assert pools.statistics().nout == 1
        assert pools.budget.allocated == 4096
        with pytest.raises(anyio.WouldBlock):
            pools.get_nowait(1)
        buffer.release()
        pools.check()


async def test_a_buffer_dropped_in_a_child_does_not_touch_the_parent() -> None:
    async with BufferPools(4096, [512]) as pools:
        held = [await pools.get(512)]

        def drop() -> tuple[int, list[str]]:
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                held.clear()
                gc.collect()
                return pools.statistics().nout, [warning.category.__name__ for warning in told]

        assert in_a_child(drop) == (0, ["ResourceWarning"])
        await anyio.sleep(2)
        assert pools.statistics().nout == 1
        held.pop().release()
        pools.check()


async def test_what_waits_in_the_parent_is_not_served_by_a_release_in_the_child() -> None:
    served: list[Buffer] = []

    async def wait() -> None:
        served.append(await pools.get(4096))

    async with BufferPools(4096, [PoolSpec(4096, items_per_page=1)]) as pools:
        buffer = await pools.get(4096)
        with anyio.fail_after(60):
            async with anyio.create_task_group() as group:
                group.start_soon(wait)
                await anyio.sleep(1)
                in_a_child(buffer.release)
                await anyio.sleep(1)
                assert served == []
                buffer.release()
        served.pop().release()
        pools.check()


async def test_a_task_queue_takes_nothing_in_a_child() -> None:
    task = Task(lambda: None)
    async with TaskQueue("systq") as queue:
        queue.add_later(task, 1)
        refusal = (
            "UsageError",
            "task queue 'systq' was entered before this process was forked; "
            "make a new pool set here",
        )
        assert in_a_child(lambda: queue.add(task)) == refusal
        assert in_a_child(lambda: queue.add_later(task, 1)) == refusal
        assert in_a_child(lambda: begin(queue.barrier())) == refusal
        await anyio.sleep(2)
        assert task.runs == 1
