"""What the three kinds of tokenizer have in common: rules that make words of text, and an algorithm that learns from
counted words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from windlass.build.tokenizer.counting import DELIMITER, WordCounts

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from tokenizers.normalizers import Normalizer
    from tokenizers.pre_tokenizers import PreTokenizer

KindName = Literal["bpe", "unigram", "wordpiece"]
Rules = tuple["Normalizer | None", "PreTokenizer"]

PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)"
    r"|[^\r\n\p{L}\p{N}]?+\p{L}+"
    r"|\p{N}{1,2}"
    r"| ?[^\s\p{L}\p{N}]++(?:\n+[ \t]*)?"
    r"|\n+[ \t]*"
    r"|\s+(?!\S)"
    r"|\s+"
)
"""Words with the mark before them, numbers by two digits, runs of marks, and a line break *with its indentation*, also
behind marks: `):` and the start of the next line are one token where the pattern of GPT-4 takes three."""


@dataclass(frozen=True, slots=True)
class Kind:
    title: str
    lossless: bool
    """Whether any text comes back unchanged."""
    roles: Mapping[str, str]
    """Role -> special token; their ids come first, in this order."""
    rules: Callable[[bool], Rules]
    """Whether upper case counts -> how a text becomes words."""
    learn: Callable[[WordCounts, Rules, int, Mapping[str, str], Sequence[str]], Tokenizer]
    """Counted words, the rules that made them, the size of the vocabulary, special tokens by role, and all special
    tokens -> a tokenizer, which is smaller than asked for when the words do not hold as many pieces."""


def split_at_delimiters() -> PreTokenizer:
    """The rule for learning from `WordCounts.texts`, whose words are cut already."""
    from tokenizers import pre_tokenizers

    return pre_tokenizers.CharDelimiterSplit(DELIMITER)


def frequent_characters(counts: Mapping[str, int], coverage: float, most: int) -> str:
    """The most frequent characters that make up the share `coverage` of the words, at most `most`, sorted."""
    seen: Counter[str] = Counter()
    for word, count in counts.items():
        for character in word:
            seen[character] += count
    kept, left = [], coverage * seen.total()
    for character, count in sorted(seen.items(), key=lambda item: (-item[1], item[0]))[:most]:
        if left <= 0:
            break
        kept.append(character)
        left -= count
    return "".join(sorted(kept))


def anything_but(characters: str) -> re.Pattern[str]:
    """Matches runs of other characters."""
    return re.compile(f"[^{re.escape(characters)}]+")
