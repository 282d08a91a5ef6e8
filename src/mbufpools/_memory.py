"""Where pages come from: real memory, or no memory at all for simulations.

A `Memory` is a source of pages. Its `allocate` returns a `Block`, which is one page. Both are
protocols, so a page can be anything that shows its bytes as a `memoryview`: a mapping, shared
memory, a NumPy array. ``docs/examples/memory.py`` implements two of them.

`MappedMemory` models the kernel's ``pool_allocator_multi``: each page is an anonymous mapping,
which is given back to the operating system when the page leaves. The mapping is *private*, because
Python's default is a shared one, and a forked child would then write into the parent's pages.
`AccountedMemory` returns pages without memory, so a simulation can count in terabytes.

Invariant: a block that `allocate_page` returns has a view that a pool can slice in bytes, or no
view. Anything else from a source of another author is refused before the pool uses it.
"""

from __future__ import annotations

import mmap
from typing import Protocol, runtime_checkable

from ._errors import ConfigurationError

__all__ = ["AccountedMemory", "Block", "MappedBlock", "MappedMemory", "Memory", "allocate_page"]


@runtime_checkable
class Block(Protocol):
    """The memory of one page."""

    @property
    def view(self) -> memoryview | None:
        """A writable, contiguous `memoryview` of all bytes of the page (its format is ``"B"``).
        None if the page is only counted and has no memory."""
        ...  # pragma: no cover - a protocol's body

    def unmap(self) -> bool:
        """Give the memory back. Never blocks.

        Returns False, and keeps the memory valid, while something still exports a part of it.
        The pool then calls again later; until True is returned, the bytes stay charged. An
        exception is logged and counts as False.
        """
        ...  # pragma: no cover - a protocol's body


@runtime_checkable
class Memory(Protocol):
    """A source of pages."""

    def allocate(self, nbytes: int) -> Block:
        """Return a new block of `nbytes` bytes. Must not block.

        Raises:
            MemoryError: the system has no memory left. The get that needed the page fails with
                this error, and its charge is refunded.
        """
        ...  # pragma: no cover - a protocol's body


def allocate_page(memory: Memory, nbytes: int, pool: str) -> Block:
    """Return a block of `nbytes` bytes from `memory`, after checking it; `pool` is the pool's name.

    Raises:
        TypeError: the source returned no `Block`, or its view is no `memoryview`.
        ConfigurationError: the view has the wrong size, is read-only or is not contiguous bytes.
        MemoryError: the source has no memory left.
    """
    block = memory.allocate(nbytes)
    if type(block) is not MappedBlock and type(block) is not AccountedBlock:
        _check_block(block, memory, nbytes, pool)
    return block


def _check_block(block: object, memory: Memory, nbytes: int, pool: str) -> None:
    what = f"the page that {memory!r} allocated for pool {pool!r}"
    if not isinstance(block, Block):
        raise TypeError(
            f"{what} is {block!r}; expected a Block, which has a `view` and an `unmap()`; return "
            f"such an object from allocate()"
        )
    view = block.view
    if view is None:
        return
    if not isinstance(view, memoryview):
        raise TypeError(
            f"the view of {what} is {view!r}; expected a memoryview or None; wrap the object: "
            f"memoryview(...)"
        )
    if view.readonly:
        problem = "is read-only; expected a writable one; make it from a writable object"
    elif not view.c_contiguous:
        problem = "is not contiguous; expected one piece of memory; do not slice it with a step"
    elif view.format != "B" or view.ndim != 1:
        problem = (
            f"has format {view.format!r} in {view.ndim} dimension(s); expected single bytes "
            f"in one; use its cast('B')"
        )
    elif view.nbytes != nbytes:
        problem = f"has {view.nbytes} bytes; expected {nbytes}; cut it to the size asked for"
    else:
        return
    block.unmap()
    raise ConfigurationError(f"the view of {what} {problem}")


class MappedBlock:
    """A page of `MappedMemory`."""

    __slots__ = ("_mapping",)

    def __init__(self, mapping: mmap.mmap) -> None:
        self._mapping: mmap.mmap | None = mapping

    @property
    def view(self) -> memoryview | None:
        """All bytes; a new view each time, because a kept one would take memory for each page. None
        once the mapping was given back."""
        return None if self._mapping is None else memoryview(self._mapping)

    def unmap(self) -> bool:
        """Give the mapping back to the operating system; False while something exports it."""
        if self._mapping is not None:
            try:
                self._mapping.close()
            except BufferError:
                return False
            self._mapping = None
        return True


class AccountedBlock:
    """A page of `AccountedMemory`."""

    __slots__ = ()

    @property
    def view(self) -> None:
        """The page has no memory."""
        return None

    def unmap(self) -> bool:
        """Return True: there is nothing that could be exported."""
        return True


def map_anonymous(nbytes: int) -> mmap.mmap:
    """Map `nbytes` bytes that are all zero and that no other process has.

    Windows has no flags: there every mapping without a file and a name is such a one. Raises
    OSError if the system refuses.
    """
    private = getattr(mmap, "MAP_PRIVATE", None)
    if private is None:
        return mmap.mmap(-1, nbytes)
    return mmap.mmap(-1, nbytes, flags=private | mmap.MAP_ANONYMOUS)


class MappedMemory:
    """Private anonymous mappings of the operating system."""

    def allocate(self, nbytes: int) -> Block:
        """Map `nbytes` bytes, all zero. Raises MemoryError if the system refuses."""
        try:
            return MappedBlock(map_anonymous(nbytes))
        except OSError as error:
            raise MemoryError(
                f"the operating system refused a page of {nbytes} bytes ({error.strerror}); "
                f"lower the limit of the pools to what the machine can give"
            ) from error


class AccountedMemory:
    """Pages that are only counted; their buffers have no `view`."""

    def allocate(self, nbytes: int) -> Block:
        """Return a block without memory."""
        return AccountedBlock()
