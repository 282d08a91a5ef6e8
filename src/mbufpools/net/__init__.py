"""Sockets, protocols and streams whose bytes stay within the limit of the pools.

- `recv_into` and `send_all` use the caller's socket and the caller's buffers, on asyncio (also with
  uvloop) and on trio.
- `PooledBufferedProtocol` makes asyncio's transports read into buffers of the pools.
- `create_byte_stream` makes a stream of objects between tasks, bounded by the bytes of the objects.

===============  ==================================================================
``_sockets``     which sockets are accepted, and how one system call is tried
``_pieces``      the first bytes of a buffer
``_receive``     `recv_into`
``_send``        `send_all`
``_direct``      reading beside a paused transport
``_direction``   the state of one direction of a connection
``_peer``        which connection holds a buffer, in debug mode
``_reading``     what a transport of asyncio has read
``_writing``     what a transport of asyncio has to send
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
