"""What a tokenizer does with things that a corpus may hardly hold: numbers, and text from all over Unicode."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from windlass.build.tokenizer.lossless import random_texts, round_trips

if TYPE_CHECKING:
    from tokenizers import Tokenizer

RANDOM_TEXTS = 500
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_DIGITS = range(1, 9)
_EACH = 200


def unicode_share(tokenizer: Tokenizer) -> float:
    """Share of random Unicode texts that come back unchanged."""
    return sum(text == back for text, back in round_trips(tokenizer, random_texts(RANDOM_TEXTS))) / RANDOM_TEXTS


def numbers(tokenizer: Tokenizer, found: Counter[str]) -> dict[str, Any]:
    """How numbers are cut. `found`: numbers of a text with how often they occur.

    `digits_per_token`: over the numbers found. `same_cut`: over random integers of one to eight digits, the share that
    is cut as most of its length are; arithmetic is easier to learn where the cut does not depend on the digits (Singh
    and Strouse 2024).
    """
    cut = dict(zip(found, _tokens(tokenizer, found), strict=True))
    tokens = sum(len(cut[number]) * count for number, count in found.items())
    digits = sum(sum(map(str.isdigit, number)) * count for number, count in found.items())
    generator = random.Random(0)
    same = 0
    for length in _DIGITS:
        sample = [str(generator.randrange(10 ** (length - 1), 10**length)) for _ in range(_EACH)]
        ways = Counter(tuple(map(len, tokens)) for tokens in _tokens(tokenizer, sample))
        same += max(ways.values())
    return {
        "found": found.total(),
        "digits_per_token": round(digits / tokens, 4) if tokens else None,
        "same_cut": round(same / (_EACH * len(_DIGITS)), 4),
    }


def longest_tokens(tokenizer: Tokenizer, special: Iterable[int], count: int = 10) -> list[str]:
    """The texts of the tokens that stand for most characters."""
    left_out = set(special)
    texts = {tokenizer.decode([number]) for number in tokenizer.get_vocab().values() if number not in left_out}
    return sorted(texts, key=lambda text: (-len(text), text))[:count]


def _tokens(tokenizer: Tokenizer, texts: Iterable[str]) -> list[list[str]]:
    encodings = tokenizer.encode_batch(list(texts), add_special_tokens=False)
    return [encoding.tokens for encoding in encodings]
