"""Sockets, protocols and streams whose bytes stay inside the limit of the pools.

- `recv_into` and `send_all`: a caller's own socket and a caller's own buffers, on asyncio (uvloop
  too) and on trio.
- `PooledBufferedProtocol`: asyncio's transports, reading into buffers of the pools.
- `create_byte_stream`: a stream of objects between tasks, bounded by their bytes.

===============  ==================================================================
``_sockets``     which sockets are taken, and how one system call is tried
``_pieces``      the first bytes of a buffer
``_receive``     `recv_into`
``_send``        `send_all`
``_writing``     what a transport of asyncio still has to send
``_protocol``    `PooledBufferedProtocol`
``_byte_queue``  items whose bytes are reserved
``_stream``      `create_byte_stream`
===============  ==================================================================
"""

from __future__ import annotations

from ._byte_queue import ByteBoundStreamStatistics
from ._pieces import Piece
from ._protocol import PooledBufferedProtocol
from ._receive import recv_into
from ._send import SendFailed, send_all
from ._stream import (
    ByteBoundReceiveStream,
    ByteBoundSendStream,
    create_byte_stream,
)

__all__ = [
    "ByteBoundReceiveStream",
    "ByteBoundSendStream",
    "ByteBoundStreamStatistics",
    "Piece",
    "PooledBufferedProtocol",
    "SendFailed",
    "create_byte_stream",
    "recv_into",
    "send_all",
]
