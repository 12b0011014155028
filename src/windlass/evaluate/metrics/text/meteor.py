"""METEOR: words are aligned one to one, exactly, by stem and by meaning, and a text that has them in other order pays.

The same as NLTK's `meteor_score`. What means the same is told by a file or a WordNet of the user's (`synonyms`);
without one, scores are a little lower than NLTK's, which downloads WordNet. Source: Lavie & Agarwal, WMT 2007.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from windlass.evaluate.metrics.text.stemming import stem
from windlass.evaluate.metrics.text.synonyms import Synonyms
from windlass.evaluate.metrics.text.texts import References, nearest

_WORD = re.compile(r"\w+|[^\w\s]")


def words(text: str) -> list[str]:
    """Words and marks."""
    return _WORD.findall(text)


def meteor(
    found: Sequence[str],
    right: References,
    *,
    words: Callable[[str], list[str]] = words,
    alpha: float = 0.9,
    beta: float = 3.0,
    gamma: float = 0.5,
    synonyms: Synonyms | None = None,
) -> NDArray[np.float64]:
    """Per item the score, between 0 and 1, with the nearest reference.

    alpha: how much recall weighs against precision. gamma and beta: the most that disorder costs, and how fast.
    words: how a text is cut. synonyms: which stems one that is said may stand for. Raises `InputError` as `paired`.
    """

    def score(text: str, reference: str) -> float:
        said, wanted = words(text.lower()), words(reference.lower())
        matches = _aligned(said, wanted, synonyms)
        if not matches:
            return 0.0
        precision, recall = len(matches) / len(said), len(matches) / len(wanted)
        mean = precision * recall / (alpha * precision + (1 - alpha) * recall)
        disorder = _chunks(matches) / len(matches)
        return float(mean * (1 - gamma * disorder**beta))

    return nearest(found, right, score)


def _aligned(said: list[str], wanted: list[str], synonyms: Synonyms | None) -> list[tuple[int, int]]:
    """Pairs of places, in order of what is said: equal words first, then words of equal stem, then synonyms. From the
    end on, each word takes the last that is left: not always the alignment with the fewest crossings, but NLTK's."""
    matches: list[tuple[int, int]] = []
    left_said, left_wanted = list(enumerate(said)), list(enumerate(wanted))
    for form in (str, stem):
        places = defaultdict(list)
        for at, word in left_wanted:
            places[form(word)].append(at)
        made = [(at, places[form(word)].pop()) for at, word in reversed(left_said) if places.get(form(word))]
        taken, met = {at for at, _ in made}, {at for _, at in made}
        left_said = [pair for pair in left_said if pair[0] not in taken]
        left_wanted = [pair for pair in left_wanted if pair[0] not in met]
        matches += made
    if synonyms is not None:
        matches += _by_meaning(left_said, left_wanted, synonyms)
    return sorted(matches)


def _by_meaning(
    left_said: list[tuple[int, str]], left_wanted: list[tuple[int, str]], synonyms: Synonyms
) -> list[tuple[int, int]]:
    """By stems, as NLTK has it."""
    places = defaultdict(list)
    for at, word in left_wanted:
        places[stem(word)].append(at)
    made = []
    for at, word in reversed(left_said):
        last = max(
            (one for one in synonyms(stem(word)) if places.get(one)), key=lambda one: places[one][-1], default=None
        )
        if last is not None:
            made.append((at, places[last].pop()))
    return made


def _chunks(matches: list[tuple[int, int]]) -> int:
    """Runs of words that stand next to each other on both sides."""
    return 1 + sum((a + 1, b + 1) != (c, d) for (a, b), (c, d) in pairwise(matches))
