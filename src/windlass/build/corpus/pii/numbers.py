"""Numbers that name a person: cards, accounts, citizens' numbers, telephones, and IPv4 addresses.

The text is searched once for regions of digits; only there are the formats tried, most certain first. A number without
a format of its own (seven bare digits) counts as a telephone only where the words before it say so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from windlass.build.corpus.pii import checksums
from windlass.build.corpus.pii.network import is_public_v4

_REGION = re.compile(r"\d[\d \xa0().+/x–-]{5,}")
_CONTEXT = 48
"""Characters before a number in which a word may say what it is."""

_EXTENSION = 8
"""Characters after the digits that may still belong to a number: " ext. 12"."""


def _digits(value: str) -> str:
    return "".join(filter(str.isdigit, value))


def _compact(check: Callable[[str], bool]) -> Callable[[str], bool]:
    return lambda value: check(_digits(value))


_APART = r"(?<![\w.,:/=#@&$€£+-])"
_END = r"(?![\w@=]|[.,:/-]\d)"
_FORMATS: tuple[tuple[str, re.Pattern[str], Callable[[str], bool]], ...] = tuple(
    (kind, re.compile(_APART + pattern + _END, re.ASCII), check)
    for kind, pattern, check in (
        ("card", r"\d{4}([ -]?)\d{4}\1\d{4}\1\d{1,7}", _compact(checksums.card)),
        ("card", r"\d{4}([ -])\d{6}\1\d{4,5}", _compact(checksums.card)),
        ("card", r"\d{12,19}", checksums.card),
        ("national_id", r"[1278] ?\d\d ?(?:0[1-9]|1[0-2]|[2-9]\d) ?\d\d ?\d{3} ?\d{3} ?\d\d", _compact(checksums.nir)),
        ("national_id", r"\d{3}\.\d{3}\.\d{3}-\d\d", _compact(checksums.cpf)),
        ("national_id", r"\d{3}([- ])\d\d\1\d{4}", _compact(checksums.social_security)),
        ("national_id", r"[2-9]\d{3}([ -])\d{4}\1\d{4}", _compact(checksums.aadhaar)),
        ("ip", r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}", is_public_v4),
    )
)
_NAMED_IDS = re.compile(
    r"(?:social security|\bssn\b|\bsin\b|social insurance|national id|identity (?:card|number)|\bpesel\b|\bbsn\b|"
    r"tax (?:id|number)|steuer-?id|passport|licen[cs]e|\bmedicare\b|\bnhs\b)[^\n]{0,24}\Z",
    re.IGNORECASE,
)
_NAMED_ID = re.compile(r"(?<![\w-])[A-Z]{0,2}\d(?:[ -]?\d){5,13}[A-Z]?(?![\w])")
_PHONES = re.compile(
    r"(?<![\w.,:/=#@&$€£+-])(?:"
    r"(?:\+|00)[1-9]\d{0,2}[ .-]?(?:\(0?\d{0,4}\)[ .-]?)?\d{1,5}(?:[ .-]?\d{2,5}){1,4}"
    r"|(?:\+?1[ .-]?)?(?:\([2-9]\d{2}\) ?|[2-9]\d{2}([ .-]))[2-9]\d{2}[ .-]\d{4}"
    r"|\(?0[1-9]\d{0,3}\)?(?:[ .-]\d{2,4}){2,4}"
    r")(?: ?(?:x|ext\.?) ?\d{1,6})?(?![\w@=]|[.,:/-]\d)"
)
_CALLED = re.compile(
    r"(?:\b(?:phone|telephone|tel|mobile|cell|cellphone|fax|call|called|calling|dial|text|whatsapp|sms|ring|hotline|"
    r"number is|phone number|reach (?:me|us|him|her|them)|contact (?:me|us)|registered|desk|home|work|office|answering|"
    r"messages? to|telefon\w*|tél\w*|handy|móvil|tlf|puh)\b|☎|📞)[^\d.]{0,20}\Z",
    re.IGNORECASE,
)
_BARE = re.compile(
    r"(?<![\w.,:/=#@&$€£-])\+?\(?\d(?:[ .()/-]{0,2}\d){6,14}(?: ?(?:x|ext\.?) ?\d{1,6})?(?![\w@=]|[.,:]\d)"
)


def numbers(text: str) -> Iterator[tuple[str, int, int]]:
    """Cards, citizens' numbers of digits, IPv4 addresses and telephone numbers."""
    for region in _REGION.finditer(text):
        start, end = region.start(), min(region.end() + _EXTENSION, len(text))
        while start and text[start - 1] in "+(":
            start -= 1
        taken = bytearray(end - start + 1)  # from the character before the region on, which may be a letter
        for kind, match in _candidates(text, start, end):
            here = slice(match.start() - start + 1, match.end() - start + 1)
            if not any(taken[here]):
                taken[here] = b"\1" * (here.stop - here.start)
                yield kind, *match.span()


def _candidates(text: str, start: int, end: int) -> Iterator[tuple[str, re.Match[str]]]:
    """What a region of digits can be, most certain first."""
    for kind, pattern, check in _FORMATS:
        for match in pattern.finditer(text, start, end):
            if check(match[0]):
                yield kind, match
    before = text[max(0, start - _CONTEXT) : start]
    lettered = start - 1 if start and text[start - 1].isalpha() else start
    if (named := _NAMED_ID.match(text, lettered)) and _NAMED_IDS.search(before):
        yield "national_id", named
    for match in _PHONES.finditer(text, start, end):
        if 7 <= len(_digits(match[0])) <= 15:
            yield "phone", match
    if (bare := _BARE.match(text, start)) and _CALLED.search(before):
        yield "phone", bare


_LETTERED: tuple[tuple[str, re.Pattern[str], Callable[[str], bool]], ...] = tuple(
    (kind, re.compile(rf"{pattern}(?![\w-])", re.ASCII), check)
    for kind, pattern, check in (
        (
            "iban",
            r"[A-Za-z]{2}\d{2}(?: ?[A-Za-z0-9]{4}){2,7}(?: ?[A-Za-z0-9]{1,3})?",
            lambda value: checksums.iban(value.replace(" ", "").upper()),
        ),
        (
            "national_id",  # United Kingdom, National Insurance
            r"(?!BG|GB|KN|NK|NT|TN|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d\d ?\d\d ?\d\d ?[A-D]",
            lambda value: True,
        ),
        ("national_id", r"[XYZ]-?\d{7}-?[A-Z]", lambda value: checksums.dni(value.replace("-", ""))),
        ("national_id", r"\d{8}-?[A-Z]", lambda value: checksums.dni(value.replace("-", ""))),
        ("national_id", r"\d{6}[-+A-F]\d{3}[0-9A-Y]", checksums.hetu),
        ("national_id", r"[A-Z]{6}\d\d[A-EHLMPRST][0-7]\d[A-Z]\d{3}[A-Z]", checksums.codice_fiscale),
    )
)
_MIXED = re.compile(r"\d\d(?:(?<=[A-Za-z]\d\d)|(?<=[A-Za-z][ -]\d\d)|(?=\d{4}(?:\d\d)?[-+A-Z]))", re.ASCII)
"""Two digits after a letter, or six or eight before one: what every such number has, and few words."""
_LETTERS_BEFORE = 8


def lettered(text: str) -> Iterator[tuple[str, int, int]]:
    """Account and citizens' numbers that mix letters and digits."""
    place = 0
    for anchor in _MIXED.finditer(text):
        if anchor.start() < place:
            continue
        for start in _beginnings(text, anchor.start()):
            for kind, pattern, check in _LETTERED:
                match = pattern.match(text, start)
                if match is not None and match.end() > place and check(match[0]):
                    place = match.end()
                    yield kind, *match.span()


def _beginnings(text: str, digits: int) -> Iterator[int]:
    """Where a number with these digits may begin: with the letters before them, or before a space or hyphen."""
    for start in (digits, digits - 1) if digits and text[digits - 1] in " -" else (digits,):
        while start and digits - start < _LETTERS_BEFORE and text[start - 1].isalnum():
            start -= 1
        if not start or not (text[start - 1].isalnum() or text[start - 1] in "_-"):
            yield start
