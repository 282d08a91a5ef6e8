"""broadcaster forgets one of two readers that subscribe to a channel at the same time.

`python docs/examples/broadcaster_readers.py` shows it on asyncio's own loop.
"""

import asyncio

from broadcaster import Broadcast
from broadcaster._backends.memory import MemoryBackend


class OneRoundTrip(MemoryBackend):
    """A backend to which a subscription takes a moment, as it does over a network."""

    def __init__(self):
        super().__init__("memory://")

    async def subscribe(self, channel):
        await asyncio.sleep(0)
        await super().subscribe(channel)


async def two_readers():
    """Each of two readers has to hear the news."""
    async with Broadcast(backend=OneRoundTrip()) as broadcast:

        async def reader():
            async with broadcast.subscribe("news") as subscriber, asyncio.timeout(5):
                return (await subscriber.get()).message

        readers = [asyncio.create_task(reader()) for _ in range(2)]
        await asyncio.sleep(1)
        await broadcast.publish("news", "hello")
        heard = await asyncio.gather(*readers, return_exceptions=True)
        assert heard == ["hello", "hello"], f"heard: {heard}"


if __name__ == "__main__":
    asyncio.run(two_readers())
