"""Answers kept in a file: by the digest of their question, up to a size, for all processes of a workspace.

Those that were not used for longest go first. What is kept only saves money: the file may be deleted at any time.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from windlass.core.errors import ConfigError, InputError, WorkspaceCorrupt, WorkspaceError
from windlass.core.files import disk_errors
from windlass.core.plain import packed, unpacked
from windlass.core.sqlite import Database
from windlass.core.values import ChatResponse

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_OVERHEAD = 200
"""Bytes that a row takes besides its answer and vector: key, times, and its share of the index."""
_LARGEST_SHARE = 4
"""An answer that would fill more than a quarter of the room is not kept: it would push out everything else."""
_STALE = 3600.0
"""Seconds after which a use is written down: until then reading needs no write."""
_NEIGHBOURS = 5000
"""How many earlier questions of one kind, the newest, are compared with a new one."""

_MIGRATIONS = (
    (
        """CREATE TABLE answers (
            key TEXT PRIMARY KEY, kind TEXT, answer TEXT NOT NULL, vector BLOB, size INTEGER NOT NULL,
            made REAL NOT NULL, used REAL NOT NULL
        )""",
        "CREATE INDEX answers_used ON answers (used)",
        "CREATE INDEX answers_kind ON answers (kind, made) WHERE kind IS NOT NULL",
        "CREATE TABLE room (taken INTEGER NOT NULL)",
        "INSERT INTO room VALUES (0)",
        "CREATE TRIGGER more AFTER INSERT ON answers BEGIN UPDATE room SET taken = taken + NEW.size; END",
        "CREATE TRIGGER less AFTER DELETE ON answers BEGIN UPDATE room SET taken = taken - OLD.size; END",
    ),
)


@dataclass(frozen=True, slots=True)
class Held:
    """How much a cache holds."""

    answers: int
    bytes: int


def answers_path(root: Path) -> Path:
    """The answers of the workspace whose `.windlass` folder is `root`."""
    return root / "cache" / "answers.db"


class Answers:
    """The answers in the file `path`, at most `limit` bytes of them (256 MiB). Safe between threads and processes."""

    def __init__(self, path: Path, *, limit: int = 256 << 20) -> None:
        if limit < 1 << 16:
            raise ConfigError(f"A cache of {limit} bytes holds nothing.", "Give it at least 65536, or none at all.")
        self.limit = limit
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            # A power cut may take the newest answers: they are then asked for again.
            self._database = Database(path, _MIGRATIONS, synced=False)
        except WorkspaceCorrupt as error:
            raise WorkspaceCorrupt(error.message, f"Delete {path}: it only saves money, and is made again.") from error

    def get(self, key: str) -> ChatResponse | None:
        """An answer of the caller's own, or None. One that this version cannot read is none."""
        rows = self._database.read("SELECT answer, used FROM answers WHERE key = ?", (key,))
        if not rows:
            return None
        ((text, used),) = rows
        try:
            answer = unpacked(text)
        except InputError:
            return None
        if (now := time.time()) - used > _STALE:
            # Where that cannot be written (a full disk, a busy file), it goes a little earlier: no reason to pay again.
            with contextlib.suppress(WorkspaceError), self._database.write() as connection:
                connection.execute("UPDATE answers SET used = ? WHERE key = ?", (now, key))
        return answer

    def put(
        self, key: str, answer: ChatResponse, *, kind: str | None = None, vector: NDArray[np.float32] | None = None
    ) -> bool:
        """Keeps an answer in place of an earlier one of this key; False for one that is too large for the room.

        `kind` and `vector`, of unit length: what `nearest` finds it by.
        """
        text, blob = packed(answer), None if vector is None else vector.astype("<f4").tobytes()
        size = len(text) + len(blob or b"") + _OVERHEAD
        if size > self.limit // _LARGEST_SHARE:
            return False
        now = time.time()
        with self._database.write() as connection:
            connection.execute("DELETE FROM answers WHERE key = ?", (key,))
            connection.execute("INSERT INTO answers VALUES (?,?,?,?,?,?,?)", (key, kind, text, blob, size, now, now))
            ((taken,),) = connection.execute("SELECT taken FROM room").fetchall()
            if taken > self.limit:  # down to nine tenths, so that not every answer has to push one out
                oldest = connection.execute("SELECT key, size FROM answers ORDER BY used, rowid")
                gone: list[tuple[str]] = []
                for old, bytes_ in oldest:
                    if taken <= self.limit * 0.9:
                        break
                    gone.append((old,))
                    taken -= bytes_
                oldest.close()
                connection.executemany("DELETE FROM answers WHERE key = ?", gone)
        return True

    def nearest(self, kind: str, vector: NDArray[np.float32]) -> tuple[str, float] | None:
        """The key of the answer of this kind whose question is nearest, and the cosine between the two."""
        import numpy as np

        rows = self._database.read(
            "SELECT key, vector FROM answers WHERE kind = ? AND length(vector) = ? ORDER BY made DESC LIMIT ?",
            (kind, 4 * len(vector), _NEIGHBOURS),
        )
        if not rows:
            return None
        cosines = np.stack([np.frombuffer(blob, "<f4") for _, blob in rows]) @ vector
        best = int(cosines.argmax())
        return rows[best][0], float(cosines[best])

    def held(self) -> Held:
        ((answers, taken),) = self._database.read("SELECT (SELECT count(*) FROM answers), taken FROM room")
        return Held(answers, taken)

    def clear(self) -> int:
        """Forgets everything; says how many answers that were."""
        with self._database.write() as connection:
            return int(connection.execute("DELETE FROM answers").rowcount)

    def close(self) -> None:
        self._database.close()
