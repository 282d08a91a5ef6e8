"""What the lab cannot schedule is refused on both backends, and is no stall."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable

import anyio
import pytest

from mbufpools import lab

both_backends = pytest.mark.parametrize("backend", ["asyncio", "trio"])


async def waits_for_a_socket() -> None:
    one, other = socket.socketpair()
    with one, other:
        one.setblocking(False)
        await anyio.wait_readable(one)


async def connects_beside_a_task_that_waits() -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep_forever)
        group.start_soon(waits_for_a_socket)


@both_backends
@pytest.mark.parametrize("program", [waits_for_a_socket, connects_beside_a_task_that_waits])
def test_a_program_that_waits_for_a_socket_is_refused(
    program: Callable[[], Awaitable[None]], backend: lab.BackendName
) -> None:
    with pytest.raises(lab.Unsupported, match="the program does I/O"):
        lab.explore(program, backend=backend)


@both_backends
def test_a_replay_refuses_what_an_exploration_does(backend: lab.BackendName) -> None:
    with pytest.raises(lab.Unsupported, match="the program does I/O"):
        lab.replay(waits_for_a_socket, f"{backend}:")


@both_backends
def test_after_a_refusal_trio_and_asyncio_do_io_again(backend: lab.BackendName) -> None:
    with pytest.raises(lab.Unsupported):
        lab.explore(waits_for_a_socket, backend=backend)

    async def program() -> bytes:
        one, other = socket.socketpair()
        with one, other:
            one.setblocking(False)
            other.send(b"x")
            await anyio.wait_readable(one)
            return one.recv(1)

    assert anyio.run(program, backend=backend) == b"x"
