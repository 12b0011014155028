"""What a cell of Excel shows: a number, a text, or a date, which is a number with a format of dates."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from windlass.core.readers.office.package import Package
from windlass.core.readers.office.xml_events import events

Look = Literal["", "date", "time", "datetime", "percent"]

_BUILT_IN: dict[int, Look] = {
    **dict.fromkeys((9, 10), "percent"),
    **dict.fromkeys((14, 15, 16, 17, *range(27, 37), *range(50, 59)), "date"),
    **dict.fromkeys((18, 19, 20, 21, 45, 46, 47), "time"),
    22: "datetime",
}  # fmt: skip
"""Formats that a file need not spell out (ECMA-376-1, 18.8.30)."""

_LITERAL = re.compile(r'"[^"]*"|\\.|_.|\*.|am/pm|a/p|\[(?!h+\]|m+\]|s+\])[^\]]*\]', re.IGNORECASE)
"""What a format says besides the number: quoted text, fillers, colours and conditions."""

_FIRST_DAY = datetime.datetime(1899, 12, 30)
_FIRST_DAY_1904 = datetime.datetime(1904, 1, 1)
_LAST_DAY = 2_958_466
"""The year 10000 begins."""


@dataclass(slots=True)
class CellValues:
    shared: Sequence[str]
    looks: Sequence[Look]
    """By the number of a cell's style."""
    since_1904: bool = False
    missing: int = 0
    """Formulas that were met without a value."""

    def shown(self, kind: str, style: str, value: str, formula: bool) -> str:
        """The text of a cell; raises `ValueError` when it refers to what is not there."""
        if kind == "s":
            number = int(value) if value else -1
            if not 0 <= number < len(self.shared):
                raise ValueError(f"a cell shows text {value or 'none'} of {len(self.shared):,}")
            return self.shared[number].strip()
        if not value.strip():
            self.missing += formula and kind != "str"
            return ""
        if kind == "b":
            return "TRUE" if value.strip() == "1" else "FALSE"
        if kind != "n":  # text, an error such as #N/A, or a date in ISO 8601
            return value.strip()
        at = int(style) if style.isdecimal() else 0
        return shown_number(float(value), self.looks[at] if at < len(self.looks) else "", self.since_1904)


def shown_number(value: float, look: Look, since_1904: bool = False) -> str:
    """A number with the 15 digits that Excel computes with; dates in ISO 8601; times of a day or longer in hours."""
    if look == "percent":
        return f"{_digits(100 * value)}%"
    if not look or not 0 <= value < _LAST_DAY:
        return _digits(value)
    if look == "time":
        seconds = round(86_400 * value)
        return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    if not since_1904 and value < 60:  # Lotus 1-2-3 held 1900 for a leap year, and so does Excel
        value += 1
    day = (_FIRST_DAY_1904 if since_1904 else _FIRST_DAY) + datetime.timedelta(seconds=round(86_400 * value))
    return day.date().isoformat() if look == "date" and day.time() == datetime.time() else day.isoformat(" ")


def _digits(value: float) -> str:
    if not math.isfinite(value):
        return str(value)
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else f"{value:.15g}"


def look_of(format: str) -> Look:
    """What a format code makes of a number: `dd.mm.yyyy` a date, `[h]:mm` a time, `0.0%` a percentage."""
    code = _LITERAL.sub("", format.partition(";")[0]).lower()
    if "general" in code:
        return ""
    clock = any(letter in code for letter in "hs")
    if any(letter in code for letter in "yd") or ("m" in code and not clock):
        return "datetime" if clock else "date"
    return "time" if clock else "percent" if "%" in code else ""


def read_formats(package: Package, part: str | None) -> list[Look]:
    """How the cells of each style look."""
    looks: list[Look] = []
    if part is None:
        return looks
    known = dict(_BUILT_IN)
    in_cells = False
    with package.opened(part) as stream:
        for kind, tag, said in events(stream):
            if tag == "cellXfs" and kind != "text":
                in_cells = kind == "start"
            elif said is None:
                continue
            elif tag == "numFmt" and said.get("numFmtId", "").isdecimal():
                known[int(said["numFmtId"])] = look_of(said.get("formatCode", ""))
            elif tag == "xf" and in_cells:
                id = said.get("numFmtId", "0")
                looks.append(known.get(int(id), "") if id.isdecimal() else "")
    return looks
