"""The judgement of one document: kept, perhaps changed, or dropped for a stated reason.

A pure function of document and settings, so that it may run anywhere and in any order: here, in a pool of processes, on
a Ray cluster. What needs more than one document (duplicates, split, mix) comes afterwards, in `building.py`.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from windlass.build.corpus.cleaning import Cleaning
from windlass.build.corpus.decontamination import Contamination
from windlass.build.corpus.settings import CorpusSettings
from windlass.build.corpus.shingles import HASHES, bands, rows_per_band, shingles
from windlass.build.corpus.split import place
from windlass.core.documents import Document

RECORD = np.dtype(
    [
        ("offset", "<u8"),
        ("length", "<u8"),
        ("bytes", "<u8"),
        ("place", "<f8"),
        ("shingles", "<u4"),
        ("label", "<u4"),
        ("kind", "V8"),
        ("id", "V16"),
        ("digest", "V16"),
    ]
)
"""What the stages after this one need to know of a document: where its row stands and what it is counted as (filled in
by `staging.py`), UTF-8 bytes of its text, place of its cluster in the split, number of shingles, and hashes of its
kind, of its id, and of its kind and text without white space."""
_EMPTY = '"}}'
_LONGEST_LICENCE = 60


@dataclass(frozen=True, slots=True)
class Label:
    """What documents are counted by."""

    kind: str
    part: str
    """The source of the mix that it comes from; empty where there is only one."""
    language: str
    """ISO 639; empty where it was not looked for."""
    licence: str = ""
    """As the row says that the document was read from; empty where it says nothing."""


@dataclass(slots=True)
class Judged:
    """A batch of documents after judgement. The first four hold one item per document that was kept."""

    rows: list[bytes] = field(default_factory=list)
    """JSON lines that break off where the name of the split follows; `finished` completes one."""
    labels: list[Label] = field(default_factory=list)
    records: NDArray[np.void] = field(default_factory=lambda: np.zeros(0, RECORD))
    keys: NDArray[np.uint64] = field(default_factory=lambda: np.zeros((0, 0), np.uint64))
    """Shape (documents, keys): the buckets in which to look for duplicates, of id, of text, and of each band."""
    drops: list[dict[str, Any]] = field(default_factory=list)
    changes: list[dict[str, Any]] = field(default_factory=list)
    stages: dict[str, Counter[str]] = field(default_factory=dict)
    """Documents and bytes into and out of every stage, in their order."""


def finished(row: bytes, split: str) -> bytes:
    """A whole JSON line from a row of `Judged`."""
    return row + split.encode() + _EMPTY.encode()


class Judge:
    """Judges batches of documents by the same settings. Is sent to other processes as it is."""

    def __init__(self, settings: CorpusSettings, contamination: Contamination | None = None) -> None:
        self._seed = settings.seed
        self._rows = rows_per_band(settings.near)
        self._stages = Cleaning(settings, contamination).stages

    def __call__(self, documents: Sequence[Document]) -> Judged:
        judged = Judged()
        kept = [found for document in documents if (found := self._judge(document, judged)) is not None]
        judged.records = np.zeros(len(kept), RECORD)
        judged.keys = np.zeros((len(kept), 2 + HASHES // self._rows), np.uint64)
        for number, document in enumerate(kept):
            judged.rows.append(_row(document))
            judged.labels.append(_label(document.metadata))
            judged.keys[number] = self._fingerprint(document, judged.records[number])
        judged.records["length"] = [len(row) for row in judged.rows]
        return judged

    def _judge(self, document: Document, judged: Judged) -> Document | None:
        """The document as it is kept, or None; says in `judged` what happened to it."""
        size = len(document.text.encode())
        for name, stage in self._stages.items():
            judged.stages.setdefault(name, Counter()).update(documents_in=1, bytes_in=size)
            left, reasons = stage(document)
            notes = [{"stage": name, "id": document.id, "reason": why, "detail": detail} for why, detail in reasons]
            if left is None:
                judged.drops += [note | {"size": size} for note in notes]
                return None
            judged.changes += notes
            if left.text is not document.text:
                size = len(left.text.encode())
            judged.stages[name].update(documents_out=1, bytes_out=size)
            document = left
        return document

    def _fingerprint(self, document: Document, record: np.void) -> NDArray[np.uint64]:
        """Fills in the document's record; returns its keys."""
        group, found = document.metadata["kind"], shingles(document.text)
        kind, id = _hash("kind", group.encode(), 8), _hash("id", document.id.encode(), 16)
        text = document.text.encode()
        digest = _hash(group, text.translate(None, b" \n\t"), 16)
        record["bytes"], record["shingles"] = len(text), len(found)
        record["place"] = place(document.metadata["cluster"], self._seed)
        record["kind"], record["id"], record["digest"] = kind, id, digest
        buckets = bands(found, self._rows)
        if not len(found):  # a text without words resembles none: buckets of its own
            buckets ^= np.frombuffer(digest[:8], np.uint64)
        return np.concatenate((np.frombuffer(id[:8] + digest[:8], np.uint64), buckets ^ np.frombuffer(kind, np.uint64)))


def _label(about: Mapping[str, Any]) -> Label:
    row = about.get("row", {})
    licence = str(row.get("licence") or row.get("license") or "")[:_LONGEST_LICENCE]
    return Label(about["kind"], about.get("part", ""), about.get("language", ""), licence)


def _row(document: Document) -> bytes:
    """As `dataclasses.asdict`, without its deep copies, and with the split as the last thing, left open."""
    row = {
        "id": document.id,
        "source": document.source,
        "title": document.title,
        "text": document.text,
        "format": document.format,
        "sections": [{"start": one.start, "level": one.level, "heading": one.heading} for one in document.sections],
        "metadata": {key: value for key, value in document.metadata.items() if key != "split"} | {"split": ""},
    }
    return json.dumps(row, ensure_ascii=False).removesuffix(_EMPTY).encode()


def _hash(name: str, data: bytes, size: int) -> bytes:
    found = hashlib.blake2b(name.encode() + b"\0", digest_size=size)
    found.update(data)
    return found.digest()


Batch = Sequence[Document]
Engine = Callable[[Judge, Iterator[Batch]], Generator[Judged, None, None]]
"""Judges batches and gives them back in their order, and ends what it started when it is closed. Does not run ahead
further than it must, so that its memory does not depend on how many batches there are."""
