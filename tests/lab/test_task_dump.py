"""What the lab says of a waiting task: what it waits for, and which tasks hold that memory."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import anyio
import pytest
import trio

from mbufpools import AccountedMemory, BufferPools, MbufPools, PoolSpec, lab

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])
MAIN = {"asyncio": "Task-1", "trio": "main"}
"""What each backend calls the main task, as the program and its pools see it."""
Program = Callable[[], Awaitable[Any]]

SERVE = (
    "nothing has served it (a release, a page that leaves, a raised limit and the wakeup task "
    "would)"
)
HINT = "  debug=True records which task holds what"
DEADLOCK = (
    "  deadlock: every holder waits itself, so no request is served until one of them is "
    "cancelled (unless a holder has passed what it took on to another task); take all "
    "that a task needs at once, with get_many"
)
GROUP = "the tasks of its group"
UNFINISHED = "a future or task that is not done"


def task_dump_of(program: Program, backend: lab.BackendName) -> list[str]:
    """Return where each task stands when the program stalls, without the runner of the pools.

    It must be the same in two executions. Line numbers and the prefixes of names are removed.
    """
    dumps = set()
    for _ in range(2):
        (failure,) = lab.explore(program, strategy="fifo", backend=backend).failures
        assert failure.kind == "stall"
        dumps.add(failure.report.partition("\nschedule (")[0])
    (dump,) = dumps
    dump = re.sub(r"\S*test_task_dump\.py:\d+", "HERE", dump)
    dump = re.sub(r"\S*<locals>\.", "", dump.replace("'test", "' test"))
    dump = re.sub(r"' ?(?=\w+')", "'", dump)
    return [line[2:] for line in dump.splitlines()[1:] if ".taskq'" not in line]


def waits_for(program: Program, backend: lab.BackendName, task: str = "0") -> str:
    """Return what a task waits for, without the task that holds it."""
    (line,) = (it for it in task_dump_of(program, backend) if it.startswith(f"task {task} "))
    return line.partition(", for ")[2].partition("; task ")[0]


def held(program: Program, backend: lab.BackendName) -> list[str]:
    """Return the lines after those of the tasks."""
    dump = task_dump_of(program, backend)
    last = max(at for at, line in enumerate(dump) if line.startswith(("task ", "  called ")))
    return dump[last + 1 :]


# Who holds a lock


@pytest.mark.parametrize(
    ("make", "backend", "line"),
    [
        (asyncio.Lock, "asyncio", " since HERE, in hold"),
        (asyncio.Condition, "asyncio", " since HERE, in hold"),
        (anyio.Lock, "asyncio", ""),
        (anyio.Lock, "trio", ""),
        pytest.param(trio.Lock, "trio", "", id="trio.Lock"),
        (partial(anyio.CapacityLimiter, 1), "asyncio", ""),
        (partial(anyio.CapacityLimiter, 1), "trio", ""),
    ],
)
def test_a_wait_for_a_lock_says_which_task_has_it(
    make: Callable[[], Any], backend: lab.BackendName, line: str
) -> None:
    async def program() -> None:
        lock, held = make(), anyio.Event()

        async def hold() -> None:
            async with lock:
                held.set()
                await anyio.sleep_forever()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hold)
            await held.wait()
            async with lock:
                pass

    dump = task_dump_of(program, backend)
    assert any(f"release() was not called after that; task 0.0 has it{line}" in it for it in dump)


def test_a_lock_of_asyncio_that_was_released_has_no_holder() -> None:
    async def program() -> None:
        lock = asyncio.Lock()
        async with lock:
            pass
        await asyncio.Event().wait()

    assert "has it" not in "".join(task_dump_of(program, "asyncio"))


# Which tasks hold the memory


def small_and_large(pages: int, **options: Any) -> BufferPools:
    """Items of 1000 bytes, four to a page, and of 4000 bytes, one to a page."""
    specs = [
        PoolSpec(1000, name="small", items_per_page=4),
        PoolSpec(4000, name="large", items_per_page=1, max_items=options.pop("at_most", None)),
    ]
    memory = AccountedMemory()
    return BufferPools(pages * 4096, specs, name="lake", memory=memory, **options)


@BACKENDS
def test_a_stall_of_pools_says_what_each_pool_has(backend: lab.BackendName) -> None:
    async def program() -> None:
        async with small_and_large(3) as pools:
            with await pools.get(900), await pools.get(4000), await pools.reserve(4000):
                await pools.get(3999)

    assert task_dump_of(program, backend) == [
        f"task 0 'main' waits at HERE, in program, for pool 'large': {SERVE}",
        "lake: 12192 of 12288 bytes are allocated, 4000 of them reserved",
        "  pool 'small': 4096 bytes of pages, 1 items out, 3 free",
        "  pool 'large': 4096 bytes of pages, 1 items out, 0 free",
        HINT,
    ]


@BACKENDS
def test_in_debug_mode_a_stall_says_which_task_holds_what_and_which_holder_waits(
    backend: lab.BackendName,
) -> None:
    async def program() -> None:
        async with small_and_large(3, debug=True) as pools, anyio.create_task_group() as tasks:

            async def hold() -> None:
                with await pools.get_many([900, 900, 900]), await pools.get(800):
                    await anyio.Event().wait()

            async def reserve() -> None:
                async with pools.reserve(96):
                    await anyio.Event().wait()

            async def hold_one_and_ask_another() -> None:
                with await pools.get(4000):
                    await anyio.sleep(1)
                    await pools.get(4000)

            tasks.start_soon(hold, name="a")
            tasks.start_soon(reserve, name="b")
            tasks.start_soon(hold_one_and_ask_another, name="c")

    event = "anyio's Event: set() was not called after that"
    assert task_dump_of(program, backend) == [
        f"task 0 'main' waits at HERE, in program, for {GROUP}",
        f"task 0.1 'a' waits at HERE, in hold, for {event}",
        f"task 0.2 'b' waits at HERE, in reserve, for {event}",
        f"task 0.3 'c' waits at HERE, in hold_one_and_ask_another, for pool 'large': {SERVE}",
        "lake: 8288 of 12288 bytes are allocated, 96 of them reserved",
        "  pool 'small': 4096 bytes of pages, 4 items out, 0 free",
        "  pool 'large': 4096 bytes of pages, 1 items out, 0 free",
        "  held: 800 bytes of pool 'small' by task 'a' at HERE",
        "  held: 3 x 900 bytes of pool 'small' by task 'a' at HERE",
        "  held: 96 bytes, reserved by task 'b' at HERE",
        "  held: 4000 bytes of pool 'large' by task 'c' at HERE, which waits itself (task 0.3)",
    ]


@BACKENDS
def test_a_deadlock_is_reported_once_for_all_waiting_tasks(backend: lab.BackendName) -> None:
    async def program() -> None:
        async with small_and_large(2, debug=True) as pools, anyio.create_task_group() as tasks:

            async def hold_one_and_ask_another() -> None:
                with await pools.get(4000):
                    await anyio.sleep(1)
                    await pools.get(4000)

            tasks.start_soon(hold_one_and_ask_another)
            tasks.start_soon(hold_one_and_ask_another)

    holds = "held: 4000 bytes of pool 'large' by task 'hold_one_and_ask_another' at HERE"
    assert held(program, backend) == [
        "lake: 8192 of 8192 bytes are allocated",
        "  pool 'large': 8192 bytes of pages, 2 items out, 0 free",
        f"  {holds}, which waits itself (task 0.1)",
        f"  {holds}, which waits itself (task 0.2)",
        DEADLOCK,
    ]


@BACKENDS
def test_a_holder_that_has_ended_is_shown_as_ended_and_that_nobody_knows_more(
    backend: lab.BackendName,
) -> None:
    async def program() -> None:
        kept: list[Any] = []

        async def keep() -> None:
            kept.append(await pools.get(4000))

        async with small_and_large(2, debug=True) as pools:
            try:
                for _ in range(2):
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(keep, name="keeper")
                await pools.get(4000)
            finally:
                for buffer in kept:
                    buffer.release()

    assert held(program, backend) == [
        "lake: 8192 of 8192 bytes are allocated",
        "  pool 'large': 8192 bytes of pages, 2 items out, 0 free",
        "  held: 2 x 4000 bytes of pool 'large' by task 'keeper' at HERE, which has ended",
        "  it is not known whether this is a deadlock: a task that has ended took what the "
        "requests need, and the pools do not know whether another task will release it",
    ]


@BACKENDS
def test_the_maximum_of_a_pool_is_shown(backend: lab.BackendName) -> None:
    async def program() -> None:
        async with small_and_large(9, at_most=1) as pools:
            with await pools.get(4000):
                await pools.get_many([900, 4000])

    assert task_dump_of(program, backend) == [
        f"task 0 'main' waits at HERE, in program, for 1 x small + 1 x large: {SERVE}",
        "lake: 4096 of 36864 bytes are allocated",
        "  pool 'large': 4096 bytes of pages, 1 items out of at most 1, 0 free",
        HINT,
    ]


@BACKENDS
def test_reservations_are_shown_also_to_a_task_that_waits_for_bytes(
    backend: lab.BackendName,
) -> None:
    async def program() -> None:
        async with small_and_large(2) as pools, pools.reserve(5000):
            await pools.reserve(5000)

    assert task_dump_of(program, backend) == [
        f"task 0 'main' waits at HERE, in program, for bytes: {SERVE}",
        "lake: 5000 of 8192 bytes are allocated, 5000 of them reserved",
        HINT,
    ]


@BACKENDS
def test_a_page_with_an_exported_buffer_is_shown(backend: lab.BackendName) -> None:
    async def program() -> None:
        sizes = [PoolSpec(4096, items_per_page=1), PoolSpec(64)]
        async with BufferPools(4096, sizes, name="pond", debug=True) as pools:
            with await pools.get(4096) as buffer:
                kept = buffer.view[:10]
            try:
                await pools.get(64)
            finally:
                kept.release()

    assert held(program, backend) == [
        "pond: 4096 of 4096 bytes are allocated",
        "  pool '4096': 4096 bytes of pages, 1 items out, 0 free",
        "  4096 bytes are in released items or pages that something still exports (a slice of a "
        "view that was kept)",
        f"  held: 4096 bytes of pool '4096' by task {MAIN[backend]!r} at HERE, "
        f"which waits itself (task 0)",
    ]


@BACKENDS
def test_mbuf_pools_are_shown_too_and_without_a_hint_if_nothing_is_held(
    backend: lab.BackendName,
) -> None:
    async def impossible() -> None:
        async with MbufPools(1) as pools:
            await pools.get(4000)

    async def program() -> None:
        async with MbufPools(4, debug=True) as pools:
            with await pools.get(100), await pools.get(60):
                await pools.get(4000)

    assert held(impossible, backend) == ["MbufPools: 0 of 2048 bytes are allocated"]
    itself = "which waits itself (task 0)"
    assert held(program, backend) == [
        "MbufPools: 4096 of 8192 bytes are allocated",
        "  pool 'mbufpl': 4096 bytes of pages, 2 items out, 14 free",
        f"  held: 60 bytes of pool 'mbufpl' by task {MAIN[backend]!r} at HERE, {itself}",
        f"  held: 100 bytes of pool 'mbufpl' by task {MAIN[backend]!r} at HERE, {itself}",
        DEADLOCK,
    ]


@BACKENDS
def test_two_pool_sets_are_shown_in_the_order_of_the_tasks(backend: lab.BackendName) -> None:
    async def program() -> None:
        async with (
            BufferPools(4096, [PoolSpec(4096, items_per_page=1)], name="first") as first,
            BufferPools(4096, [PoolSpec(4096, items_per_page=1)], name="second") as second,
            anyio.create_task_group() as tasks,
        ):
            held = [await first.get(1), await second.get(1)]
            assert len(held) == 2
            for pools in (second, first, second):
                tasks.start_soon(pools.get, 1)

    pool = "  pool '4096': 4096 bytes of pages, 1 items out, 0 free"
    allocated = "4096 of 4096 bytes are allocated"
    assert held(program, backend) == [
        f"second: {allocated}", pool, HINT, f"first: {allocated}", pool, HINT,
    ]  # fmt: skip


@BACKENDS
def test_pools_are_not_shown_if_no_task_waits_for_them(backend: lab.BackendName) -> None:
    async def program() -> None:
        async with small_and_large(2) as pools:
            with await pools.get(1):
                await anyio.Event().wait()

    assert held(program, backend) == []


@BACKENDS
def test_a_task_dump_does_not_depend_on_the_time_or_the_number_of_a_wait(
    backend: lab.BackendName,
) -> None:
    """The lab compares failures by it, so it must be the same in every schedule that fails so."""

    async def program() -> None:
        async with small_and_large(1) as pools, anyio.create_task_group() as tasks:
            with await pools.get(4000):
                tasks.start_soon(pools.get, 4000)
                tasks.start_soon(pools.get, 4000)
                await anyio.Event().wait()

    exploration = lab.explore(program, strategy="exhaustive", backend=backend, max_failures=None)
    assert exploration.executions > 1
    assert len(exploration.failures) == 1


# What a task waits for


@pytest.mark.parametrize(
    ("function", "queue", "expected"),
    [
        ("get", asyncio.Queue, "asyncio's Queue: put() was not called after that"),
        ("put", asyncio.LifoQueue, "asyncio's LifoQueue: get() was not called after that"),
        ("join", asyncio.Queue, "asyncio's Queue: task_done() was not called for every item"),
    ],
)
def test_a_wait_for_a_queue_names_the_missing_call(
    function: str, queue: type[asyncio.Queue[int]], expected: str
) -> None:
    async def program() -> None:
        it = queue(1)
        if function != "get":
            await it.put(1)
        await getattr(it, function)(*[2] * (function == "put"))

    assert waits_for(program, "asyncio") == expected


async def a_condition(make: Callable[[], Any], *, notify: bool, lock: bool) -> None:
    """A task waits for a condition, perhaps after a notification, or only for its lock.

    The main task holds the lock for ever.
    """
    condition = make()

    async def wait() -> None:
        async with condition:
            await condition.wait()

    async with anyio.create_task_group() as tasks:
        if lock:
            await condition.acquire()
        tasks.start_soon(wait)
        await anyio.sleep(1)
        if notify:
            await condition.acquire()
            condition.notify()
        await anyio.Event().wait()


CONDITIONS = pytest.mark.parametrize(
    ("make", "library", "backend"),
    [
        (asyncio.Condition, "asyncio", "asyncio"),
        (trio.Condition, "trio", "trio"),
        (anyio.Condition, "anyio", "asyncio"),
        (anyio.Condition, "anyio", "trio"),
    ],
)


@CONDITIONS
@pytest.mark.parametrize(
    ("notify", "lock", "expected"),
    [
        (False, False, "Condition: notify() was not called after that"),
        (True, False, "Lock: release() was not called after that"),
        (False, True, "Lock: release() was not called after that"),
    ],
    ids=["waits", "was notified", "has not begun"],
)
def test_a_wait_for_a_condition_is_distinguished_from_one_for_its_lock(
    make: Callable[[], Any],
    library: str,
    backend: lab.BackendName,
    notify: bool,
    lock: bool,
    expected: str,
) -> None:
    async def program() -> None:
        await a_condition(make, notify=notify, lock=lock)

    assert waits_for(program, backend, "0.0") == f"{library}'s {expected}"


def test_a_barrier_counts_the_tasks_that_wait() -> None:
    async def program() -> None:
        barrier = asyncio.Barrier(3)
        await asyncio.gather(barrier.wait(), barrier.wait())

    for task in ("0.0", "0.1"):
        assert waits_for(program, "asyncio", task) == (
            "asyncio's Barrier: 2 of 3 have called wait()"
        )


def test_a_task_that_comes_while_a_barrier_lets_others_out_waits_for_no_further_call() -> None:
    async def program() -> None:
        barrier = asyncio.Barrier(2)
        vars(barrier)["_state"] = vars(asyncio.locks)["_BarrierState"].DRAINING
        await barrier.wait()

    told = waits_for(program, "asyncio")
    assert told == "asyncio's Condition: notify() was not called after that"


async def drained(limiter: Any) -> None:
    """Take the only permit, on behalf of another borrower, and ask for one more."""
    if hasattr(limiter, "acquire_on_behalf_of"):
        await limiter.acquire_on_behalf_of("another borrower")
    else:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(limiter.acquire)
    await limiter.acquire()


@pytest.mark.parametrize(
    ("make", "expected", "backends"),
    [
        (lambda: asyncio.Lock(), "asyncio's Lock", ["asyncio"]),
        (lambda: asyncio.BoundedSemaphore(1), "asyncio's BoundedSemaphore", ["asyncio"]),
        (lambda: trio.Semaphore(1), "trio's Semaphore", ["trio"]),
        (lambda: trio.CapacityLimiter(1), "trio's CapacityLimiter", ["trio"]),
        (lambda: anyio.Semaphore(1), "anyio's Semaphore", ["asyncio", "trio"]),
        (lambda: anyio.CapacityLimiter(1), "anyio's CapacityLimiter", ["asyncio", "trio"]),
    ],
)
def test_a_wait_for_a_permit_names_release(
    make: Callable[[], Any], expected: str, backends: Sequence[lab.BackendName]
) -> None:
    async def program() -> None:
        await drained(make())

    for backend in backends:
        assert waits_for(program, backend) == f"{expected}: release() was not called after that"


def test_a_strict_fifo_lock_of_trio_is_known_as_a_lock() -> None:
    async def program() -> None:
        lock = trio.StrictFIFOLock()
        await lock.acquire()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lock.acquire)
            await trio.Event().wait()

    told = waits_for(program, "trio", "0.0")
    assert told == "trio's StrictFIFOLock: release() was not called after that"


def test_a_primitive_of_the_program_is_described_by_what_it_is_made_of() -> None:
    class Turnstile(asyncio.Semaphore):
        pass

    async def program() -> None:
        await Turnstile(0).acquire()

    told = waits_for(program, "asyncio")
    assert told == "asyncio's Semaphore: release() was not called after that"


@BACKENDS
@pytest.mark.parametrize("end", ["send", "receive"])
def test_a_wait_for_a_stream_or_channel_names_the_other_end(
    end: str, backend: lab.BackendName
) -> None:
    async def streams() -> None:
        sender, receiver = anyio.create_memory_object_stream[int](0)
        with sender, receiver:
            await (sender.send(1) if end == "send" else receiver.receive())

    async def channels() -> None:
        sender, receiver = trio.open_memory_channel[int](0)
        with sender, receiver:
            await (sender.send(1) if end == "send" else receiver.receive())

    other = "receive(), or the close of the receivers"
    if end == "receive":
        other = "send(), or the close of the senders"
    side = end.capitalize()
    assert waits_for(streams, backend) == (
        f"anyio's MemoryObject{side}Stream: {other} was not called after that"
    )
    if backend == "trio":
        assert waits_for(channels, backend) == (
            f"trio's Memory{side}Channel: {other} was not called after that"
        )


# Futures, tasks, groups


async def forever() -> None:
    """Waits for an event that is never set."""
    await anyio.Event().wait()


@pytest.mark.parametrize(
    "wait",
    [
        lambda: asyncio.get_running_loop().create_future(),
        lambda: asyncio.create_task(forever()),
        lambda: asyncio.gather(forever(), forever()),
        lambda: asyncio.shield(asyncio.create_task(forever())),
        lambda: asyncio.wait([asyncio.create_task(forever())]),
        lambda: asyncio.wait_for(asyncio.get_running_loop().create_future(), None),
    ],
    ids=["future", "task", "gather", "shield", "wait", "wait_for"],
)
def test_a_wait_for_a_bare_future_says_that_it_is_not_done(
    wait: Callable[[], Awaitable[Any]],
) -> None:
    async def program() -> None:
        await wait()

    assert waits_for(program, "asyncio") == UNFINISHED


@BACKENDS
def test_a_sleep_is_not_a_wait_for_a_future(backend: lab.BackendName) -> None:
    assert waits_for(anyio.sleep_forever, backend) == ""

    async def program() -> None:
        await anyio.sleep_forever()

    assert task_dump_of(program, backend) == ["task 0 'main' waits at HERE, in program"]


@BACKENDS
def test_the_end_of_a_group_waits_for_its_tasks(backend: lab.BackendName) -> None:
    async def of_anyio() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(forever)

    async def of_asyncio() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(forever())

    async def of_trio() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(forever)

    for program in (of_anyio, of_asyncio if backend == "asyncio" else of_trio):
        assert waits_for(program, backend) == GROUP


@BACKENDS
def test_the_start_of_a_task_waits_for_started(backend: lab.BackendName) -> None:
    async def never_started(*, task_status: Any) -> None:
        await forever()

    async def of_anyio() -> None:
        async with anyio.create_task_group() as tasks:
            await tasks.start(never_started)

    async def of_trio() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(never_started)

    expected = "a task that it starts: started() was not called after that"
    assert waits_for(of_anyio, backend) == expected
    if backend == "trio":
        assert waits_for(of_trio, backend) == expected


# The way there


@BACKENDS
def test_calls_are_followed_through_generators_and_dunder_await(backend: lab.BackendName) -> None:
    async def events() -> AsyncIterator[int]:
        await anyio.Event().wait()
        yield 1

    class Eventually:
        def __await__(self) -> Any:
            return forever().__await__()

    async def program() -> None:
        async for _ in events():
            pass

    async def another() -> None:
        await Eventually()

    what = "for anyio's Event: set() was not called after that"
    assert task_dump_of(program, backend) == [
        f"task 0 'main' waits at HERE, in events, {what}",
        "  by way of HERE, in program",
    ]
    assert task_dump_of(another, backend) == [
        f"task 0 'main' waits at HERE, in forever, {what}",
        "  by way of HERE, in another",
    ]
