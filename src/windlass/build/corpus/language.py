"""Which language a text is in, by naive Bayes over byte n-grams (Lui and Baldwin 2012) with py3langid's model.

Only the first characters that are not code are looked at: a page seldom changes its language, and the cost per
document stays constant. py3langid is BSD-licensed and carries its model of 139 languages; nothing is downloaded.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from windlass.core.errors import MissingExtra

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

UNKNOWN = "und"
"""ISO 639-2 for undetermined."""
LOOKED_AT = 400
"""Characters of one look."""
LOOKS = 4
"""A page may open with a list of names: while no language has more than half of the probability, look further."""
LEAST_LETTERS = 12
LEAST_PROBABILITY = 0.3
"""Below it the model guesses among its 139 languages."""

_NO_LANGUAGE = "zxx"
_NOT_PROSE = re.compile(
    r"(?ms)^ {0,3}(```|~~~).*?(?:^ {0,3}\1|\Z)|https?://\S+|`[^`\n]+`|<[^<>\n]{1,200}>|[|#*=_~+-]{2,}"
)


class Language(NamedTuple):
    code: str
    """ISO 639 code such as `en`; `und` when the text is too short, is code, or could be in many languages."""
    probability: float
    """Of that code, 0 to 1. For `und`: of the likeliest language, 0 when none was looked for."""


def identify(text: str) -> Language:
    """The language of a text. Raises `MissingExtra` when py3langid is not installed."""
    shown = text[: 2 * LOOKS * LOOKED_AT]
    if "`" in shown or "~~~" in shown or "http" in shown or "<" in shown:
        shown = _NOT_PROSE.sub(" ", shown)
    best = Language(UNKNOWN, 0.0)
    for start in range(0, min(len(shown), LOOKS * LOOKED_AT), LOOKED_AT):
        look = shown[start : start + LOOKED_AT]
        if sum(map(str.isalpha, look)) < LEAST_LETTERS:
            continue
        code, probability = _model().classify(look)
        if code != _NO_LANGUAGE and probability > best.probability:
            best = Language(code, probability)
        if best.probability > 0.5:
            break
    return best if best.probability >= LEAST_PROBABILITY else Language(UNKNOWN, best.probability)


@cache
def _model() -> LanguageIdentifier:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ModuleNotFoundError as error:
        raise MissingExtra("Language identification", "corpus") from error
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
