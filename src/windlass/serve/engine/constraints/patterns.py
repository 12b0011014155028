"""Regular expressions of JSON Schema (ECMA 262) in the dialect of the grammar engine (Rust), and formats as patterns.

Most expressions mean the same in both. Inside brackets Rust has set operations that ECMA does not know (`[a&&b]`,
`[a--b]`, `[a~~b]`, nested brackets), so that an unchanged pattern would silently mean something else; there the marks
are escaped. What Rust does not know, such as looking ahead, the engine refuses by itself.
"""

from __future__ import annotations

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
    inside = False
    place = 0
    while place < len(pattern):
        letter = pattern[place]
        if letter == "\\":
            out.append(pattern[place : place + 2])
            place += 2
            continue
        if inside:
            if letter == "]":
                inside = False
            elif letter in "[&~" or (letter == "-" and pattern[place + 1 : place + 2] == "-"):
                out.append("\\")
        elif letter == "[":
            inside = True
            if pattern[place + 1 : place + 2] == "^":
                out.append("[")
                place += 1
                letter = "^"
        out.append(letter)
        place += 1
    return "".join(out)
