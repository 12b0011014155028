"""Readers: from files to documents with canonical text. Used by builders' corpora and by users' indexes.

Standard library only, save that Parquet and zstd need pyarrow, and PDF needs pypdf. A reader is a `Source`: it yields
documents in a fixed order and writes into a `ReadReport` what it read, mended and skipped, and why. Web pages
(`readers.urls.UrlList`) and letters are loaded on first use.
"""

from __future__ import annotations

from windlass.core.readers.folder import Folder, read_folder
from windlass.core.readers.python_docs import PythonDocs
from windlass.core.readers.report import FileSource, Note, ReadReport, Source, SourceFile
from windlass.core.readers.row_documents import RowFields
from windlass.core.readers.slack import SlackExport
from windlass.core.readers.sources import source_at
from windlass.core.readers.text import canonical

__all__ = [
    "FileSource",
    "Folder",
    "Note",
    "PythonDocs",
    "ReadReport",
    "RowFields",
    "SlackExport",
    "Source",
    "SourceFile",
    "canonical",
    "read_folder",
    "source_at",
]
