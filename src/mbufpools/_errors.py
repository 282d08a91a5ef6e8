"""The errors, sorted by what can be done about them.

- *Wait, or stop*: `anyio.WouldBlock` (nothing is free now) and `anyio.ClosedResourceError` (nothing
  will be free again). They are anyio's own errors, so code that handles anyio's streams and locks
  handles these, too.
- *Correct the call*: `LeaseError`, `RequestError` and their subclasses, and `UsageError`.
- *Correct the configuration*: `ConfigurationError` and its subclass.
- *Report a bug of this library*: `PoolCorruption`.

Every message says what was wrong, what was expected, and what to do.
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
    """A buffer or reservation was used against its lease. Nothing has changed."""


class DoubleRelease(LeaseError):
    """The lease was released before; its memory may belong to another task now."""


class UseAfterRelease(LeaseError):
    """The buffer was used after its release."""


class ForeignBuffer(LeaseError):
    """The buffer was given to a pool that it does not belong to."""


class BufferInUse(LeaseError, BufferError):
    """Something (an array, a pending read) still exports the buffer's view, so the
    buffer cannot be released."""


class RequestError(ValueError):
    """No amount of waiting can serve this request."""


class OversizeRequest(RequestError):
    """The request is for more bytes than the largest size class holds."""


class ImpossibleRequest(RequestError):
    """The request is for more than the limits allow, even if every other buffer were released."""


class ConfigurationError(ValueError):
    """A size, a limit, a policy or a source of memory is not valid."""


class LimitRangeError(ConfigurationError):
    """A limit is out of range: the kernel's ``ERANGE``, which is also in `errno`."""

    errno: int = errno.ERANGE


class UsageError(RuntimeError):
    """The call cannot work at this moment, on this thread, or from this task."""


class PoolCorruption(AssertionError):
    """`check()` found a broken invariant, which is a bug of this library. Please report it."""
