"""ROUGE: what a summary shares with a reference: n-grams (1, 2), the longest common subsequence (L), and that of each
sentence (Lsum). Precision, recall and their F1 per item; of several references the one with the best F1 counts.

The same as Google's `rouge-score`: words are runs of a-z and 0-9, so it is for English only; sentences of Lsum are
lines. Source: Lin, "ROUGE: A Package for Automatic Evaluation of Summaries", 2004.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from windlass.core.errors import InputError
from windlass.evaluate.metrics.text.overlap import numbered, overlaps
from windlass.evaluate.metrics.text.stemming import stem
from windlass.evaluate.metrics.text.texts import References, paired

T = TypeVar("T")
_WORD = re.compile("[a-z0-9]+")


class Rouge(NamedTuple):
    """Arrays of shape (items,), between 0 and 1."""

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]


def rouge_words(text: str, stemmed: bool = False) -> list[str]:
    """The words that are compared; stemmed: those of more than three letters by Porter's algorithm."""
    words = _WORD.findall(text.lower())
    return [stem(word) if len(word) > 3 else word for word in words] if stemmed else words


def rouge_n(found: Sequence[str], right: References, n: int, *, stemmed: bool = False) -> Rouge:
    """Shared n-grams. Raises `InputError` as `paired`, and for n below 1."""
    if n < 1:
        raise InputError(f"There are no n-grams of {n} words.", "ROUGE-1 and ROUGE-2 are usual.")
    pairs = paired(found, right)
    numbers: dict[str, int] = {}
    ours = numbered((rouge_words(text, stemmed) for text, _ in pairs), numbers)
    theirs = numbered((rouge_words(one, stemmed) for _, some in pairs for one in some), numbers)
    owner = np.repeat(np.arange(len(pairs)), [len(some) for _, some in pairs])
    counted = overlaps(ours, theirs, owner, n)[-1]
    return _best(counted.shared, counted.found[owner], counted.wanted, owner)


def rouge_l(found: Sequence[str], right: References, *, stemmed: bool = False) -> Rouge:
    """The longest common subsequence of all words. Raises `InputError` as `paired`."""
    return _by_pair(found, right, lambda text: rouge_words(text, stemmed), _common, len)


def rouge_lsum(found: Sequence[str], right: References, *, stemmed: bool = False) -> Rouge:
    """For each line of the reference, its words that are in a longest common subsequence with some line of the text; no
    word counts more often than both sides have it. Raises `InputError` as `paired`."""

    def lines(text: str) -> list[list[str]]:
        return [rouge_words(line, stemmed) for line in text.split("\n") if line]

    return _by_pair(found, right, lines, _union, lambda some: sum(map(len, some)))


def _by_pair(
    found: Sequence[str],
    right: References,
    read: Callable[[str], T],
    common: Callable[[T, T], int],
    size: Callable[[T], int],
) -> Rouge:
    rows, owner = [], []
    for item, (text, references) in enumerate(paired(found, right)):
        said = read(text)
        for one in references:
            wanted = read(one)
            rows.append((common(wanted, said), size(said), size(wanted)))
            owner.append(item)
    shared, lengths, wished = np.array(rows, dtype=np.int64).T
    return _best(shared, lengths, wished, np.array(owner))


def _best(
    shared: NDArray[np.int64], found: NDArray[np.int64], wanted: NDArray[np.int64], owner: NDArray[np.int64]
) -> Rouge:
    precision, recall = shared / np.maximum(found, 1), shared / np.maximum(wanted, 1)
    both = precision + recall
    f1 = np.where(both > 0, 2 * precision * recall / np.where(both > 0, both, 1), 0.0)
    order = np.lexsort((np.arange(owner.size), -f1, owner))
    first = order[np.unique(owner[order], return_index=True)[1]]
    return Rouge(precision[first], recall[first], f1[first])


def _common(wanted: list[str], said: list[str]) -> int:
    """The length of a longest common subsequence. A zero bit of the last column is a word that is in it."""
    columns = _columns(_where(wanted), len(wanted), said)
    return len(wanted) - columns[-1].bit_count() if columns else 0


def _where(words: list[str]) -> dict[str, int]:
    """For each word a bit where it stands."""
    where: dict[str, int] = {}
    for place, word in enumerate(words):
        where[word] = where.get(word, 0) | 1 << place
    return where


def _columns(where: dict[str, int], wanted: int, said: list[str]) -> list[int]:
    """Behind each word that is said: bit i is 0 where one more word of those wanted, the i-th, makes the longest common
    subsequence longer (Hyyro, "Bit-parallel LCS-length computation revisited", 2004)."""
    every = (1 << wanted) - 1
    column, columns = every, []
    for word in said:
        match = column & where.get(word, 0)
        column = (column + match | column - match) & every
        columns.append(column)
    return columns


def _union(wanted: list[list[str]], said: list[list[str]]) -> int:
    left_wanted = Counter(word for line in wanted for word in line)
    left_said = Counter(word for line in said for word in line)
    hits = 0
    for line in wanted:
        where = _where(line)
        places = set().union(*(_places(line, where, other) for other in said if not where.keys().isdisjoint(other)))
        for place in sorted(places):
            word = line[place]
            if left_wanted[word] > 0 and left_said[word] > 0:
                hits += 1
                left_wanted[word] -= 1
                left_said[word] -= 1
    return hits


def _places(wanted: list[str], where: dict[str, int], said: list[str]) -> set[int]:
    """Where the words of one longest common subsequence stand; of several, the one that `rouge-score` reads back."""
    columns = _columns(where, len(wanted), said)
    row, column, places = len(wanted), len(said), set()
    while row and column:
        if wanted[row - 1] == said[column - 1]:
            row, column = row - 1, column - 1
            places.add(row)
        elif columns[column - 1] >> (row - 1) & 1:
            row -= 1
        else:
            column -= 1
    return places
