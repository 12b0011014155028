"""The journal of long work: each answer is on the disk before it counts, so that none is paid for twice.

What a search for a prompt does is decided by its seed and by the answers it gets. Begun again after it was stopped, it
asks the same in the same order, is given the answers that it had, and goes on from where they end. An evaluation asks
the same items again and is given theirs.

    {"fact": "incumbent", "value": "4c1f…"}
    {"asked": "9ae0…", "answer": "{…}"}
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from windlass.core.lines import Lines
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
        self._lines = Lines(
            path,
            self._take,
            hint="Remove that line: what it holds is asked again. Or remove the file: the work begins anew.",
        )
        self.had = sum(map(len, self._answers.values()))
        """Answers of earlier runs."""

    def answer(self, key: str) -> ChatResponse | None:
        """An answer of an earlier run to what has this key; each is given once, in the order in which they came."""
        with self._turn:
            waiting = self._answers.get(key)
            return unpacked(waiting.popleft()) if waiting else None

    def keep(self, key: str, response: ChatResponse) -> None:
        """On the disk when it returns."""
        with self._turn:
            self._lines.append([{"asked": key, "answer": packed(response)}])

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
            with self._turn:
                self._lines.append([{"fact": name, "value": value}])
            self._facts[name] = value
        return self._facts[name]

    def close(self) -> None:
        self._lines.close()

    def remove(self) -> None:
        """The work is over."""
        self._lines.remove()

    def _take(self, line: Any) -> None:
        if "asked" in line:
            self._answers.setdefault(line["asked"], deque()).append(line["answer"])
        else:
            self._facts[line["fact"]] = line["value"]
