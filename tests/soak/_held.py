"""The leases that a soak holds of one pool set, and every way to end one.

Each buffer that is held has a mark in its memory, and no two marks are equal. If the mark has
changed when the lease ends, two leases had the same item.
"""

from __future__ import annotations

import gc
import pickle
import threading
import weakref
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from itertools import count
from random import Random
from typing import Any

from mbufpools import Buffer, BufferInUse, Buffers, DoubleRelease, Reservation, UseAfterRelease

from ._counters import Counters

__all__ = ["Holding", "Lease", "HeldLeases"]

Lease = Buffer | Buffers | Reservation


class Holding:
    """A lease, and what was written into its buffers."""

    __slots__ = ("lease", "marks")

    def __init__(self, lease: Lease, marks: list[tuple[Buffer, bytes]]) -> None:
        self.lease = lease
        self.marks = marks

    def parts(self) -> list[Buffer | Reservation]:
        """What is still held of it."""
        parts = self.lease if isinstance(self.lease, Buffers) else (self.lease,)
        return [part for part in parts if not part.released]


class _Owner:
    """Releases its lease when the last reference to it is gone."""

    __slots__ = ("_holding",)

    def __init__(self, holding: Holding) -> None:
        self._holding = holding

    def __del__(self) -> None:
        self._holding.lease.release()


class HeldLeases:
    """The leases of one pool set that no task holds.

    An operation returns False, and has done nothing, if there was nothing to do it to.

    Args:
        random: the only source of chance.
        counters: where drops are counted.
        report: called with what is wrong.
        mapped: whether the buffers have memory.
        thread: another thread, for one call at a time.
    """

    def __init__(
        self,
        random: Random,
        counters: Counters,
        report: Callable[[str], None],
        *,
        mapped: bool,
        thread: Executor,
    ) -> None:
        self._random = random
        self._counters = counters
        self._report = report
        self._mapped = mapped
        self._thread = thread
        self._serial = count(1)
        self.leases: list[Holding] = []
        self._pending: list[Holding] = []
        """To be dropped at the next events, each in the middle of another operation."""
        self._lost: list[weakref.ref[Buffer | Reservation]] = []
        """Dropped in reference cycles that are not collected yet."""
        self._slices: list[memoryview] = []
        """Of views whose leases have ended: their items stay out."""
        self._pins: list[pickle.PickleBuffer] = []
        """Exports of views whose leases were dropped: they stay out."""
        self.unpinned = False
        """Whether dropped leases whose exports have ended may still be out."""

    # In

    def mark(self, lease: Lease) -> Holding:
        """Write a mark into each buffer of a fresh lease."""
        marks: list[tuple[Buffer, bytes]] = []
        if self._mapped and not isinstance(lease, Reservation):
            for buffer in lease if isinstance(lease, Buffers) else (lease,):
                mark = next(self._serial).to_bytes(8, "little")[: buffer.nbytes]
                buffer.view[: len(mark)] = mark
                marks.append((buffer, mark))
        return Holding(lease, marks)

    def verify(self, holding: Holding) -> None:
        """Report it if something else wrote into what is held."""
        for buffer, mark in holding.marks:
            if not buffer.released and bytes(buffer.view[: len(mark)]) != mark:
                self._report(f"{buffer!r} was written to by another lease")

    def add(self, lease: Lease) -> None:
        """Hold `lease`."""
        self.leases.append(self.mark(lease))

    def out(self, others: Iterable[Holding]) -> tuple[int, int]:
        """How many buffers, and bytes of reservations, are out, those of `others` included."""
        parts: list[Buffer | Reservation | None] = [ref() for ref in self._lost]
        for holding in (*self.leases, *self._pending, *others):
            parts += holding.parts()
        reserved = sum(part.nbytes for part in parts if isinstance(part, Reservation))
        return len(self._pins) + len(self._slices) + sum(
            isinstance(part, Buffer) for part in parts
        ), reserved

    # Out

    def _pick(self) -> Holding | None:
        """Take a random lease out of those held."""
        if not self.leases:
            return None
        return self.leases.pop(self._random.randrange(len(self.leases)))

    def release(self) -> bool:
        """Release a lease; of several buffers, sometimes one at a time."""
        holding = self._pick()
        if holding is None:
            return False
        self.verify(holding)
        parts = holding.parts()
        if len(parts) > 1 and self._random.random() < 0.3:
            self._random.choice(parts).release()
            self.leases.append(holding)
        else:
            holding.lease.release()
        return True

    def release_in_thread(self) -> bool:
        """Release a lease from another thread, and wait for that."""
        holding = self._pick()
        if holding is None:
            return False
        self.verify(holding)
        self._thread.submit(holding.lease.release).result()
        return True

    def release_in_finalizer(self) -> bool:
        """Release a lease from the ``__del__`` of its owner. (Not in the middle of another
        operation: there a program must not release, only drop.)"""
        holding = self._pick()
        if holding is None:
            return False
        self.verify(holding)
        _Owner(holding)
        return True

    def drop(self) -> bool:
        """Drop a lease: here, in another thread, or soon, in the middle of something else."""
        holding = self._pick()
        if holding is None:
            return False
        self._counters.dropped += len(holding.parts())
        where = self._random.random()
        if where < 0.4:
            self._pending.append(holding)
        elif where < 0.6:
            box = [holding]
            del holding
            self._thread.submit(box.clear).result()
        return True

    def drop_in_cycle(self) -> bool:
        """Drop a lease that only the cyclic garbage collector can find."""
        holding = self._pick()
        if holding is None:
            return False
        parts = holding.parts()
        self._counters.dropped += len(parts)
        self._lost += map(weakref.ref, parts)
        cycle: list[Any] = [holding]
        cycle.append(cycle)
        return True

    def collect(self) -> bool:
        """Run the cyclic garbage collector, if there is something of ours to find."""
        if not self._lost:
            return False
        gc.collect()
        self._lost = [ref for ref in self._lost if ref() is not None]
        return True

    def something_happened(self) -> None:
        """Called at each event, in the middle of an operation: let a lease end there."""
        if self._pending and self._random.random() < 0.2:
            del self._pending[-1]
        elif self._lost and self._random.random() < 0.002:
            self.collect()

    def end_pending(self) -> None:
        """Drop what is pending, and collect the reference cycles."""
        self._pending.clear()
        self.collect()

    # Exports

    def _buffer(self) -> Holding | None:
        """Take a single buffer with memory out of those held."""
        holding = self._pick() if self._mapped else None
        if holding is not None and not isinstance(holding.lease, Buffer):
            self.leases.append(holding)
            return None
        return holding

    def release_exported(self) -> bool:
        """Try to release a buffer that something exports; it stays."""
        holding = self._buffer()
        if holding is None:
            return False
        assert isinstance(holding.lease, Buffer)
        export = pickle.PickleBuffer(holding.lease.view)
        try:
            holding.lease.release()
        except BufferInUse:
            pass
        else:
            self._report(f"{holding.lease!r} was released while something exported it")
        export.release()
        self.leases.append(holding)
        return True

    def keep_slice(self) -> bool:
        """End a lease and keep a slice of its view, which keeps its item in quarantine."""
        holding = self._buffer()
        if holding is None:
            return False
        assert isinstance(holding.lease, Buffer)
        self._slices.append(holding.lease.view[:1])
        try:
            holding.lease.release()
        except BufferInUse:
            holding.lease.end()
        else:
            self._report(f"{holding.lease!r} was released while a slice of its view lived")
        return True

    def drop_exported(self) -> bool:
        """Drop a buffer that something exports: it cannot be taken back before that ends."""
        holding = self._buffer()
        if holding is None:
            return False
        assert isinstance(holding.lease, Buffer)
        self._pins.append(pickle.PickleBuffer(holding.lease.view))
        self._counters.dropped += 1
        return True

    def end_exports(self) -> bool:
        """Let go of all that is exported."""
        if not self._slices and not self._pins:
            return False
        self.unpinned = True
        self._slices.clear()
        self._pins.clear()
        return True

    # Mistakes

    def release_twice(self) -> bool:
        """Release a lease, and again, and look into it: both are refused."""
        holding = self._pick()
        if holding is None:
            return False
        parts = holding.parts()
        holding.lease.release()
        for part in parts:
            try:
                part.release()
            except DoubleRelease:
                pass
            else:
                self._report(f"{part!r} could be released twice")
            if isinstance(part, Buffer):
                try:
                    _ = part.view
                except UseAfterRelease:
                    pass
                else:
                    self._report(f"{part!r} still has a view")
        return True

    # After the close

    def end(self) -> None:
        """Let go of all at once, after the close: from here and from two threads at a time, by
        release and by drop; of a few in reference cycles."""
        self.end_pending()
        shares = self._share_out(3)
        drops = [self._random.randint(0, len(share) // 2) for share in shares]
        for share, drop in zip(shares, drops, strict=True):
            self._counters.dropped += sum(len(holding.parts()) for holding in share[:drop])
        threads = [
            threading.Thread(target=self._let_go, args=(share, drop))
            for share, drop in zip(shares[1:], drops[1:], strict=True)
        ]
        for thread in threads:
            thread.start()
        self._let_go(shares[0], drops[0])
        for thread in threads:
            thread.join()
        while self.drop_in_cycle():
            pass
        self.end_pending()

    def _share_out(self, count: int) -> list[list[Holding]]:
        """Divide most of what is held into so many parts."""
        self._random.shuffle(self.leases)
        shares: list[list[Holding]] = [[] for _ in range(count)]
        for holding in self.leases:
            self.verify(holding)
            self._random.choice(shares).append(holding)
        self.leases = [share.pop() for share in shares if len(share) > 4]
        return shares

    def _let_go(self, share: list[Holding], drop: int) -> None:
        """Release `share` from its end, and drop the first `drop` leases of it."""
        try:
            while len(share) > drop:
                share.pop().lease.release()
            share.clear()
        except Exception as error:  # noqa: BLE001 - perhaps in a thread
            self._report(f"a release after the close raised {error!r}")
