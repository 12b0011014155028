"""What is refused before anything is learned from it: rules with a name, a limit and a reason, none of them a model.

`light` only refuses what no reader would miss, whether prose, reference page or program: the same corpus feeds indexes,
where a lost page is a lost answer. `gopher` are the rules of Gopher (Rae et al. 2021, appendix A1, table A1), `fineweb`
adds those of FineWeb (Penedo et al. 2024) and the page rules of C4 (Raffel et al. 2020). They were set on English
web pages, so they judge documents of the `prose_kinds` only. C4's rules for single lines are in `lines.py`.

Each rule measures one property of a `Page` and compares it with its field of `QualityRules`; None turns a rule off.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from windlass.build.corpus import measures
from windlass.build.corpus.measures import Page
from windlass.core.errors import InputError


@dataclass(frozen=True, slots=True)
class QualityRules:
    """The limits. Shares are of characters unless a name says lines or words, 0 to 1."""

    min_chars: int | None = None
    max_encoded: float | None = None
    min_letters: float | None = None
    max_broken: float | None = None
    max_repeated: float | None = None

    min_words: int | None = None
    max_words: int | None = None
    min_word_length: float | None = None
    max_word_length: float | None = None
    max_hashes: float | None = None
    max_ellipses: float | None = None
    max_bullet_lines: float | None = None
    max_ellipsis_lines: float | None = None
    min_alphabetic_words: float | None = None
    min_stop_words: int | None = None
    max_duplicate_paragraphs: float | None = None
    max_duplicate_paragraph_chars: float | None = None
    max_duplicate_lines: float | None = None
    max_duplicate_line_chars: float | None = None
    max_top_ngram: tuple[tuple[int, float], ...] | None = None
    """(words of an n-gram, share that its most frequent one may take), as in table A1."""
    max_repeated_ngrams: tuple[tuple[int, float], ...] | None = None
    """(words of an n-gram, share that repetitions of earlier ones may take)."""

    lorem_ipsum: bool = True
    """Whether a page with this filler text is allowed."""
    curly_brackets: bool = True
    min_sentences: int | None = None

    min_punctuated_lines: float | None = None
    max_short_lines: float | None = None
    max_duplicate_chars: float | None = None
    max_newlines: float | None = None
    """Line ends per word."""

    script_lines: bool = True
    """Whether lines that speak of JavaScript stay; this and the next five cut lines (see `lines.py`)."""
    policy_lines: bool = True
    """Whether lines that speak of cookies, privacy and terms of use stay."""
    citations: bool = True
    """Whether marks such as [12] and [citation needed] stay."""
    unfinished_lines: bool = True
    """Whether lines that do not end as a sentence stay."""
    min_line_words: int | None = None
    max_line_word: int | None = None
    """Characters of the longest word of a line."""

    prose_kinds: tuple[str, ...] = ("page", "topic")
    """Kinds of document that the rules for prose judge; those of `light` judge every kind."""


@dataclass(frozen=True, slots=True)
class Rule:
    field: str
    """Of `QualityRules`. Begins with min_ or max_, or is a permission."""
    name: str
    """Why a document was refused, as reports count it."""
    measure: Callable[[Page], float]
    shown: str
    """The measurement in words; `{}` is its value."""
    prose: bool = True

    def refuses(self, page: Page, rules: QualityRules) -> str | None:
        """The measurement in words if it is beyond the limit."""
        limit = getattr(rules, self.field)
        if limit is None or limit is True:
            return None
        value = self.measure(page)
        if limit is False:
            return self.shown.format(int(value)) if value else None
        if value < limit if self.field.startswith("min_") else value > limit:
            side = "at least" if self.field.startswith("min_") else "at most"
            return f"{self.shown.format(value)}, {side} {limit} wanted"
        return None


RULES: tuple[Rule, ...] = (
    Rule("min_chars", "too short", measures.solid_chars, "{:,} characters", prose=False),
    Rule("max_encoded", "encoded data", measures.encoded, "{:.0%} is unbroken letters and digits", prose=False),
    Rule("min_letters", "mostly not words", measures.letters, "{:.0%} letters", prose=False),
    Rule("max_broken", "broken characters", measures.broken, "{:.1%} were unreadable", prose=False),
    Rule("max_repeated", "repeated lines", measures.repeated, "{:.0%} of its text repeats earlier lines", prose=False),
    Rule("lorem_ipsum", "filler text", measures.lorem_ipsum, "'lorem ipsum' {} times"),
    Rule("curly_brackets", "curly bracket", measures.curly_brackets, "{} of them: code rather than prose"),
    Rule("min_words", "too few words", measures.word_count, "{:,} words"),
    Rule("max_words", "too many words", measures.word_count, "{:,} words"),
    Rule("min_word_length", "short words", measures.word_length, "mean length {:.2f}"),
    Rule("max_word_length", "long words", measures.word_length, "mean length {:.2f}"),
    Rule("max_hashes", "many hash signs", measures.hashes, "{:.2f} a word"),
    Rule("max_ellipses", "many ellipses", measures.ellipses, "{:.2f} a word"),
    Rule("max_bullet_lines", "mostly bullets", measures.bullet_lines, "{:.0%} of the lines"),
    Rule("max_ellipsis_lines", "lines cut short", measures.ellipsis_lines, "{:.0%} of the lines end in an ellipsis"),
    Rule("min_alphabetic_words", "few alphabetic words", measures.alphabetic_words, "{:.0%} of the words"),
    Rule("min_stop_words", "too few common words", measures.stop_words, "{} different ones"),
    Rule("max_duplicate_paragraphs", "repeated paragraphs", measures.duplicate_paragraphs, "{:.0%} of the paragraphs"),
    Rule(
        "max_duplicate_paragraph_chars",
        "repeated paragraph text",
        measures.duplicate_paragraph_chars,
        "{:.0%} of the text",
    ),
    Rule("max_duplicate_lines", "duplicate lines", measures.duplicate_lines, "{:.0%} of the lines"),
    Rule("max_duplicate_line_chars", "duplicate line text", measures.duplicate_line_chars, "{:.0%} of the text"),
    Rule("min_sentences", "too few sentences", measures.sentences, "{} sentences"),
    Rule("min_punctuated_lines", "few finished lines", measures.punctuated_lines, "{:.0%} of the lines"),
    Rule("max_short_lines", "mostly short lines", measures.short_lines, "{:.0%} of the lines"),
    Rule("max_duplicate_chars", "text in duplicate lines", measures.duplicate_chars, "{:.1%} of the text"),
    Rule("max_newlines", "a list", measures.newlines, "{:.2f} line ends a word"),
)


def refusal(text: str, rules: QualityRules, *, kind: str = "page", language: str = "en") -> tuple[str, str] | None:
    """(name of the rule, measurement) why the canonical `text` is not worth keeping, or None.

    `language` (ISO 639) chooses the common words; for one without a list that rule is silent.
    """
    page = Page(text, language)
    prose = kind in rules.prose_kinds
    for rule in RULES:
        if (prose or not rule.prose) and (said := rule.refuses(page, rules)) is not None:
            return rule.name, said
    if prose:
        return measures.repeated_ngrams(page, rules.max_top_ngram, rules.max_repeated_ngrams)
    return None


_LIGHT: Mapping[str, Any] = {
    "min_chars": 30,
    "max_encoded": 0.5,
    "min_letters": 0.4,
    "max_broken": 0.02,
    "max_repeated": 0.9,
}
_GOPHER: Mapping[str, Any] = {
    "min_words": 50,
    "max_words": 100_000,
    "min_word_length": 3.0,
    "max_word_length": 10.0,
    "max_hashes": 0.1,
    "max_ellipses": 0.1,
    "max_bullet_lines": 0.9,
    "max_ellipsis_lines": 0.3,
    "min_alphabetic_words": 0.8,
    "min_stop_words": 2,
    "max_duplicate_paragraphs": 0.3,
    "max_duplicate_paragraph_chars": 0.2,
    "max_duplicate_lines": 0.3,
    "max_duplicate_line_chars": 0.2,
    "max_top_ngram": ((2, 0.2), (3, 0.18), (4, 0.16)),
    "max_repeated_ngrams": ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.1)),
}
_FINEWEB: Mapping[str, Any] = {
    "lorem_ipsum": False,
    "curly_brackets": False,
    "min_sentences": 5,
    "min_punctuated_lines": 0.12,
    "max_short_lines": 0.67,
    "max_duplicate_chars": 0.01,
    "max_newlines": 0.3,
    "script_lines": False,
    "policy_lines": False,
    "citations": False,
    "min_line_words": 3,
    "max_line_word": 1000,
}
PRESETS: Mapping[str, QualityRules] = {
    "none": QualityRules(),
    "light": QualityRules(**_LIGHT),
    "gopher": QualityRules(**_LIGHT, **_GOPHER),
    "fineweb": QualityRules(**_LIGHT, **_GOPHER, **_FINEWEB),
}


def preset(name: str, **changes: Any) -> QualityRules:
    """The rules of that name with some fields changed. Raises `InputError` for another name."""
    if name not in PRESETS:
        raise InputError(f"There are no quality rules called '{name}'.", f"Known: {', '.join(PRESETS)}.")
    return dataclasses.replace(PRESETS[name], **changes)
