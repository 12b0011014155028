"""The evaluation sets that a corpus must not hold text of: the texts in the rows of their files."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from windlass.build.corpus.decontamination import Contamination, EvaluationText
from windlass.build.corpus.settings import CorpusSettings
from windlass.core.errors import InputError
from windlass.core.readers import ReadReport
from windlass.core.readers.rows import is_rows, read_rows
from windlass.core.readers.unpacking import UNPACKING_ERRORS, opened, unpacked_name

_LONGEST_ROW = 20_000_000


def contamination(settings: CorpusSettings) -> Contamination | None:
    """The index of the settings' evaluation sets; None when there are none. Raises `InputError` for a broken one."""
    if not settings.decontaminate:
        return None
    fields = settings.evaluation_fields
    return Contamination(text for path in settings.decontaminate for text in evaluation_texts(path, fields))


def evaluation_texts(path: Path, fields: Collection[str] = ()) -> Iterator[EvaluationText]:
    """The texts of a file of rows (JSON lines, CSV, Parquet) or of one JSON value, packed or not.

    Every text of a row counts, or only what stands in those of the `fields` that it has. Raises `InputError` when the
    file cannot be read whole, for text that is not looked for would be trained on, or when no row has such a field.
    """
    name = unpacked_name(path.name)
    met = not fields
    for label, row in _rows(path, name):
        if fields:
            row = {field: row[field] for field in fields if field in row} if isinstance(row, Mapping) else {}
            met = met or bool(row)
        for text in _texts(row):
            yield EvaluationText(name, label, text)
    if not met:
        raise InputError(
            f"No row of the evaluation set {path} has a field {' or '.join(map(repr, fields))}.",
            "Name a field that holds its questions or answers, or none for all.",
        )


def _rows(path: Path, name: str) -> Iterator[tuple[str, Any]]:
    """(what a person calls the row, its value)."""
    if not path.is_file():
        raise InputError(f"The evaluation set {path} is not there.", "Correct its path; it is relative to the recipe.")
    if is_rows(path.name):
        report = ReadReport()
        for number, row in read_rows(path, path.name, report, max_bytes=_LONGEST_ROW):
            yield f"row {number:,}", row
        if report.skipped:
            raise InputError(f"The evaluation set {report.skipped[0]}.", "Mend the file.")
    elif name.endswith(".json"):
        try:
            with opened(path) as file:
                value = json.load(file)
        except (ValueError, RecursionError, *UNPACKING_ERRORS) as error:
            raise InputError(f"The evaluation set {path} cannot be read: {error}.", "Mend the file.") from error
        for number, row in enumerate(value if isinstance(value, list) else [value], start=1):
            yield f"item {number:,}", row
    else:
        raise InputError(
            f"The evaluation set {path} is of a type that windlass does not read.",
            "Give JSON lines, JSON, CSV or Parquet.",
        )


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(item)
