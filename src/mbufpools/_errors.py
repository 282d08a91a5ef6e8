"""The errors, sorted by whose move it is.

- *Wait*: `anyio.WouldBlock` (nothing free now) and `anyio.ClosedResourceError` (never again)
  are anyio's own, so that code which knows anyio's streams and locks knows these.
- *The caller's mistake*: `LeaseError` and its kinds, `RequestError` and its kinds, `UsageError`.
- *The configuration*: `ConfigurationError` and its kinds.
- *Our own bug*: `PoolCorruption`.

Every message says what was wrong, what was expected, and what to do. This room uses no other.
"""

from __future__ import annotations

import errno

__all__ = [
    "BufferInUse",
    "ConfigurationError",
    "DoubleRelease",
    "ForeignBuffer",
    "ImpossibleRequest",
    "LeaseError",
    "LimitRangeError",
    "OversizeRequest",
    "PoolCorruption",
    "RequestError",
    "UsageError",
    "UseAfterRelease",
]


class LeaseError(ValueError):
    """A buffer was used against its lease. Nothing has changed; the message names the pool."""


class DoubleRelease(LeaseError):
    """The buffer was released before; its memory may have a new owner."""


class UseAfterRelease(LeaseError):
    """The buffer was used after its release."""


class ForeignBuffer(LeaseError):
    """The buffer belongs to another pool than the one it was given to."""


class BufferInUse(LeaseError, BufferError):
    """Something (an array, a pending read) still exports the buffer's view, so it stays out."""


class RequestError(ValueError):
    """No amount of waiting can serve this request."""


class OversizeRequest(RequestError):
    """More bytes than the largest size class holds."""


class ImpossibleRequest(RequestError):
    """More than the limits allow, even with every other buffer released."""


class ConfigurationError(ValueError):
    """A size, a limit or a policy that cannot be."""


class LimitRangeError(ConfigurationError):
    """A limit out of range: the kernel's ``ERANGE``, which is also in `errno`."""

    errno = errno.ERANGE


class UsageError(RuntimeError):
    """A call at a moment, on a thread or from a task where it cannot work."""


class PoolCorruption(AssertionError):
    """`check()` found an invariant broken: a bug in this library. Please report it."""
