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
    r"number is|phone number|reach (?:me|us|him|her|them)|contact (?:me|us)|registered|telefon\w*|tél\w*|handy|"
    r"t[ée]l[ée]phone|móvil|tlf|puh)\b|☎|📞)[^\n\d]{0,24}\Z",
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
        taken: list[tuple[int, int]] = []
        for kind, match in _candidates(text, start, end):
            span = match.span()
            if not any(span[0] < stop and begin < span[1] for begin, stop in taken):
                taken.append(span)
                yield kind, *span


def _candidates(text: str, start: int, end: int) -> Iterator[tuple[str, re.Match[str]]]:
    """What a region of digits can be, most certain first."""
    for kind, pattern, check in _FORMATS:
        for match in pattern.finditer(text, start, end):
            if check(match[0]):
                yield kind, match
    before = text[max(0, start - _CONTEXT) : start]
    if _NAMED_IDS.search(before) and (named := _NAMED_ID.match(text, start)):
        yield "national_id", named
    for match in _PHONES.finditer(text, start, end):
        if 7 <= len(_digits(match[0])) <= 15:
            yield "phone", match
    if _CALLED.search(before) and (bare := _BARE.match(text, start)):
        yield "phone", bare


_LETTERED: tuple[tuple[str, re.Pattern[str], Callable[[str], bool]], ...] = tuple(
    (kind, re.compile(rf"(?<![\w-]){pattern}(?![\w-])", re.ASCII), check)
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
        (
            "national_id",
            r"[A-Z]{6}\d\d[A-EHLMPRST][0-7]\d[A-Z]\d{3}[A-Z]",
            checksums.codice_fiscale,
        ),
    )
)
_NUMBERED = re.compile(r"(?<![\w.-])(?:(\d{8}-?[A-Z])|(\d{6}[-+A-F]\d{3}[0-9A-Y]))(?![\w-])")
_LETTER_DIGIT = re.compile(r"[A-Za-z][ -]?[0-9]{2}|[0-9]{6}[-+A-F]?[0-9A-Z]")


def lettered(text: str) -> Iterator[tuple[str, int, int]]:
    """Account and citizens' numbers that mix letters and digits."""
    if _LETTER_DIGIT.search(text) is None:
        return
    for kind, pattern, check in _LETTERED:
        for match in pattern.finditer(text):
            if check(match[0]):
                yield kind, *match.span()
    for match in _NUMBERED.finditer(text):
        if checksums.dni(match[1].replace("-", "")) if match[1] else checksums.hetu(match[2]):
            yield "national_id", *match.span()
