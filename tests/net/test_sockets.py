"""`recv_into` and `send_all` on sockets of every kind, on asyncio, uvloop and trio."""

from __future__ import annotations

import asyncio
import hashlib
import pickle
import random
import re
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any

import anyio
import pytest
import trio
from anyio.lowlevel import checkpoint
from anyio.streams.buffered import BufferedByteReceiveStream

from mbufpools import Buffer, BufferPools, DoubleRelease, PoolSpec, UseAfterRelease
from mbufpools.net import Piece, SendFailed, recv_into, send_all
from mbufpools.net._send import IOV_MAX
from tests.kit.network import (
    LARGE,
    LOOPS,
    NARROW,
    SLICE,
    checked,
    connected,
    fail_at_the_end_of_a_lease,
    read,
    read_slowly,
    reset,
    send,
    turns,
)

pytestmark = pytest.mark.real_time


@pytest.fixture(params=LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


def plain(sock: socket.socket) -> socket.socket:
    return sock


def trio_socket(sock: socket.socket) -> Any:
    return trio.socket.from_stdlib_socket(sock)


def trio_stream(sock: socket.socket) -> Any:
    return trio.SocketStream(trio_socket(sock))


KINDS = [plain, trio_socket, trio_stream]
Kind = Callable[[socket.socket], Any]


async def taken(pools: BufferPools, contents: list[bytes]) -> list[Buffer]:
    """A buffer for each of these strings of bytes."""
    buffers = []
    for content in contents:
        buffer = await pools.get(len(content))
        buffer.view[:] = content
        buffers.append(buffer)
    return buffers


def native_cancel_only(anyio_backend: Any) -> None:
    if anyio_backend[0] == "trio":
        pytest.skip("trio has no cancellation beside its scopes")


def drain(sock: socket.socket) -> None:
    """Read the bytes that have arrived."""
    with pytest.raises(BlockingIOError):
        while True:
            sock.recv(1 << 20)


# --- receiving


@pytest.mark.parametrize("kind", KINDS)
async def test_bytes_arrive_in_the_buffer_and_zero_is_the_end(kind: Kind) -> None:
    with connected() as (ours, theirs):
        async with checked() as pools:
            with await pools.get(100) as buffer:
                theirs.sendall(b"hello")
                assert await recv_into(kind(ours), buffer) == 5
                assert bytes(buffer.view[:5]) == b"hello"
                theirs.shutdown(socket.SHUT_WR)
                assert await recv_into(kind(ours), buffer) == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_a_waiting_receive_is_woken_by_the_bytes(kind: Kind) -> None:
    with connected() as (ours, theirs):
        async with checked() as pools, anyio.create_task_group() as tasks:
            with await pools.get(100) as buffer:
                tasks.start_soon(send_later, theirs, b"later")
                assert await recv_into(kind(ours), buffer, 10) == 5
                assert bytes(buffer.view[10:15]) == b"later"


async def send_later(sock: socket.socket, data: bytes) -> None:
    await turns()
    sock.sendall(data)


async def test_a_start_leaves_the_bytes_before_it_alone() -> None:
    with connected() as (ours, theirs):
        async with checked() as pools:
            with await pools.get(8) as buffer:
                theirs.sendall(b"0123456789")
                assert await recv_into(ours, buffer, 5) == 3
                assert await recv_into(ours, buffer) == 7
                assert bytes(buffer.view) == b"34567892"


@pytest.mark.parametrize("start", [-1, 8, 9])
async def test_a_start_outside_the_buffer_is_refused(start: int) -> None:
    with connected() as (ours, _):
        async with checked() as pools:
            refused = pytest.raises(ValueError, match=f"start is {start}; expected 0 to 7")
            with await pools.get(8) as buffer, refused:
                await recv_into(ours, buffer, start)


async def test_bytes_of_an_anyio_stream_are_copied_into_the_buffer() -> None:
    async def serve(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.send(b"hello " * 1000)

    async with checked() as pools:
        async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
            address = listener.extra(anyio.abc.SocketAttribute.local_address)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(listener.serve, serve)
                async with await anyio.connect_tcp(*address[:2]) as stream:
                    data = b""
                    with await pools.get(100) as buffer:
                        while nbytes := await recv_into(stream, buffer, 1):
                            assert nbytes <= 99
                            data += buffer.view[1 : 1 + nbytes]
                tasks.cancel_scope.cancel()
        assert data == b"hello " * 1000


@pytest.mark.parametrize("kind", KINDS)
async def test_a_cancelled_receive_leaves_nothing_exported_and_takes_nothing(kind: Kind) -> None:
    with connected() as (ours, theirs):
        async with checked() as pools:
            buffer = await pools.get(100)
            with anyio.move_on_after(0.01) as scope:
                await recv_into(kind(ours), buffer)
            assert scope.cancelled_caught
            buffer.release()
            with await pools.get(100) as buffer:
                theirs.sendall(b"hello")
                assert await recv_into(kind(ours), buffer) == 5


@pytest.mark.parametrize("kind", KINDS)
async def test_a_receive_in_a_cancelled_scope_leaves_the_bytes_in_the_socket(kind: Kind) -> None:
    with connected() as (ours, theirs):
        async with checked() as pools:
            with await pools.get(100) as buffer:
                theirs.sendall(b"hello")
                await turns()
                with anyio.CancelScope() as scope:
                    scope.cancel()
                    await recv_into(kind(ours), buffer)
                assert scope.cancelled_caught
                assert await recv_into(kind(ours), buffer) == 5


@pytest.mark.parametrize("waits", [True, False])
@pytest.mark.parametrize("first", ["bytes", "cancel"])
async def test_a_native_cancel_around_the_arrival_loses_no_byte(
    waits: bool, first: str, anyio_backend: Any
) -> None:
    native_cancel_only(anyio_backend)
    with connected() as (ours, theirs):
        async with checked() as pools:
            with await pools.get(100) as buffer:
                for count in range(6):  # the turns in which the loop can see the bytes
                    task = asyncio.create_task(recv_into(ours, buffer))
                    if waits:
                        await turns()
                    if first == "bytes":
                        theirs.sendall(b"hello")
                        for _ in range(count):
                            await asyncio.sleep(0)
                        task.cancel()
                    else:
                        task.cancel()
                        theirs.sendall(b"hello")
                    (result,) = await asyncio.gather(task, return_exceptions=True)
                    got = result if isinstance(result, int) else await recv_into(ours, buffer)
                    assert got == 5


@pytest.mark.parametrize("start", [0, 10])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_receive_does_not_write_into_a_buffer_that_was_released(
    kind: Kind, start: int
) -> None:
    with connected() as (ours, theirs):
        async with checked() as pools, anyio.create_task_group() as tasks:
            buffer = await pools.get(100)

            async def receive() -> None:
                with pytest.raises(UseAfterRelease, match="pool '4096'"):
                    await recv_into(kind(ours), buffer, start)

            tasks.start_soon(receive)
            await turns()
            buffer.release()
            theirs.sendall(b"hello")
            await turns()
            with await pools.get(100) as buffer:  # debug mode checks the poison of the item
                assert await recv_into(ours, buffer) == 5


async def test_a_receive_that_succeeds_at_once_lets_others_run() -> None:
    with connected() as (ours, theirs):
        async with checked() as pools, anyio.create_task_group() as tasks:
            theirs.sendall(bytes(100))
            await turns()
            ran = 0

            async def other() -> None:
                nonlocal ran
                while True:
                    ran += 1
                    await checkpoint()

            tasks.start_soon(other)
            with await pools.get(1) as buffer:
                for _ in range(20):
                    await recv_into(ours, buffer)
            assert ran >= 10
            tasks.cancel_scope.cancel()


async def test_a_reset_by_the_peer_is_a_broken_resource() -> None:
    with connected() as (ours, theirs):
        async with checked() as pools:
            reset(theirs)
            broken = pytest.raises(anyio.BrokenResourceError)
            with await pools.get(100) as buffer, broken as caught:
                await recv_into(ours, buffer)
            assert isinstance(caught.value.__cause__, ConnectionResetError)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_closed_socket_is_a_closed_resource(kind: Kind, anyio_backend: Any) -> None:
    if kind is not plain and anyio_backend[0] != "trio":
        pytest.skip("trio's sockets are closed on trio only")
    with connected() as (ours, _):
        ours = kind(ours)
        if isinstance(ours, trio.SocketStream):
            ours.socket.close()
        else:
            ours.close()
        async with checked() as pools:
            with await pools.get(100) as buffer:
                with pytest.raises(anyio.ClosedResourceError):
                    await recv_into(ours, buffer)
                with pytest.raises(anyio.ClosedResourceError):
                    await send_all(ours, [buffer])


async def test_a_waiting_receive_is_told_of_the_close() -> None:
    with connected() as (ours, _):
        async with checked() as pools, anyio.create_task_group() as tasks:

            async def receive() -> None:
                with await pools.get(100) as buffer, pytest.raises(anyio.ClosedResourceError):
                    await recv_into(ours, buffer)

            tasks.start_soon(receive)
            await turns()
            anyio.notify_closing(ours)
            ours.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_two_tasks_cannot_receive_from_one_socket(kind: Kind) -> None:
    with connected() as (ours, theirs):
        ours = kind(ours)
        async with checked() as pools, anyio.create_task_group() as tasks:

            async def receive() -> None:
                with await pools.get(100) as buffer:
                    assert await recv_into(ours, buffer) == 5

            tasks.start_soon(receive)
            await turns()
            busy = pytest.raises(anyio.BusyResourceError, match="receiving from")
            with await pools.get(100) as buffer, busy:
                await recv_into(ours, buffer)
            theirs.sendall(b"hello")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: 7, "7 is not a socket"),
        (lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM), "SOCK_DGRAM"),
        (
            lambda: ssl.create_default_context().wrap_socket(
                socket.socket(), server_hostname="localhost", do_handshake_on_connect=False
            ),
            "ssl.SSLSocket cannot be waited for",
        ),
        (lambda: asyncio.trsock.TransportSocket(socket.socket()), "TransportSocket"),  # type: ignore[attr-defined]
        (lambda: BufferedByteReceiveStream, "is not a socket"),
        (lambda: asyncio.StreamReader, "for asyncio's transports there is PooledBufferedProtocol"),
    ],
)
async def test_other_objects_are_refused_and_the_error_says_what_is_accepted(
    make: Callable[[], Any], message: str
) -> None:
    wrong = make()
    async with checked() as pools:
        buffer = await pools.get(100)
        for use in (recv_into, lambda sock, buffer: send_all(sock, [buffer])):
            if hasattr(wrong, "setblocking"):
                wrong.setblocking(False)
            with pytest.raises(TypeError, match=message) as caught:
                await use(wrong, buffer)
            assert "expected a connected stream socket" in str(caught.value)
            assert buffer.released == (use is not recv_into)
        assert pools.statistics().nout == 0
    for sock in (wrong, getattr(wrong, "_sock", None)):
        if isinstance(sock, socket.socket):
            sock.close()


async def test_a_socket_that_blocks_is_refused() -> None:
    with connected() as (ours, _):
        ours.setblocking(True)
        async with checked() as pools:
            refused = pytest.raises(ValueError, match=r"setblocking\(False\)")
            with await pools.get(100) as buffer, refused:
                await recv_into(ours, buffer)


async def test_an_object_that_is_not_a_buffer_is_refused() -> None:
    with connected() as (ours, _), pytest.raises(TypeError, match="expected a Buffer"):
        await recv_into(ours, bytearray(5))  # type: ignore[arg-type]


async def test_a_released_buffer_is_refused() -> None:
    with connected() as (ours, _):
        async with checked() as pools:
            (buffer,) = await pools.get_many([100])
            buffer.release()
            with pytest.raises(UseAfterRelease, match="pool '4096'"):
                await recv_into(ours, buffer)
            with pytest.raises(UseAfterRelease, match="pool '4096'"):
                await send_all(ours, [buffer])


# --- sending


@pytest.mark.parametrize("kind", KINDS)
async def test_buffers_are_sent_in_order_and_released(kind: Kind) -> None:
    with connected() as (ours, theirs):
        async with checked() as pools:
            buffers = await taken(pools, [b"one ", b"two ", b"threeXX", b"Y", b" four"])
            pieces: list[Piece] = [*buffers[:2], (buffers[2], 5), (buffers[3], 0), buffers[4]]
            await send_all(kind(ours), iter(pieces))
            assert all(buffer.released for buffer in buffers)
            assert await read(theirs, 18) == b"one two three four"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_slow_reader_gets_all_of_many_megabytes(kind: Kind) -> None:
    nbytes, sent, received = 4 << 20, hashlib.sha256(), hashlib.sha256()
    with connected(SO_SNDBUF=65536) as (ours, theirs):
        sock = kind(ours)
        async with checked("128 KiB") as pools, anyio.create_task_group() as tasks:
            tasks.start_soon(read_slowly, theirs, received.update)
            chance = random.Random(1)
            while nbytes > 0:
                contents = [chance.randbytes(chance.choice([1, 700, 16384])) for _ in range(3)]
                await send_all(sock, await taken(pools, contents))
                for content in contents:
                    sent.update(content)
                    nbytes -= len(content)
            ours.shutdown(socket.SHUT_WR)
    assert sent.digest() == received.digest()


async def test_more_buffers_than_one_system_call_takes_are_sent() -> None:
    with connected() as (ours, theirs):
        async with checked("8 MiB", [PoolSpec(64, items_per_page=64)]) as pools:
            contents = [b"%06d" % number for number in range(2 * IOV_MAX + 3)]
            await send_all(ours, await taken(pools, contents))
            assert await read(theirs, 6 * len(contents)) == b"".join(contents)


async def test_kafka_19012_a_buffer_is_free_only_after_its_send_has_returned() -> None:
    """Kafka freed buffers during their send; the next owner wrote into that send."""
    ends: list[int] = []

    class Watched(socket.socket):
        taken = 0

        def sendmsg(self, buffers: Any, *args: Any) -> int:
            count = super().sendmsg(buffers, *args)
            unsent = sum(end > Watched.taken for end in ends)
            assert pools.statistics().nout >= unsent
            Watched.taken += count
            return count

    received = hashlib.sha256()
    sent = hashlib.sha256()
    with connected(SO_SNDBUF=32768, SO_RCVBUF=32768) as (ours, theirs):
        watched = Watched(fileno=ours.detach())
        watched.setblocking(False)
        # The pools hold four buffers, and two tasks write into every free one.
        async with (
            checked("64 KiB", [PoolSpec(16384, items_per_page=1)]) as pools,
            anyio.create_task_group() as tasks,
            anyio.create_task_group() as others,
        ):

            async def scribble() -> None:
                while True:
                    with await pools.get(16384) as buffer:
                        buffer.view[:] = b"\xff" * 16384

            tasks.start_soon(read_slowly, theirs, received.update)
            others.start_soon(scribble)
            others.start_soon(scribble)
            for number in range(60):
                buffers = list(await pools.get_many([16384, 16000]))
                for buffer in buffers:
                    buffer.view[:] = bytes([number]) * buffer.nbytes
                    sent.update(buffer.view)
                    ends.append((ends[-1] if ends else 0) + buffer.nbytes)
                with buffers[0]:
                    await send_all(watched, buffers)
                assert ends[-1] == Watched.taken
            others.cancel_scope.cancel()
            watched.close()
    assert Watched.taken == ends[-1]
    assert sent.digest() == received.digest()


async def test_memory_comes_back_while_the_rest_waits_for_the_peer() -> None:
    with connected(**NARROW) as (ours, theirs):
        async with checked("2 MiB", [PoolSpec(16384, items_per_page=1)]) as pools:
            buffers = await taken(pools, [bytes([n]) * 16384 for n in range(64)])
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(send_all, ours, buffers)
                await turns()
                assert all(buffer.released for buffer in buffers), "the call has them"
                assert 0 < pools.statistics().nout < len(buffers)
                await read(theirs, 64 * 16384)


@pytest.mark.parametrize("kind", KINDS)
async def test_after_a_cancelled_send_all_buffers_are_released(kind: Kind) -> None:
    with connected(**NARROW) as (ours, theirs):
        sock = kind(ours)
        async with checked("2 MiB", [PoolSpec(16384, items_per_page=1)]) as pools:
            contents = [bytes([n]) * 16384 for n in range(64)]
            buffers = await taken(pools, contents)
            scope = anyio.CancelScope()

            async def cancelled_send() -> None:
                with scope:
                    await send_all(sock, buffers)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(cancelled_send)
                while pools.statistics().nout == len(buffers):
                    await turns()
                left = pools.statistics().nout
                assert left > 0
                scope.cancel()
            assert scope.cancelled_caught
            assert pools.statistics().nout == 0
            ours.shutdown(socket.SHUT_WR)
            gone = 64 - left
            data = await read(theirs, 64 * 16384)
            # If the socket is writable at the moment of the cancellation, one more send goes out.
            assert gone * 16384 <= len(data)
            assert b"".join(contents).startswith(data)


async def test_a_native_cancel_of_a_send_releases_all_buffers(anyio_backend: Any) -> None:
    native_cancel_only(anyio_backend)
    with connected(**NARROW) as (ours, theirs):
        async with checked("2 MiB", [PoolSpec(16384, items_per_page=1)]) as pools:
            for turn in range(1, 6):
                buffers = await taken(pools, [bytes(16384)] * 50)
                task = asyncio.create_task(send_all(ours, buffers))
                for _ in range(turn):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                assert task.cancelled()
                assert pools.statistics().nout == 0
                drain(theirs)


async def test_a_send_that_never_began_has_taken_nothing(anyio_backend: Any) -> None:
    native_cancel_only(anyio_backend)
    with connected() as (ours, _):
        async with checked() as pools:
            (buffer,) = await taken(pools, [b"never"])
            task = asyncio.create_task(send_all(ours, [buffer]))
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            buffer.release()


async def test_a_send_in_a_cancelled_scope_sends_nothing() -> None:
    with connected() as (ours, theirs):
        async with checked() as pools:
            buffer = await pools.get(100)
            with anyio.CancelScope() as scope:
                scope.cancel()
                await send_all(ours, [buffer])
            assert scope.cancelled_caught
            assert (buffer.released, pools.statistics().nout) == (True, 0)
            await turns()
            with pytest.raises(BlockingIOError):
                theirs.recv(1)


async def test_an_error_says_how_many_bytes_had_gone() -> None:
    with connected(**NARROW) as (ours, theirs):
        async with checked("2 MiB", [PoolSpec(16384, items_per_page=1)]) as pools:
            buffers = await taken(pools, [bytes(16384)] * 64)
            async with anyio.create_task_group() as tasks:
                failures: list[SendFailed] = []

                async def sending() -> None:
                    with pytest.raises(SendFailed, match="bytes were handed") as caught:
                        await send_all(ours, buffers)
                    failures.append(caught.value)

                tasks.start_soon(sending)
                await turns()
                gone = len(buffers) - pools.statistics().nout
                reset(theirs)
            (failure,) = failures
            assert gone * 16384 <= failure.sent < (gone + 1) * 16384
            assert (failure.nbytes, gone > 0) == (64 * 16384, True)
            assert isinstance(failure.__cause__, ConnectionError)
            assert isinstance(failure, anyio.BrokenResourceError)
            assert pools.statistics().nout == 0


WRONG: list[tuple[Callable[[Any, Any], Any], type[Exception], str]] = [
    (lambda first, second: [first, b"bytes", second], TypeError, "expected a Buffer, or a pair"),
    (lambda first, second: [first, (second, True)], TypeError, "expected a Buffer, or a pair"),
    (lambda first, second: [first, (second, "1")], TypeError, "expected a Buffer, or a pair"),
    (lambda first, second: [(first, second)], TypeError, "expected a Buffer, or a pair"),
    (lambda first, second: [first, [second, 5]], TypeError, r">, 5\]; expected a Buffer, or"),
    (lambda first, second: [first, (second, 101)], ValueError, "cannot send 101 bytes"),
    (lambda first, second: [first, (second, -1)], ValueError, "cannot send -1 bytes"),
    (lambda first, second: [first, second, first], ValueError, "twice"),
    (lambda first, second: (first, 5, second), TypeError, "expected a Buffer, or a pair"),
    (lambda first, second: raises_after([first, second]), LookupError, "planted"),
]


def raises_after(pieces: list[Any]) -> Any:
    yield from pieces
    raise LookupError("planted")


@pytest.mark.parametrize(("make", "error", "message"), WRONG, ids=map(str, range(len(WRONG))))
async def test_a_send_of_what_cannot_be_sent_sends_nothing_and_takes_every_buffer(
    make: Callable[[Any, Any], Any], error: type[Exception], message: str
) -> None:
    with connected() as (ours, theirs):
        async with checked() as pools:
            first, second = await pools.get_many([100, 100])
            with pytest.raises(error, match=message) as caught:
                await send_all(ours, make(first, second))
            assert_told_of_the_release(caught.value)
            assert (first.released, second.released) == (True, True)
            assert pools.statistics().nout == 0
            await turns()
            with pytest.raises(BlockingIOError):
                theirs.recv(1)


def assert_told_of_the_release(error: BaseException) -> None:
    """The text of `error`, or a note of it, says that the buffers of the send were released; and
    no text says that one is held."""
    told = "\n".join([str(error), *getattr(error, "__notes__", [])])
    assert re.search("buffers?( of the call)? (was|were) released|has released", told), told
    assert "held" not in told


async def test_a_send_of_a_released_buffer_sends_nothing_and_takes_the_others() -> None:
    with connected() as (ours, theirs):
        async with checked() as pools:
            first, released, last = await pools.get_many([100, 100, 100])
            released.release()
            with pytest.raises(UseAfterRelease, match="a send releases it"):
                await send_all(ours, [first, released, last])
            assert pools.statistics().nout == 0
            with pytest.raises(BlockingIOError):
                theirs.recv(1)


async def test_a_buffer_that_is_given_as_the_list_is_taken_and_the_error_says_so() -> None:
    with connected() as (ours, _):
        async with checked() as pools:
            buffer = await pools.get(100)
            with pytest.raises(TypeError, match="one after another") as caught:
                await send_all(ours, buffer)  # type: ignore[arg-type]
            assert "put it in a list, send_all(sock, [buffer]); all buffers of the call" in str(
                caught.value
            )
            assert_told_of_the_release(caught.value)
            assert pools.statistics().nout == 0
            with pytest.raises(DoubleRelease, match="perhaps by a send"):
                buffer.release()
            with pytest.raises(UseAfterRelease, match="perhaps by a send"):
                buffer.view  # noqa: B018 - a property that raises


ERRORS: dict[str, type[Exception]] = {
    "no socket": TypeError,
    "blocks": ValueError,
    "busy": anyio.BusyResourceError,
    "closed": anyio.ClosedResourceError,
    "lost": SendFailed,
}


def fill(sock: socket.socket) -> None:
    """Send until the socket stays full: the kernel moves bytes on to the peer for a while."""
    refused = 0
    while refused < 5:
        try:
            sock.send(bytes(65536))
            refused = 0
        except BlockingIOError:
            refused += 1
            time.sleep(0.002)


@pytest.mark.parametrize("problem", ERRORS)
async def test_every_error_of_a_send_tells_that_the_buffers_were_released(problem: str) -> None:
    with connected() as (ours, theirs):
        async with checked() as pools, anyio.create_task_group() as tasks:
            sock: Any = ours
            match problem:
                case "no socket":
                    sock = "ours"
                case "blocks":
                    ours.setblocking(True)
                case "busy":
                    fill(ours)
                    tasks.start_soon(send_all, ours, [await pools.get(100)])
                    await turns()
                case "closed":
                    ours.close()
                case "lost":
                    reset(theirs)
                    await turns()
            buffer = await pools.get(100)
            with pytest.raises(ERRORS[problem]) as caught:
                await send_all(sock, [buffer])
            assert_told_of_the_release(caught.value)
            assert buffer.released
            tasks.cancel_scope.cancel()


@pytest.mark.parametrize("swapped", [False, True])
async def test_what_is_no_list_at_all_is_refused_and_what_was_not_given_stays_the_caller_s(
    swapped: bool,
) -> None:
    with connected() as (ours, _):
        async with checked() as pools:
            with await pools.get(100) as buffer:
                first, second = ([buffer], ours) if swapped else (ours, None)
                with pytest.raises(
                    TypeError, match=r"one after another; got .*; the call is send_all"
                ):
                    await send_all(first, second)  # type: ignore[arg-type]
                assert not buffer.released


async def test_a_send_of_nothing_is_a_checkpoint() -> None:
    with connected() as (ours, _):
        async with checked():
            await send_all(ours, [])
            with anyio.CancelScope() as scope:
                scope.cancel()
                await send_all(ours, [])
            assert scope.cancelled_caught


async def test_an_exported_view_does_not_stop_the_send_and_its_item_waits_in_quarantine() -> None:
    with connected() as (ours, theirs):
        async with checked() as pools:
            buffers = await taken(pools, [b"one", b"two", b"three"])
            export = pickle.PickleBuffer(buffers[1].view)
            await send_all(ours, buffers)
            assert await read(theirs, 11) == b"onetwothree"
            assert pools.statistics().nout == 1
            assert bytes(export) == b"two"
            export.release()
            await turns()


async def test_an_error_at_the_end_of_a_lease_is_raised_after_the_others_were_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with connected() as (ours, theirs):
        async with checked() as pools:
            buffers = await taken(pools, [b"one", b"two", b"three"])
            fail_at_the_end_of_a_lease(monkeypatch)
            with pytest.raises(MemoryError, match="planted"):
                await send_all(ours, buffers)
            assert await read(theirs, 11) == b"onetwothree"
            assert pools.statistics().nout == 0


async def test_two_tasks_cannot_send_to_one_socket() -> None:
    with connected(**NARROW) as (ours, theirs):
        async with (
            checked(2 * LARGE, [PoolSpec(LARGE, items_per_page=1)]) as pools,
            anyio.create_task_group() as tasks,
        ):
            one, two = await taken(pools, [b"1" * LARGE, b"two"])
            tasks.start_soon(send_all, ours, [one])
            await turns()
            with pytest.raises(anyio.BusyResourceError, match="sending to"):
                await send_all(ours, [two])
            assert (two.released, pools.statistics().nout) == (True, 1)
            assert await read(theirs, LARGE) == b"1" * LARGE


@pytest.mark.parametrize("early", ["with", "release"])
async def test_a_release_by_another_task_does_nothing_to_bytes_that_are_still_to_be_sent(
    early: str,
) -> None:
    with connected(**NARROW) as (ours, theirs):
        async with (
            checked(2 * LARGE, [PoolSpec(LARGE, items_per_page=1)]) as pools,
            anyio.create_task_group() as tasks,
        ):
            (buffer,) = await taken(pools, [b"1" * LARGE])
            with buffer:
                tasks.start_soon(send_all, ours, [buffer])
                await turns()
                if early == "release":
                    with pytest.raises(DoubleRelease):
                        buffer.release()
            with await pools.get(LARGE) as other:
                other.view[:] = b"\xff" * LARGE
                assert await read(theirs, LARGE) == b"1" * LARGE


async def test_an_anyio_stream_gets_copies_and_the_buffers_are_released() -> None:
    received = bytearray()

    async def serve(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            async for data in stream:
                received.extend(data)
        tasks.cancel_scope.cancel()

    contents = [bytes([n]) * 16384 for n in range(50)]
    async with (
        checked() as pools,
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as tasks,
    ):
        address = listener.extra(anyio.abc.SocketAttribute.local_address)
        tasks.start_soon(listener.serve, serve)
        async with await anyio.connect_tcp(*address[:2]) as stream:
            buffers = await taken(pools, contents)
            await send_all(stream, buffers)
            await send_all(stream, [(await pools.get(5), 0)])
        await anyio.sleep_forever()
    assert received == b"".join(contents)


async def test_an_anyio_stream_gets_the_copy_of_a_large_buffer_in_slices() -> None:
    """No pool counts the copy, so it is small."""
    got: list[bytes] = []

    class Keeping(anyio.abc.ByteSendStream):
        async def send(self, item: bytes) -> None:
            got.append(item)
            assert pools.statistics().nout == 1

        async def aclose(self) -> None:
            pass

    content = bytes(range(256)) * 800
    async with checked("1 MiB", [PoolSpec(1 << 18, items_per_page=1)]) as pools:
        buffer = await pools.get(1 << 18)
        buffer.view[: len(content)] = content
        await send_all(Keeping(), [(buffer, len(content))])
        assert pools.statistics().nout == 0
    assert b"".join(got) == content
    assert [len(data) for data in got] == [SLICE, SLICE, SLICE, len(content) - 3 * SLICE]


async def test_the_error_of_an_anyio_stream_says_how_many_bytes_had_gone() -> None:
    class Failing(anyio.abc.ByteSendStream):
        left = 2

        async def send(self, item: bytes) -> None:
            if not self.left:
                raise anyio.BrokenResourceError
            self.left -= 1

        async def aclose(self) -> None:
            pass

    async with checked() as pools:
        buffers = await taken(pools, [b"one", b"four", b"three"])
        with pytest.raises(SendFailed) as caught:
            await send_all(Failing(), buffers)
        assert (caught.value.sent, caught.value.nbytes) == (7, 12)
        assert [buffer.released for buffer in buffers] == [True, True, True]
        assert pools.statistics().nout == 0


# --- both


async def test_bytes_go_from_socket_to_socket_through_four_buffers() -> None:
    data = random.Random(5).randbytes(4 << 20)
    received = bytearray()
    with connected() as (left, source), connected(SO_SNDBUF=32768) as (sink, right):

        async def relay(pools: BufferPools) -> None:
            while True:
                await anyio.wait_readable(source)
                with await pools.get(16384) as buffer:
                    nbytes = await recv_into(source, buffer)
                    if not nbytes:
                        break
                    await send_all(sink, [(buffer, nbytes)])
            sink.shutdown(socket.SHUT_WR)

        async def feed() -> None:
            await send(left, data)
            left.shutdown(socket.SHUT_WR)

        async with (
            checked("64 KiB", [PoolSpec(16384, items_per_page=1)]) as pools,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(feed)
            tasks.start_soon(relay, pools)
            tasks.start_soon(read_slowly, right, received.extend)
    assert received == data
