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
_SHARED = np.dtype([("document", "<u4"), ("bucket", "<u8"), ("exact", "?")])
_EXACT = 2
"""The first keys of a document are those of its id and its text; the lowest bit of a filed key tells them apart."""
_CROWD = 256
_COMPARED = 64
"""Pages made from one template share a band without being alike. So that a million of them do not mean a million times
a million comparisons, a band's bucket remembers at most _CROWD documents, and a document is compared with the _COMPARED
that share most bands with it."""
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
        filed = keys & ~np.uint64(1)
        filed[:, :_EXACT] |= np.uint64(1)
        rows["key"] = filed.ravel()
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
        buckets = _Buckets(self._folder / "buckets", size)
        find_twin = _Comparison(documents, threshold)
        for part in range(PARTS):
            rows = shared.part(part)
            rows = rows[np.argsort(rows["document"], kind="stable")]
            for own in np.split(rows, np.flatnonzero(np.diff(rows["document"])) + 1) if len(rows) else ():
                number = int(own["document"][0])
                exact, band = own["bucket"][own["exact"]], own["bucket"][~own["exact"]]
                twin = find_twin(number, buckets.kept(exact), _likeliest(buckets.kept(band)))
                if twin is not None:
                    yield twin
                else:
                    buckets.file(number, exact)
                    buckets.file(number, band[buckets.sizes(band) < _CROWD])

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
            found["exact"] = np.repeat(rows["key"][starts[several]] & np.uint64(1), sizes[several])
            shared.add(found, (found["document"] // max(per_part, 1)).astype(np.intp))
            room += int((sizes[several] + 1).sum())
        return shared, room


class _Buckets:
    """Which documents of each bucket were kept so far, in a file: their number, then they themselves.

    Documents come in order and each is filed at most once, so a bucket never needs more room than it has members.
    """

    def __init__(self, path: Path, size: int) -> None:
        self._room = np.memmap(path, np.uint32, "w+", shape=(size,))

    def sizes(self, places: NDArray[np.uint64]) -> NDArray[np.uint32]:
        return np.asarray(self._room[places])

    def kept(self, places: NDArray[np.uint64]) -> NDArray[np.uint32]:
        """The documents of these buckets together; one of several buckets comes several times."""
        filled = zip(places.tolist(), self.sizes(places).tolist())
        return np.concatenate([self._room[:0], *(self._room[place + 1 : place + 1 + size] for place, size in filled)])

    def file(self, number: int, places: NDArray[np.uint64]) -> None:
        sizes = self.sizes(places)
        self._room[places + 1 + sizes] = number
        self._room[places] = sizes + 1


class _Comparison:
    """Finds the twin of a document among candidates: cheap comparisons first, the texts only where they may decide."""

    def __init__(self, documents: Documents, threshold: float) -> None:
        self._documents = documents
        self._threshold = threshold
        self._shingles: Callable[[int], NDArray[np.uint64]] = lru_cache(_CACHED)(
            lambda number: shingles(documents.text(number))
        )

    def __call__(self, number: int, same: NDArray[np.uint32], alike: list[int]) -> Twin | None:
        """Looks for the same id or text among `same`, then for the most similar text among `alike`."""
        own = self._documents.fingerprint(number)
        others = {other: self._documents.fingerprint(other) for other in np.unique(same).tolist()}
        for other, found in others.items():
            if found.id == own.id:
                return Twin(number, other, "repeated id", 1.0)
        for other, found in others.items():
            if found.digest == own.digest:
                return Twin(number, other, "exact duplicate", 1.0)
        best: Twin | None = None
        for other in alike:
            found = self._documents.fingerprint(other)
            # The smaller set over the larger one bounds the similarity from above.
            bound = min(own.shingles, found.shingles) / max(own.shingles, found.shingles, 1)
            if found.kind != own.kind or bound < self._threshold:
                continue
            similarity = jaccard(self._shingles(number), self._shingles(other))
            if similarity >= self._threshold and (best is None or (similarity, -other) > (best.similarity, -best.of)):
                best = Twin(number, other, "near duplicate", similarity)
        return best


def _likeliest(documents: NDArray[np.uint32]) -> list[int]:
    """Those that come most often, the earlier first."""
    found, shared = np.unique(documents, return_counts=True)
    return [int(number) for number in found[np.lexsort((found, -shared))[:_COMPARED]]]
