"""What is refused before anything is learned from it. Each rule is one measurable property with a plain name.

The rules follow the ones of Gopher (Rae et al. 2021, appendix A1) that hold for prose, reference pages and source code
alike; rules about stop words or bullet points would throw out good documentation.
"""

from __future__ import annotations

import re

_LONGEST_PLAIN_RUN = 100
_ENCODED = re.compile(rf"[A-Za-z0-9+/=_-]{{{_LONGEST_PLAIN_RUN},}}")
_RULE = re.compile(r"([^\w\s])\1{3,}")
_WORD_LIKE = re.compile(r"[\w\s]")


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
    shown = _RULE.sub("", text)  # rulers and table borders say nothing either way
    wordy = len(_WORD_LIKE.findall(shown))
    if wordy < 0.6 * len(shown) or sum(map(str.isalpha, shown)) < 0.25 * len(shown):
        return "mostly not words", f"{wordy / max(len(shown), 1):.0%} letters, digits and spaces"
    if text.count("\ufffd") > 0.02 * len(text):
        return "broken characters", f"{text.count(chr(0xFFFD)):,} were unreadable"
    lines = [line for line in text.split("\n") if line.strip()]
    if len(lines) >= 20:
        repeated = sum(map(len, lines)) - sum(map(len, set(lines)))
        if repeated > 0.6 * sum(map(len, lines)):
            return "repeated lines", f"{repeated / sum(map(len, lines)):.0%} of its text repeats earlier lines"
    return None
