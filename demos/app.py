"""An application: more senders than memory, on real sockets

Senders on the loopback interface stream records of many sizes. Readers take each record
into a buffer of their pools, and a slow writer releases it. The records that wait for
the writer would need far more memory than the pools may have. So a reader that gets no
buffer sleeps and reads nothing, and TCP holds its sender back. Nothing else bounds the
queue to the writer. Sockets, memory and time are real.
"""

from __future__ import annotations

import hashlib
import math
import random
import socket
from dataclasses import dataclass, field

import anyio
from anyio.streams.memory import MemoryObjectSendStream

from mbufpools import Buffer, BufferPools, PoolSpec, PoolsStatistics, Wakeup
from mbufpools.demokit import Demo, Options, Report, Table

SENDERS = 32
RECORDS = 8
"""Records of each sender."""
LIMIT = "192 KiB"
SIZES = [
    # Each pool has a minimum of its own, so that neither can take all memory from the other.
    PoolSpec(2048, name="small", min_items=8),
    PoolSpec(16384, name="large", min_items=4, items_per_page=1),
]
WRITING = 0.0005
"""Seconds that the writer takes for a record."""
GIVE_UP = 20
"""Seconds after which the run is stopped."""

Queue = MemoryObjectSendStream[tuple[int, Buffer]]


@dataclass
class Outcome:
    sent: dict[int, str] = field(default_factory=dict)
    """For each sender, the SHA-256 of its records."""
    received: dict[int, str] = field(default_factory=dict)
    nbytes: int = 0
    """The bytes of all records that were written."""
    gets: list[tuple[float, str, int]] = field(default_factory=list)
    """For each record: the seconds that its reader waited for memory, the pool, the sender."""
    seconds: float = 0.0


async def send(sender: int, port: int, outcome: Outcome) -> None:
    chance, digest = random.Random(sender), hashlib.sha256()
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        for _ in range(RECORDS):
            record = chance.randbytes(chance.choice([200, 1500, 9000, 16384]))
            digest.update(record)
            await stream.send(sender.to_bytes(2, "big") + len(record).to_bytes(2, "big") + record)
    outcome.sent[sender] = digest.hexdigest()


async def read(connection: socket.socket, pools: BufferPools, queue: Queue, to: Outcome) -> None:
    header = bytearray(4)
    with connection, queue:
        while await fill(connection, memoryview(header)):
            sender, nbytes = int.from_bytes(header[:2], "big"), int.from_bytes(header[2:], "big")
            asked = anyio.current_time()
            buffer = await pools.get(nbytes)
            to.gets.append((anyio.current_time() - asked, buffer.pool.name, sender))
            try:
                await fill(connection, buffer.view)
                queue.send_nowait((sender, buffer))
            except BaseException:
                buffer.release()
                raise


async def fill(connection: socket.socket, view: memoryview) -> bool:
    """Receive as many bytes as `view` takes. Returns False if the sender has finished."""
    got = 0
    while got < len(view):
        await anyio.wait_readable(connection)
        with view[got:] as rest:
            nbytes = connection.recv_into(rest)
        if nbytes == 0:
            return False
        got += nbytes
    return True


async def app(policy: Wakeup) -> tuple[Outcome, PoolsStatistics]:
    outcome = Outcome()
    digests = [hashlib.sha256() for _ in range(SENDERS)]
    queue, records = anyio.create_memory_object_stream[tuple[int, Buffer]](math.inf)
    start = anyio.current_time()
    with socket.create_server(("127.0.0.1", 0), backlog=SENDERS) as listener, records:
        port = listener.getsockname()[1]
        async with BufferPools(LIMIT, SIZES, wakeup=policy) as pools:
            with anyio.move_on_after(GIVE_UP):
                async with anyio.create_task_group() as tasks:
                    for sender in range(SENDERS):
                        tasks.start_soon(send, sender, port, outcome)
                    with queue:
                        for _ in range(SENDERS):
                            await anyio.wait_readable(listener)
                            connection, _ = listener.accept()
                            connection.setblocking(False)
                            tasks.start_soon(read, connection, pools, queue.clone(), outcome)
                    async for sender, buffer in records:  # the writer
                        with buffer:
                            digests[sender].update(buffer.view)
                            outcome.nbytes += buffer.nbytes
                            await anyio.sleep(WRITING)
            end = pools.statistics()
    outcome.received = {sender: digest.hexdigest() for sender, digest in enumerate(digests)}
    outcome.seconds = anyio.current_time() - start
    return outcome, end


def report(options: Options) -> Report:
    outcome, end = anyio.run(app, options.policies[0], backend=options.backend)
    table = Table(
        {
            "pool": "pool",
            "item_size": "buffer\n(bytes)",
            "records": "records",
            "waited": "had to\nwait",
            "mean_ms": "mean wait\n(ms)",
            "longest_ms": "longest\n(ms)",
            "hiwat": "most\npages",
            "page_size": "page\n(bytes)",
        }
    )
    for name, pool in end.pools.items():
        waits = [seconds for seconds, of, _ in outcome.gets if of == name]
        table.add(
            pool=name,
            item_size=pool.item_size,
            records=pool.nget,
            waited=pool.nwait,
            mean_ms=round(1000 * sum(waits) / len(waits), 1) if waits else None,
            longest_ms=round(1000 * max(waits), 1) if waits else None,
            hiwat=pool.hiwat,
            page_size=pool.page_size,
        )
    whole = sum(outcome.sent.get(sender) == outcome.received[sender] for sender in range(SENDERS))
    total = Table(
        {
            "senders": "senders",
            "whole": "arrived\nwhole",
            "nbytes": "bytes",
            "limit": "limit\n(bytes)",
            "peak": "peak\n(bytes)",
            "unreleased": "not\nreleased",
            "seconds": "took\n(s)",
        }
    )
    total.add(
        senders=SENDERS,
        whole=whole,
        nbytes=outcome.nbytes,
        limit=end.limit,
        peak=end.peak,
        unreleased=end.nout,
        seconds=round(outcome.seconds, 2),
    )
    waited = sum(pool.nwait for pool in end.pools.values())
    longest = max((seconds for seconds, _, _ in outcome.gets), default=0.0)
    verdict = (
        f"{whole} of {SENDERS} senders' records arrived unchanged; {outcome.nbytes} bytes went "
        f"through {end.peak} of memory (limit {end.limit}); {waited} of {len(outcome.gets)} "
        f"records waited for memory, {1000 * longest:.0f} ms at most."
    )
    ok = whole == SENDERS and end.peak <= end.limit and waited > 0 and end.nout == 0
    return Report({"pools": table, "total": total}, verdict, ok, end)


DEMO = Demo("app", __doc__, report, policies=[Wakeup.DEFERRED])

if __name__ == "__main__":
    DEMO.run()
