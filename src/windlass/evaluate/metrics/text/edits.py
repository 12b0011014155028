"""Edit distance, and what is made of it: error rates of words and characters.

The distance takes one step per symbol of one side whatever the length of the other: a column of the table is two whole
numbers whose bits say where the distance grows and where it falls (Myers, JACM 46 (1999), as Hyyro, 2003, has it).

Rates of a corpus are ratios of sums, not means of rates: `edit_counts` gives what adds up, `word_error_rate` and its
kin are functions of the sums (Morris et al., "From WER and RIL to MER and WIL", Interspeech 2004).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from windlass.evaluate.metrics.text.texts import References, nearest, paired


class Edits(NamedTuple):
    """What turns a reference into a text."""

    hits: int
    substitutions: int
    deletions: int
    """Symbols of the reference that the text lacks."""
    insertions: int
    """Symbols of the text that the reference lacks."""


def distance(one: Sequence[Hashable], other: Sequence[Hashable]) -> int:
    """Levenshtein's: the fewest insertions, deletions and substitutions of symbols that turn one into the other."""
    one, other = _middle(one, other)
    if not one or not other:
        return len(one) + len(other)
    if len(one) < len(other):
        one, other = other, one  # long numbers, few steps
    return len(one) + sum(change for _, _, change in _columns(one, other))


def edits(reference: Sequence[Hashable], found: Sequence[Hashable]) -> Edits:
    """A shortest way from the reference to the text. Of several, which differ in their hits, the one that rapidfuzz
    (and so jiwer) takes: read from the end, a deletion where it is shortest, else an insertion."""
    whole = len(reference)
    reference, found = _middle(reference, found)
    columns = list(_columns(reference, found)) if reference and found else []
    row, column = len(reference), len(found)
    substitutions = deletions = insertions = 0
    while row and column:
        if columns[column - 1][0] >> (row - 1) & 1:
            deletions += 1
            row -= 1
            continue
        column -= 1
        if column and columns[column - 1][1] >> (row - 1) & 1:
            insertions += 1
            continue
        row -= 1
        substitutions += reference[row] != found[column]
    deletions += row
    insertions += column
    return Edits(whole - substitutions - deletions, substitutions, deletions, insertions)


def _columns(reference: Sequence[Hashable], found: Sequence[Hashable]) -> Iterator[tuple[int, int, int]]:
    """The table behind each symbol of the text. Bit i of the first number: the distance is larger by 1 with i+1 symbols
    of the reference than with i; of the second: it is smaller. The third is how the distance to all of it changed."""
    where: dict[Hashable, int] = {}
    for place, symbol in enumerate(reference):
        where[symbol] = where.get(symbol, 0) | 1 << place
    every = (1 << len(reference)) - 1
    last = len(reference) - 1
    grows, falls = every, 0
    for symbol in found:
        equal = where.get(symbol, 0)
        diagonal = ((((equal & grows) + grows) ^ grows) | equal | falls) & every
        right = falls | (diagonal | grows) ^ every
        left = diagonal & grows
        change = (right >> last) - (left >> last)
        right = right << 1 & every | 1
        grows = left << 1 & every | (diagonal | right) ^ every
        falls = diagonal & right
        yield grows, falls, change


def _middle(one: Sequence[Hashable], other: Sequence[Hashable]) -> tuple[Sequence[Hashable], Sequence[Hashable]]:
    """Both without what they begin and end with alike."""
    least = min(len(one), len(other))
    start = next((i for i in range(least) if one[i] != other[i]), least)
    one, other = one[start:], other[start:]
    least -= start
    end = next((i for i in range(least) if one[-1 - i] != other[-1 - i]), least)
    return one[: len(one) - end], other[: len(other) - end]


def edit_distance(found: Sequence[str], right: References) -> NDArray[np.float64]:
    """Per item the edits of characters to the nearest reference. Raises `InputError` as `paired`."""
    return -nearest(found, right, lambda text, one: -distance(text, one))


def edit_similarity(found: Sequence[str], right: References) -> NDArray[np.float64]:
    """Per item 1 less the distance as a share of the longer text, from the nearest reference; two empty texts are the
    same. Raises `InputError` as `paired`."""
    return nearest(found, right, lambda text, one: 1 - distance(text, one) / max(len(text), len(one), 1))


def edit_counts(found: Sequence[str], right: References, *, characters: bool = False) -> NDArray[np.float64]:
    """Per item hits, substitutions, deletions and insertions of words (or characters), shape (items, 4), against the
    reference with the fewest errors per symbol. They add up over a corpus.

    Texts are compared as they are, but for spaces at their ends and between words. An empty reference is silence: all
    that is said is inserted. Raises `InputError` as `paired`.
    """
    rows = []
    for text, references in paired(found, right):
        said = text.strip() if characters else text.split()
        counted = [edits(one.strip() if characters else one.split(), said) for one in references]
        rows.append(min(counted, key=lambda one: sum(one[1:]) / max(sum(one[:3]), 1)))
    return np.array(rows, dtype=np.float64)


def word_error_rate(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Errors per symbol of the references, of summed counts: shape (..., 4) becomes (...). It can pass 1. Where the
    references are all empty it is the number of insertions, as in jiwer."""
    hits, substitutions, deletions, insertions = _parts(counts)
    return (substitutions + deletions + insertions) / np.maximum(hits + substitutions + deletions, 1)


def match_error_rate(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Errors as a share of all hits and errors: the chance that a pair of symbols is wrong, between 0 and 1."""
    hits, substitutions, deletions, insertions = _parts(counts)
    wrong = substitutions + deletions + insertions
    return wrong / np.maximum(hits + wrong, 1)


def word_information_lost(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 less the share of the references' words that are hit times the share of the text's words that hit."""
    hits, substitutions, deletions, insertions = _parts(counts)
    wanted, said = hits + substitutions + deletions, hits + substitutions + insertions
    kept = hits / np.maximum(wanted, 1) * (hits / np.maximum(said, 1))
    return 1 - np.where((wanted == 0) & (said == 0), 1.0, kept)


def _parts(counts: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    counts = np.asarray(counts, dtype=np.float64)
    return tuple(counts[..., place] for place in range(4))
