"""A file of JSON lines that only grows: a kill tears at most the last one, which is cut off when it is opened again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any

from windlass.core.errors import InputError
from windlass.core.files import disk_errors


class Lines:
    """Belongs to one process at a time, which its owner sees to.

    `take` is given each line that is there. `file`: `path`, open for appending; opened, and made with its folder, where
    it is None. Raises `InputError` with `hint` for a line before the last that is no JSON, or that `take` refuses by
    `ValueError`, `TypeError` or `LookupError`; then the file stays as it was and is closed.
    """

    def __init__(self, path: Path, take: Callable[[Any], object], *, hint: str, file: IO[bytes] | None = None) -> None:
        self.path = path
        with disk_errors(path):
            if file is None:
                path.parent.mkdir(parents=True, exist_ok=True)
                file = path.open("ab")
            self._file = file
            try:
                os.ftruncate(self._file.fileno(), read_lines(path, lambda value, _: take(value), hint=hint))
            except BaseException:
                self._file.close()
                raise

    def append(self, values: Iterable[Any]) -> None:
        """On the disk when it returns, all with one write."""
        data = b"".join(json.dumps(value, separators=(",", ":")).encode() + b"\n" for value in values)
        with disk_errors(self.path):
            self._file.write(data)
            self._file.flush()
            os.fsync(self._file.fileno())

    def clear(self) -> None:
        """Begins anew."""
        with disk_errors(self.path):
            os.ftruncate(self._file.fileno(), 0)

    def close(self) -> None:
        self._file.close()

    def remove(self) -> None:
        """What it was for is over."""
        self.path.unlink(missing_ok=True)  # before it is closed, which may let somebody else in
        self.close()


def read_lines(path: Path, take: Callable[[Any, int], object], *, hint: str) -> int:
    """Gives `take` each whole line of a file, as the value that it holds and the place where it begins; returns where
    the last of them ends, which is where a torn one is to be cut off. Raises as `Lines` does."""
    end = 0
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            if not raw.endswith(b"\n"):
                break
            try:
                take(json.loads(raw), end)
            except (ValueError, TypeError, LookupError) as error:
                raise InputError(f"{path}, line {number}, is broken ({error!r}).", hint) from error
            end += len(raw)
    return end
