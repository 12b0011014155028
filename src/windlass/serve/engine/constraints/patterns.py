"""Regular expressions of JSON Schema (ECMA 262) in the dialect of the grammar engine (Rust), and formats as patterns.

Most expressions mean the same in both. Inside brackets Rust has set operations that ECMA does not know (`[a&&b]`,
`[a--b]`, `[a~~b]`, nested brackets), so that an unchanged pattern would silently mean something else; there the marks
are escaped. What Rust does not know, such as looking ahead, the engine refuses by itself.
"""

from __future__ import annotations

import re

YEAR = r"(?:[1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])"
_LEAP = r"(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"
DATE = (
    rf"(?:{YEAR}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    rf"|02-(?:0[1-9]|1[0-9]|2[0-8]))|{_LEAP}-02-29)"
)
TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"

FORMATS: dict[str, str | None] = {
    "date": f"^{DATE}$",
    "time": f"^{TIME}$",
    "date-time": f"^{DATE}T{TIME}$",
    "duration": None,
    "email": None,
    "hostname": None,
    "ipv4": None,
    "ipv6": None,
    "uuid": None,
    "uri": None,
}
"""The formats that are enforced. A pattern where the engine's own rule lets through what is not one (30 February), None
where its rule is right."""


def ecma_pattern(pattern: str) -> str:
    """The same expression in Rust's dialect."""
    out: list[str] = []
    place = 0
    while place < len(pattern):
        if pattern[place] == "[":
            text, place = _letters(pattern, place + 1)
            out.append(f"[{text}")
        else:
            size = 2 if pattern[place] == "\\" else 1
            out.append(pattern[place : place + size])
            place += size
    return "".join(out)


def _letters(pattern: str, place: int) -> tuple[str, int]:
    """What stands behind an opening bracket up to the closing one, if there is one, and where it ends. A `-` makes a
    range only between two letters, and is else one of them."""
    out: list[str] = []
    if pattern[place : place + 1] == "^":
        out.append("^")
        place += 1
    while place < len(pattern) and pattern[place] != "]":
        first, place = _letter(pattern, place)
        if pattern[place : place + 1] == "-" and pattern[place + 1 : place + 2] not in ("", "]"):
            last, behind = _letter(pattern, place + 1)
            if not re.fullmatch(r"\\[dDwWsSpP]", first) and not re.fullmatch(r"\\[dDwWsSpP]", last):
                first, place = f"{first}-{last}", behind
        out.append(first)
    return "".join(out) + pattern[place : place + 1], place + 1


def _letter(pattern: str, place: int) -> tuple[str, int]:
    if pattern[place] == "\\":
        found = re.compile(r"\\(?:u\{?[0-9a-fA-F]+\}?|x[0-9a-fA-F]{2}|.)?", re.DOTALL).match(pattern, place)
        assert found is not None, "it begins with a backslash"
        return found[0], found.end()
    return ("\\" if pattern[place] in "[&~-" else "") + pattern[place], place + 1
