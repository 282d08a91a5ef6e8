"""A library that holds one book: the example of hooks in docs/lab.md."""

import anyio

__lab_hooks__ = "shelves._lab_hooks"


class Shelf:
    """Holds one book."""

    def __init__(self):
        self.reader = None
        self.turns = []

    async def take(self, reader):
        while self.reader is not None:
            turn = anyio.Event()
            self.turns.append(turn)
            await turn.wait()
        self.reader = reader

    def put_back(self):
        self.reader = None
        if self.turns:
            self.turns.pop(0).set()

    async def count_books(self):
        """Run this in a task that is named "shelves inventory"."""
        while True:
            await anyio.sleep(60)
