"""Two programs that use the shelves of docs/lab.md: a stall, and a race that hooks make visible."""

import anyio
from anyio.lowlevel import checkpoint
from shelves import Shelf


async def reads_twice():
    shelf = Shelf()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(shelf.count_books, name="shelves inventory")
        await shelf.take("Ada")
        await shelf.take("Ada")


async def read(shelf, reader):
    await shelf.take(reader)
    await checkpoint()
    assert shelf.reader == reader, f"{shelf.reader} has the book too"
    shelf.put_back()


async def two_readers():
    shelf = Shelf()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read, shelf, "Ada")
        tasks.start_soon(read, shelf, "Blaise")
