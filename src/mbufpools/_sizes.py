"""Sizes in bytes, as integers or as strings such as ``"64 MiB"``: parsed, checked, formatted."""

from __future__ import annotations

import re

from ._errors import ConfigurationError

__all__ = ["format_bytes", "parse_bytes", "require_count"]

_UNITS = {"": 1, "B": 1, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40}
_SIZE = r"\s*(\d+)\s*([A-Za-z]*)\s*"


def parse_bytes(value: int | str, what: str, *, minimum: int = 1) -> int:
    """Return `value` as a number of bytes of at least `minimum`; `what` names the value in errors.

    Raises:
        TypeError: `value` is neither an integer nor a string.
        ConfigurationError: `value` is a string of another form than ``"64 MiB"``, or too small.
    """
    if isinstance(value, str):
        match = re.fullmatch(_SIZE, value)
        unit = _UNITS.get(match[2].upper()) if match else None
        if match is None or unit is None:
            raise ConfigurationError(
                f"{what} is {value!r}; expected bytes as an integer, or a string such as "
                f'"64 MiB" (units: B, KiB, MiB, GiB, TiB)'
            )
        value = int(match[1]) * unit
    return require_count(value, what, minimum=minimum, unit="bytes")


def require_count(value: int, what: str, *, minimum: int = 0, unit: str = "items") -> int:
    """Return `value` if it is an integer of at least `minimum`; `what` names it in errors.

    Raises:
        TypeError: `value` is not an integer (a bool does not count as one).
        ConfigurationError: `value` is smaller than `minimum`.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what} is {value!r}; expected an integer number of {unit}")
    if value < minimum:
        raise ConfigurationError(f"{what} is {value}; expected at least {minimum} {unit}")
    return value


def format_bytes(nbytes: int) -> str:
    """Return `nbytes` as text: ``16384`` is ``"16 KiB"``; a size that is not a whole number of
    kibibytes is shown in bytes."""
    for unit in ("TIB", "GIB", "MIB", "KIB"):
        if nbytes and nbytes % _UNITS[unit] == 0:
            return f"{nbytes // _UNITS[unit]} {unit[0]}iB"
    return f"{nbytes} bytes"
