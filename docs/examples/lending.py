"""A desk that lends one book: a program with a race, and below it the fixes."""

import anyio
from anyio.lowlevel import checkpoint


class Desk:
    """Lends one book. A reader that asks while the book is out waits in a queue."""

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
        await checkpoint()  # for example a query to the catalogue


class BetterDesk(Desk):
    """Looks the book up before it checks whether it is here, and hands the book on."""

    async def borrow(self):
        await self.look_it_up()
        if self.book_is_here:
            self.book_is_here = False
        else:
            turn = anyio.Event()
            self.queue.append(turn)
            await turn.wait()  # the task that sets it hands the book to this one

    def bring_back(self):
        if self.queue:
            self.queue.pop(0).set()
        else:
            self.book_is_here = True


async def read(desk):
    await desk.borrow()
    for _ in range(2):
        await checkpoint()  # for example a page, which comes from a disk
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


class BestDesk(BetterDesk):
    """Hands the book on if the reader that it was handed to has been cancelled."""

    async def borrow(self):
        await self.look_it_up()
        if self.book_is_here:
            self.book_is_here = False
            return
        turn = anyio.Event()
        self.queue.append(turn)
        try:
            await turn.wait()
        except BaseException:
            if turn.is_set():
                self.bring_back()
            else:
                self.queue.remove(turn)
            raise


async def read_with_care(desk):
    await desk.borrow()
    try:
        for _ in range(2):
            await checkpoint()
    finally:
        desk.bring_back()


async def two_readers_at_the_best_desk():
    desk = BestDesk()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read_with_care, desk)
        tasks.start_soon(read_with_care, desk)
    assert desk.book_is_here
