"""Whether words stand in a text to the letter, where, and if they do not, how far they are the same.

Words and text are compared as they read, not as they were typed: a run of white space is one space, typographic
quotation marks and apostrophes are straight ones, and a soft hyphen, with the break of the line behind it, is not
there. Nothing else is forgiven: not case, not a comma, not a dash.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_STRAIGHT = str.maketrans({**dict.fromkeys("‘’‚‛‹›", "'"), **dict.fromkeys("“”„‟«»", '"')})
_RUN = re.compile(r"[\s\xad]{2,}|[^\S ]|\xad")
"""What is not typed as it reads: all runs of white space and soft hyphens but a single space."""
_HYPHEN = re.compile(r"\xad(?:[^\S\n]*\n\s*)?")
_SHOWN = 40
"""Characters of a text that a message shows."""


class Text:
    """A text as it reads, and the way back to the characters of its source."""

    def __init__(self, source: str) -> None:
        self.source = source
        self._here, self._there = [0], [0]
        """At these places of `read` stand these of `source`; what follows goes character by character."""
        pieces: list[str] = []
        length = end = 0
        for run in _RUN.finditer(source):
            space = " " if _HYPHEN.sub("", run.group()) else ""
            pieces += source[end : run.start()], space
            length += run.start() - end + len(space)
            end = run.end()
            self._here.append(length)
            self._there.append(end)
        self.read = "".join([*pieces, source[end:]]).translate(_STRAIGHT)

    def places(self, words: str) -> Iterator[tuple[int, int]]:
        """Where `words` stand in `read`, from the left; none overlaps the one before. Nothing stands nowhere."""
        words = as_read(words)
        at = self.read.find(words) if words else -1
        while at >= 0:
            yield at, at + len(words)
            at = self.read.find(words, at + len(words))

    def span(self, place: tuple[int, int]) -> tuple[int, int]:
        """The place in `source`, of which neither end is a space or a soft hyphen."""
        return self._at(place[0]), self._at(place[1] - 1) + 1

    def whole(self, place: tuple[int, int]) -> bool:
        """Whether the place cuts through no word and no number: 100 is not what 1,000 says. Where words are written
        without spaces between them, nobody knows."""
        return not (_cut(self.read, place[0]) or _cut(self.read, place[1]))

    def _at(self, place: int) -> int:
        before = bisect_right(self._here, place) - 1
        return self._there[before] + place - self._here[before]


def as_read(words: str) -> str:
    """Words as they read, without space around them."""
    return Text(words).read.strip()


@dataclass(frozen=True, slots=True)
class Parting:
    """The text that is nearest to words that stand in none, and where the two part."""

    text: int
    """Its number."""
    same: str
    """As much of the words as stands there: their beginning, or their end."""
    there: str
    """What follows in the text, or comes before."""
    here: str
    """What the words have instead."""
    begins: bool
    """Whether the beginning is the same, else the end."""

    def __str__(self) -> str:
        there, here = repr(self.there) if self.there else "nothing", repr(self.here)
        if self.begins:
            return f"it is the same up to {self.same[-_SHOWN:]!r}, where {there} follows and not {here}"
        return f"it is the same from {self.same[:_SHOWN]!r} on, before which stands {there} and not {here}"


def parting(words: str, texts: Sequence[Text]) -> Parting | None:
    """Of `words` that stand in none of `texts`; None where not even three of their characters do."""
    words = as_read(words)
    best: Parting | None = None
    for number, text in enumerate(texts):
        for begins in (True, False):
            length = _shared(words, text.read, begins)
            if length < 3 or (best is not None and length <= len(best.same)):
                continue
            if begins:
                at = text.read.find(words[:length]) + length
                there, here = text.read[at : at + _SHOWN], words[length : length + _SHOWN]
            else:
                at = text.read.find(words[-length:])
                there, here = text.read[max(0, at - _SHOWN) : at], words[:-length][-_SHOWN:]
            best = Parting(number, words[:length] if begins else words[-length:], there, here, begins)
    return best


def _shared(words: str, text: str, begins: bool) -> int:
    """How many characters from the beginning of `words`, or up to their end, stand in `text`."""
    low, high = 0, len(words)
    while low < high:
        middle = (low + high + 1) // 2
        if (words[:middle] if begins else words[-middle:]) in text:
            low = middle
        else:
            high = middle - 1
    return low


def _cut(text: str, at: int) -> bool:
    """Whether the characters on both sides of `at` are of one word, or of one number."""
    if not 0 < at < len(text):
        return False
    before, after = text[at - 1], text[at]
    if unicodedata.combining(after) or (_cased(before) and _cased(after)):
        return True
    if before.isdigit():
        return after.isdigit() or (after in ".," and text[at + 1 : at + 2].isdigit())
    return before in ".," and after.isdigit() and text[max(0, at - 2) : at - 1].isdigit()


def _cased(char: str) -> bool:
    """Whether it is a letter of an alphabet with capitals, whose words stand apart."""
    return char.isalpha() and char.lower() != char.upper()
