"""Readers: from files to documents with canonical text. Used by builders' corpora and by users' indexes.

Standard library only, save that Parquet and zstd need pyarrow. A reader is a `Source`: it yields documents in a fixed
order and writes into a `ReadReport` what it read, mended and skipped, and why.
"""

from __future__ import annotations

from windlass.core.readers.folder import Folder, read_folder
from windlass.core.readers.python_docs import PythonDocs
from windlass.core.readers.report import Note, ReadReport, Source
from windlass.core.readers.row_documents import RowFields
from windlass.core.readers.text import canonical

__all__ = ["Folder", "Note", "PythonDocs", "ReadReport", "RowFields", "Source", "canonical", "read_folder"]
