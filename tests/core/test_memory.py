"""Where pages come from: real mappings, accounting only, and what happens when there is none."""

from __future__ import annotations

import importlib.util
import pickle
import resource
import subprocess
import sys
from multiprocessing import shared_memory
from pathlib import Path
from typing import Any

import anyio
import pytest

from mbufpools import (
    AccountedMemory,
    Block,
    BufferPools,
    ConfigurationError,
    Event,
    EventKind,
    MappedMemory,
    Memory,
    Order,
    PoolSpec,
    UsageError,
)
from tests.kit.getters import one_item_a_page
from tests.kit.memory import memory_of

STATM = Path("/proc/self/statm")


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(STATM.read_text("ascii").split()[1]) * resource.getpagesize()


class Refusing:
    """Accounted memory that has no page at the given calls, counted from 1."""

    def __init__(self, *refused: int) -> None:
        self.refused = refused
        self.calls = 0

    def allocate(self, nbytes: int) -> Block:
        self.calls += 1
        if self.calls in self.refused:
            raise MemoryError(f"no page of {nbytes} bytes at call {self.calls}")
        return AccountedMemory().allocate(nbytes)


# Mappings


@pytest.mark.parametrize("nbytes", [4096, 16384, 524288])
def test_a_mapped_page_is_zero_and_writable_from_end_to_end(nbytes: int) -> None:
    block = MappedMemory().allocate(nbytes)
    assert block.view is not None
    assert not block.view.readonly
    assert block.view == bytes(nbytes)
    block.view[:] = b"\xff" * nbytes
    assert block.view == b"\xff" * nbytes
    assert block.unmap()
    fresh = MappedMemory().allocate(nbytes)
    assert fresh.view is not None
    assert fresh.view == bytes(nbytes), "the next one is zero again"


def test_an_unmapped_page_shows_nothing_and_may_be_unmapped_again() -> None:
    block = MappedMemory().allocate(4096)
    views = [block.view is not None]
    assert block.unmap()
    views.append(block.view is not None)
    assert views == [True, False]
    assert block.unmap()


def test_a_page_is_not_unmapped_while_a_part_of_it_is_exported_and_is_later() -> None:
    block = MappedMemory().allocate(4096)
    assert block.view is not None
    part = block.view[100:200]
    part[:] = b"x" * 100
    assert not block.unmap()
    assert not block.unmap()
    assert bytes(part) == b"x" * 100, "it is still there"
    part.release()
    assert block.unmap()


def test_a_page_is_not_unmapped_while_its_own_view_is_exported_and_is_later() -> None:
    block = MappedMemory().allocate(4096)
    assert block.view is not None
    export = pickle.PickleBuffer(block.view)
    assert not block.unmap()
    assert block.view is not None
    assert block.view[0] == 0, "a refused unmap has changed nothing"
    export.release()
    assert block.unmap()


def test_a_page_that_the_system_refuses_is_a_memory_error_that_says_what_to_do() -> None:
    with pytest.raises(MemoryError) as refusal:
        MappedMemory().allocate(1 << 62)
    message = str(refusal.value)
    assert f"the operating system refused a page of {1 << 62} bytes" in message
    assert "lower the limit of the pools" in message


@pytest.mark.skipif(not STATM.exists(), reason="needs /proc/self/statm")
async def test_pages_that_leave_are_given_back_to_the_system() -> None:
    mib = 1 << 20
    content = b"x" * mib
    async with BufferPools("64 MiB", [PoolSpec(mib, items_per_page=1)]) as pools:
        before = resident()
        buffers = [pools.get_nowait(mib) for _ in range(48)]
        assert resident() - before < 8 * mib, "what nobody has written to takes no memory"
        for buffer in buffers:
            buffer.view[:] = content
        assert resident() - before > 40 * mib
        for buffer in buffers:
            buffer.release()
        pools.pools[str(mib)].reclaim()
        assert pools.budget.allocated == 0
        assert resident() - before < 8 * mib
        pools.check()


@pytest.mark.skipif(not STATM.exists(), reason="needs /proc/self/statm")
async def test_closed_pools_have_given_their_idle_pages_back_to_the_system() -> None:
    mib = 1 << 20
    content = b"x" * mib
    before = resident()
    async with BufferPools("64 MiB", [PoolSpec(mib, items_per_page=1)]) as pools:
        buffers = [pools.get_nowait(mib) for _ in range(48)]
        for buffer in buffers:
            buffer.view[:] = content
            buffer.release()
    assert pools.budget.allocated == 0
    assert resident() - before < 8 * mib


# Accounting only


async def test_accounted_memory_counts_terabytes_without_having_them() -> None:
    sizes = [PoolSpec("64 GiB", items_per_page=1, name="huge"), PoolSpec(2048, name="small")]
    async with BufferPools("1 TiB", sizes, memory=AccountedMemory()) as pools:
        buffers = [await pools.get(64 << 30) for _ in range(16)]
        assert pools.budget.allocated == 1 << 40
        with pytest.raises(anyio.WouldBlock):
            pools.get_nowait(1)
        for buffer in buffers:
            buffer.release()
        pools.check()


async def test_a_buffer_without_memory_says_so_when_it_is_asked_for_its_view() -> None:
    async with BufferPools(4096, [512], memory=AccountedMemory()) as pools:
        with await pools.get(100) as buffer:
            assert buffer.nbytes == 100
            with pytest.raises(UsageError) as refusal:
                buffer.view  # noqa: B018 - a property that raises
        message = str(refusal.value)
        assert "pool '512' only accounts for memory" in message
        assert "memory=MappedMemory()" in message


def test_both_kinds_of_memory_keep_the_protocol() -> None:
    kinds: list[Memory] = [MappedMemory(), AccountedMemory(), Refusing()]
    for memory in kinds:
        assert memory.allocate(4096).unmap()


# Memory of another author

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "memory.py"


def example() -> Any:
    spec = importlib.util.spec_from_file_location("memory_example", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_example_in_the_documents_runs() -> None:
    run = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLE)], capture_output=True, text=True, check=False
    )
    expected = "hello through shared memory\nhello through an array\n"
    assert (run.returncode, run.stdout, run.stderr) == (0, expected, "")


@pytest.mark.parametrize("source", ["SharedPages", "ArrayPages"])
async def test_pools_work_on_the_memory_of_the_example(source: str) -> None:
    memory = getattr(example(), source)()
    sizes = [PoolSpec(4096, items_per_page=1), PoolSpec(8192, items_per_page=1)]
    async with BufferPools(8192, sizes, memory=memory, debug=True, name=source) as pools:
        for _ in range(2):
            small = [await pools.get(4096) for _ in range(2)]
            for buffer in small:
                buffer.view[:] = b"x" * 4096
                buffer.release()
            with await pools.get(8192) as large:  # the two idle pages leave for it
                large.view[:] = b"y" * 8192
                assert bytes(large.view) == b"y" * 8192
            pools.check()
    assert pools.budget.allocated == 0


@pytest.mark.parametrize("source", ["SharedPages", "ArrayPages"])
async def test_a_page_of_the_example_stays_charged_while_something_exports_it(source: str) -> None:
    memory = getattr(example(), source)()
    async with BufferPools(4096, [one_item_a_page()], memory=memory) as pools:
        with await pools.get(4096) as buffer:
            kept = memory_of(buffer)[:10]
            kept[:] = b"0123456789"
        assert pools.pools["4096"].reclaim() == 1
        assert pools.budget.allocated == 4096
        assert bytes(kept) == b"0123456789"
        kept.release()
        await anyio.sleep(2)  # the gc tries it again
        assert pools.budget.allocated == 0
        pools.check()


async def test_a_segment_of_the_example_is_gone_once_its_page_has_left() -> None:
    memory = example().SharedPages()
    async with BufferPools(4096, [one_item_a_page()], memory=memory) as pools:
        with await pools.get(4096):
            (name,) = memory.segments
        pools.pools["4096"].reclaim()
        with pytest.raises(FileNotFoundError):
            shared_memory.SharedMemory(name=name)


class Page:
    """A block with any view; it notes whether it was given back."""

    def __init__(self, view: Any) -> None:
        self.view = view
        self.unmapped = False

    def unmap(self) -> bool:
        self.unmapped = True
        return True


class Gives:
    """A source that gives one thing, whatever is asked for."""

    def __init__(self, block: Any) -> None:
        self.block = block

    def allocate(self, nbytes: int) -> Any:
        return self.block

    def __repr__(self) -> str:
        return "Gives()"


@pytest.mark.parametrize(
    ("view", "error", "telling"),
    [
        pytest.param(
            memoryview(bytearray(4095)),
            ConfigurationError,
            "has 4095 bytes; expected 4096; cut it to the size asked for",
            id="size",
        ),
        pytest.param(
            memoryview(bytes(4096)),
            ConfigurationError,
            "is read-only; expected a writable one",
            id="read-only",
        ),
        pytest.param(
            memoryview(bytearray(8192))[::2],
            ConfigurationError,
            "is not contiguous; expected one piece of memory",
            id="contiguous",
        ),
        pytest.param(
            memoryview(bytearray(4096)).cast("I"),
            ConfigurationError,
            "has format 'I' in 1 dimension(s); expected single bytes in one; use its cast('B')",
            id="format",
        ),
        pytest.param(
            memoryview(bytearray(4096)).cast("B", (64, 64)),
            ConfigurationError,
            "has format 'B' in 2 dimension(s)",
            id="shape",
        ),
        pytest.param(
            bytearray(8), TypeError, "expected a memoryview or None; wrap the object", id="object"
        ),
    ],
)
async def test_an_unfit_view_is_answered_with_what_is_wrong_expected_and_to_do(
    view: Any, error: type[Exception], telling: str
) -> None:
    page = Page(view)
    async with BufferPools(4096, [512], memory=Gives(page)) as pools:
        with pytest.raises(error) as refusal:
            await pools.get(512)
        message = str(refusal.value)
        assert message.startswith("the view of the page that Gives() allocated for pool '512' ")
        assert telling in message
        assert page.unmapped is (error is ConfigurationError)
        assert pools.budget.allocated == 0, "its charge was refunded"
        pools.check()


@pytest.mark.parametrize("block", [None, bytearray(4096), memoryview(bytearray(4096))])
async def test_what_is_no_block_is_answered_with_what_a_block_has(block: Any) -> None:
    async with BufferPools(4096, [512], memory=Gives(block)) as pools:
        with pytest.raises(TypeError, match=r"expected a Block, which has a `view` and an `unmap"):
            pools.get_nowait(512)
        assert pools.budget.allocated == 0
        pools.check()


def test_the_blocks_of_every_memory_keep_the_protocol() -> None:
    for memory in (MappedMemory(), AccountedMemory(), Gives(Page(None))):
        assert isinstance(memory, Memory)
        assert isinstance(memory.allocate(4096), Block)
        assert memory.allocate(4096).unmap()


# No memory


@pytest.mark.parametrize("nowait", [True, False])
async def test_a_get_that_the_system_refuses_fails_and_its_charge_is_refunded(nowait: bool) -> None:
    events: list[Event] = []
    async with BufferPools(4096, [512], memory=Refusing(1), hook=events.append) as pools:
        with pytest.raises(MemoryError, match="no page of 4096 bytes at call 1"):
            pools.get_nowait(512) if nowait else await pools.get(512)
        assert pools.budget.allocated == 0
        assert pools.budget.drops == 0, "the budget did not refuse it"
        statistics = pools.pools["512"].statistics()
        assert (statistics.nget, statistics.nout, statistics.npages) == (0, 0, 0)
        assert EventKind.PAGE_IN not in [event.kind for event in events]
        pools.check()
        with await pools.get(512):  # the whole budget is there for the next one
            assert pools.budget.allocated == 4096


@pytest.mark.parametrize("order", list(Order))
async def test_a_page_refused_while_the_requests_run_fails_only_the_waiter_it_was_for(
    order: Order,
) -> None:
    ledger: list[str] = []
    sizes = [PoolSpec(4096, items_per_page=1, name="a"), PoolSpec(8192, items_per_page=1, name="b")]

    async def wait(name: str) -> None:
        try:
            with await pools.get(4096):
                ledger.append(f"{name} served")
                await anyio.sleep(1)
        except MemoryError as error:
            ledger.append(f"{name}: {error}")

    async with BufferPools(
        8192, sizes, memory=Refusing(2), order=order, reclaim="gc", wakeup="none"
    ) as pools:
        holds_all = await pools.get(8192)
        with anyio.fail_after(60):
            async with anyio.create_task_group() as group:
                for name in ("first", "second", "third"):
                    group.start_soon(wait, name)
                    await anyio.sleep(0.1)
                assert pools.statistics().waiting == 3
                holds_all.release()
                pools.pools["b"].reclaim()
                pools.pools["a"].wakeup()
        assert sorted(ledger) == [
            "first: no page of 4096 bytes at call 2",
            "second served",
            "third served",
        ]
        assert pools.budget.allocated == 8192, "two pages: the charge for the third was refunded"
        pools.check()


async def test_a_prime_that_the_system_refuses_keeps_what_it_got_and_refunds_the_rest() -> None:
    async with BufferPools("1 MiB", [512], memory=Refusing(3)) as pools:
        pool = pools.pools["512"]
        with pytest.raises(MemoryError, match="call 3"):
            pool.prime(40)
        assert pool.statistics().npages == 2
        assert pools.budget.allocated == 2 * 4096
        pools.check()
        assert pool.prime(8) == 8


async def test_pools_whose_minimum_the_system_refuses_are_not_entered_and_hold_nothing() -> None:
    pools = BufferPools("1 MiB", [512, PoolSpec(1024, min_items=9)], memory=Refusing(2))
    with pytest.raises(MemoryError, match="call 2"):
        async with pools:
            pytest.fail("the body must not run")
    assert pools.budget.allocated == 0
    pools.check()
    with pytest.raises(anyio.ClosedResourceError):
        await pools.get(512)


class BrokenBlock:
    """A block whose `unmap` raises until it is mended."""

    mended = False

    def __init__(self, block: Block) -> None:
        self._block = block

    @property
    def view(self) -> memoryview | None:
        return self._block.view

    def unmap(self) -> bool:
        if not type(self).mended:
            raise OSError("the memory cannot be unmapped")
        return self._block.unmap()


class BrokenMemory:
    def allocate(self, nbytes: int) -> Block:
        return BrokenBlock(MappedMemory().allocate(nbytes))


async def test_an_unmap_that_raises_is_told_once_and_tried_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with BufferPools("1 MiB", [4096], memory=BrokenMemory()) as pools:
        buffers = [await pools.get(4096) for _ in range(40)]
        allocated = pools.statistics().allocated
        for buffer in buffers:
            buffer.release()
        assert [pool.reclaim() for pool in pools.pools.values()] != [0]
        pools.check()
        assert pools.statistics().allocated == allocated, "the pages stay charged"
        (record,) = caplog.records
        assert "cannot be unmapped and stays charged" in record.getMessage()
        with await pools.get(4096):
            pools.check()
        monkeypatch.setattr(BrokenBlock, "mended", True)
    assert pools.statistics().allocated == 0
    assert len(caplog.records) == 1


ENDS_WITH_BUFFERS = """
import anyio
from mbufpools import BufferPools
from tests.core.test_memory import BrokenMemory

async def main():
    global kept
    async with BufferPools("1 MiB", [4096], memory={memory}) as pools:
        kept = [await pools.get(4096) for _ in range(3)]

anyio.run(main)
"""


@pytest.mark.parametrize("memory", ["None", "BrokenMemory()"])
def test_a_program_that_ends_with_buffers_held_ends(memory: str) -> None:
    """The leases die when the interpreter shuts down and can import nothing any more."""
    ended = subprocess.run(
        [sys.executable, "-c", ENDS_WITH_BUFFERS.format(memory=memory)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(__file__).parents[2],
    )
    assert ended.returncode == 0
    lines = ended.stderr.splitlines()
    told = [line for line in lines if "buffer of pool '4096' was dropped without a release" in line]
    assert len(told) == 3
    assert "Exception ignored" not in ended.stderr
