"""Rules of thumb: dates of birth, street addresses and names, each known by the words around it."""

from __future__ import annotations

import re
from collections.abc import Iterator

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
    r"(?:Street|St|Avenue|Ave|Road|Rd|Boulevard|Blvd|Lane|Ln|Drive|Dr|Court|Ct|Place|Pl|Square|Sq|Terrace|Ter|Way|"
    r"Circle|Cir|Parkway|Pkwy|Highway|Hwy|Crescent|Close|Grove|Gardens|Row|Mews|Hill|Walk|Trail|Alley|Quay|Crossing)"
)
_WORD = r"[A-ZÀ-ÖØ-Þ][\w'’.-]{0,24}"
_UNIT = r"(?:,?\s{0,4}(?:Apt|Apartment|Suite|Ste|Unit|Flat|Floor|Room|#)\.?\s?#?\w{1,6})?"
_ADDRESSES = re.compile(
    rf"(?<![\w-])(?:\d{{1,5}}[A-Za-z]? (?:{_WORD} ){{1,4}}{_STREET}\b\.?{_UNIT}"
    rf"|P\.? ?O\.? Box \d{{1,6}}|PSC \d{{1,5}},? Box \d{{1,6}}(?:\s+APO A[AEP] \d{{5}})?"
    rf"|(?:{_WORD} )?{_WORD}(?:stra(?:ss|ß)e|str\.|weg|gasse|platz|allee|gade|vej|gatan|vägen|katu|tie|straat|laan)"
    rf" \d{{1,4}}[a-z]?\b{_UNIT}"
    rf"|(?:Rua|Via|Rue|Calle|Avenida|Avenue|Piazza|Plaza|Viale|Corso|Travessa|Praça|Place|Boulevard|ul\.) "
    rf"(?:(?:d[aeio]s?|del|della|delle|do|la|le|les|du|de la) )?(?:{_WORD} ?){{1,4}},? \d{{1,5}}\b{_UNIT})"
)
_TITLED = re.compile(
    rf"\b(?:Mr|Mrs|Ms|Miss|Mx|Dr|Prof|Professor|Sir|Dame|Herr|Frau|Señor|Señora|Monsieur|Madame)\.? "
    rf"((?:{_WORD} ){{0,2}}{_WORD})"
)
_INTRODUCED = re.compile(
    rf"(?:\b[Mm]y name is|\bI am|\bI['’]m|\b[Nn]ame:|\bcalled|\bDear|\b[Ss]incerely,|\b[Rr]egards,)\s{{1,2}}"
    rf"((?:{_WORD} ){{0,3}}{_WORD})"
)


def birth_dates(text: str) -> Iterator[tuple[str, int, int]]:
    """Dates that the words before them call a birth."""
    for match in _BORN.finditer(text):
        yield "birth_date", *match.span(1)


def addresses(text: str) -> Iterator[tuple[str, int, int]]:
    """House number and street, post boxes, and the European order with the number last."""
    for match in _ADDRESSES.finditer(text):
        yield "address", *match.span()


def names(text: str) -> Iterator[tuple[str, int, int]]:
    """Names after a title or an introduction."""
    for pattern in (_TITLED, _INTRODUCED):
        for match in pattern.finditer(text):
            yield "person", *match.span(1)
