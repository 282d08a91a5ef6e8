"""In debug mode: which connection holds a buffer, for `explain`.

A transport takes buffers outside of any task, and releases those that it sends. So the pools cannot
know a holder of theirs, unless the connection tells it. Without debug mode nothing here is called.
"""

from __future__ import annotations

import asyncio

from mbufpools import Buffer
from mbufpools._buffer import hold_by_connection

__all__ = ["Peer"]


class Peer:
    """The peer of one connection, as the holder of buffers."""

    def __init__(self) -> None:
        self._name = "a peer that is not connected yet"

    def start(self, transport: asyncio.Transport) -> None:
        """Learn the peer's address from `transport`."""
        address = transport.get_extra_info("peername")
        if isinstance(address, tuple):
            host, port, *_ = address
            self._name = f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
        else:
            self._name = str(address) if address else "a peer without an address"

    def read_ahead(self, buffer: Buffer) -> None:
        """Note that the connection reads into `buffer`, which no task has received."""
        doing = f"read ahead from {self._name} and received by no task"
        hold_by_connection(buffer, doing, read_ahead=True)

    def send(self, buffer: Buffer) -> None:
        """Note that the connection sends `buffer`, and releases it."""
        hold_by_connection(buffer, f"being sent to {self._name}")
