"""Duplicates, exact and near. The first of them is kept, and every removal names the twin it lost to.

Near duplicates are *proposed* by MinHash with banded locality-sensitive hashing (`shingles.py`) and *decided* by the
exact Jaccard similarity of their word shingles, so chance can miss a pair (fewer than 1 in 200 at the threshold, far
fewer above it) but never removes one wrongly.

Memory does not grow with the text, and by one byte per document: the keys of all documents wait on disk. First they are
sorted by key, which shows the buckets that several documents share; what is alone in all its buckets is kept without
being looked at again. Then the shared buckets are sorted by document, and the documents decided upon in their order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from windlass.build.corpus.shingles import jaccard, shingles
from windlass.build.corpus.spill import PARTS, Spill

_FILED = np.dtype([("key", "<u8"), ("document", "<u4")])
_SHARED = np.dtype([("document", "<u4"), ("bucket", "<u8")])
_CACHED = 64


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What of a document is compared first."""

    id: bytes
    digest: bytes
    """Of its kind, and of its text without white space."""
    kind: bytes
    shingles: int


class Documents(Protocol):
    """The documents among which duplicates are looked for, by number."""

    def fingerprint(self, number: int) -> Fingerprint: ...

    def text(self, number: int) -> str: ...


@dataclass(frozen=True, slots=True)
class Twin:
    """The document `number` repeats the earlier document `of`."""

    number: int
    of: int
    reason: str
    """`repeated id`, `exact duplicate` or `near duplicate`."""
    similarity: float
    """Exact Jaccard similarity of the shingles; 1.0 for texts that differ in white space only."""


class Duplicates:
    """Keys go in as documents come; afterwards `find` names every document that repeats an earlier one that stays."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._keys = Spill(folder / "keys", _FILED)
        self.count = 0

    def add(self, keys: NDArray[np.uint64]) -> None:
        """Files the next documents under their keys, of shape (documents, keys): of id, of text, and of each band."""
        rows = np.empty(keys.size, _FILED)
        rows["key"] = keys.ravel()
        rows["document"] = np.repeat(np.arange(self.count, self.count + len(keys)), keys.shape[1])
        self._keys.add(rows, (rows["key"] >> np.uint64(56)).astype(np.intp))
        self.count += len(keys)

    def find(self, documents: Documents, threshold: float) -> Iterator[Twin]:
        """In the order of the documents. Of several twins the most similar one is named, of equals the earliest.

        A twin is a document of the same id, or of the same kind with the same text or a similarity of `threshold`
        or more.
        """
        shared, size = self._shared_buckets()
        if not size:
            return
        # Per bucket: how many documents of it were kept so far, and which. Documents come in order and each is filed
        # at most once, so a bucket never needs more room than it has members.
        buckets = np.memmap(self._folder / "buckets", np.uint32, "w+", shape=(size,))
        find_twin = _Comparison(documents, threshold)
        for part in range(PARTS):
            rows = shared.part(part)
            rows = rows[np.argsort(rows["document"], kind="stable")]
            for own in np.split(rows, np.flatnonzero(np.diff(rows["document"])) + 1) if len(rows) else ():
                number, places = int(own["document"][0]), own["bucket"]
                filled = buckets[places]
                kept = [buckets[p + 1 : p + 1 + n] for p, n in zip(places.tolist(), filled.tolist()) if n]
                if kept and (twin := find_twin(number, np.unique(np.concatenate(kept)).tolist())):
                    yield twin
                else:
                    buckets[places + 1 + filled] = number
                    buckets[places] = filled + 1

    def _shared_buckets(self) -> tuple[Spill, int]:
        """Which document is in which bucket, for buckets of two or more; and the room that all these buckets need."""
        shared = Spill(self._folder / "shared", _SHARED)
        per_part = -(-self.count // PARTS)
        room = 0
        for part in range(PARTS):
            rows = self._keys.part(part)
            rows = rows[np.argsort(rows["key"], kind="stable")]
            starts = np.flatnonzero(np.append(True, np.diff(rows["key"]) != 0)) if len(rows) else np.zeros(0, np.intp)
            sizes = np.diff(np.append(starts, len(rows)))
            several = sizes > 1
            places = room + np.cumsum(sizes[several] + 1) - (sizes[several] + 1)
            found = np.empty(int(sizes[several].sum()), _SHARED)
            found["document"] = rows["document"][np.repeat(several, sizes)]
            found["bucket"] = np.repeat(places, sizes[several])
            shared.add(found, (found["document"] // max(per_part, 1)).astype(np.intp))
            room += int((sizes[several] + 1).sum())
        return shared, room


class _Comparison:
    """Finds the twin of a document among candidates: cheap comparisons first, the texts only where they may decide."""

    def __init__(self, documents: Documents, threshold: float) -> None:
        self._documents = documents
        self._threshold = threshold
        self._shingles: Callable[[int], NDArray[np.uint64]] = lru_cache(_CACHED)(
            lambda number: shingles(documents.text(number))
        )

    def __call__(self, number: int, candidates: list[int]) -> Twin | None:
        own = self._documents.fingerprint(number)
        others = {other: self._documents.fingerprint(other) for other in candidates}
        for other, found in others.items():
            if found.id == own.id:
                return Twin(number, other, "repeated id", 1.0)
        for other, found in others.items():
            if found.digest == own.digest:
                return Twin(number, other, "exact duplicate", 1.0)
        best: Twin | None = None
        for other, found in others.items():
            # The smaller set over the larger one bounds the similarity from above.
            bound = min(own.shingles, found.shingles) / max(own.shingles, found.shingles, 1)
            if found.kind != own.kind or bound < self._threshold or (best and bound <= best.similarity):
                continue
            similarity = jaccard(self._shingles(number), self._shingles(other))
            if similarity >= self._threshold and (best is None or similarity > best.similarity):
                best = Twin(number, other, "near duplicate", similarity)
        return best
