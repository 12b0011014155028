"""From the lines of pages to one text: what stands on every page is kept once, words cut at line ends are joined.

A page of a PDF is a picture of text: nothing says which line is a header. So a line at the edge of a page is taken for
one only when the same line stands at the edge of many, or the same but for the number of the page.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from windlass.core.readers.text import canonical

_EDGE = 3
"""Lines from the top and from the bottom of a page that may be headers or footers, and at most a quarter of it each."""

_LEAST = 3
"""Pages that a header stands on."""

_AMOUNT = re.compile(r"\d[.,]\d\d\b")
"""What stands in a sum of money, and in no header: pay slips are alike to the last line."""

_NUMBER = re.compile(r"\d{1,5}")
_COUNTED = re.compile(r"\n-?\d+\n")
_LETTERS = re.compile(r"[^\W\d_]+")
_PAGE_WORDS = frozenset({"page", "p", "pg", "seite", "s", "página", "pagina", "pág", "sida", "side", "strona", "folio"})
_SPACES = re.compile(r"[ \t\u00a0]+")
_CUT = re.compile(r"((?:[^\W\d_]+-)*[^\W\d_]+)-\n(\f*)([^\W\d_][^\s\f]*)([ \n]?)")
_WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")
_LIGATURES = {0xFB00: "ff", 0xFB01: "fi", 0xFB02: "fl", 0xFB03: "ffi", 0xFB04: "ffl", 0xFB05: "st", 0xFB06: "st"}
_SENTENCE_ENDS = (".", "!", "?", ":", ";", ")", '"', "\u201d")
_JOINING = frozenset({"and", "or", "to", "und", "oder", "bzw", "sowie", "et", "ou", "y", "o", "e"})
"""Before these a hyphen is meant: pre- and postwar."""

_PAGE = "\f"
"""Stands where a page begins while the text is made; canonical text holds none."""


def joined_pages(pages: Sequence[str]) -> tuple[str, list[int], list[str]]:
    """(canonical text, where each page begins, the repeated lines that were left out).

    A page without any text, or with none but headers and footers, begins where the one before it ends.
    """
    lines = [_lines(page) for page in pages]
    kept, furniture = _without_furniture(lines)
    if not any(kept):
        kept, furniture = lines, []
    parts: list[str] = []
    above = ""
    for page in kept:
        text = canonical("\n".join(page))
        if text and above:  # a page that begins in the middle of a sentence goes on with the paragraph
            parts.append("\n" if text[0].islower() and not above.endswith(_SENTENCE_ENDS) else "\n\n")
        parts += [_PAGE, text]
        above = text or above
    whole = _uncut("".join(parts)).strip("\n")
    starts, length = [], 0
    for piece in whole.split(_PAGE)[:-1]:
        length += len(piece)
        starts.append(length)
    return whole.replace(_PAGE, ""), starts, furniture


def _uncut(text: str) -> str:
    """Joins words that were cut at the end of a line; what follows the word begins the next line.

    The hyphen stays in an address, after an abbreviation (`XML-based`), and where the text writes the word with it
    elsewhere and never without it.
    """
    words = {match[0].casefold() for match in _WORD.finditer(text)}

    def joined(match: re.Match[str]) -> str:
        first, mark, second, end = match.groups()
        left = first.rpartition("-")[2]
        if second[0].isupper() or second.rstrip(".,;:") in _JOINING:
            return match[0]
        word = _WORD.match(second)
        assert word is not None
        before = text[text.rfind("\n", 0, match.start()) + 1 : match.start()].rpartition(" ")[2]
        hyphened = (
            left != first
            or (left.isupper() and len(left) > 1)
            or "/" in before
            or (f"{first}-{word[0]}".casefold() in words and f"{first}{word[0]}".casefold() not in words)
        )
        return f"{first}{'-' if hyphened else ''}{second}{end and chr(10)}{mark}"

    return _CUT.sub(joined, text)


def _lines(page: str) -> list[str]:
    text = canonical(page.translate(_LIGATURES).replace("\u00ad\n", "").replace("\u00ad", ""))
    return [_SPACES.sub(" ", line).strip() for line in text.split("\n")] if text else []


def _without_furniture(pages: Sequence[list[str]]) -> tuple[list[list[str]], list[str]]:
    """The pages without the lines that repeat at their edges, save where such a line stands first."""
    counts = Counter(
        key for number, page in enumerate(pages) for at in _edges(page) for key in set(_keys(page[at], number))
    )
    kept: list[list[str]] = []
    first: dict[str, None] = {}
    for number, page in enumerate(pages):
        dropped = set()
        for at in _edges(page):
            key = next((key for key in _keys(page[at], number) if counts[key] >= _LEAST), None)
            if key is None:
                continue
            if key in first or not any(map(str.isalpha, key)):
                dropped.add(at)
            first[key] = None
        kept.append([line for at, line in enumerate(page) if at not in dropped])
    return kept, [_COUNTED.sub("#", key) for key in first]


def _edges(page: Sequence[str]) -> list[int]:
    filled = [at for at, line in enumerate(page) if line]
    most = min(_EDGE, len(filled) // 4)
    return filled[:most] + filled[len(filled) - most :]


def _keys(line: str, page: int) -> Iterator[str]:
    """What two lines share that say the same on two pages: the line, or the line without a number that counts pages.

    `Lesson 4` counts as well as `Page 4`, but is a heading: a single word must be one for a page.
    """
    if _AMOUNT.search(line):
        return
    yield line
    words = [word.casefold() for word in _LETTERS.findall(line)]
    if len(words) == 1 and words[0] not in _PAGE_WORDS:
        return
    for match in _NUMBER.finditer(line):
        yield f"{line[: match.start()]}\n{int(match[0]) - page}\n{line[match.end() :]}"
