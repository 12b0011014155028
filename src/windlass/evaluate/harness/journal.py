"""Replies on the disk as they come, so that a benchmark that was stopped asks nothing twice.

A line is the key of a request and its reply, `["9ae0…", [-3.2, true, 4]]` or `["9ae0…", "text"]`. Lines are only
appended: a kill tears at most the last one, which is cut off. What failed is not kept, and so is asked again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from windlass.core.errors import WorkspaceBusy
from windlass.core.files import disk_errors
from windlass.core.lines import Lines
from windlass.core.protocols import Likelihood
from windlass.evaluate.harness.requests import Reply


class Journal:
    """Belongs to one process at a time (`WorkspaceBusy`). Raises `InputError` for a broken line before the last."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.replies: dict[str, Reply] = {}
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = _locked(path)
        self._lines = Lines(path, self._take, hint="Remove that line: what it holds is asked again.", file=file)
        self.had = len(self.replies)
        """Replies of earlier runs."""

    def keep(self, replies: Mapping[str, Reply]) -> None:
        """On the disk when it returns."""
        self._lines.append([key, _plain(reply)] for key, reply in replies.items())
        self.replies.update(replies)

    def clear(self) -> None:
        """What was kept is asked anew."""
        self._lines.clear()
        self.replies.clear()
        self.had = 0

    def remove(self) -> None:
        """All is done."""
        self._lines.remove()

    def close(self) -> None:
        self._lines.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _take(self, line: Any) -> None:
        key, reply = line
        self.replies[key] = reply if isinstance(reply, str) else Likelihood(*reply)


def _locked(path: Path) -> IO[bytes]:
    """Open for appending, and this process's own until it is closed or the process dies."""
    while True:
        file = path.open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise WorkspaceBusy(
                f"Another process asks this model the same benchmark ({path}).",
                "Wait until it has finished, or stop it, and run the command again.",
            ) from None
        with contextlib.suppress(FileNotFoundError):
            if os.fstat(file.fileno()).st_ino == path.stat().st_ino:
                return file
        file.close()  # its owner finished and removed it meanwhile


def _plain(reply: Reply) -> Any:
    return reply if isinstance(reply, str) else [reply.logprob, reply.greedy, reply.tokens]
