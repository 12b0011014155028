"""Counting words in bounded memory: all that a tokenizer learns from a corpus of any size.

`tokenizers` keeps every distinct word of its training text, so its memory grows with the corpus. Here texts are counted
chunk by chunk; when the table of words gets too large, rare words are thinned out by threshold sampling (Duffield,
Lund, Thorup 2005): of the words seen c < t times a share c/t stays, each counted t times. Every sum over words, and so
the count of every pair that merges are chosen by, keeps its expectation. Dropping the rare words instead would take
whole languages away: one written without spaces has hardly two equal words.

The coins are hashes, so the same text always gives the same table.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers.normalizers import Normalizer
    from tokenizers.pre_tokenizers import PreTokenizer

DISTINCT = 500_000
"""Words that the table holds between chunks."""

OCCURRENCES = 1 << 25
"""Words that a trainer is fed at most: it counts pairs in 32 bits, which a large corpus would overflow."""

DELIMITER = "\0"
"""Between the words that a trainer is fed."""

_CHUNK = 16_000_000
"""Characters counted at once."""

_PIECE = 1 << 16
"""Longer texts are cut up: splitting a text into words takes many times its size in memory."""

_FED_AT_ONCE = 4096
"""Repetitions of a word in one text."""

_CUT = re.compile(r"(?<=[^\W\d_]) (?=[^\W\d_])")
"""A space between two letters. Words begin there whatever the kind of tokenizer, so a cut before it changes none."""


@dataclass(frozen=True, slots=True)
class WordCounts:
    counts: Mapping[str, int]
    """Word, as the trainer sees it -> how often it is fed, sorted by word."""
    unit: int
    """Occurrences in the text for each time that a word is fed; 1 unless the corpus is very large."""
    words: int
    """Occurrences in the text."""
    thinned: int
    """Occurrences of rare words that left the table, for which those that stayed stand in; 0: the counts are exact."""

    def as_json(self) -> dict[str, Any]:
        return {
            "occurrences": self.words,
            "distinct": len(self.counts),
            "thinned": self.thinned,
            "thinned_share": round(self.thinned / self.words, 6),
            "unit": self.unit,
        }

    def texts(self) -> Iterator[str]:
        """Texts that hold every word as often as it counts, of many words each, since every text has its price."""
        parts: list[str] = []
        size = 0
        for word, count in self.counts.items():
            for start in range(0, count, _FED_AT_ONCE):
                parts.append((word + DELIMITER) * min(_FED_AT_ONCE, count - start))
                size += len(parts[-1])
                if size >= _PIECE:
                    yield "".join(parts)
                    parts, size = [], 0
        yield "".join(parts)


def count_words(
    texts: Iterable[str],
    normalizer: Normalizer | None,
    pre_tokenizer: PreTokenizer,
    *,
    distinct: int = DISTINCT,
    occurrences: int = OCCURRENCES,
) -> WordCounts:
    """Counts the words that normalizer and pre-tokenizer make of the texts, which are read once, as a stream."""
    table = _Table(distinct)
    words = 0
    for chunk in _chunks(texts):
        found = _count(chunk, normalizer, pre_tokenizer)
        words += sum(found.values())
        table.add(found)
    total, unit = sum(table.counts.values()), 1
    while total > unit * occurrences:
        unit *= 2
    scaled = {word: count // unit + (_coin(word, 0, unit) < count % unit) for word, count in table.counts.items()}
    return WordCounts({word: scaled[word] for word in sorted(scaled) if scaled[word]}, unit, words, table.thinned)


class _Table:
    def __init__(self, distinct: int) -> None:
        self._distinct = distinct
        self.counts: Counter[str] = Counter()
        self.thinned = 0
        self._threshold = 1
        self._rounds = 0

    def add(self, found: Mapping[str, int]) -> None:
        self.counts.update(found)
        if len(self.counts) > self._distinct:
            self._thin()  # words that came since the last time, by the threshold that held for the others
        while len(self.counts) > self._distinct:
            self._threshold *= 2
            self._thin()

    def _thin(self) -> None:
        self._rounds += 1
        threshold = self._threshold
        for word, count in [item for item in self.counts.items() if item[1] < threshold]:
            if _coin(word, self._rounds, threshold) < count:
                self.counts[word] = threshold
            else:
                del self.counts[word]
                self.thinned += count


def _coin(word: str, toss: int, sides: int) -> int:
    """A number below `sides`, a power of two, independent from toss to toss."""
    digest = blake2b(word.encode(), digest_size=8, salt=toss.to_bytes(8, "big")).digest()
    return int.from_bytes(digest, "big") & (sides - 1)


def _count(texts: Iterable[str], normalizer: Normalizer | None, pre_tokenizer: PreTokenizer) -> dict[str, int]:
    """Word -> occurrences, counted on all cores by a trainer that is asked for no more than that."""
    from tokenizers import Tokenizer, models, trainers

    counter = Tokenizer(models.WordLevel())
    if normalizer is not None:
        counter.normalizer = normalizer
    counter.pre_tokenizer = pre_tokenizer
    trainer = trainers.WordLevelTrainer(vocab_size=1, show_progress=False)
    counter.train_from_iterator(texts, trainer)
    state = json.loads(trainer.__getstate__())  # the one place where a trainer shows its counts
    return dict(state["WordLevelTrainer"]["words"])


def _chunks(texts: Iterable[str]) -> Iterator[list[str]]:
    chunk: list[str] = []
    size = 0
    for text in texts:
        for piece in pieces(text):
            chunk.append(piece)
            size += len(piece)
            if size >= _CHUNK:
                yield chunk
                chunk, size = [], 0
    if chunk:
        yield chunk


def pieces(text: str, size: int = _PIECE) -> Iterator[str]:
    """The text in pieces of `size` characters or a little more, cut where a word begins if there is such a place."""
    start = 0
    while len(text) - start > 2 * size:
        cut = _CUT.search(text, start + size, start + 2 * size)
        end = start + size if cut is None else cut.start()
        yield text[start:end]
        start = end
    yield text[start:]
