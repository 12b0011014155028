"""What changed from one prompt to another, for reading: line by line, with the words that differ marked.

The same two files as `windlass prompt diff` compares. In prose a line is a paragraph, so that marking whole lines would
leave the reader to look for the one word that changed.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

from windlass.apply.prompts.file import EXAMPLES, PROMPT, parts_of
from windlass.apply.prompts.value import Prompt

AROUND = 3
"""Unchanged lines shown before and after a change."""
MOST_LINES = 2_000
"""Of each file; the page says when there are more."""
MOST_WORDS = 2_000
"""In a pair of lines whose words are compared; the time for it grows with the square."""
ALIKE = 0.4
"""Share of words in common from which on two lines are versions of one line."""
_WORD = re.compile(r"\s+|\w+|[^\w\s]")

Kind = Literal["same", "old", "new", "gap"]
Pieces = Sequence[tuple[str, bool]]
"""The text of a line in pieces, and whether each differs from the line it is compared with."""


@dataclass(frozen=True, slots=True)
class Line:
    kind: Kind
    pieces: Pieces
    before: int | None = None
    """Its number in the earlier file."""
    after: int | None = None


@dataclass(frozen=True, slots=True)
class Changed:
    """One file that differs."""

    name: str
    lines: Sequence[Line]
    cut: bool
    """Whether only the first `MOST_LINES` lines were compared."""

    @property
    def added(self) -> int:
        return sum(line.kind == "new" for line in self.lines)

    @property
    def removed(self) -> int:
        return sum(line.kind == "old" for line in self.lines)


def changes(before: Prompt, after: Prompt) -> list[Changed]:
    """The files that differ; none when the prompts are the same."""
    old, new = parts_of(before), parts_of(after)
    found = []
    for name in (PROMPT, EXAMPLES):
        if old.get(name) == new.get(name):
            continue
        a, b = (parts.get(name, b"").decode().split("\n")[:-1] for parts in (old, new))
        found.append(changed(name, a, b))
    return found


def changed(name: str, before: Sequence[str], after: Sequence[str]) -> Changed:
    """What became of the lines of a text."""
    cut = max(len(before), len(after)) > MOST_LINES
    return Changed(name, list(_lines(before[:MOST_LINES], after[:MOST_LINES])), cut)


def _lines(a: Sequence[str], b: Sequence[str]) -> Iterator[Line]:
    shown = 0  # lines of `a` up to here have been told of
    for group in SequenceMatcher(None, a, b, autojunk=False).get_grouped_opcodes(AROUND):
        yield from _gap(group[0][1] - shown)
        for tag, i, i_end, j, j_end in group:
            if tag == "equal":
                for n in range(i_end - i):
                    yield Line("same", [(a[i + n], False)], i + n + 1, j + n + 1)
            else:
                yield from _replaced(a[i:i_end], b[j:j_end], i, j)
        shown = group[-1][2]
    yield from _gap(len(a) - shown)


def _gap(count: int) -> Iterator[Line]:
    if count:
        yield Line("gap", [(f"{count:,} line{'s' if count > 1 else ''} the same", False)])


def _replaced(a: Sequence[str], b: Sequence[str], i: int, j: int) -> Iterator[Line]:
    """Each line beside what became of it, where that can be told; then those that have no other."""
    for n, (left, right) in enumerate(itertools.zip_longest(a, b)):
        old, new = _words(left or "", right or "")
        if left is not None:
            yield Line("old", old, before=i + n + 1)
        if right is not None:
            yield Line("new", new, after=j + n + 1)


def _words(left: str, right: str) -> tuple[Pieces, Pieces]:
    """Both lines in pieces, with what differs marked; nothing is marked in lines that have little in common."""
    a, b = _WORD.findall(left), _WORD.findall(right)
    matcher = SequenceMatcher(None, a, b, autojunk=False)
    if len(a) + len(b) > MOST_WORDS or matcher.ratio() < ALIKE:
        return [(left, False)], [(right, False)]
    sides: tuple[list[tuple[str, bool]], list[tuple[str, bool]]] = ([], [])
    for tag, i, i_end, j, j_end in matcher.get_opcodes():
        texts = "".join(a[i:i_end]), "".join(b[j:j_end])
        changed = tag != "equal" or texts[0].isspace()  # a blank between two changes is one change with them
        for side, text in zip(sides, texts):
            if text and side and side[-1][1] == changed:
                side[-1] = side[-1][0] + text, changed
            elif text:
                side.append((text, changed))
    return sides
