"""One rule over what a search and a reader say of an answer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from windlass.apply.rag.answers.reading import EVIDENCE, Reading, ReadingRule, fit_reading, read_out
from windlass.core.errors import InputError
from windlass.core.protocols import Extract, Hit
from windlass.core.values import Citation

TEXTS = ["The old pump moves six litres.", "The red pump moves nine litres.", "Bread bakes for an hour."]
HITS = [
    Hit(n, 1.0 - n / 10, Citation(f"d{n}", "", "", 100, 100 + len(text), text), {"dense": 0.9 - n / 4})
    for n, text in enumerate(TEXTS)
]


class Finder:
    name, digest = "finder", None

    def __init__(self, *margins: float) -> None:
        self.margins = margins
        self.asked: Sequence[str] = ()

    def find(self, question: str, texts: Sequence[str]) -> list[Extract | None]:
        self.asked = texts
        words = ("six litres", "nine litres", "an hour")
        return [
            Extract(word, text.find(word), margin) if word in text else None
            for word, text, margin in zip(words, texts, self.margins, strict=True)
        ]


def test_margin_and_search_decide_together() -> None:
    rule = ReadingRule(0.0, (1.0, 0.0, 0.0, 0.0), 0.0)
    by_margin = read_out(Finder(1.0, 2.0, -3.0), "?", HITS, rule, 0.5)
    assert [one.answer.quote for one in by_margin] == ["nine litres", "six litres", "an hour"]
    assert by_margin[0].answer.start == 100 + TEXTS[1].find("nine") and by_margin[0].margin == 2.0
    by_search = read_out(Finder(1.0, 2.0, -3.0), "?", HITS, ReadingRule(0.0, (1.0, 9.0, 0.0, 0.0), 0.0), 0.5)
    assert [one.answer.quote for one in by_search] == ["six litres", "nine litres", "an hour"]
    all_of_it = ReadingRule(-1.0, (0.1, 1.0, 1.0, 0.5), 0.5)
    sure, unsure = (read_out(Finder(1, 1, 1), "?", HITS, all_of_it, fit)[0].probability for fit in (0.9, 0.1))
    assert sure > unsure and len(by_margin[0].evidence) == len(EVIDENCE)


def test_masked_words_are_not_read_and_places_stay() -> None:
    masked = [TEXTS[0].replace("six litres", " " * 10), *TEXTS[1:]]
    finder = Finder(9.0, 1.0, 0.0)
    found = read_out(finder, "?", HITS, ReadingRule(), 0.5, masked)
    assert list(finder.asked) == masked and {one.answer.quote for one in found} == {"nine litres", "an hour"}
    assert all(one.answer.quote == TEXTS[int(one.answer.document[1])][one.answer.start - 100 :][: len(one.answer.quote)]
               for one in found)  # fmt: skip
    assert read_out(finder, "?", [], ReadingRule(), 0.5) == []


def test_the_rule_is_learnt_from_answers() -> None:
    rng = np.random.default_rng(0)
    readings, right = [], []
    for _ in range(200):
        good = bool(rng.random() < 0.5)
        evidence = (float(rng.normal(4.0 if good else 0.0)), float(rng.random()), 1.0, 0.0)
        readings.append([Reading(HITS[0].citation, evidence[0], evidence, 0.0)])
        right.append([good])
    readings.append([])  # nothing was read
    right.append([])
    rule = fit_reading(readings, right)
    assert rule.weights[0] > 0.5 > abs(rule.weights[1]) and 0 < rule.threshold < 1
    p = rule.probabilities(np.array([some[0].evidence for some in readings[:-1]]))
    assert ((p >= rule.threshold) == np.array([flag for (flag,) in right[:-1]])).mean() > 0.93
    assert fit_reading(readings, right, only=("margin", "rank")).weights[1::2] == (0.0, 0.0)
    with pytest.raises(InputError, match="one kind is missing"):
        fit_reading(readings, [[True]] * 200 + [[]])
    with pytest.raises(InputError, match="4 weights"):
        ReadingRule(weights=(1.0,))
