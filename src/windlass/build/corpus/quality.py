"""What is refused before anything is learned from it. Each rule is one measurable property with a plain name.

The rules follow the ones of Gopher (Rae et al. 2021, appendix A1) that hold for prose, reference pages and source code
alike, and only refuse what no reader would miss: the same corpus feeds indexes, where a lost page is a lost answer.
"""

from __future__ import annotations

import re

_LONGEST_PLAIN_RUN = 100
_ENCODED = re.compile(rf"[A-Za-z0-9+/=_-]{{{_LONGEST_PLAIN_RUN},}}")
_RULE = re.compile(r"([^\w\s])\1{3,}")


def refusal(text: str, *, min_chars: int) -> tuple[str, str] | None:
    """(reason, detail) why the canonical `text` is not worth keeping, or None.

    `min_chars` counts characters other than white space.
    """
    solid = len(text) - sum(map(text.count, " \n\t"))
    if solid < min_chars:
        return "too short", f"{solid} characters, at least {min_chars} wanted"
    encoded = sum(len(match[0]) for match in _ENCODED.finditer(text))
    if encoded > 0.5 * len(text):
        return "encoded data", f"{encoded / len(text):.0%} is unbroken letters and digits"
    shown = "".join(_RULE.sub("", text).split())  # rulers and table borders say nothing either way
    letters = sum(map(str.isalpha, shown))
    if letters < 0.4 * len(shown):
        return "mostly not words", f"{letters / len(shown):.0%} letters"
    if text.count("\ufffd") > 0.02 * len(text):
        return "broken characters", f"{text.count(chr(0xFFFD)):,} were unreadable"
    lines = [line for line in text.split("\n") if line.strip()]
    if len(lines) >= 20:
        repeated = sum(map(len, lines)) - sum(map(len, set(lines)))
        if repeated > 0.9 * sum(map(len, lines)):
            return "repeated lines", f"{repeated / sum(map(len, lines)):.0%} of its text repeats earlier lines"
    return None
