"""Documents that wait on disk until all of them are known: rows and records in flat files, found again by number."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from windlass.build.corpus.duplicates import Fingerprint
from windlass.build.corpus.judging import RECORD, Judged, Label, finished

_CHUNK = 1 << 14
_LABELS = 1000
"""Labels told apart: rows may name any number of licences, and memory must not grow with them."""


class Stage:
    """The documents that were kept so far, numbered from 0 in the order of `append`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._rows: IO[bytes] = (folder / "rows").open("w+b")
        self._records: IO[bytes] = (folder / "records").open("w+b")
        self._end = 0
        self._numbers: dict[Label, int] = {}
        self.count = 0

    @property
    def labels(self) -> list[Label]:
        """By the number that stands in the records."""
        return list(self._numbers)

    def append(self, judged: Judged) -> None:
        records = judged.records
        records["offset"] = self._end + np.cumsum(records["length"]) - records["length"]
        records["label"] = [self._number(label) for label in judged.labels]
        self._end += int(records["length"].sum())
        self.count += len(records)
        self._rows.writelines(judged.rows)
        self._records.write(records.tobytes())

    def _number(self, label: Label) -> int:
        if label not in self._numbers and len(self._numbers) >= _LABELS:
            label = replace(label, licence="one of many")
        return self._numbers.setdefault(label, len(self._numbers))

    def seal(self) -> None:
        """Nothing is appended after this; documents can be found from now on."""
        self._rows.flush()
        self._records.flush()

    def record(self, number: int) -> np.void:
        data = os.pread(self._records.fileno(), RECORD.itemsize, number * RECORD.itemsize)
        return np.void(np.frombuffer(data, RECORD)[0])

    def row(self, number: int) -> dict[str, Any]:
        record = self.record(number)
        data = os.pread(self._rows.fileno(), int(record["length"]), int(record["offset"]))
        return dict(json.loads(finished(data, "")))

    def fingerprint(self, number: int) -> Fingerprint:
        record = self.record(number)
        return Fingerprint(
            record["id"].tobytes(), record["digest"].tobytes(), record["kind"].tobytes(), int(record["shingles"])
        )

    def text(self, number: int) -> str:
        return str(self.row(number)["text"])

    def chunks(self) -> Iterator[tuple[int, NDArray[np.void]]]:
        """All records in their order, some thousands at a time, each time with the number of the first."""
        for start in range(0, self.count, _CHUNK):
            size = min(_CHUNK, self.count - start) * RECORD.itemsize
            yield start, np.frombuffer(os.pread(self._records.fileno(), size, start * RECORD.itemsize), RECORD)

    def rows(self) -> Iterator[bytes]:
        """All unfinished rows in their order."""
        self._rows.seek(0)
        for _, records in self.chunks():
            for length in records["length"].tolist():
                yield self._rows.read(length)

    def close(self) -> None:
        self._rows.close()
        self._records.close()
