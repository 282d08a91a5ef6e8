"""Access to memory beside the pools, as only a source of memory, or foreign code, has it."""

from __future__ import annotations

from mbufpools import Block, Buffer, MappedMemory

__all__ = ["ExportedMemory", "memory_of"]


def memory_of(buffer: Buffer) -> memoryview:
    """The bytes of a buffer, by a view that no release sees."""
    item = buffer._item
    assert item is not None
    view = item.page.block.view
    assert view is not None
    start = item.index * _stride(item.page.lists)
    return view[start : start + buffer.nbytes]


def _stride(lists: object) -> int:
    stride: int = lists.stride  # type: ignore[attr-defined]
    return stride


class ExportedMemory(MappedMemory):
    """Mappings that something exports beside the pools, until it is taken out of `parts`."""

    def __init__(self) -> None:
        self.parts: list[memoryview] = []

    def allocate(self, nbytes: int) -> Block:
        block = super().allocate(nbytes)
        assert block.view is not None
        self.parts.append(block.view[:10])
        return block
