"""Which source reads a path."""

from __future__ import annotations

from pathlib import Path

from windlass.core.readers.folder import Folder
from windlass.core.readers.reading import MAX_BYTES
from windlass.core.readers.report import FileSource
from windlass.core.readers.row_documents import RowFields
from windlass.core.readers.slack import SlackExport, is_export


def source_at(path: Path, max_bytes: int = MAX_BYTES, fields: RowFields | None = None) -> FileSource:
    """A Slack export where the path is one, by its lists of users and channels; else a folder, or the one file."""
    return SlackExport(path) if is_export(path) else Folder(path, max_bytes, fields or RowFields())
