"""The evaluation sets that a corpus must not hold text of: every text in every row of their files."""

from __future__ import annotations

import json
from collections.abc import Iterator
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
    return Contamination(text for path in settings.decontaminate for text in evaluation_texts(path))


def evaluation_texts(path: Path) -> Iterator[EvaluationText]:
    """Every text of a file of rows (JSON lines, CSV, Parquet) or of one JSON value, packed or not."""
    name = unpacked_name(path.name)
    if not path.is_file():
        raise InputError(f"The evaluation set {path} is not there.", "Correct its path; it is relative to the recipe.")
    if is_rows(path.name):
        report = ReadReport()
        for number, row in read_rows(path, path.name, report, max_bytes=_LONGEST_ROW):
            for text in _texts(row):
                yield EvaluationText(name, f"row {number:,}", text)
        if report.skipped:  # text that is not looked for would be trained on
            raise InputError(f"The evaluation set {report.skipped[0]}.", "Mend the file.")
    elif name.endswith(".json"):
        try:
            with opened(path) as file:
                value = json.load(file)
        except (ValueError, *UNPACKING_ERRORS) as error:
            raise InputError(f"The evaluation set {path} cannot be read: {error}.", "Mend the file.") from error
        for number, text in enumerate(_texts(value), start=1):
            yield EvaluationText(name, f"text {number:,}", text)
    else:
        raise InputError(
            f"The evaluation set {path} is of a type that windlass does not read.", "Give JSON lines, JSON or Parquet."
        )


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)
