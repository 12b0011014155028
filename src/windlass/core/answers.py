"""When two short answers are the same, as SQuAD has it (Rajpurkar et al., arXiv 1606.05250; 1806.03822 for "none").

One definition for all: readers are tuned by it, and systems are measured by it.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence


def normalised(answer: str) -> str:
    """The answer without case, punctuation and articles, its words apart by one space."""
    plain = "".join(c for c in answer.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", plain).split())


def exact_match(found: str, right: Sequence[str]) -> float:
    """1 when the answer is one of those that are right; an empty one is right when there is none."""
    return float(normalised(found) in _counted(right))


def answer_f1(found: str, right: Sequence[str]) -> float:
    """Overlap of words with the nearest right answer; without an answer, all or nothing."""
    return max(_overlap(normalised(found).split(), one.split()) for one in _counted(right))


def _counted(right: Sequence[str]) -> set[str]:
    """Answers of which nothing is left do not count; without others, saying nothing is right."""
    return {one for one in map(normalised, right) if one} or {""}


def _overlap(found: list[str], right: list[str]) -> float:
    if not found or not right:
        return float(found == right)
    return 2 * (Counter(found) & Counter(right)).total() / (len(found) + len(right))
