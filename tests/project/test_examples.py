"""The programs of the tutorials run, and do what the tutorials say.

`tests/project/test_docs.py` compares what they print with what the pages show.
"""

from __future__ import annotations

import asyncio
import importlib
import lzma
import os
import re
import signal
import socket
import subprocess
import sys
import tarfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest

from mbufpools import BufferPools, examples
from mbufpools.experiment import _mail
from tests.kit.network import NARROW

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "docs" / "examples"


def run(*command: str, folder: Path = EXAMPLES) -> tuple[int, str, str]:
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error", *command],
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("program", ["uploads", "busy", "echo", "shed"])
def test_a_program_of_the_tutorial_for_applications_prints_the_same_on_trio(program: str) -> None:
    pytest.importorskip("trio")
    on_trio = f"import anyio, {program}; anyio.run({program}.main, backend='trio')"
    status, printed, complaints = run("-c", on_trio)
    assert (status, complaints) == (0, "")
    assert printed == run(f"{program}.py")[1]


def test_the_server_on_asyncio_s_transports_answers() -> None:
    assert run("transport.py") == (0, "b'hello'\n", "")


# Clients that send, and read nothing. The sockets are real, and the clock is virtual: it moves to
# the deadline when every task waits.


async def never_read(address: Any) -> None:
    """Send until the server closes the connection."""
    with narrow(socket.socket()) as sock:
        sock.connect(address)
        sock.setblocking(False)
        try:
            while True:
                await anyio.wait_writable(sock)
                sock.send(bytes(65536))
        except OSError:
            pass


def narrow(sock: socket.socket) -> socket.socket:
    for option, value in NARROW.items():
        sock.setsockopt(socket.SOL_SOCKET, getattr(socket, option), value)
    return sock


async def ask_beside_clients_that_never_read(address: Any, pools: BufferPools) -> float:
    """Take all buffers by 20 connections that are not read; then ask a question. Return after how
    many seconds the answer came."""
    echo = importlib.import_module("echo")
    answers: list[bool] = []
    async with anyio.create_task_group() as clients:
        for _ in range(20):
            clients.start_soon(never_read, address)
        began = anyio.current_time()
        await anyio.sleep(1)  # the clock moves when the kernel takes no more
        assert pools.statistics().waiting
        with anyio.fail_after(120):
            await echo.ask(address, b"question", answers)
        clients.cancel_scope.cancel()
    assert answers == [True]
    return anyio.current_time() - began


async def test_the_echo_server_closes_connections_that_are_not_read_and_serves_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    echo = importlib.import_module("echo")
    with narrow(socket.create_server(("127.0.0.1", 0))) as listener:
        listener.setblocking(False)
        async with BufferPools("64 KiB", [4096]) as pools, anyio.create_task_group() as tasks:
            tasks.start_soon(echo.serve, listener, pools)
            seconds = await ask_beside_clients_that_never_read(listener.getsockname(), pools)
            tasks.cancel_scope.cancel()
    assert seconds == pytest.approx(30, abs=1)


async def test_the_server_on_transports_aborts_connections_that_are_not_read_and_serves_the_others(
    monkeypatch: pytest.MonkeyPatch, anyio_backend_name: str
) -> None:
    if anyio_backend_name == "trio":
        pytest.skip("the server is one of asyncio")
    monkeypatch.syspath_prepend(EXAMPLES)
    transport = importlib.import_module("transport")
    loop = asyncio.get_running_loop()
    create_server = loop.create_server

    async def create_narrow_server(*arguments: Any) -> asyncio.Server:
        server = await create_server(*arguments)
        narrow(server.sockets[0])
        return server

    monkeypatch.setattr(loop, "create_server", create_narrow_server)
    async with BufferPools("64 KiB", [4096]) as pools, anyio.create_task_group() as tasks:
        address = await tasks.start(transport.serve, pools)
        seconds = await ask_beside_clients_that_never_read(address, pools)
        tasks.cancel_scope.cancel()
    assert seconds == pytest.approx(30, abs=1)


# What the limit does not count


def test_every_client_is_served_if_each_connection_has_a_reservation() -> None:
    assert run("bounded.py") == (0, "60 of 60 clients got their own words back\n", "")


def test_a_client_without_a_reservation_is_told_that_the_server_is_busy_and_closed() -> None:
    printed = (
        "of 20 clients 6 got their own words back\n"
        "and 14 were told that the server is busy\n"
        "served when they had left: True\n"
    )
    assert run("shed.py") == (0, printed, "")


async def test_a_client_that_is_refused_sees_the_end_after_the_answer_and_nothing_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    shed = importlib.import_module("shed")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        async with BufferPools("128 KiB", shed.SIZES) as pools, anyio.create_task_group() as tasks:
            everything = pools.reserve_nowait(6 * shed.PER_CONNECTION)
            tasks.start_soon(shed.serve, listener, pools)
            async with await anyio.connect_tcp(*listener.getsockname()) as client:
                assert await client.receive() == b"busy\n"
                with pytest.raises(anyio.EndOfStream):
                    await client.receive()
            everything.release()
            async with await anyio.connect_tcp(*listener.getsockname()) as client:
                await client.send(b"hello")
                assert await client.receive() == b"hello"
                assert pools.statistics().reserved == shed.PER_CONNECTION
                tasks.cancel_scope.cancel()
        assert (pools.statistics().reserved, pools.statistics().nout) == (0, 0)


async def test_connections_that_are_served_wait_for_no_buffer_of_those_that_wait_for_a_reservation(
    monkeypatch: pytest.MonkeyPatch, anyio_backend_name: str
) -> None:
    """The reservations are taken by idle connections, which speak last."""
    if anyio_backend_name == "trio":
        pytest.skip("the server is one of asyncio")
    monkeypatch.syspath_prepend(EXAMPLES)
    bounded = importlib.import_module("bounded")
    answers: list[bytes] = []
    with bounded.listener() as sock:
        address = sock.getsockname()
        async with BufferPools("1 MiB", bounded.SIZES) as pools, anyio.create_task_group() as tasks:
            tasks.start_soon(bounded.serve, sock, pools)
            idle = [await anyio.connect_tcp(*address) for _ in range(20)]
            async with anyio.create_task_group() as clients:
                for _ in range(40):
                    clients.start_soon(bounded.ask, address, answers)
                await anyio.sleep(1)
                assert pools.statistics().waiting == 1, "the next connection is not yet accepted"
                for stream in idle:
                    await stream.send(b"hello")
                    if stream in idle[:15]:
                        assert await stream.receive() == b"hello"
                    await stream.aclose()
            tasks.cancel_scope.cancel()
    assert answers == [b"hello"] * 40


def test_the_options_of_a_listening_socket_bound_what_the_kernel_keeps_of_its_connections(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    bounded = importlib.import_module("bounded")
    with bounded.listener() as sock, narrow(socket.socket()) as client:
        client.connect(sock.getsockname())
        sock.setblocking(True)
        accepted, _ = sock.accept()
        with accepted:
            accepted.setblocking(False)
            taken = 0
            with suppress(BlockingIOError):
                while taken < 1 << 20:
                    taken += accepted.send(bytes(4096))
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                assert accepted.getsockopt(socket.SOL_SOCKET, option) <= 2 * 16384
    assert 0 < taken < 1 << 18


# The end of a server that has a client. From Python 3.12 on `wait_closed` of asyncio's servers
# waits for the connections, so a program that awaits it before it has ended them never ends.

SERVE = {
    "transport": """
import anyio, asyncio, transport
from mbufpools import BufferPools

class Started:
    def started(self, address):
        print(address[1], flush=True)

async def main():
    async with BufferPools("64 KiB", [4096]) as pools:
        await transport.serve(pools, task_status=Started())

asyncio.run(main())
""",
    "echo": """
import anyio, echo, socket
from mbufpools import BufferPools

async def main():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        print(listener.getsockname()[1], flush=True)
        async with BufferPools("64 KiB", [4096]) as pools:
            await echo.serve(listener, pools)

anyio.run(main)
""",
    "shutdown": """
import asyncio, shutdown
shutdown.GRACE = 0.5
asyncio.run(shutdown.main())
""",
}
"""Programs that print the port of the server of an example, and serve until a signal comes."""


def end_of_a_server(program: str, number: int) -> tuple[int, str, str]:
    """Connect to the server, exchange some bytes, send the signal; return how the program ended.

    It has ten seconds."""
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", SERVE[program]],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=EXAMPLES,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    ) as server:
        try:
            assert server.stdout is not None
            port = int(server.stdout.readline().split()[-1])
            with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
                client.sendall(b"hello")
                assert client.recv(5, socket.MSG_WAITALL) == b"hello"
                server.send_signal(number)
                said = server.communicate(timeout=10)
        finally:
            server.kill()
    return server.returncode, *said


@pytest.mark.parametrize("program", ["transport", "echo"])
def test_ctrl_c_ends_a_server_of_the_examples_that_has_an_idle_client(program: str) -> None:
    status, printed, complaints = end_of_a_server(program, signal.SIGINT)
    assert (status, printed) == (-signal.SIGINT, "")
    assert complaints.endswith("\nKeyboardInterrupt\n")
    assert "Warning" not in complaints


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_server_that_waits_some_seconds_for_its_clients(number: int) -> None:
    ended = end_of_a_server("shutdown", number)
    assert ended == (0, "has ended; 0 buffers are out\n", "")


async def test_the_server_that_ends_on_a_signal_lets_a_client_end_first(
    monkeypatch: pytest.MonkeyPatch, anyio_backend_name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if anyio_backend_name == "trio":
        pytest.skip("the server is one of asyncio")
    monkeypatch.syspath_prepend(EXAMPLES)
    shutdown = importlib.import_module("shutdown")
    stop = asyncio.Event()
    async with BufferPools("64 KiB", [4096]) as pools, anyio.create_task_group() as tasks:
        tasks.start_soon(shutdown.serve, pools, stop)
        await anyio.sleep(1)
        port = int(capsys.readouterr().out.split()[-1])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        began = anyio.current_time()
        stop.set()
        await anyio.sleep(shutdown.GRACE - 1)
        with pytest.raises(OSError, match="127"):
            await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        writer.close()
    assert anyio.current_time() - began < shutdown.GRACE


def test_the_deadlock_of_the_tutorial_is_cured_by_get_many() -> None:
    source = (EXAMPLES / "why.py").read_text(encoding="utf-8")
    begin, end = source.index("    with await pools.get(8192)"), source.index("async def main")
    cured = (
        source[:begin]
        + "    with await pools.get_many([8192, 8192]) as (source, target):\n"
        + "        await anyio.sleep(2)\n\n\n"
        + source[end:]
    )
    assert run("-c", cured) == (0, "no request waits; 16384 of 16384 bytes are allocated\n", "")


def test_an_ordinary_run_of_the_desk_passes_each_time() -> None:
    program = (
        "import anyio, lending\n"
        "async def main():\n"
        "    with anyio.fail_after(30):\n"
        "        for _ in range(100):\n"
        "            await lending.two_readers()\n"
        "anyio.run(main)"
    )
    assert run("-c", program) == (0, "", "")


def test_the_tests_of_the_desk_end_as_the_tutorial_says(tmp_path: Path) -> None:
    pytest.importorskip("trio")
    for name in ("lending.py", "test_lending.py"):
        (tmp_path / name).write_text((EXAMPLES / name).read_text("utf-8"), encoding="utf-8")
    plain = ("-p", "no:asyncio", "-p", "no:cacheprovider", "-p", "no:xdist")
    status, printed, complaints = run("-m", "pytest", "-q", *plain, folder=tmp_path)
    assert (status, complaints) == (1, "")
    assert "explored: 2 proved, 2 found" in printed
    assert (
        "replay: pytest 'test_lending.py::test_two_readers_both_get_the_book[asyncio]' "
        "--explore-token 'asyncio:0.0@2>0.0'" in printed
    )


def test_there_are_as_many_recordings_as_the_tutorial_and_the_mail_say() -> None:
    counts = []
    for name in ("kernel-traces", "kernel-traces-caches"):
        with tarfile.open(ROOT / "tests" / "data" / f"{name}.tar.xz") as archive:
            counts.append(sum(member.isfile() for member in archive))
    tutorial = (ROOT / "docs" / "tutorials" / "stall.md").read_text(encoding="utf-8")
    says = re.findall(r"(\d+) recordings of the real kernel code, and (\d+) of it", tutorial)
    assert says == [tuple(map(str, counts))]
    assert sum(counts) == _mail.RECORDINGS


def test_the_recording_is_one_of_those_that_are_tested() -> None:
    with tarfile.open(ROOT / "tests" / "data" / "kernel-traces.tar.xz") as archive:
        member = archive.extractfile("002-deferred-stale.jsonl")
        assert member is not None
        assert lzma.decompress((EXAMPLES / "kernel.jsonl.xz").read_bytes()) == member.read()


# The ASGI application, driven as a server does it


class Server:
    """Calls an ASGI application with its lifespan, and with requests."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.state: dict[str, Any] = {}
        self.events, self._events = anyio.create_memory_object_stream[dict[str, Any]](2)
        self.answers, self.lifespan_says = anyio.create_memory_object_stream[dict[str, Any]](2)

    async def run_lifespan(self) -> None:
        scope = {"type": "lifespan", "state": self.state}
        with self.events, self._events, self.answers:
            await self.app(scope, self._events.receive, self.answers.send)

    async def request(self, *parts: bytes | None) -> tuple[int, bytes]:
        """Send a body in parts, and with None as the last one never its end; return the status and
        the body of the answer."""
        left = list(parts)
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            await (anyio.sleep_forever() if left[0] is None else anyio.lowlevel.checkpoint())
            return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await self.app({"type": "http", "state": dict(self.state)}, receive, send)
        start, body = sent
        assert (b"content-length", b"%d" % len(body["body"])) in start["headers"]
        return start["status"], body["body"]


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module("asgi").app


async def test_the_asgi_application_enters_its_pools_and_answers(app: Any) -> None:
    server = Server(app)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.run_lifespan)
        await server.events.send({"type": "lifespan.startup"})
        assert await server.lifespan_says.receive() == {"type": "lifespan.startup.complete"}
        assert await server.request(b"hello, ", b"world") == (200, b"12 bytes\n")
        assert await server.request(b"") == (200, b"0 bytes\n")
        assert await server.request(bytes(60_000), bytes(6_000)) == (413, b"too large\n")
        pools = server.state["pools"]
        with await pools.get_many([65536] * 16):
            began = anyio.current_time()
            assert await server.request(b"hello") == (503, b"busy\n")
            assert anyio.current_time() - began == pytest.approx(5)
        assert await server.request(b"hello") == (200, b"5 bytes\n")
        began = anyio.current_time()
        assert await server.request(b"hello", None) == (408, b"too slow\n")
        assert anyio.current_time() - began == pytest.approx(30)
        assert pools.statistics().nout == 0
        await server.events.send({"type": "lifespan.shutdown"})
        assert await server.lifespan_says.receive() == {"type": "lifespan.shutdown.complete"}
    server.lifespan_says.close()
    with pytest.raises(anyio.ClosedResourceError):
        pools.get_nowait(1)


# The command that copies them


def test_the_list_has_every_program_with_its_first_sentence(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert examples.main([]) == 0
    printed = capsys.readouterr().out
    assert f"The examples are in {EXAMPLES}:\n" in printed
    for program in EXAMPLES.glob("*.py"):
        assert f"  {program.name} " in printed


def test_the_copy_has_every_file_and_none_that_python_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert examples.main(["--copy", str(tmp_path / "new" / "examples")]) == 0
    assert capsys.readouterr().out == f"The examples are in {tmp_path / 'new' / 'examples'}.\n"
    copied = {file.relative_to(tmp_path / "new" / "examples") for file in tmp_path.rglob("*.*")}
    kept = {file.relative_to(EXAMPLES) for file in EXAMPLES.rglob("*.*")}
    made = {file for file in kept if re.search(r"__pycache__|^\.", str(file))}
    assert copied == kept - made


def test_a_copy_into_a_folder_that_exists_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        examples.main(["--copy", str(tmp_path)])
    says = capsys.readouterr().err
    assert says.endswith(f"{tmp_path} exists; expected a new folder, and nothing was copied\n")
    assert list(tmp_path.iterdir()) == []


def test_a_copy_into_a_folder_that_cannot_be_made_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit, match="2"):
        examples.main(["--copy", str(tmp_path / "file" / "examples")])
    assert "cannot be written: " in capsys.readouterr().err


def test_an_installation_without_examples_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(examples, "__file__", str(tmp_path / "a" / "b" / "examples.py"))
    with pytest.raises(SystemExit, match="2"):
        examples.main([])
    assert capsys.readouterr().err.endswith("; reinstall mbufpools\n")


LEAKS = """
import asyncio
from mbufpools import BufferPools

async def using(use, kept):
    async with BufferPools("64 KiB", [2048]) as pools:
        await use(pools, kept)
    return pools.statistics().dropped

async def drop(pools, kept):
    await pools.get(100)

async def keep(pools, kept):
    kept.append(await pools.get(100))

async def release(pools, kept):
    with await pools.get(100):
        pass

def test_dropped():
    asyncio.run(using(drop, []))

def test_kept():
    asyncio.run(using(keep, []))

def test_released():
    asyncio.run(using(release, []))

def test_counted():
    assert asyncio.run(using(drop, [])) == 0
"""


def failing(folder: Path, *options: str) -> set[str]:
    """Return which tests of `LEAKS` do not pass, in a pytest without other plugins."""
    (folder / "test_leaks.py").write_text(LEAKS, "utf-8")
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", *options]
    printed = subprocess.run(
        command, capture_output=True, text=True, cwd=folder, env=environment, check=False
    ).stdout
    found = re.findall(r"^test_leaks.py::test_(\w+) ([A-Z]+)", printed, re.MULTILINE)
    assert {name for name, _ in found} == {"dropped", "kept", "released", "counted"}, printed
    return {name for name, outcome in found if outcome != "PASSED"}


def test_a_leak_fails_an_ordinary_test_with_the_filters_of_the_page_and_not_without(
    tmp_path: Path,
) -> None:
    page = (ROOT / "docs" / "howto" / "observing.md").read_text("utf-8")
    (filters,) = re.findall(r"^```toml\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    empty = "[tool.pytest.ini_options]\n"
    assert filters.startswith(empty)
    leaks = {"dropped", "kept", "counted"}
    for ini, options, expected in (
        (empty, [], {"counted"}),
        (empty, ["-W", "error"], leaks),
        (empty, ["-W", "error::ResourceWarning"], {"counted", "kept"}),
        (filters, [], leaks),
    ):
        (tmp_path / "pyproject.toml").write_text(ini, "utf-8")
        assert failing(tmp_path, *options) == expected, (ini, options)
