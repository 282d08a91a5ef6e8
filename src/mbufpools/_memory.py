"""Where pages come from: real memory, or none at all for simulations.

`MappedMemory` is the kernel's ``pool_allocator_multi``: each page is a private anonymous mapping,
given back to the operating system when the page leaves. It is *private* because Python's default
is shared, which a forked child would write through. `AccountedMemory` gives pages without
memory, so that a simulation may count in terabytes. Uses no other room.
"""

from __future__ import annotations

import mmap
from typing import Protocol, runtime_checkable

__all__ = ["AccountedMemory", "Block", "MappedMemory", "Memory"]


class Block:
    """The memory of one page: `view` is a writable view of all its bytes, or None."""

    __slots__ = ("_mapping", "view")

    def __init__(self, mapping: mmap.mmap | None) -> None:
        self._mapping = mapping
        self.view = None if mapping is None else memoryview(mapping)

    def unmap(self) -> bool:
        """Give the memory back. False if something still exports a part of it: then it stays
        mapped, and may be tried again."""
        if self._mapping is not None:
            try:
                if self.view is not None:
                    self.view.release()
                    self.view = None
                self._mapping.close()
            except BufferError:
                return False
            self._mapping = None
        return True


@runtime_checkable
class Memory(Protocol):
    """A source of pages."""

    def allocate(self, nbytes: int) -> Block:
        """Return a block of `nbytes` bytes. Raises MemoryError if the system has none."""
        ...  # pragma: no cover - a protocol's body


class MappedMemory:
    """Private anonymous mappings of the operating system."""

    def allocate(self, nbytes: int) -> Block:
        """Map `nbytes` bytes, all zero. Raises MemoryError if the system refuses."""
        try:
            return Block(mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        except OSError as error:
            raise MemoryError(
                f"the operating system refused a page of {nbytes} bytes ({error.strerror}); "
                f"lower the limit of the pools to what the machine can give"
            ) from error


class AccountedMemory:
    """Pages that are only counted; their buffers have no `view`."""

    def allocate(self, nbytes: int) -> Block:
        """Return a block without memory."""
        return Block(None)
