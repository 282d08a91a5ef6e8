"""psycopg_pool loses a connection if its release is cancelled while another task begins to wait.

`python docs/examples/psycopg_pool_release.py` shows it on asyncio's own loop. There is no database:
the connections do nothing.
"""

import asyncio

import psycopg_pool
from psycopg.pq import TransactionStatus


class Connection:
    """As much of a connection as a pool asks for."""

    closed = False
    autocommit = False
    transaction_status = TransactionStatus.IDLE

    def __init__(self):
        self.pgconn = self.info = self

    @classmethod
    async def connect(cls, *args, **options):
        await asyncio.sleep(0)
        return cls()

    async def execute(self, *args):
        await asyncio.sleep(0)

    rollback = set_autocommit = execute

    async def close(self):
        self.closed = True

    async def __aenter__(self):
        return self

    async def __aexit__(self, *error):
        await asyncio.sleep(0)


async def use(pool):
    async with pool.connection() as connection:
        await connection.execute("select 1")


async def a_cancelled_release(yields):
    """The pool has one connection. One task uses it and is cancelled after so many turns of the
    loop; the other one comes a turn later, and waits for the connection."""
    options = {"min_size": 1, "max_size": 1, "num_workers": 1, "timeout": 1}
    async with psycopg_pool.AsyncConnectionPool(
        "", connection_class=Connection, open=False, **options
    ) as pool:
        await pool.wait()
        first = asyncio.create_task(use(pool))
        await asyncio.sleep(0)
        second = asyncio.create_task(use(pool))
        for _ in range(yields):
            await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait({first, second})
        return second.exception()


async def releases():
    """Cancel the first task after each number of turns."""
    errors = [await a_cancelled_release(yields) for yields in range(12)]
    assert not any(errors), "nobody holds the connection, and the pool has none"


if __name__ == "__main__":
    asyncio.run(releases())
