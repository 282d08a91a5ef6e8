"""A relay with slow readers: where do the bytes wait?

A TCP relay passes data on to readers that are slower than the senders. The difference
must wait somewhere. With an unbounded queue it waits in the relay, whose memory and
delay grow. With pools of fewer buffers than there are connections, the relay stops
reading when no buffer is left, and TCP holds the senders back; the same bytes arrive.
The relay and its clients are separate processes. Each frame carries the time at which
it was sent, and the bytes of each connection are compared by SHA-256.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import mmap
import os
import pickle
import random
import socket
import struct
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
from anyio.streams.buffered import BufferedByteReceiveStream
from anyio.streams.memory import MemoryObjectReceiveStream

from mbufpools import Buffer, BufferPools, PoolSpec, PoolsStatistics, Wakeup
from mbufpools.demokit import Demo, Mistake, Options, Report, Table
from mbufpools.net import recv_into, send_all

try:
    import resource
except ImportError:  # on Windows
    resource = None  # type: ignore[assignment]

CONNECTIONS = 64
FRAME = 16384
"""Bytes of a frame, which begins with a `HEADER`."""
HEADER = struct.Struct("!IId")
"""The connection, the frame's number in it, and when its sending began."""
FRAMES = 32
"""Frames of each connection."""
READ = 16384
"""Bytes that a reader reads at a time."""
PACE = 0.06
"""Seconds from one read of a reader to the next."""
SIZE = 16384
"""Bytes that the relay reads at a time."""
LIMIT = 1 << 19
"""Bytes that the relay's pools may have."""
KERNEL = 16384
"""Bytes of each socket's buffers in the kernel: few, or they would hide the backlog."""
SAMPLE = 0.05
"""Seconds between two measurements of the resident memory."""
GIVE_UP = 20
"""Seconds after which the run is stopped."""

UNBOUNDED, POOLS = "unbounded", "BufferPools"


# The relay, which is a separate process


@dataclass
class Measured:
    """What the relay measures of itself."""

    resident: list[tuple[float, int]] = field(default_factory=list)
    """Pairs of seconds since all connections were open, and bytes."""
    end: PoolsStatistics | None = None


async def relay(kind: str, policy: Wakeup, target: int, out: Any) -> Measured:
    """Take connections, open one onward for each, and relay until all have ended."""
    measured = Measured()
    pairs: list[tuple[socket.socket, socket.socket]] = []
    with socket.create_server(("127.0.0.1", 0), backlog=CONNECTIONS) as listener:
        tune(listener)
        out.write(b"%d\n" % listener.getsockname()[1])
        out.flush()
        while len(pairs) < CONNECTIONS:
            await anyio.wait_readable(listener)
            source, _ = listener.accept()
            pairs.append((source, await connect(target)))
            source.setblocking(False)
    async with anyio.create_task_group() as sampling:
        sampling.start_soon(sample, measured)
        if kind == UNBOUNDED:
            await each(pairs, pass_on_unbounded)
        else:
            sizes = [PoolSpec(SIZE, items_per_page=1)]
            async with BufferPools(LIMIT, sizes, wakeup=policy) as pools:
                await each(pairs, lambda source, sink: pass_on(source, sink, pools))
                measured.end = pools.statistics()
        sampling.cancel_scope.cancel()
    return measured


async def each(
    pairs: list[tuple[socket.socket, socket.socket]],
    function: Callable[[socket.socket, socket.socket], Coroutine[Any, Any, None]],
) -> None:
    async with anyio.create_task_group() as tasks:
        for pair in pairs:
            tasks.start_soon(function, *pair)


async def pass_on(source: socket.socket, sink: socket.socket, pools: BufferPools) -> None:
    """Relay one connection through buffers of the pools."""
    to_writer, queue = anyio.create_memory_object_stream[Any](math.inf)

    async def send_on(piece: tuple[Buffer, int]) -> None:
        with piece[0]:  # releases the buffer if the send did not
            await send_all(sink, [piece])

    with source, sink:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write, queue, sink, send_on)
            with to_writer:
                while True:
                    await anyio.wait_readable(source)  # an idle connection holds no buffer
                    buffer = await pools.get(SIZE)
                    try:
                        nbytes = await recv_into(source, buffer)
                    except BaseException:
                        buffer.release()
                        raise
                    if not nbytes:
                        buffer.release()
                        break
                    to_writer.send_nowait((buffer, nbytes))


async def pass_on_unbounded(source: socket.socket, sink: socket.socket) -> None:
    """Relay one connection through a queue without a bound."""
    to_writer, queue = anyio.create_memory_object_stream[Any](math.inf)
    with source, sink:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write, queue, sink, lambda data: send(sink, data))
            with to_writer:
                while data := await receive(source, SIZE):
                    to_writer.send_nowait(data)


async def write(
    queue: MemoryObjectReceiveStream[Any],
    sink: socket.socket,
    function: Callable[[Any], Awaitable[None]],
) -> None:
    with queue:
        async for item in queue:
            await function(item)
            del item  # or it would stay in memory while the queue is empty
    sink.shutdown(socket.SHUT_WR)


async def sample(measured: Measured) -> None:
    start = anyio.current_time()
    for number in range(math.ceil(GIVE_UP / SAMPLE)):
        await anyio.sleep_until(start + number * SAMPLE)
        measured.resident.append((anyio.current_time() - start, resident()))


def resident() -> int:
    """The resident bytes of this process, or its peak where there is no /proc.

    Raises Mistake where neither is known.
    """
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * mmap.PAGESIZE
    except OSError:
        if resource is None:
            raise Mistake(
                "the demo relay measures its memory, which Python does not tell on this system; "
                "run it on Linux, a BSD or macOS"
            ) from None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def serve(kind: str, backend: str, policy: str, target: str) -> None:
    """Run the relay: the main function of its process."""
    out = sys.stdout.buffer
    measured = anyio.run(relay, kind, Wakeup(policy), int(target), out, backend=backend)
    if measured.end is not None:  # its read-only mapping cannot be pickled
        measured.end = dataclasses.replace(measured.end, pools=dict(measured.end.pools))
    found = measured.resident, measured.end
    out.write(pickle.dumps(found))


# The clients, in the process of the demo


@dataclass
class Outcome:
    """The result of one run, as the clients saw it."""

    sent: dict[int, str] = field(default_factory=dict)
    """For each connection, the SHA-256 of what was sent."""
    received: dict[int, str] = field(default_factory=dict)
    nbytes: int = 0
    """Bytes that were received."""
    latencies: list[float] = field(default_factory=list)
    """For each frame, the seconds from its sending to its arrival."""
    seconds: float = 0.0
    measured: Measured = field(default_factory=Measured)

    @property
    def whole(self) -> int:
        """Connections whose bytes arrived as they were sent."""
        return sum(self.received.get(number) == digest for number, digest in self.sent.items())

    @property
    def lost(self) -> int:
        """Bytes that were sent and did not arrive."""
        return CONNECTIONS * FRAMES * FRAME - self.nbytes

    @property
    def growth(self) -> int:
        """Bytes by which the relay's resident memory grew."""
        sizes = [size for _, size in self.measured.resident]
        return max(sizes) - sizes[0]

    def growth_at(self, seconds: float) -> int | None:
        """The growth at one moment, or None if the run was over by then."""
        for at, size in self.measured.resident:
            if at >= seconds:
                return size - self.measured.resident[0][1]
        return None


async def run(kind: str, options: Options) -> Outcome:
    outcome = Outcome()
    with (
        anyio.fail_after(GIVE_UP),
        socket.create_server(("127.0.0.1", 0), backlog=CONNECTIONS) as listener,
    ):
        tune(listener)
        target = listener.getsockname()[1]
        arguments = [kind, options.backend, str(options.policies[0]), str(target)]
        async with await anyio.open_process(
            [sys.executable, __file__, "--serve", *arguments],
            stderr=None,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        ) as process:
            assert process.stdout is not None
            told = BufferedByteReceiveStream(process.stdout)
            port = int(await told.receive_until(b"\n", 16))
            await clients(port, listener, outcome)
            found = b"".join([data async for data in told])
    outcome.measured = Measured(*pickle.loads(found))
    return outcome


async def clients(port: int, listener: socket.socket, outcome: Outcome) -> None:
    sources, sinks = [], []
    for _ in range(CONNECTIONS):
        sources.append(await connect(port))
        await anyio.wait_readable(listener)
        sink, _ = listener.accept()
        sink.setblocking(False)
        sinks.append(sink)
    start = time.perf_counter()
    async with anyio.create_task_group() as tasks:
        for number, source in enumerate(sources):
            tasks.start_soon(send_frames, number, source, outcome)
        for sink in sinks:
            tasks.start_soon(read_slowly, sink, outcome)
    outcome.seconds = time.perf_counter() - start


async def send_frames(number: int, source: socket.socket, outcome: Outcome) -> None:
    chance, digest = random.Random(number), hashlib.sha256()
    with source:
        for count in range(FRAMES):
            body = chance.randbytes(FRAME - HEADER.size)
            frame = HEADER.pack(number, count, time.perf_counter()) + body
            digest.update(frame)
            await send(source, frame)
        outcome.sent[number] = digest.hexdigest()


async def read_slowly(sink: socket.socket, outcome: Outcome) -> None:
    digest, frames, number = hashlib.sha256(), bytearray(), -1
    start = anyio.current_time()
    with sink:
        for turn in range(2 * FRAMES * FRAME):
            await anyio.sleep_until(start + turn * PACE)
            taken = 0
            while taken < READ and (data := await receive(sink, READ - taken)):
                taken += len(data)
                digest.update(data)
                frames += data
            now = time.perf_counter()
            while len(frames) >= FRAME:
                number, _, began = HEADER.unpack_from(frames)
                outcome.latencies.append(now - began)
                del frames[:FRAME]
            outcome.nbytes += taken
            if taken < READ:
                break
    outcome.received[number] = digest.hexdigest()


# Sockets


def tune(sock: socket.socket) -> None:
    """Give `sock`, and the sockets that it accepts, small buffers, and let it send at once."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL)


async def connect(port: int) -> socket.socket:
    sock = socket.socket()
    tune(sock)
    sock.setblocking(False)
    try:
        sock.connect(("127.0.0.1", port))
    except BlockingIOError:
        await anyio.wait_writable(sock)
    return sock


async def receive(sock: socket.socket, nbytes: int) -> bytes:
    await anyio.wait_readable(sock)
    return sock.recv(nbytes)


async def send(sock: socket.socket, data: bytes) -> None:
    view = memoryview(data)
    while view:
        await anyio.wait_writable(sock)
        view = view[sock.send(view) :]


# The demo


def report(options: Options) -> Report:
    resident()  # refuses to run where the memory is not known
    outcomes = {
        kind: anyio.run(run, kind, options, backend=options.backend) for kind in (UNBOUNDED, POOLS)
    }
    table = Table(
        {
            "buffers": "buffers",
            "seconds": "took\n(s)",
            "mib_per_second": "MiB/s",
            "growth_mib": "memory grew\n(MiB)",
            "median_ms": "latency,\nmedian (ms)",
            "p99_ms": "latency,\np99 (ms)",
            "lost": "bytes\nlost",
            "whole": "arrived\nwhole",
        }
    )
    for kind, outcome in outcomes.items():
        latencies = sorted(outcome.latencies)
        table.add(
            buffers=kind,
            seconds=round(outcome.seconds, 2),
            mib_per_second=round(outcome.nbytes / outcome.seconds / 2**20, 1),
            growth_mib=mib(outcome.growth),
            median_ms=round(1000 * latencies[len(latencies) // 2]),
            p99_ms=round(1000 * latencies[len(latencies) * 99 // 100]),
            lost=outcome.lost,
            whole=f"{outcome.whole} of {CONNECTIONS}",
        )
    unbounded, pools = outcomes[UNBOUNDED], outcomes[POOLS]
    end = pools.measured.end
    assert end is not None
    whole = all(each.whole == CONNECTIONS and not each.lost for each in outcomes.values())
    slow, fast = (row["p99_ms"] for row in table.rows)
    return Report(
        {"relay": table, "memory": over_time(outcomes)},
        verdict=f"without a bound the relay grew by {mib(unbounded.growth)} MiB, p99 {slow} ms; "
        f"with pools of {mib(end.limit)} MiB by {mib(pools.growth)}, p99 {fast} ms, and "
        f"{end.waits.waits} gets waited; "
        + (
            "all bytes arrived unchanged."
            if whole
            else f"{unbounded.lost} and {pools.lost} bytes were lost."
        ),
        ok=whole
        and end.nout == 0
        and end.peak <= end.limit
        and end.waits.waits > 0
        and unbounded.growth > 3 * pools.growth,
        end=end,
    )


def over_time(outcomes: dict[str, Outcome]) -> Table:
    table = Table(
        {"seconds": "after\n(s)", **{kind: f"{kind}\n(MiB)" for kind in outcomes}},
        title="Growth of the relay's resident memory since all connections were open:",
    )
    last = max(outcome.measured.resident[-1][0] for outcome in outcomes.values())
    for step in range(1, 7):
        seconds = last * step / 7
        cells = {kind: outcome.growth_at(seconds) for kind, outcome in outcomes.items()}
        table.add(
            seconds=round(seconds, 1),
            **{kind: None if size is None else mib(size) for kind, size in cells.items()},
        )
    return table


def mib(nbytes: int) -> float:
    return round(nbytes / 2**20, 1)


DEMO = Demo("relay", __doc__, report, policies=[Wakeup.DEFERRED])

if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(*sys.argv[2:])
        raise SystemExit(0)
    DEMO.run()
