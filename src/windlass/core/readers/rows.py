"""Rows: files that hold many documents, one a row. JSON lines, CSV, TSV and Parquet are read in constant
memory, a JSON array whole.

A row that is broken is skipped and named with its file and number; all others are read.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import IO, Any

from windlass.core.errors import MissingExtra
from windlass.core.readers.report import ReadReport
from windlass.core.readers.unpacking import UNPACKING_ERRORS, opened, reason, unpacked_name

ROW_FORMATS = (".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")
_BATCH = 256
"""Rows of a Parquet file in memory at a time."""

_BUFFER = 1 << 20
"""Bytes read at a time of a column chunk. Without it pyarrow reads each chunk whole, and one may be the whole file."""

Row = tuple[int, Mapping[str, Any]]
"""Number, counted from 1 as a text editor counts the lines of a file, and the values by field."""


def is_rows(name: str) -> bool:
    """Whether a file of that name holds rows, packed or not."""
    return PurePath(unpacked_name(name)).suffix.lower() in ROW_FORMATS


def read_rows(
    file: Path, name: str, report: ReadReport, *, max_bytes: int, columns: tuple[str, ...] | None = None
) -> Iterator[Row]:
    """The rows of one file; of a .json file the objects of its array.

    A row of more than `max_bytes` is skipped; `columns` None: all that a Parquet file has.
    """
    suffix = PurePath(unpacked_name(file.name)).suffix.lower()
    try:
        report.bytes += file.stat().st_size
        report.files += 1
        if suffix == ".parquet":
            yield from _parquet_rows(file, name, report, max_bytes, columns)
            return
        with opened(file) as stream:
            if suffix in (".csv", ".tsv"):
                yield from _csv_rows(stream, name, report, max_bytes, "," if suffix == ".csv" else "\t")
            elif suffix == ".json":
                yield from _json_array(stream, name, report, max_bytes)
            else:
                yield from _json_rows(stream, name, report, max_bytes)
    except UNPACKING_ERRORS as error:
        what, detail = reason(error)
        report.skip(name, what, detail)


def _lines(stream: IO[bytes], name: str, report: ReadReport, max_bytes: int) -> Iterator[tuple[int, str]]:
    """Lines that are UTF-8 and not too long, with their numbers and line ends."""
    number = 0
    while line := stream.readline(max_bytes + 1):
        number += 1
        if len(line) > max_bytes and not line.endswith(b"\n"):
            size = len(line)
            while rest := stream.readline(1 << 20):
                size += len(rest)
                if rest.endswith(b"\n"):
                    break
            report.skip(
                f"{name}:{number}", "row too large", f"{size / 1e6:,.1f} MB, the limit is {max_bytes / 1e6:,.1f}"
            )
            continue
        try:
            yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            report.skip(f"{name}:{number}", "row not UTF-8", f"byte {error.start + 1} of the line")


def _json_rows(stream: IO[bytes], name: str, report: ReadReport, max_bytes: int) -> Iterator[Row]:
    for number, line in _lines(stream, name, report, max_bytes):
        if line.isspace():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            report.skip(f"{name}:{number}", "row not JSON", str(error))
            continue
        if isinstance(row, dict):
            yield number, row
        else:
            report.skip(f"{name}:{number}", "row not a JSON object", type(row).__name__)


def _json_array(stream: IO[bytes], name: str, report: ReadReport, max_bytes: int) -> Iterator[Row]:
    """The objects of an array, numbered from 1; of any other object the one row that it is."""
    data = stream.read(max_bytes + 1)
    if len(data) > max_bytes:
        report.skip(name, "too large", f"the limit for JSON is {max_bytes / 1e6:,.0f} MB: make JSON lines of it")
        return
    try:
        value = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        report.skip(name, "not JSON", str(error))
        return
    for number, row in enumerate(value if isinstance(value, list) else [value], start=1):
        if isinstance(row, dict):
            yield number, row
        else:
            report.skip(f"{name}:{number}", "row not a JSON object", type(row).__name__)


def _csv_rows(stream: IO[bytes], name: str, report: ReadReport, max_bytes: int, delimiter: str) -> Iterator[Row]:
    """The first line names the columns; a quoted value may hold line ends."""
    csv.field_size_limit(max(csv.field_size_limit(), max_bytes))  # the module's own default is 128 KB
    place = 0

    def lines() -> Iterator[str]:
        nonlocal place
        for place, line in _lines(stream, name, report, max_bytes):  # noqa: B007
            yield line

    source = lines()
    reader = csv.reader(source, delimiter=delimiter)
    header: list[str] | None = None
    while True:
        number = place + 1
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            report.skip(f"{name}:{number}", "row not CSV", str(error))
            continue
        if header is None:
            if len(values) == 1 and (other := _delimiter(values[0])):
                reader, values = csv.reader(source, delimiter=other), values[0].split(other)
            header = values
        elif len(values) == len(header):
            yield number, dict(zip(header, values))
        elif values:
            report.skip(f"{name}:{number}", "row not CSV", f"{len(values)} values for {len(header)} columns")


def _delimiter(header: str) -> str:
    """What separates the columns of a header without a comma: Excel writes semicolons where a comma is decimal."""
    return next((mark for mark in ";\t|" if mark in header and '"' not in header), "")


def _parquet_rows(
    file: Path, name: str, report: ReadReport, max_bytes: int, columns: tuple[str, ...] | None
) -> Iterator[Row]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise MissingExtra("Reading Parquet files", "corpus") from error
    try:
        with parquet.ParquetFile(file, buffer_size=_BUFFER, pre_buffer=False) as table:
            present = table.schema_arrow.names
            wanted = present if columns is None else [column for column in columns if column in present]
            number = 0
            for batch in table.iter_batches(batch_size=_BATCH, columns=wanted, use_threads=False):
                for row in batch.to_pylist():
                    number += 1
                    if sum(len(value) for value in row.values() if isinstance(value, str | bytes)) > max_bytes:
                        report.skip(f"{name}:{number}", "row too large", f"the limit is {max_bytes / 1e6:,.1f} MB")
                    else:
                        yield number, row
    except pyarrow.ArrowException as error:
        report.skip(name, "damaged", str(error).partition("\n")[0])
