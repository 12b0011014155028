"""Rows of a file, all of them or an error: what is learned from must not lose a row silently."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from windlass.core.errors import InputError
from windlass.core.readers.report import ReadReport
from windlass.core.readers.rows import ROW_FORMATS, is_rows, read_rows
from windlass.core.readers.unpacking import UNPACKING_ERRORS, opened, unpacked_name

_MAX_ROW = 64 << 20
"""Bytes."""


class Row(NamedTuple):
    where: str
    """File and number, for errors."""
    values: Mapping[str, Any]


def rows_of(path: Path) -> list[Row]:
    """The rows of JSON lines, a JSON array, CSV, TSV or Parquet, packed or not, without the columns that are empty; of
    SQuAD's nested JSON its questions, each with its context.

    Raises `InputError` naming the first row that cannot be read, or that holds what is no text, and for a file without
    rows.
    """
    if unpacked_name(path.name).lower().endswith(".json"):
        found = _array(path)
    elif is_rows(path.name):
        report = ReadReport()
        read = read_rows(path, path.name, report, max_bytes=_MAX_ROW)
        found = [Row(f"{path}, row {number}", values) for number, values in read]
        if report.skipped:
            note = report.skipped[0]
            raise InputError(f"{note.source}: {note.reason} ({note.detail}).", "Mend it, or leave it out.")
    else:
        raise InputError(f"{path} is no file of rows.", f"Known are .json, {', '.join(ROW_FORMATS)}, also packed.")
    if not found:
        raise InputError(f"{path} holds no rows.", "Give a file with examples to learn from.")
    rows = [Row(where, {key: value for key, value in values.items() if value is not None}) for where, values in found]
    for row in rows:
        for column, value in row.values.items():
            if (half := _half(value)) is not None:
                raise InputError(
                    f"{row.where}: {column} holds half a character (the lone surrogate U+{ord(half):04X}).",
                    "Decode its source with errors='replace'.",
                )
    return rows


def _half(value: Any) -> str | None:
    """Half a character somewhere in a value, which no tokenizer reads: JSON can spell what is no text."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            return value[error.start]
    inside = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return next((half for one in inside if (half := _half(one)) is not None), None)


def _array(path: Path) -> list[Row]:
    try:
        with opened(path) as file:
            values = json.load(file)
    except (OSError, ValueError, RecursionError, *UNPACKING_ERRORS) as error:
        raise InputError(f"{path} is not readable JSON ({error}).", "Mend the place it names.") from error
    if isinstance(values, dict) and "data" in values:
        return list(_questions(values["data"], path))
    if not isinstance(values, list):
        raise InputError(f"{path} holds no array.", "Give an array of objects, or JSON lines.")
    for number, row in enumerate(values, start=1):
        if not isinstance(row, dict):
            raise InputError(f"{path}, row {number} is no object but {json.dumps(row)[:80]}.", "Mend it.")
    return [Row(f"{path}, row {number}", row) for number, row in enumerate(values, start=1)]


def _questions(articles: Any, path: Path) -> Iterator[Row]:
    try:
        for article in articles:
            for paragraph in article["paragraphs"]:
                for asked in paragraph["qas"]:
                    yield Row(f"{path}, question {asked.get('id')}", {**asked, "context": paragraph["context"]})
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} is no file of questions ({type(error).__name__}: {error}).",
            "Give SQuAD's JSON, or rows with `question`, `context` and `answers`.",
        ) from error
