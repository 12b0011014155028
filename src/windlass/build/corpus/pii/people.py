"""Rules of thumb: dates of birth, street addresses and names, each known by the words around it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from windlass.build.corpus.pii.given_names import GIVEN_NAMES

_DATE = (
    r"(?:\d{1,2}[./-]\d{1,2}[./-](?:\d{4}|\d{2})|\d{4}-\d{2}-\d{2}|"
    r"\d{1,2}(?:st|nd|rd|th|\.)? (?:of )?(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*\.?,? \d{4}|"
    r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*\.? \d{1,2}(?:st|nd|rd|th)?,? \d{4})"
)
_BORN = re.compile(
    r"\b(?:date of birth|birth ?date|birthday|d\.?o\.?b\.?|born)\b(?: (?:is|was|on))*[:\s]{0,3}(?:on )?"
    rf"({_DATE})",
    re.IGNORECASE,
)
_STREET = (
    r"(?:Street|Str|St|Avenue|Ave|Av|Road|Rd|Boulevard|Blvd|Lane|Ln|Drive|Court|Place|Square|Sq|Terrace|Way|Circle|"
    r"Parkway|Pkwy|Highway|Hwy|Crescent|Close|Grove|Gardens|Mews|Trail|Alley|Quay)"
)
_UPPER = r"[A-ZÀ-ÖØ-ÞĀĂĄĆČĎĐĒĘĚĢĪĶĻŁŃŇŐŒŘŚŞŠŤŪŮŰŹŻŽΑ-ΩЀ-Я]"
_WORD = rf"{_UPPER}[\w'’-]{{1,24}}"
_UNIT = r"(?:Apt|Apartment|Suite|Ste|Unit|Flat|Floor|Room)\.?\s#?\d\w{0,5}"
_ENDINGS = "stra(?:ss|ß)e|weg|gasse|platz|allee|gade|vej|gatan|gata|vägen|vegur|katu|tie|straat|laan"
_KINDS = r"Rua|Rúa|Via|Rue|Calle|Avenida|Avda\.|Piazza|Plaza|Viale|Corso|Travessa|Praça|Paseo|ul\."
_OF = r"(?:(?:d[aeio]s?|del|della|delle|dei|do|la|le|les|du|de la) )?"
_STREETS = "|".join(
    (
        rf"\d{{1,5}}[A-Za-z]? (?:\d{{1,4}} )?(?:{_WORD} ){{1,4}}{_STREET}\b\.?",  # 12 Old Mill Lane
        r"(?:\d{1,5} )?P\.? ?O\.? Box \d{1,6}",
        r"(?:PSC|Unit|CMR) \d{1,5},? Box \d{1,6}\s+[ADF]PO A[AEP] \d{5}",  # of soldiers
        rf"(?:\d{{1,5}} )?(?:{_WORD} ){{0,2}}{_UPPER}\w{{2,24}}(?:{_ENDINGS}) \d{{1,4}}[a-z]?\b",  # Hauptstraße 7
        rf"(?:\d{{1,5}} )?(?:{_KINDS}) {_OF}(?:{_WORD} ){{1,4}}\d{{1,5}}\b",  # Via Roma 3
        rf"\d{{1,5}} (?:{_WORD} ){{1,3}}(?:u\. )?\d{{1,4}}\.?(?=,?\s{{1,3}}{_UNIT})",  # 6750 Koskikatu 25 Apt. 864
        rf"(?:{_WORD} ){{1,3}}u\. \d{{1,4}}\.",  # Victor Hugo u. 49.
    )
)
_UNITS = rf"(?:,?\s{{1,3}}{_UNIT}){{0,2}}"
_TOWN = rf"(?:(?:,?\s{{1,3}}|\s, )(?:{_WORD}|[A-Z]{{2}})(?: {_WORD}){{0,3}}){{0,3}},?\s{{1,3}}\d{{4,6}}\b"
"""City, state and country, but only up to a postal code: without one, nothing tells where they end."""
_ADDRESSES = re.compile(rf"(?<![\w.-])(?:{_STREETS}){_UNITS}(?:{_TOWN})?")
_INITIAL = rf"(?:{_UPPER}\.? )?"
_TITLED = re.compile(
    rf"\b(?:Mr|Mrs|Ms|Miss|Mx|Dr|Prof|Professor|Sir|Dame|Herr|Frau|Señor|Señora|Monsieur|Madame)\b\.? "
    rf"((?:{_WORD} {_INITIAL}){{0,2}}{_WORD})"
)
_INTRODUCED = re.compile(
    r"(?:\b(?:[Mm]y name is|[Nn]ame(?:\?|:| is| to)|I am|I['’]m|named|called|Dear|[Ss]incerely,|[Rr]egards,))\s{1,2}"
    rf"((?:{_WORD} {_INITIAL}){{0,3}}{_WORD})"
)
_MIDDLE = re.compile(rf"(?<![\w.]){_WORD} {_UPPER}\.? {_WORD}(?![\w.])")  # Faina D. Yefremova
_CAPITALISED = re.compile(rf"(?<![\w.@/-]){_WORD}(?: {_INITIAL}{_WORD})?(?![\w@])")
_OPENERS = """
A An And At But For From He Her Here His I In It Its Not On Or Our She Sorry So Sure That The Their There These They
This Those To Was We What When Where Who Why With You Your Happy Just Also Still Very Is Are If As By
"""
_NOT_NAMES = frozenset(_OPENERS.split())
"""Capitalised at the beginning of a sentence, and no part of a name."""


def birth_dates(text: str) -> Iterator[tuple[str, int, int]]:
    """Dates that the words before them call a birth."""
    for match in _BORN.finditer(text):
        yield "birth_date", *match.span(1)


def addresses(text: str) -> Iterator[tuple[str, int, int]]:
    """House number and street, with unit, town and postal code where they follow; post boxes; number last in Europe."""
    for match in _ADDRESSES.finditer(text):
        yield "address", *match.span()


def names(text: str) -> Iterator[tuple[str, int, int]]:
    """Names with a title, an introduction, a middle initial or a common given name, and their parts further on."""
    found = [match.span(1) for pattern in (_TITLED, _INTRODUCED) for match in pattern.finditer(text)]
    found += [match.span() for match in _MIDDLE.finditer(text)]
    found = [(start, end) for start, end in found if text[start:end].split()[0] not in _NOT_NAMES]
    known = {part for start, end in found for part in text[start:end].split() if len(part) > 3}
    for match in _CAPITALISED.finditer(text):
        first, _, rest = match[0].partition(" ")
        if first in GIVEN_NAMES:
            found.append(match.span())
            known.update(part for part in rest.split() if len(part) > 3)
        elif first in known:
            found.append((match.start(), match.start() + len(first)))
    place = 0
    for start, end in sorted(found, key=lambda span: (span[0], -span[1])):
        if start >= place:
            yield "person", start, end
            place = end
