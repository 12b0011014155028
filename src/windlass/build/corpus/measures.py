"""What the rules of `quality` measure: one small pure function of a `Page` each.

Words are cut at white space and punctuation, but not inside `3.5`, `a.b.c` or `f(x`, and a punctuation mark is a word
of its own: so the implementation behind FineWeb counts (spaCy's English rules, here in one pattern). What several
measurements need is worked out once per page and only when asked for.
"""

from __future__ import annotations

import math
import re
from functools import cached_property

import numpy as np
from numpy.typing import NDArray


def _tokens(character: str, small: str, letter: str, flags: int) -> re.Pattern[str]:
    inner = rf"(?:\.(?={small})|(?:[@?&(\[#%]|:`)(?={character})|[,:/=](?=\d)|(?<={letter})-(?=\d))\w++"
    return re.compile(
        rf"https?://[^\s<>\"')\]`]++|{character}\w*+(?:{inner})*+"
        r"|(?<=\w)['’]\w++|[-|+^]{2,}+|\.{2,}+|\):|[^\w\s]|_",
        flags,
    )


_TOKEN = _tokens(r"[^\W_]", r"[^\W_A-Z]", r"[^\W\d_]", 0)
_ASCII_TOKEN = _tokens("[A-Za-z0-9]", "[a-z0-9]", "[A-Za-z]", re.ASCII)
"""The same on ASCII, in two thirds of the time."""
_ALPHANUMERIC = re.compile(r"[^\W_]")
_LETTER = re.compile(r"[^\W\d_]")
_PLAIN = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=_-"
_IS_PLAIN = bytes(b"x"[0] if byte in _PLAIN else b" "[0] for byte in range(256))
_ENCODED = 100
_RULER = re.compile(r"([^\w\s])\1{3,}")
_SENTENCE_END = re.compile(r"[.!?…。！？]+[\"'”’)\]]*(?=[ \t]+\S|(?<=[。！？])\S)")
_PARAGRAPHS = re.compile(r"\n{2,}")
_LINES = re.compile(r"\n+")
_ASCII_LETTERS = bytes(range(65, 91)) + bytes(range(97, 123))
_SHORT_LINE = 30
_BULLETS = ("•", "-")
_ELLIPSES = ("...", "…")
_FINISHED = tuple(".?!…‽⁇⁈⁉؟۔।॥։۔።᙮។。！？．｡﹒﹖﹗")

STOP_WORDS = {
    language: frozenset(words.split())
    for language, words in {
        "de": "der die das und ist nicht von mit ein eine zu den auf im",
        "en": "the be to of and that have with",
        "es": "de la que el en y los se del las por un para con una",
        "fr": "de la le et les des en un du une que est pour qui dans",
        "it": "di che la il un per non una in del con si da le",
        "nl": "de het een en van ik te dat die in is niet op met voor",
        "pt": "de que o a e do da em um para com uma os no se na",
    }.items()
}
"""The commonest words of a language. The English ones are Gopher's."""


def tokens(text: str) -> list[str]:
    """Words and punctuation marks, as the rules count them."""
    return (_ASCII_TOKEN if text.isascii() else _TOKEN).findall(text)


class Page:
    """A canonical text, and what is counted in it."""

    def __init__(self, text: str, language: str = "en") -> None:
        self.text = text
        self.language = language

    @cached_property
    def tokens(self) -> list[str]:
        return tokens(self.text)

    @cached_property
    def mixed(self) -> list[str]:
        """Tokens that hold more than letters."""
        return [token for token in self.tokens if not token.isalpha()]

    @cached_property
    def symbols(self) -> list[str]:
        """Tokens that are punctuation."""
        return [token for token in self.mixed if not _ALPHANUMERIC.search(token)]

    @cached_property
    def solid(self) -> int:
        """Characters other than white space."""
        return len(self.text) - sum(map(self.text.count, " \n\t"))

    @cached_property
    def lines(self) -> list[str]:
        return self.text.split("\n")

    @cached_property
    def filled(self) -> list[str]:
        """Lines that hold more than space."""
        return [line for line in self.lines if line.strip()]

    @cached_property
    def numbers(self) -> NDArray[np.uint64]:
        """A number for each token: equal for equal tokens, of this process only."""
        return np.fromiter(map(hash, self.tokens), np.int64, len(self.tokens)).view(np.uint64)

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Characters of each token."""
        return np.fromiter(map(len, self.tokens), np.int64, len(self.tokens))


# Rules for every kind of document ------------------------------------------------------------------------------------


def solid_chars(page: Page) -> float:
    """Characters other than white space."""
    return page.solid


def encoded(page: Page) -> float:
    """Share of unbroken runs of at least 100 characters of Base64 or hexadecimal."""
    plain = page.text.encode().translate(_IS_PLAIN)  # every such character is one byte
    if b"x" * _ENCODED not in plain:
        return 0.0
    return sum(len(run) for run in plain.split() if len(run) >= _ENCODED) / len(page.text)


def letters(page: Page) -> float:
    """Share of letters among the characters that are seen; rulers and table borders say nothing either way.

    Of the ASCII letters alone the share is already a lower bound; above one half the rest is not counted.
    """
    plain = page.text.encode("ascii", "ignore")
    bound = (len(plain) - len(plain.translate(None, _ASCII_LETTERS))) / max(page.solid, 1)
    if bound > 0.5:
        return bound
    shown = "".join(_RULER.sub("", page.text).split())
    return sum(map(str.isalpha, shown)) / max(len(shown), 1)


def broken(page: Page) -> float:
    """Share of replacement characters."""
    return page.text.count("\ufffd") / max(len(page.text), 1)


def repeated(page: Page) -> float:
    """Share of the text in lines that repeat earlier ones; 0 below 20 lines."""
    if len(page.filled) < 20:
        return 0.0
    whole = sum(map(len, page.filled))
    return (whole - sum(map(len, set(page.filled)))) / whole


# Gopher --------------------------------------------------------------------------------------------------------------


def word_count(page: Page) -> float:
    """Tokens that are not punctuation."""
    return len(page.tokens) - len(page.symbols)


def word_length(page: Page) -> float:
    """Mean characters of the tokens that are not punctuation."""
    return (len("".join(page.tokens)) - len("".join(page.symbols))) / max(word_count(page), 1)


def hashes(page: Page) -> float:
    return page.text.count("#") / max(len(page.tokens), 1)


def ellipses(page: Page) -> float:
    return sum(map(page.text.count, _ELLIPSES)) / max(len(page.tokens), 1)


def bullet_lines(page: Page) -> float:
    return sum(line.lstrip().startswith(_BULLETS) for line in page.lines) / len(page.lines)


def ellipsis_lines(page: Page) -> float:
    return sum(line.endswith(_ELLIPSES) for line in page.lines) / len(page.lines)


def alphabetic_words(page: Page) -> float:
    """Share of the tokens, punctuation included, that hold a letter."""
    lettered = sum(map(bool, map(_LETTER.search, page.mixed)))
    return (len(page.tokens) - len(page.mixed) + lettered) / max(len(page.tokens), 1)


def stop_words(page: Page) -> float:
    """How many of the commonest words occur; without end where the language has no list."""
    common = STOP_WORDS.get(page.language)
    return math.inf if common is None else len(common.intersection(page.tokens))


def duplicate_paragraphs(page: Page) -> float:
    paragraphs = _PARAGRAPHS.split(page.text)
    return 1 - len(set(paragraphs)) / len(paragraphs)


def duplicate_paragraph_chars(page: Page) -> float:
    return _repeated_chars(_PARAGRAPHS.split(page.text)) / max(len(page.text), 1)


def duplicate_lines(page: Page) -> float:
    lines = _LINES.split(page.text)
    return 1 - len(set(lines)) / len(lines)


def duplicate_line_chars(page: Page) -> float:
    return _repeated_chars(_LINES.split(page.text)) / max(len(page.text), 1)


def _repeated_chars(parts: list[str]) -> int:
    return sum(map(len, parts)) - sum(map(len, set(parts)))


def repeated_ngrams(
    page: Page, top: tuple[tuple[int, float], ...] | None, repeated: tuple[tuple[int, float], ...] | None
) -> tuple[str, str] | None:
    """(rule, measurement) of the first limit that is passed.

    `top`: for n words, the share of the text that the most frequent run of n words may take, all its occurrences
    together. `repeated`: the share that runs of n words may take which occurred before, counted from the start
    without overlaps.
    """
    for n, limit in top or ():
        if (share := _top_share(page, n)) > limit:
            return f"repeats {n} words", f"the commonest run of {n} words takes {share:.0%}, at most {limit} wanted"
    for n, limit in repeated or ():
        if (share := _repeat_share(page, n, limit)) > limit:
            return f"repeats runs of {n}", f"earlier runs of {n} words take {share:.0%}, at most {limit} wanted"
    return None


_PLACES = np.array([0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0xD6E8FEB86659FD93], np.uint64)


def _runs(page: Page, n: int) -> NDArray[np.uint64]:
    """A number for each run of n tokens, equal for equal runs."""
    numbers = page.numbers
    count = len(numbers) - n + 1
    if count <= 0:
        return numbers[:0]
    hashes = numbers[:count].copy()
    for i in range(1, n):
        hashes *= _PLACES[i % 4]
        hashes ^= hashes >> np.uint64(29)
        hashes += numbers[i : i + count]
    return hashes


def _top_share(page: Page, n: int) -> float:
    """Share of the text that the most frequent run of n tokens takes, all its occurrences together."""
    runs = _runs(page, n)
    if not len(runs):
        return 0.0
    ordered = np.sort(runs)
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    counts = np.diff(ends, prepend=-1)
    most = int(counts.max())
    often = ordered[ends[counts == most]]
    start = int(np.argmax(np.isin(runs, often)))  # of equally frequent ones the first, as a counter keeps them
    return most * len(" ".join(page.tokens[start : start + n])) / len(page.text)


def _repeat_share(page: Page, n: int, limit: float) -> float:
    """Share of the text in runs of n tokens that occurred before, counted from the start without overlaps.

    The whole of all repeats, overlapping or not, is an upper bound; when it is within `limit` it is what is returned.
    """
    runs = _runs(page, n)
    order = np.argsort(runs, kind="stable")
    ordered = runs[order]
    fresh = np.append(True, ordered[1:] != ordered[:-1])[: len(runs)]
    again = order[~fresh]
    if not len(again):
        return 0.0
    edges = np.bincount(again, minlength=len(page.tokens) + 1) - np.bincount(again + n, minlength=len(page.tokens) + 1)
    bound = float(page.lengths[np.cumsum(edges[:-1]) > 0].sum()) / len(page.text)
    if bound <= limit:
        return bound
    first = np.empty(len(runs), np.int64)
    first[order] = order[fresh][np.cumsum(fresh) - 1]  # where each run occurs first
    ends = np.append(0, np.cumsum(page.lengths))
    passed = bytearray(len(runs))  # runs that begin inside a counted one: they were never looked at
    later: set[int] = set()  # of runs whose first occurrence was passed: those seen since
    found = free = 0
    again.sort()
    for place, source in zip(again.tolist(), first[again].tolist()):
        if place < free:
            continue
        if passed[source] and source not in later:
            later.add(source)
            continue
        found += int(ends[place + n] - ends[place])
        free = place + n
        passed[place + 1 : free] = b"\1" * (min(free, len(passed)) - place - 1)
    return found / len(page.text)


# C4 and FineWeb ------------------------------------------------------------------------------------------------------


def lorem_ipsum(page: Page) -> float:
    return page.text.lower().count("lorem ipsum")


def curly_brackets(page: Page) -> float:
    return page.text.count("{")


def sentences(page: Page) -> float:
    """Every line that holds text is at least one."""
    return len(page.filled) + len(_SENTENCE_END.findall(page.text))


def punctuated_lines(page: Page) -> float:
    """Share of the lines, empty ones aside, that end as a sentence does."""
    return sum(line.endswith(_FINISHED) for line in page.filled) / max(len(page.filled), 1)


def short_lines(page: Page) -> float:
    """Share of the lines, empty ones aside, of at most 30 characters."""
    return sum(len(line) <= _SHORT_LINE for line in page.filled) / max(len(page.filled), 1)


def duplicate_chars(page: Page) -> float:
    """Share of the text, line ends aside, in lines that repeat earlier ones."""
    return _repeated_chars(page.filled) / max(len(page.text) - page.text.count("\n"), 1)


def newlines(page: Page) -> float:
    return page.text.count("\n") / max(len(page.tokens), 1)
