"""What each file gave when it was last read, so that a file that is as it was need not be opened again.

A memory, never a truth: what it says of a file holds only while the file has the same stamp, is to be read in the same
way (`recipe`), and the index holds exactly the documents that came of it. So whatever was lost in a crash, or changed
in the index by others, is found by reading the file once more.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from windlass.core.sqlite import Database

FILE = "files.db"
_MIGRATIONS = (("CREATE TABLE files (name TEXT PRIMARY KEY, stamp TEXT NOT NULL, known TEXT NOT NULL) WITHOUT ROWID",),)


@dataclass(frozen=True, slots=True)
class Known:
    """What a file gave."""

    recipe: str
    """Digest of all that decided how it was read and cut."""
    held: str
    """Digest of the ids and digests of its documents."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Some of the report's counts, by their names in it."""
    parts: Mapping[str, int] = field(default_factory=dict)
    """Pages, rows and the like."""
    labels: Mapping[str, int] = field(default_factory=dict)
    """Access label -> documents."""
    notes: Sequence[Sequence[str]] = ()
    """(skipped or mended, source, reason, detail)."""
    texts: Sequence[str] = ()
    """Short digests of the documents' texts, by which repetitions are found."""


class Stamps:
    """The memory in the SQLite file `path`, which is made when absent. Deleting it costs one reading of all files."""

    def __init__(self, path: Path) -> None:
        self._database = Database(path, _MIGRATIONS, synced=False)

    def get(self, name: str, stamp: str) -> Known | None:
        rows = self._database.read("SELECT known FROM files WHERE name = ? AND stamp = ?", (name, stamp))
        return Known(**json.loads(rows[0][0])) if rows else None

    def put(self, files: Iterable[tuple[str, str, Known]]) -> None:
        """Remembers (name, stamp, what it gave). Call it when the index holds that."""
        rows: list[tuple[Any, ...]] = [(name, stamp, json.dumps(asdict(known))) for name, stamp, known in files]
        if rows:
            with self._database.write() as connection:
                connection.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", rows)

    def forget(self, names: Iterable[str]) -> None:
        with self._database.write() as connection:
            connection.executemany("DELETE FROM files WHERE name = ?", [(name,) for name in names])

    def all(self, beginning: str = "") -> dict[str, str]:
        """Name -> stamp of the files whose names begin so."""
        rows = self._database.read(
            "SELECT name, stamp FROM files WHERE substr(name, 1, ?) = ?", (len(beginning), beginning)
        )
        return dict(rows)

    def close(self) -> None:
        self._database.close()
