"""Files that clients upload and batches write: the content, and beside it a small JSON file that says what it is.

A file exists once its description does, which is written last and removed first; so a crash leaves no half file.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from windlass.core.files import atomic_write, write_json

_ID = re.compile(r"file-[0-9a-f]{24}")


@dataclass(frozen=True, slots=True)
class StoredFile:
    id: str
    name: str
    purpose: str
    size: int
    created: float
    owner: str | None
    """Id of the key it was uploaded with."""


class FileStore:
    """The files in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, content: IO[bytes], name: str, purpose: str, owner: str | None) -> StoredFile:
        """Copies `content` from where it stands."""
        id = new_id()
        with atomic_write(self.place(id)) as file:
            shutil.copyfileobj(content, file, 1 << 20)
        return self._describe(id, name, purpose, owner)

    def adopt(self, path: Path, id: str, name: str, purpose: str, owner: str | None) -> StoredFile:
        """Takes a finished file over by moving it; `id` comes from `new_id`. Doing it again changes nothing."""
        if path.exists():
            os.replace(path, self.place(id))
        return self._describe(id, name, purpose, owner)

    def get(self, id: str) -> StoredFile | None:
        if not _ID.fullmatch(id):
            return None
        try:
            return StoredFile(**json.loads(self._card(id).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None

    def all(self) -> list[StoredFile]:
        """Newest first."""
        found = [file for path in self.folder.glob("file-*.json") if (file := self.get(path.stem)) is not None]
        return sorted(found, key=lambda file: (file.created, file.id), reverse=True)

    def place(self, id: str) -> Path:
        """Where the content of a file is, or will be."""
        return self.folder / f"{id}.data"

    def remove(self, file: StoredFile) -> None:
        self._card(file.id).unlink(missing_ok=True)
        self.place(file.id).unlink(missing_ok=True)

    def _describe(self, id: str, name: str, purpose: str, owner: str | None) -> StoredFile:
        file = StoredFile(id, name, purpose, self.place(id).stat().st_size, time.time(), owner)
        write_json(self._card(id), asdict(file))
        return file

    def _card(self, id: str) -> Path:
        return self.folder / f"{id}.json"


def new_id() -> str:
    return f"file-{secrets.token_hex(12)}"
