"""Texts for the tests of metrics: sentences, and what systems of different quality might have made of them."""

from __future__ import annotations

import random

_TEXT = (
    "the cat sat on a mat, while 3.5 dogs (old ones) ran; running dogs' happily-argued generalizations ... of café "
    "naïve «quoted» £5 1,000 and 50% don't won't it's A.B. U.S.A. x-ray 'tis re-run — dash – end. ¿Qué? 你好 世界。 "
    "multiple conditional relational flies dying news tying skies agreed hopping falling sized happy enjoy spied died"
)
WORDS = _TEXT.split()


def texts(count: int, seed: int = 0, references: int = 1, longest: int = 25) -> tuple[list[str], list[list[str]]]:
    """As many pairs of a text and its references; some are empty, some the same, some have nothing in common."""
    draw = random.Random(seed)
    found, right = [], []
    for _ in range(count):
        wanted = [draw.choice(WORDS) for _ in range(draw.randrange(1, longest))]
        found.append(" ".join(_changed(draw, wanted)))
        right.append([" ".join(wanted), *(" ".join(_changed(draw, wanted)) or "none" for _ in range(references - 1))])
    return found, right


def _changed(draw: random.Random, words: list[str]) -> list[str]:
    kind = draw.random()
    if kind < 0.05:
        return []
    if kind < 0.15:
        return list(words)
    if kind < 0.2:
        return [draw.choice(WORDS) for _ in words]
    made = [word for word in words if draw.random() > 0.15]
    made = [draw.choice(WORDS) if draw.random() < 0.15 else word for word in made]
    for _ in range(draw.randrange(4)):
        made.insert(draw.randrange(len(made) + 1), draw.choice(WORDS))
    if len(made) > 5 and draw.random() < 0.6:  # a run of words stands elsewhere
        start = draw.randrange(len(made) - 3)
        run = made[start : start + 3]
        del made[start : start + 3]
        to = draw.randrange(len(made) + 1)
        made[to:to] = run
    return made
