"""Rows that repeat an earlier one, exactly or nearly: the corpus' search for duplicates over texts in memory."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from windlass.build.corpus.duplicates import Duplicates, Fingerprint, Twin
from windlass.build.corpus.shingles import HASHES, bands, mix, rows_per_band, shingles

_KEYS = 2
"""Before those of the bands: of the text's number, which is never twice the same, and of the text."""


class _Texts:
    """Implements `Documents`."""

    def __init__(self, texts: Sequence[str], threshold: float) -> None:
        self._texts = texts
        rows = rows_per_band(threshold)
        self.keys = np.zeros((len(texts), _KEYS + HASHES // rows), np.uint64)
        self._prints: list[Fingerprint] = []
        for number, text in enumerate(texts):
            digest = hashlib.blake2b("".join(text.split()).encode(), digest_size=16).digest()
            found = shingles(text)
            own = np.frombuffer(digest[:8], np.uint64)
            buckets = bands(found, rows)
            if not len(found):  # a text without words resembles none
                buckets ^= own
            self.keys[number] = np.concatenate((np.array([mix(number)], np.uint64), own, buckets))
            self._prints.append(Fingerprint(number.to_bytes(8, "little"), digest, b"", len(found)))

    def fingerprint(self, number: int) -> Fingerprint:
        return self._prints[number]

    def text(self, number: int) -> str:
        return self._texts[number]


def twins(texts: Sequence[str], threshold: float) -> list[Twin]:
    """Every text that repeats an earlier one which stays: word for word but for white space, or with a Jaccard
    similarity of its word shingles of `threshold` or more."""
    known = _Texts(texts, threshold)
    with tempfile.TemporaryDirectory() as folder:
        search = Duplicates(Path(folder) / "keys")
        search.add(known.keys)
        return list(search.find(known, threshold))
