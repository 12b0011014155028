"""What a sentence says, as far as words show it: what it is about, its numbers with their units, and whether it denies.

English, and rough: just enough to compare two sentences that say nearly the same (`rag.answers.disagreement`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final


def _words(text: str) -> list[str]:
    return text.split()


_ONES: Final = _words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
    " eighteen nineteen"
)
_TENS: Final = _words("twenty thirty forty fifty sixty seventy eighty ninety")
_LARGE: Final = {"dozen": 12.0, "hundred": 1e2, "thousand": 1e3, "million": 1e6, "billion": 1e9}
_SMALL: Final = {word: float(n) for n, word in enumerate(_ONES)} | {word: 20.0 + 10 * n for n, word in enumerate(_TENS)}
_NUMBER: Final = rf"(?:[$€£]?\d|(?:{'|'.join([*_ONES, *_TENS, *_LARGE])})\b)"
_MONTHS: Final = _words("january february march april may june july august september october november december")
_STOP: Final = frozenset(
    _words(
        "a about all also an and any are as at be been being but by can could did do does each even every for"
        " from had has have he her here his how i if in into is it its just may me might more most much must my of"
        " on once only or other our out over per shall she should so some still such than that the their them then"
        " there these they this those through to too under until up us very was we were what when where which"
        " while who whom whose will with would you your"
    )
)
_DENIED: Final = re.compile(
    r"\b(?:not(?!\s+only)|never|cannot|without|neither|nor|no(?=\s+[a-z]))\b|n't\b", re.IGNORECASE
)
_LOOSE: Final = re.compile(
    r"\b(?:at\s+(?:least|most)|up\s+to|(?:more|less|fewer)\s+than|between)\b|[~<>≤≥±]"
    rf"|\b(?:about|around|over|under|above|below|nearly|almost|roughly|approximately|some)\s+(?={_NUMBER})"
    rf"|{_NUMBER}\s*(?:-|–|\bto\b)\s*{_NUMBER}",
    re.IGNORECASE,
)
_CONDITION: Final = frozenset(
    _words("for if when unless except during while since before after in on under with without at")
)
_TOKEN: Final = re.compile(r"\d{1,2}:\d{2}|\d[\d.,]*\d|\d|[^\W\d_]+(?:'[^\W\d_]+)?|[%€$£°]")


def stem(word: str) -> str:
    """English endings cut off, so that "moves" and "move" are one word."""
    word = word.removesuffix("'s")
    for ending in ("ations", "ation", "ings", "ing", "ies", "ied", "es", "ed", "s", "e", "y"):
        if word.endswith(ending) and len(word) - len(ending) >= 3 and not word.endswith("ss"):
            return word.removesuffix(ending)
    return word


def content(text: str) -> list[tuple[str, str]]:
    """The words of weight with their stems before them, in order, numbers left out."""
    words = [match.group().lower() for match in _TOKEN.finditer(text)]
    kept = [word for word in words if word not in _STOP and word not in _LARGE and _value(word) is None]
    return [(stem(word), word) for word in kept if word[0].isalpha() and not _DENIED.fullmatch(word)]


OPPOSITES: Final = [
    frozenset({stem(one), stem(other)})
    for one, other in (
        ("allowed", "forbidden"),
        ("allowed", "prohibited"),
        ("permitted", "forbidden"),
        ("permitted", "prohibited"),
        ("enabled", "disabled"),
        ("required", "optional"),
        ("mandatory", "optional"),
        ("included", "excluded"),
        ("legal", "illegal"),
        ("possible", "impossible"),
        ("safe", "unsafe"),
        ("accepted", "rejected"),
        ("true", "false"),
        ("increase", "decrease"),
    )
]
"""Pairs of which one denies the other, as stems."""


YEAR, DATE, CLOCK = "*year", "*date", "*clock"
"""Units that are no words of the sentence."""


@dataclass(frozen=True, slots=True)
class Claim:
    words: frozenset[str]
    """Stems of the words of weight, units included, without numbers and denials."""
    numbers: Mapping[str, frozenset[float]]
    """Stem of the unit, `YEAR`, `DATE` or `CLOCK` -> the numbers; "" where no unit is known."""
    bound: frozenset[str]
    """Words that stand right behind a word of condition or time."""
    denied: bool
    question: bool
    loose: bool
    """It gives a limit, a range or a rough number."""
    shown: Mapping[str, str]
    """Unit -> its numbers as they are written, with it."""

    @classmethod
    def of(cls, sentence: str) -> Claim:
        tokens = [match.group() for match in _TOKEN.finditer(sentence)]
        words: set[str] = set()
        bound: set[str] = set()
        numbers: dict[str, set[float]] = {}
        shown: dict[str, list[str]] = {}
        for at, token in enumerate(tokens):
            low = token.lower()
            value = _value(token)
            if value is not None:
                value, unit, written = _measured(value, tokens, at)
                numbers.setdefault(unit, set()).add(value)
                shown.setdefault(unit, []).append(written)
            elif low not in _STOP and low not in _LARGE and not _DENIED.fullmatch(token):
                words.add(stem(low))
                if {one.lower() for one in tokens[max(0, at - 2) : at]} & _CONDITION:
                    bound.add(stem(low))
        return cls(
            frozenset(words),
            {unit: frozenset(values) for unit, values in numbers.items()},
            frozenset(bound),
            _DENIED.search(sentence) is not None,
            sentence.rstrip().endswith("?"),
            _LOOSE.search(sentence) is not None,
            {unit: " and ".join(written) for unit, written in shown.items()},
        )


def _value(token: str) -> float | None:
    if (low := token.lower()) in _SMALL:
        return _SMALL[low]
    if ":" in token and token[0].isdigit():
        hours, minutes = token.split(":")
        return float(hours) + float(minutes) / 60
    if not token[0].isdigit():
        return None
    plain = re.sub(r",(?=\d{3}\b)", "", token).replace(",", ".")
    return float(plain) if plain.count(".") <= 1 else None


def _measured(value: float, tokens: Sequence[str], at: int) -> tuple[float, str, str]:
    """The number with what makes it large, its unit (what is counted, or what stands before it), and how it reads."""
    written, following = tokens[at], list(tokens[at + 1 : at + 3])
    before = tokens[at - 1].lower() if at else ""
    if following and following[0].lower() in _LARGE:
        value, written = value * _LARGE[following[0].lower()], f"{written} {following.pop(0)}"
    after = following[0].lower() if following else ""
    if ":" in tokens[at]:
        return value, CLOCK, written
    if after in _MONTHS or before in _MONTHS:
        return value, YEAR if value >= 1000 else DATE, written
    if before in ("$", "€", "£"):
        return value, before, f"{before}{written}"
    if value.is_integer() and 1000 <= value < 2100 and (not after or after in _STOP):
        return value, YEAR, written
    if after and after not in _STOP and _value(after) is None:
        return value, stem(after), f"{written} {following[0]}"
    return value, stem(before) if before and before not in _STOP else "", written
