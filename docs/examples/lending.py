"""A desk that lends one book: the example of docs/lab.md. It has a bug, and below it, a cure."""

import anyio
from anyio.lowlevel import checkpoint


class Desk:
    """Lends one book to whoever comes first; the others wait in a queue."""

    def __init__(self):
        self.book_is_here = True
        self.queue = []

    async def borrow(self):
        if not self.book_is_here:
            await self.look_it_up()
            turn = anyio.Event()
            self.queue.append(turn)
            await turn.wait()
        self.book_is_here = False

    def bring_back(self):
        self.book_is_here = True
        if self.queue:
            self.queue.pop(0).set()

    async def look_it_up(self):
        await checkpoint()  # a query to the catalogue, say


class BetterDesk(Desk):
    """Looks it up before it looks whether the book is here, and hands it on."""

    async def borrow(self):
        await self.look_it_up()
        if self.book_is_here:
            self.book_is_here = False
        else:
            turn = anyio.Event()
            self.queue.append(turn)
            await turn.wait()  # whoever sets it leaves the book to us

    def bring_back(self):
        if self.queue:
            self.queue.pop(0).set()
        else:
            self.book_is_here = True


async def read(desk):
    await desk.borrow()
    await checkpoint()
    desk.bring_back()


async def two_readers():
    desk = Desk()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read, desk)
        tasks.start_soon(read, desk)


async def two_readers_at_a_better_desk():
    desk = BetterDesk()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read, desk)
        tasks.start_soon(read, desk)
