"""The journal of long work: each answer is on the disk before it counts, so that none is paid for twice.

What a search for a prompt does is decided by its seed and by the answers it gets. Begun again after it was stopped, it
asks the same in the same order, is given the answers that it had, and goes on from where they end. An evaluation asks
the same items again and is given theirs. Lines are only appended: a kill
tears at most the last one, which is cut off.

    {"fact": "incumbent", "value": "4c1f…"}
    {"asked": "9ae0…", "answer": "{…}"}
"""

from __future__ import annotations

import json
import os
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from windlass.core.errors import InputError
from windlass.core.files import disk_errors
from windlass.core.plain import packed, unpacked
from windlass.core.values import ChatResponse


class Journal:
    """Belongs to one process at a time, which its caller sees to; safe between threads.

    Raises `InputError` for a file with a broken line that is not its last.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._answers: dict[str, deque[str]] = {}
        self._facts: dict[str, Any] = {}
        self._turn = threading.Lock()
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab")
        try:
            os.ftruncate(self._file.fileno(), self._load())
        except BaseException:
            self._file.close()
            raise
        self.had = sum(map(len, self._answers.values()))
        """Answers of earlier runs."""

    def answer(self, key: str) -> ChatResponse | None:
        """An answer of an earlier run to what has this key; each is given once, in the order in which they came."""
        with self._turn:
            waiting = self._answers.get(key)
            return unpacked(waiting.popleft()) if waiting else None

    def keep(self, key: str, response: ChatResponse) -> None:
        """On the disk when it returns."""
        self._append({"asked": key, "answer": packed(response)})

    def fact(self, name: str) -> Any:
        """What was settled under this name; None: nothing yet."""
        return self._facts.get(name)

    @property
    def facts(self) -> dict[str, Any]:
        """All that was settled."""
        return dict(self._facts)

    def settled(self, name: str, find: Callable[[], Any]) -> Any:
        """What `find` gives the first time, in this run or in an earlier one."""
        if name not in self._facts:
            value = find()
            self._append({"fact": name, "value": value})
            self._facts[name] = value
        return self._facts[name]

    def close(self) -> None:
        self._file.close()

    def remove(self) -> None:
        """The work is over."""
        self.close()
        self.path.unlink(missing_ok=True)

    def _append(self, line: dict[str, Any]) -> None:
        with self._turn, disk_errors(self.path):
            self._file.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())

    def _load(self) -> int:
        """Returns where the last whole line ends."""
        end = 0
        with self.path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                if not raw.endswith(b"\n"):
                    break
                try:
                    line = json.loads(raw)
                    if "asked" in line:
                        self._answers.setdefault(line["asked"], deque()).append(line["answer"])
                    else:
                        self._facts[line["fact"]] = line["value"]
                except (ValueError, TypeError, KeyError) as error:
                    raise InputError(
                        f"{self.path}, line {number}, is broken ({error!r}).",
                        "Remove that line: what it holds is asked again. Or remove the file: the work begins anew.",
                    ) from error
                end += len(raw)
        return end
