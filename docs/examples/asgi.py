"""An ASGI application that takes uploads within 1 MiB of buffers, under uvicorn and hypercorn.

The server calls `app` once with the scope `lifespan`, in a task that lives as long as the server.
This task enters the pools and leaves them. What it puts into `scope["state"]` is in the scope of
every request.
"""

import anyio

from mbufpools import BufferPools

LARGEST = 65536
"""Bytes of the largest body."""


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await lifespan(scope["state"], receive, send)
    elif scope["type"] == "http":
        status, text = await upload(scope["state"]["pools"], receive)
        headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(text))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": text})


async def lifespan(state, receive, send):
    await receive()  # lifespan.startup
    async with BufferPools("1 MiB", [LARGEST]) as pools:
        state["pools"] = pools
        await send({"type": "lifespan.startup.complete"})
        await receive()  # lifespan.shutdown: no request is left
    await send({"type": "lifespan.shutdown.complete"})


async def upload(pools, receive):
    """Read the body into a buffer; return the status and the text of the answer."""
    try:
        with anyio.fail_after(5):
            buffer = await pools.get(LARGEST)  # before the first byte of the body is read
    except TimeoutError:
        return 503, b"busy\n"
    nbytes = 0
    with buffer, anyio.move_on_after(30):  # a client that sends no more would keep the buffer
        while True:
            message = await receive()
            body = message.get("body", b"")
            if nbytes + len(body) > LARGEST:
                return 413, b"too large\n"
            buffer.view[nbytes : nbytes + len(body)] = body
            nbytes += len(body)
            if not message.get("more_body"):
                return 200, b"%d bytes\n" % nbytes
    return 408, b"too slow\n"
