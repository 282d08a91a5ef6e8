"""Packages that are known to be right give no alarm, under every strategy, also if tasks are
cancelled. A package that is not installed is skipped; nothing is installed by this test."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Coroutine
from typing import Any, get_args

import anyio
import pytest

from mbufpools import lab
from mbufpools.lab._instants import BEGIN

Program = Callable[[], Coroutine[Any, Any, None]]


def use(package: str) -> Any:
    """Import a package, or skip the test."""
    pytest.importorskip(package.partition(".")[0])
    return importlib.import_module(package)


async def both(function: Callable[[], Coroutine[Any, Any, Any]]) -> list[Any]:
    return list(await asyncio.gather(function(), function()))


def a_limiter() -> Program:
    aiolimiter = use("aiolimiter")

    async def program() -> None:
        limiter = aiolimiter.AsyncLimiter(1, 10)

        async def pass_through() -> None:
            async with limiter:
                await asyncio.sleep(0)

        await both(pass_through)
        assert asyncio.get_running_loop().time() >= BEGIN + 10

    return program


def a_cached_function() -> Program:
    async_lru = use("async_lru")

    async def program() -> None:
        @async_lru.alru_cache  # type: ignore[untyped-decorator]  # the package may be absent
        async def double(number: int) -> int:
            await asyncio.sleep(1)
            return number * 2

        assert await both(lambda: double(2)) == [4, 4]

    return program


def a_cached_property() -> Program:
    asyncstdlib = use("asyncstdlib")

    async def program() -> None:
        async def numbers() -> Any:
            for number in range(3):
                await asyncio.sleep(0)
                yield number

        async with asyncstdlib.scoped_iter(numbers()) as them:
            assert await asyncstdlib.sum(them) == 3

    return program


def a_retry() -> Program:
    tenacity = use("tenacity")

    async def program() -> None:
        attempts = 0

        @tenacity.retry(  # type: ignore[untyped-decorator]  # as above
            wait=tenacity.wait_fixed(3), reraise=True
        )
        async def work() -> None:
            nonlocal attempts
            attempts += 1
            await asyncio.sleep(0)
            if attempts == 1:
                raise ConnectionError

        await work()
        assert attempts == 2

    return program


def a_cache() -> Program:
    aiocache = use("aiocache")

    async def program() -> None:
        cache = aiocache.SimpleMemoryCache(namespace="of the test")
        await cache.clear()

        async def work() -> None:
            await cache.set("k", 1, ttl=10)
            assert await cache.get("k") == 1

        await both(work)
        await cache.clear()

    return program


def a_timeout() -> Program:
    async_timeout = use("async_timeout")

    async def program() -> None:
        async def work() -> str:
            try:
                async with async_timeout.timeout(5):
                    await asyncio.sleep(10)
            except TimeoutError:
                return "late"
            return "in time"

        assert await both(work) == ["late", "late"]

    return program


def an_iterator() -> Program:
    aioitertools = use("aioitertools.asyncio")

    async def program() -> None:
        async def number(it: int) -> int:
            await asyncio.sleep(it)
            return it

        assert await aioitertools.gather(number(2), number(1)) == [2, 1]

    return program


def a_signal() -> Program:
    aiosignal = use("aiosignal")

    async def program() -> None:
        told = []

        async def tell(what: int) -> None:
            await asyncio.sleep(0)
            told.append(what)

        signal = aiosignal.Signal(None)
        signal.append(tell)
        signal.freeze()
        await both(lambda: signal.send(1))
        assert told == [1, 1]

    return program


def a_pool_of_connections() -> Program:
    httpcore = use("httpcore2")
    Stream: Any = httpcore.AsyncNetworkStream
    Backend: Any = httpcore.AsyncNetworkBackend

    class Line(Stream):  # type: ignore[misc]  # the package may be absent
        def __init__(self) -> None:
            self.todo = b""

        async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
            await anyio.lowlevel.checkpoint()
            data, self.todo = self.todo, b""
            return data

        async def write(self, buffer: bytes, timeout: float | None = None) -> None:
            await anyio.lowlevel.checkpoint()
            if buffer.startswith(b"GET"):
                self.todo += b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

        async def aclose(self) -> None:
            pass

        def get_extra_info(self, info: str) -> Any:
            return None

    class Network(Backend):  # type: ignore[misc]  # as above
        async def connect_tcp(self, *args: Any, **options: Any) -> Any:
            await anyio.lowlevel.checkpoint()
            return Line()

        async def sleep(self, seconds: float) -> None:
            await anyio.sleep(seconds)

    async def program() -> None:
        async with httpcore.AsyncConnectionPool(
            max_connections=1, network_backend=Network()
        ) as pool:

            async def get() -> None:
                response = await pool.request("GET", "http://example.org/")
                assert response.status == 200

            async with anyio.create_task_group() as group:
                group.start_soon(get)
                group.start_soon(get)

    return program


def an_application() -> Program:
    applications, responses = use("starlette.applications"), use("starlette.responses")
    routing = use("starlette.routing")

    async def page(request: object) -> Any:
        await anyio.lowlevel.checkpoint()
        return responses.PlainTextResponse("hello")

    app = applications.Starlette(routes=[routing.Route("/", page)])

    async def program() -> None:
        sent: list[Any] = []

        async def receive() -> dict[str, object]:
            await anyio.lowlevel.checkpoint()
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            await anyio.lowlevel.checkpoint()
            sent.append(message)

        scope = {"type": "http", "method": "GET", "path": "/", "root_path": "", "headers": []}
        async with anyio.create_task_group() as group:
            group.start_soon(app, {**scope, "query_string": b""}, receive, send)
            group.start_soon(app, {**scope, "query_string": b""}, receive, send)
        assert all(it.get("body", b"hello") in (b"hello", b"") for it in sent)

    return program


ON_BOTH = (a_pool_of_connections, an_application)
PROGRAMS = (
    a_limiter,
    a_cached_function,
    a_cached_property,
    a_retry,
    a_cache,
    a_timeout,
    an_iterator,
    a_signal,
    *ON_BOTH,
)


@pytest.mark.parametrize("strategy", get_args(lab.StrategyName))
@pytest.mark.parametrize(
    ("make", "backend"),
    [(it, "asyncio") for it in PROGRAMS] + [(it, "trio") for it in ON_BOTH],
)
def test_a_package_that_is_right_gives_no_alarm(
    make: Callable[[], Program], backend: lab.BackendName, strategy: lab.StrategyName
) -> None:
    if make is a_pool_of_connections and strategy == "dpor":
        pytest.skip("its tasks share a list, which dpor cannot see")
    program = make()
    by: bool | lab.CancelWay = True if make in ON_BOTH else "native"
    for cancel in (False, by) if strategy != "dpor" else (False,):
        lab.explore(
            program, backend=backend, strategy=strategy, cancel=cancel, max_executions=80
        ).assert_holds()
