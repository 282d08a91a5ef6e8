"""Two sources of pages of your own: shared memory, and arrays.

A source has an `allocate(nbytes)` that returns a block. A block has a `view` of its bytes, and an
`unmap()` that gives the memory back, or returns False while something still exports it.
"""

import weakref
from multiprocessing.shared_memory import SharedMemory

try:
    import numpy
except ImportError:
    numpy = None

import anyio

from mbufpools import BufferPools


class SharedPage:
    """A page that other processes can open by the name of its segment."""

    def __init__(self, nbytes):
        self.segment = SharedMemory(create=True, size=nbytes)
        self.view = self.segment.buf[:nbytes]  # the system may round the size up

    def unmap(self):
        try:
            self.view.release()
            self.segment.close()
        except BufferError:
            return False
        self.segment.unlink()
        return True


class SharedPages:
    """Pages in shared memory; `segments` are the names of those that are in use."""

    def __init__(self):
        self.pages = weakref.WeakSet()

    @property
    def segments(self):
        return sorted(page.segment.name for page in self.pages)

    def allocate(self, nbytes):
        try:
            page = SharedPage(nbytes)
        except OSError as error:
            raise MemoryError(f"no shared memory of {nbytes} bytes is left") from error
        self.pages.add(page)
        return page


class ArrayPage:
    """A page in an array of NumPy, or in a bytearray where NumPy is not installed."""

    def __init__(self, nbytes):
        if numpy is None:
            self.array = bytearray(nbytes)
        else:
            self.array = numpy.zeros(nbytes, dtype=numpy.uint8)
        self.view = memoryview(self.array)

    def unmap(self):
        try:
            self.view.release()
        except BufferError:
            return False
        if numpy is None:
            try:
                self.array.clear()  # which a bytearray refuses while something exports it
            except BufferError:
                return False
            return True
        # An array does not refuse. It lives on in whatever was made from it.
        if not isinstance(self.array, weakref.ref):
            self.array = weakref.ref(self.array)
        return self.array() is None


class ArrayPages:
    """Pages in arrays."""

    def allocate(self, nbytes):
        return ArrayPage(nbytes)


async def main():
    shared = SharedPages()
    async with BufferPools("1 MiB", [4096], memory=shared) as pools:
        with await pools.get(5) as buffer:
            buffer.view[:] = b"hello"
            reader = SharedMemory(name=shared.segments[0])  # as another process would
            print(bytes(reader.buf[:5]).decode(), "through shared memory")
            reader.close()
    async with BufferPools("1 MiB", [4096], memory=ArrayPages()) as pools:
        with await pools.get(5) as buffer:
            buffer.view[:] = b"hello"
            print(bytes(buffer.view).decode(), "through an array")


if __name__ == "__main__":
    anyio.run(main)
