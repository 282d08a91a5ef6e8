"""What an error says of a name that does not exist: which one was meant, and which ones there are.

A name is compared with the right ones without its case, its dashes and its underscores, its
directory and its ``.py``. If it is none of them, the only one that begins with it is meant, or else
the one that looks most like it, if one does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

__all__ = ["closest", "closest_path", "unknown"]

LIKENESS = 0.7
"""The least ratio of equal characters. With less, ``curio`` would be taken for ``trio``."""


def closest(word: str, names: Iterable[str]) -> str | None:
    """Return the one of `names` that `word` was meant to be, or None if none looks like it."""
    from difflib import get_close_matches  # imported only after a mistake

    plain = {_plain(name): name for name in names}
    meant = _plain(word)
    if meant in plain:
        return plain[meant]
    begin = [name for name in plain if meant and name.startswith(meant)]
    if len(begin) == 1:
        return plain[begin[0]]
    alike = get_close_matches(meant, plain, 1, LIKENESS)
    return plain[alike[0]] if alike else None


def _plain(name: str) -> str:
    return name.casefold().rpartition("/")[2].removesuffix(".py").replace("_", "-").strip("-")


def closest_path(path: Path, pattern: str = "*") -> str | None:
    """Return the path in the same directory that `path`, which does not exist, was meant to be, or
    None. Only names that fit the glob `pattern` are considered."""
    try:
        names = [it.name for it in path.parent.glob(pattern) if not it.name.startswith(".")]
    except OSError:
        return None
    name = closest(path.name, names)
    return None if name is None else str(path.with_name(name))


def unknown(word: str, names: Sequence[str], listed: str = "") -> str:
    """Return the part of an error that shows the unknown `word`, the name that was meant, and the
    right names.

    Args:
        word: what was given.
        names: what would have been right.
        listed: says where the names are listed. It stands in their place if one of them was meant.
    """
    meant = closest(word, names)
    if meant is None:
        return f"{word!r}; expected one of {', '.join(names)}"
    right = listed or f"Expected one of {', '.join(names)}"
    return f"{word!r}; did you mean {meant!r}? {right}"
