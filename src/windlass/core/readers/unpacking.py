"""Files that may be packed: `.gz` and `.zst` are read as what they hold, in constant memory.

A few kilobytes can unpack to terabytes. So a stream ends with `Bomb` when it has given more than `EXPANSION` times the
packed size and more than `ALWAYS` bytes: text packs to a tenth, rarely to a fiftieth.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePath
from typing import IO, Any

from windlass.core.errors import MissingExtra

PACKED = (".gz", ".zst", ".zstd")
EXPANSION = 200
ALWAYS = 50_000_000
"""Bytes that any packed file may hold: a small file of one repeated line is no attack."""

UNPACKING_ERRORS = (EOFError, zlib.error, gzip.BadGzipFile, OSError)
"""What reading an opened file may raise when it is cut short, damaged or a bomb."""


class Bomb(OSError):
    """A packed file holds far more than text could."""


def unpacked_name(name: str) -> str:
    """The name without `.gz` or `.zst`."""
    path = PurePath(name)
    return name[: -len(path.suffix)] if path.suffix.lower() in PACKED and path.stem else name


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The bytes that `path` holds, unpacked. Raises `MissingExtra` for `.zst` without pyarrow.

    Reading may raise any of `UNPACKING_ERRORS`; what was read before stands.
    """
    with ExitStack() as stack:
        file = stack.enter_context(path.open("rb"))
        suffix = path.suffix.lower()
        if suffix not in PACKED:
            yield file
            return
        limit = max(ALWAYS, EXPANSION * path.stat().st_size)
        packed: Any = stack.enter_context(gzip.GzipFile(fileobj=file) if suffix == ".gz" else _zstandard(file))
        yield stack.enter_context(io.BufferedReader(Limited(packed, limit), 1 << 18))


def _zstandard(file: IO[bytes]) -> Any:
    """pyarrow's stream notices a file that was cut short; that of the `zstandard` package ends as if it were whole."""
    try:
        import pyarrow
    except ModuleNotFoundError as error:
        raise MissingExtra("Reading .zst files", "corpus") from error
    return pyarrow.CompressedInputStream(pyarrow.PythonFile(file, "r"), "zstd")


class Limited(io.RawIOBase):
    """Gives at most `limit` bytes of a stream, then raises `Bomb`."""

    def __init__(self, stream: IO[bytes], limit: int, what: str = "") -> None:
        self._stream = stream
        self._limit = limit
        self._what = what or f"unpacks to more than {limit / 1e6:,.0f} MB"
        self.given = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._stream.read(len(buffer))
        self.given += len(data)
        if self.given > self._limit:
            raise Bomb(self._what)
        buffer[: len(data)] = data
        return len(data)


def reason(error: BaseException) -> tuple[str, str]:
    """(phrase, detail) for a reading report."""
    if isinstance(error, Bomb):
        return "too large", str(error)
    text = str(error)
    if isinstance(error, EOFError) or "runcated" in text:
        return "cut short", "the packed file ends too early"
    if isinstance(error, zlib.error | gzip.BadGzipFile) or not getattr(error, "errno", None):
        return "damaged", text.partition("\n")[0]
    return "cannot be read", getattr(error, "strerror", None) or text
