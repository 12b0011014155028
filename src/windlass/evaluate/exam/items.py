"""The questions of an exam: what each holds, on disk and counted."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from windlass.core.artifacts import Artifact
from windlass.core.errors import InputError

Split = Literal["harvest", "dev", "test"]
SPLITS: tuple[Split, ...] = ("harvest", "dev", "test")


@dataclass(frozen=True, slots=True)
class ExamItem:
    id: str
    question: str
    document: str | None
    """The document that answers; None when nothing in the index does."""
    split: Split
    cluster: str
    source: str
    """The document the question was taken from; equal to `document` where there is one."""
    start: int
    end: int
    """Span of `source` that the index must not hold."""
    heading: str
    kind: str

    @property
    def answerable(self) -> bool:
        return self.document is not None


@dataclass(frozen=True, slots=True)
class Exam:
    items: Sequence[ExamItem]
    withheld: Sequence[str]
    """Documents that the index must not hold at all."""
    documents: int
    dropped: Mapping[str, int]
    """Reason -> how many first sentences did not become questions."""
    warnings: Sequence[str]


def load_items(exam: Artifact, split: Split | None = None) -> list[ExamItem]:
    """The items, of one split or all. Raises `InputError` naming the row that is broken."""
    path = exam.path / "items.jsonl"
    items: list[ExamItem] = []
    with path.open(encoding="utf-8", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            try:
                items.append(ExamItem(**json.loads(line)))
            except (ValueError, TypeError) as error:
                raise InputError(f"{path}, line {number}: not an exam item ({error}).", "Derive it again.") from error
    return [item for item in items if split is None or item.split == split]


def masked_spans(items: Iterable[ExamItem]) -> dict[str, list[tuple[int, int]]]:
    """Document id -> spans that the index must leave out, in order. Pass the items of all splits."""
    spans: dict[str, set[tuple[int, int]]] = defaultdict(set)
    for item in items:
        spans[item.source].add((item.start, item.end))
    return {document: sorted(found) for document, found in spans.items()}


def withheld_documents(exam: Artifact) -> frozenset[str]:
    """Ids of the documents that the index must leave out entirely."""
    return frozenset(json.loads((exam.path / "exam.json").read_text(encoding="utf-8"))["withheld"])


def count(items: Iterable[ExamItem]) -> dict[str, dict[str, int]]:
    """split -> {answerable, unanswerable, clusters}."""
    found: dict[str, dict[str, int]] = {}
    clusters: dict[str, set[str]] = defaultdict(set)
    for split in SPLITS:
        found[split] = {"answerable": 0, "unanswerable": 0, "clusters": 0}
    for item in items:
        found[item.split]["answerable" if item.answerable else "unanswerable"] += 1
        clusters[item.split].add(item.cluster)
        found[item.split]["clusters"] = len(clusters[item.split])
    return found
