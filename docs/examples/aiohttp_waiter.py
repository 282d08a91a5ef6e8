"""aiohttp's connector loses a free slot that it has just handed to a request which is cancelled.

`python docs/examples/aiohttp_waiter.py` shows it on asyncio's own loop. There is no server: the
connector makes connections that do nothing.
"""

import asyncio
from types import SimpleNamespace

import aiohttp
from aiohttp.client_reqrep import ConnectionKey

KEY = ConnectionKey("example.org", 80, False, True, None, None, None, None)
REQUEST = SimpleNamespace(connection_key=KEY, proxy=None)


class Connection:
    """As much of a connection as a connector asks for."""

    should_close = False
    closed = None

    def is_connected(self):
        return True

    def close(self):
        return None

    abort = close


class Connector(aiohttp.BaseConnector):
    async def _create_connection(self, request, traces, timeout):
        await asyncio.sleep(0)
        return Connection()


async def connect(connector):
    connection = await connector.connect(REQUEST, [], aiohttp.ClientTimeout())
    await asyncio.sleep(0)
    connection.release()


async def three_requests():
    """One request has the only slot, and two wait for it. The first of them is cancelled in the
    moment in which the slot becomes free."""
    connector = Connector(limit=1)
    try:
        first = await connector.connect(REQUEST, [], aiohttp.ClientTimeout())
        second, third = (asyncio.create_task(connect(connector)) for _ in range(2))
        await asyncio.sleep(1)
        first.release()
        second.cancel()
        await asyncio.wait([third], timeout=5)
        assert third.done(), "the slot is free, and a request still waits for it"
    finally:
        third.cancel()
        await asyncio.wait([third])
        await connector.close()


if __name__ == "__main__":
    asyncio.run(three_requests())
