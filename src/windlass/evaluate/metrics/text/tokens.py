"""The tokenisers of BLEU, as sacrebleu names them: the score means nothing without the name of its tokeniser.

    13a   mteval-v13a, used by WMT: European punctuation apart from words, numbers kept whole
    intl  mteval-v14: the same by Unicode's classes of punctuation and symbols
    char  every character by itself, for languages that put no spaces
    none  as the text is, cut at spaces

Source: Post, "A Call for Clarity in Reporting BLEU Scores", WMT 2018 (arXiv 1804.08771).
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Callable, Mapping, Sequence

from windlass.core.errors import InputError

_APART = str.maketrans({mark: f" {mark} " for mark in string.punctuation if mark not in "'.,-"})
"""Marks that are always words of their own."""
_POINT_BEHIND_NO_DIGIT = re.compile(r"([^0-9])([.,])")
_POINT_BEFORE_NO_DIGIT = re.compile(r"([.,])([^0-9])")
_DASH_BEHIND_DIGIT = re.compile(r"([0-9])(-)")
_ESCAPED = (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"))


def tokenised(texts: Sequence[str], tokeniser: str, lowercase: bool = False) -> list[list[str]]:
    """The tokens of each text. Raises `InputError` for a tokeniser that is not known."""
    if tokeniser not in TOKENISERS:
        raise InputError(f"There is no tokeniser '{tokeniser}'.", f"Known are {', '.join(TOKENISERS)}.")
    return TOKENISERS[tokeniser]([(text.lower() if lowercase else text).rstrip() for text in texts])


def _mteval13a(texts: Sequence[str]) -> list[list[str]]:
    # All texts at once, a line each: a few passes over one long text are much faster than four over each of many.
    lines = "\n".join(f" {_line(text)} " for text in texts).translate(_APART)
    lines = _POINT_BEHIND_NO_DIGIT.sub(r"\1 \2 ", lines)
    lines = _POINT_BEFORE_NO_DIGIT.sub(r" \1 \2", lines)
    lines = _DASH_BEHIND_DIGIT.sub(r"\1 \2 ", lines)
    return [line.split() for line in lines.split("\n")]


def _line(text: str) -> str:
    text = text.replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    if "&" in text:
        for escaped, plain in _ESCAPED:
            text = text.replace(escaped, plain)
    return text


def _international(texts: Sequence[str]) -> list[list[str]]:
    # `re` knows no classes of Unicode; those of the characters at hand are enough.
    classes: dict[str, str] = {"P": "", "S": "", "N": ""}
    for character in sorted(set().union(*texts)):
        kind = unicodedata.category(character)[0]
        if kind in classes:
            classes[kind] += character
    marks, signs, digits = (re.escape(classes[kind]) for kind in "PSN")
    rules = []
    if marks:
        other = f"[^{digits}]" if digits else r"[\s\S]"
        rules += [(f"({other})([{marks}])", r"\1 \2 "), (f"([{marks}])({other})", r" \1 \2")]
    if signs:
        rules.append((f"([{signs}])", r" \1 "))
    compiled = [(re.compile(pattern), into) for pattern, into in rules]
    found = []
    for text in texts:
        for pattern, into in compiled:
            text = pattern.sub(into, text)
        found.append(text.split())
    return found


TOKENISERS: Mapping[str, Callable[[Sequence[str]], list[list[str]]]] = {
    "13a": _mteval13a,
    "intl": _international,
    "char": lambda texts: [[character for character in text if not character.isspace()] for text in texts],
    "none": lambda texts: [text.split() for text in texts],
}
