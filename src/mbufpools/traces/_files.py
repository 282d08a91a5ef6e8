"""Files of recordings: one recording, plain or compressed, or a tar archive of several.

A small compressed file can hold gigabytes, so no more of it is decompressed than a recording, or an
archive, may have. An archive is read from memory: then what its own headers ask for, such as a name
of a gigabyte, cannot take more than that either.
"""

from __future__ import annotations

import gzip
import io
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from ._recording import Trace, TraceError, parse_trace

__all__ = ["read_recordings", "read_trace"]

LARGEST = 16 * 1024 * 1024
"""The most bytes that a recording may have."""
LARGEST_ARCHIVE = 2 * LARGEST
"""The most bytes that an archive may have, decompressed."""

OPENERS: dict[str, Callable[..., IO[Any]]] = {
    ".xz": lzma.open,
    ".txz": lzma.open,
    ".gz": gzip.open,
    ".tgz": gzip.open,
}
"""What opens a file, by its suffix; any other file is not compressed."""
ARCHIVES = (".tar", ".tar.xz", ".txz", ".tar.gz", ".tgz")
"""How the name of an archive ends."""


def read_recordings(path: str | Path) -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each recording in a file, for `parse_trace`: the one of a
    ``.jsonl`` file, or each ``.jsonl`` file of a tar archive, in its order. Both may be compressed
    (``.xz`` or ``.gz``). Blocks while it reads, and takes some 100 MB of memory at most.

    Raises, when the first or the next recording is asked for:
        TraceError: the file is no recording and no archive of any, or one that is too large.
        OSError: the file cannot be read.
    """
    path = Path(path)
    if not _is_archive(path):
        yield path.name, _decode(_read(path, LARGEST), str(path))
        return
    content = _read(path, LARGEST_ARCHIVE)
    found = False
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
            for member in archive:
                if member.isreg() and member.name.endswith(".jsonl"):
                    file = archive.extractfile(member)
                    assert file is not None
                    found = True
                    name = f"{path.name}: {member.name}"
                    if member.size > LARGEST:
                        raise _too_large(name, LARGEST)
                    yield member.name, _decode(file.read(), name)
            # At a header that it cannot read, tarfile ends as if that were the end.
            end = archive.offset
            if content[end : end + tarfile.BLOCKSIZE] != tarfile.NUL * tarfile.BLOCKSIZE:
                raise tarfile.ReadError(f"it is damaged or cut off at byte {end}")
    except TraceError:
        raise
    except (tarfile.TarError, ValueError, OverflowError) as error:  # of a damaged header, any
        raise TraceError(
            f"{path} is no archive of recordings: {error}; expected a tar archive of .jsonl files"
        ) from error
    if not found:
        raise TraceError(f"{path} has no recording; expected a tar archive of .jsonl files")


def read_trace(path: str | Path) -> Trace:
    """Read a recording from a ``.jsonl`` file, or a compressed ``.jsonl.xz`` or ``.jsonl.gz``.
    Blocks while it reads. `read_recordings` reads an archive of several.

    Raises:
        TraceError: the file is not a recording.
        OSError: the file cannot be read.
    """
    path = Path(path)
    if _is_archive(path):
        raise TraceError(
            f"{path} is an archive; expected one recording. `read_recordings` reads an archive"
        )
    ((name, text),) = read_recordings(path)
    return parse_trace(text, name)


def _is_archive(path: Path) -> bool:
    return path.name.casefold().endswith(ARCHIVES)


def _read(path: Path, most: int) -> bytes:
    """Return what a file holds, decompressed. Raises TraceError if that is more than `most` bytes,
    and OSError."""
    try:
        with OPENERS.get(path.suffix, open)(path, "rb") as file:
            content: bytes = file.read(most + 1)
    except (lzma.LZMAError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise _undecodable(str(path), error) from error
    if len(content) > most:
        raise _too_large(str(path), most)
    return content


def _decode(content: bytes, name: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise _undecodable(name, error) from error


def _undecodable(name: str, error: Exception) -> TraceError:
    return TraceError(f"{name} is not a recording: {error}; expected JSON, one object a line")


def _too_large(name: str, most: int) -> TraceError:
    return TraceError(
        f"{name} is no recording that can be replayed: it has more than {most} bytes; split it "
        "into several recordings"
    )
