"""TER: the edits that turn a translation into a reference, where moving a run of words is one edit.

Which runs are moved is Tercom's greedy search, as sacrebleu follows it: the move that saves most, the longest, the
first of the text, the first of the targets; until none saves. The distance in between is exact, where both of them look
only near the diagonal of the table, which tells a difference for long sentences that have little in common.

Counts add up over a corpus (`ter_counts`), the score is a function of the sums (`ter`): 0 is best, and it can pass 100.
Source: Snover et al., "A Study of Translation Edit Rate with Targeted Human Annotation", AMTA 2006.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from windlass.evaluate.metrics.text.texts import References, paired

_LONGEST = 10
"""Words that move together."""
_FARTHEST = 50
"""Places that they move."""
_TRIES = 1000
"""Moves that are tried for a text in all."""
_KEPT = 10_000
"""Columns of the table of distances that are remembered for a reference."""

_RULES = (
    (re.compile(r"([{-~[-` -&(-+:-@/])"), r" \1 "),
    (re.compile(r"'s "), " 's "),
    (re.compile(r"'s$"), " 's"),
    (re.compile(r"([^0-9])([.,])"), r"\1 \2 "),
    (re.compile(r"([.,])([^0-9])"), r" \1 \2"),
    (re.compile(r"([0-9])(-)"), r"\1 \2 "),
)
_ESCAPED = (("\n-", ""), ("\n", " "), ("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"))
_MARKS = re.compile(r'[.,?:;!"()]')


def ter_counts(
    found: Sequence[str],
    right: References,
    *,
    normalised: bool = False,
    punctuation: bool = True,
    lowercase: bool = True,
) -> NDArray[np.float64]:
    """Per item the edits to the nearest reference, and the mean length of its references: shape (items, 2).

    normalised: marks are words of their own. punctuation: marks count at all. Raises `InputError` as `paired`.
    """

    def words(text: str) -> list[str]:
        text = text.rstrip()
        text = text.lower() if lowercase else text
        text = _normalised(text) if normalised else text
        return (text if punctuation else _MARKS.sub("", text)).split()

    rows = []
    for text, references in paired(found, right):
        said, wanted = words(text), [words(one) for one in references]
        rows.append((min(_edits(said, one) for one in wanted), sum(map(len, wanted)) / len(wanted)))
    return np.array(rows, dtype=np.float64)


def ter(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """The score of summed counts: shape (..., 2) becomes (...). Without a word in any reference it is 0 for a text that
    says nothing either, else 100."""
    counts = np.asarray(counts, dtype=np.float64)
    edits, length = counts[..., 0], counts[..., 1]
    return 100.0 * np.where(length > 0, edits / np.where(length > 0, length, 1.0), edits > 0)


def _normalised(text: str) -> str:
    for escaped, plain in _ESCAPED:
        text = text.replace(escaped, plain)
    text = f" {text} "
    for pattern, into in _RULES:
        text = pattern.sub(into, text)
    return text


def _edits(said: list[str], wanted: list[str]) -> int:
    if not wanted:
        return len(said)
    table = _Table(wanted)
    moves = tries = 0
    while True:
        saved, moved, tries = _best_move(said, wanted, table, tries)
        if tries >= _TRIES or saved <= 0:
            return moves + table.distance(said)
        moves, said = moves + 1, moved


def _best_move(said: list[str], wanted: list[str], table: _Table, tries: int) -> tuple[int, list[str], int]:
    """What the best move saves, the text behind it, and how many were tried by then."""
    before = table.distance(said)
    place, wrong_wanted, wrong_said = _alignment(table.path(said))
    best: tuple[int, int, int, int] | None = None
    moved = said
    for start, target, length in _runs(said, wanted):
        # Only what stands wrong moves, and only to where something is wrong, and not into itself.
        if not any(wrong_said[start : start + length]) or not any(wrong_wanted[target : target + length]):
            continue
        if start <= place[target] < start + length:
            continue
        last = -1
        for at in range(target - 1, min(target + length, len(wanted))):
            to = place[at] + 1 if at >= 0 else 0
            if to == last:
                continue
            last = to
            candidate = _moved(said, start, length, to)
            key = (before - table.distance(candidate), length, -start, -to)
            tries += 1
            if best is None or key > best:
                best, moved = key, candidate
        if tries >= _TRIES:
            break
    return (best[0], moved, tries) if best else (0, said, tries)


def _runs(said: list[str], wanted: list[str]) -> Iterator[tuple[int, int, int]]:
    """Equal runs of words of both: where they start, and each length."""
    where: dict[str, list[int]] = {}
    for place, word in enumerate(wanted):
        where.setdefault(word, []).append(place)
    for start, word in enumerate(said):
        for target in where.get(word, ()):
            if abs(target - start) > _FARTHEST:
                continue
            most = min(_LONGEST, len(said) - start, len(wanted) - target)
            for length in range(1, most + 1):
                if said[start + length - 1] != wanted[target + length - 1]:
                    break
                yield start, target, length


def _moved(words: list[str], start: int, length: int, to: int) -> list[str]:
    run, end = words[start : start + length], start + length
    if to < start:
        return words[:to] + run + words[to:start] + words[end:]
    if to > end:
        return words[:start] + words[end:to] + run + words[to:]
    return words[:start] + words[end : length + to] + run + words[length + to :]


def _alignment(path: list[str]) -> tuple[list[int], list[bool], list[bool]]:
    """For each word of the reference where it stands in the text, and whether it is wrong; and whether each word of the
    text is."""
    place: list[int] = []
    wrong_wanted: list[bool] = []
    wrong_said: list[bool] = []
    for step in path:
        if step != "missing":
            wrong_said.append(step != "equal")
        if step != "extra":
            place.append(len(wrong_said) - 1)
            wrong_wanted.append(step != "equal")
    return place, wrong_wanted, wrong_said


class _Column(NamedTuple):
    """The table of distances behind some words of a text (Myers, JACM 46 (1999)); a bit is a word of the reference."""

    grows: int
    falls: int
    distance: int
    diagonal: int
    """Bit i: the distance is that of one word less on both sides."""
    right: int
    """Bit i: the distance is larger by 1 than with one word less of the text."""


class _Table:
    """Distances of texts from one reference. Texts that begin alike share the columns of their beginning."""

    def __init__(self, wanted: list[str]) -> None:
        self._wanted = wanted
        self._where: dict[str, int] = {}
        for place, word in enumerate(wanted):
            self._where[word] = self._where.get(word, 0) | 1 << place
        self._every = (1 << len(wanted)) - 1
        self._nodes: list[tuple[_Column, dict[str, int]]] = [(_Column(self._every, 0, len(wanted), 0, 0), {})]

    def distance(self, said: list[str]) -> int:
        return self._columns(said)[-1].distance

    def path(self, said: list[str]) -> list[str]:
        """The shortest way from the text to the reference; of several, as Tercom does, with a pair of words first, then
        with a word too many, then with one that is missing."""
        columns = self._columns(said)
        row, at, steps = len(self._wanted), len(said), []
        while row or at:
            bit = 1 << row - 1 if row else 0
            if not at:
                step = "missing"
            elif not row:
                step = "extra"
            elif said[at - 1] == self._wanted[row - 1]:
                step = "equal"
            elif not columns[at].diagonal & bit:
                step = "other"
            else:
                step = "extra" if columns[at].right & bit else "missing"
            steps.append(step)
            row -= step != "extra"
            at -= step != "missing"
        return steps[::-1]

    def _columns(self, said: list[str]) -> list[_Column]:
        column, after = self._nodes[0]
        columns, full = [column], False
        for word in said:
            node = None if full else after.get(word)
            if node is not None:
                column, after = self._nodes[node]
            else:
                column = self._next(column, word)
                full = full or len(self._nodes) > _KEPT
                if not full:
                    after[word] = len(self._nodes)
                    after = {}
                    self._nodes.append((column, after))
            columns.append(column)
        return columns

    def _next(self, column: _Column, word: str) -> _Column:
        grows, falls, distance = column[:3]
        equal = self._where.get(word, 0)
        diagonal = (((equal & grows) + grows) ^ grows) | equal | falls
        right = falls | ~(diagonal | grows) & self._every
        left = diagonal & grows
        last = len(self._wanted) - 1
        distance += (right >> last & 1) - (left >> last & 1)
        above, below = right << 1 | 1, left << 1
        grows = (below | ~(diagonal | above)) & self._every
        return _Column(grows, diagonal & above & self._every, distance, diagonal, right)
