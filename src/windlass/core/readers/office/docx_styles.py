"""What Word's styles and lists say of a paragraph: that it is a heading, and which number stands before it.

A number is not in the text: it is counted while the document is read (ECMA-376-1, 17.9). Without it nobody finds
"clause 4.2" in a contract.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from windlass.core.readers.office.package import Package
from windlass.core.readers.office.xml_events import events

_HEADING = re.compile(r"heading (\d)$", re.IGNORECASE)
_PLACE = re.compile(r"%(\d)")
_DEEPEST = 9
_ROMAN = ((1000, "m"), (900, "cm"), (500, "d"), (400, "cd"), (100, "c"), (90, "xc"), (50, "l"), (40, "xl"), (10, "x"),
          (9, "ix"), (5, "v"), (4, "iv"), (1, "i"))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Style:
    level: int | None = None
    """Of a heading, from 1."""
    is_title: bool = False
    number: int | None = None
    """The list that its paragraphs are items of."""
    depth: int | None = None


@dataclass(slots=True)
class _Said:
    name: str = ""
    based_on: str = ""
    outline: int | None = None
    number: int | None = None
    depth: int | None = None


def read_styles(package: Package, part: str | None) -> dict[str, Style]:
    """Style by id; that of paragraphs that name none is under ''."""
    if part is None:
        return {}
    said: dict[str, _Said] = {}
    default = ""
    style: _Said | None = None
    passed = 0
    with package.opened(part) as stream:
        for kind, tag, attributes in events(stream):
            if attributes is None:
                passed -= tag in ("pPrChange", "tblStylePr") and kind == "end"
                style = None if tag == "style" and kind == "end" else style
                continue
            value = attributes.get("val", "")
            passed += tag in ("pPrChange", "tblStylePr")
            if tag == "style":
                style = said[attributes.get("styleId", "")] = _Said()
                if attributes.get("type") == "paragraph" and attributes.get("default") in ("1", "true", "on"):
                    default = attributes.get("styleId", "")
            elif style is None or passed:
                continue
            elif tag == "name":
                style.name = value
            elif tag == "basedOn":
                style.based_on = value
            elif value.isdecimal() and tag in ("outlineLvl", "numId", "ilvl"):
                setattr(style, {"outlineLvl": "outline", "numId": "number", "ilvl": "depth"}[tag], int(value))
    found = {id: _resolved(id, said) for id in said}
    if default:
        found[""] = found[default]
    return found


def _resolved(id: str, said: Mapping[str, _Said]) -> Style:
    """With what it takes over from the styles that it is based on."""
    level = number = depth = None
    seen: set[str] = set()
    title = said[id].name.lower() == "title"
    while id in said and id not in seen:  # a circle of styles ends
        seen.add(id)
        style = said[id]
        if level is None:
            match = _HEADING.match(style.name)
            level = int(match[1]) if match else None if style.outline is None else style.outline + 1
        number = style.number if number is None else number
        depth = style.depth if depth is None else depth
        id = style.based_on
    return Style(level if level is not None and level <= _DEEPEST else None, title, number, depth)


@dataclass(slots=True)
class _Level:
    format: str = "decimal"
    text: str = ""
    start: int = 1


@dataclass(slots=True)
class Numbering:
    """The lists of a document, and how far each has been counted."""

    levels: dict[str, dict[int, _Level]] = field(default_factory=dict)
    """Kind of list -> depth -> how it is numbered."""
    kinds: dict[int, str] = field(default_factory=dict)
    """List -> kind of list."""
    starts: dict[tuple[int, int], int] = field(default_factory=dict)
    """Where a list begins anew, by list and depth."""
    counts: dict[str, dict[int, int]] = field(default_factory=dict)

    def mark(self, number: int, depth: int) -> str:
        """What stands before the next item: `-`, `1.`, `(b)`, `4.2`; '' where the document does not say."""
        kind = self.kinds.get(number)
        if kind is None:
            return "-"
        levels = self.levels.get(kind, {})
        level = levels.get(depth)
        if level is None or level.format in ("bullet", "none"):
            return "" if level is not None and level.format == "none" and not level.text else "-"
        counts = self.counts.setdefault(kind, {})
        if (start := self.starts.pop((number, depth), None)) is not None:  # the first item of a list of its own
            counts[depth] = start
        else:
            counts[depth] = counts[depth] + 1 if depth in counts else level.start
        for deeper in [other for other in counts if other > depth]:
            del counts[deeper]

        def shown(match: re.Match[str]) -> str:
            at = int(match[1]) - 1
            above = levels.get(at, _Level())
            return _numeral(counts.get(at, above.start), above.format)

        return _PLACE.sub(shown, level.text).strip()


def read_numbering(package: Package, part: str | None) -> Numbering:
    numbering = Numbering()
    if part is None:
        return numbering
    kind, number, depth = "", 0, 0
    level: _Level | None = None
    with package.opened(part) as stream:
        for event, tag, said in events(stream):
            if said is None:
                level = None if tag == "lvl" and event == "end" else level
                continue
            value = said.get("val", "")
            if tag == "abstractNum":
                kind, number = said.get("abstractNumId", ""), 0
            elif tag == "num":
                number = _whole(said.get("numId", ""))
            elif tag == "abstractNumId" and number:
                numbering.kinds[number] = value
            elif tag in ("lvl", "lvlOverride"):
                depth = _whole(said.get("ilvl", ""))
                if tag == "lvl" and not number:  # inside of an override it would need a kind of its own: rare
                    level = numbering.levels.setdefault(kind, {})[depth] = _Level()
            elif tag == "startOverride" and number:
                numbering.starts[number, depth] = _whole(value)
            elif level is None:
                continue
            elif tag == "start":
                level.start = _whole(value)
            elif tag == "numFmt":
                level.format = value
            elif tag == "lvlText":
                level.text = value
    return numbering


def _whole(value: str) -> int:
    return int(value) if value.isdecimal() and len(value) < 7 else 0


def _numeral(number: int, format: str) -> str:
    """As Word writes it; formats of other languages as decimals."""
    if format in ("lowerLetter", "upperLetter") and number > 0:
        letter = chr(ord("a") + (number - 1) % 26) * min((number - 1) // 26 + 1, 8)  # z is followed by aa, bb
        return letter if format == "lowerLetter" else letter.upper()
    if format in ("lowerRoman", "upperRoman") and 0 < number < 4000:
        roman = ""
        for value, letters in _ROMAN:
            roman += letters * (number // value)
            number %= value
        return roman if format == "lowerRoman" else roman.upper()
    return f"{number:02}" if format == "decimalZero" else str(number)
