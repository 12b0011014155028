"""Lines that are no text of the page: script and policy notices, menus of one or two words, citation marks.

The line rules of C4 (Raffel et al. 2020, section 2.2), as FineWeb uses them: a line need not end as a sentence does
unless asked. Blank lines stay, for they part paragraphs.
"""

from __future__ import annotations

import re
from collections import Counter

from windlass.build.corpus.quality import QualityRules
from windlass.core.readers.text import canonical

_CITATION = re.compile(r"(?<=\S) ?\[(?:\d{1,4}|edit|citation needed)\](?![(\[:])")  # neither link nor footnote
_POLICIES = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
_FINISHED = (".", "?", "!", '"', "'", "”", "’", "。", "？", "！")


def trims(rules: QualityRules) -> bool:
    """Whether any of the rules cuts lines."""
    return not (rules.script_lines and rules.policy_lines and rules.citations and rules.unfinished_lines) or bool(
        rules.min_line_words or rules.max_line_word
    )


def trimmed(text: str, rules: QualityRules) -> tuple[str, Counter[str]]:
    """The canonical text without the lines that the rules refuse, and how many went for which reason."""
    removed: Counter[str] = Counter()
    kept: list[str] = []
    for line in text.split("\n"):
        if not line.strip():
            kept.append(line)
            continue
        if not rules.citations and "]" in line:
            line, count = _CITATION.subn("", line)
            removed["citation marks"] += count
        if (reason := _refusal(line, rules)) is not None:
            removed[reason] += 1
        else:
            kept.append(line)
    removed = +removed
    return (canonical("\n".join(kept)) if removed else text), removed


def _refusal(line: str, rules: QualityRules) -> str | None:
    longest = rules.max_line_word
    if longest is not None and len(line) > longest and max(map(len, line.split())) > longest:
        return "lines with an endless word"
    if not rules.unfinished_lines and (not line.endswith(_FINISHED) or line.endswith("...")):
        return "unfinished lines"
    if rules.min_line_words is not None and len(line.split(None, rules.min_line_words)) < rules.min_line_words:
        return "lines of few words"
    if rules.script_lines and rules.policy_lines:
        return None
    lowered = line.lower()
    if not rules.script_lines and "javascript" in lowered:
        return "script notices"
    if not rules.policy_lines and any(policy in lowered for policy in _POLICIES):
        return "policy notices"
    return None
