"""The data of a benchmark: files of the user's own copy, row by row, with a digest of what was read.

JSON lines, JSON, CSV with a header and plain text (a row `{"text": …}` a file, or a part of it), each also compressed
by gzip. A path may hold names in braces: `mmlu/test/{subject}_test.csv.gz` are all files of that pattern, and each row
knows its `subject`, and its `file`.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from windlass.core.errors import InputError, NotFound

Row = Mapping[str, Any]
_NAME = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class File:
    """One file of rows."""

    path: Path
    names: Mapping[str, str]
    """What the braces of its pattern stand for."""
    digest: str
    """SHA-256."""
    rows: list[Row]


def read_files(
    folder: Path, pattern: str, *, rows: str = "", split: str = "", bound: Mapping[str, str] | None = None
) -> list[File]:
    """The files of a pattern below `folder`, in order of their names. `rows`: under which key a JSON object holds them.
    `split`: a pattern at which plain text is cut into rows. `bound`: what names stand for already.

    Raises `NotFound` naming what is missing, `InputError` naming the file and line that cannot be read.
    """
    known = dict(bound or {})
    for name, meant in known.items():
        pattern = pattern.replace(f"{{{name}}}", meant)
    packed = pattern.removesuffix(".gz")
    for name in (pattern, packed if packed != pattern else f"{pattern}.gz"):  # also as somebody unpacked it
        found = [(path, {**known, **names}) for path, names in _matching(folder, name) if path.is_file()]
        if found:
            break
    else:
        raise NotFound(f"There is no {pattern} in {folder}.", "Put the data there, or name another folder with --data.")
    files = []
    for path, names in found:
        content = path.read_bytes()
        try:
            text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8")
        except (OSError, EOFError, UnicodeDecodeError) as error:
            raise InputError(f"{path} cannot be read ({error}).", "Copy it again.") from error
        file = path.name.split(".")[0]
        read: list[Row] = [{"file": file, **names, **row} for row in _rows(path, text, rows, split)]
        files.append(File(path, names, hashlib.sha256(content).hexdigest(), read))
    if not any(file.rows for file in files):
        raise InputError(f"{pattern} in {folder} holds no row.", "Copy it again.")
    return files


def _matching(folder: Path, pattern: str) -> Iterator[tuple[Path, dict[str, str]]]:
    if not _NAME.search(pattern):
        yield folder / pattern, {}
        return
    parts = _NAME.split(pattern)  # every second one is a name
    exact = re.compile("".join(f"(?P<{p}>[^/]+)" if i % 2 else re.escape(p) for i, p in enumerate(parts)))
    for path in sorted(folder.glob(_NAME.sub("*", pattern))):
        if match := exact.fullmatch(path.relative_to(folder).as_posix()):
            yield path, match.groupdict()


def _rows(path: Path, text: str, key: str, split: str) -> Iterator[dict[str, Any]]:
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    if kind == "jsonl":
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                yield _object(path, f", line {number}", _parsed(path, f", line {number}", line))
    elif kind == "json":
        value = _parsed(path, "", text)
        entries = value.get(key) if key and isinstance(value, dict) else value
        if not isinstance(entries, list):
            where = f" under '{key}'" if key else ""
            raise InputError(f"{path} holds no list{where}.", "Say under which key its rows are (rows).")
        for number, entry in enumerate(entries, 1):
            yield _object(path, f", entry {number}", entry)
    elif kind == "csv":
        reader = csv.DictReader(io.StringIO(text, newline=""))
        for row in reader:
            if None in row or None in row.values():
                raise InputError(f"{path}, line {reader.line_num}, has another number of columns than the header.")
            yield row
    elif kind == "txt":
        parts = re.split(split, text) if split else [text]
        yield from ({"text": part} for part in parts if part.strip())
    else:
        raise InputError(f"{path} is of no known kind.", "Known are .jsonl, .json, .csv and .txt, also with .gz.")


def _parsed(path: Path, where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise InputError(f"{path}{where}, is not valid JSON ({error}).") from error


def _object(path: Path, where: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{path}{where}, is not a JSON object, but a {type(value).__name__}.")
    return value
