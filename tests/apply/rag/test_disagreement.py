"""Sentences that contradict each other are named; sentences about different things are not."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Sequence

import numpy as np
import pytest
from bench._data import data_folder

from windlass.apply.rag.answers.disagreement import by_classes, by_model, by_rule, disagreements
from windlass.apply.rag.sentences import sentence_spans
from windlass.core.errors import InputError
from windlass.core.protocols import Classes
from windlass.core.values import Citation
from windlass.testing import Scripted

XQUAD = data_folder() / "qa" / "xquad" / "xquad.en.json.gz"
CONTRADICT = [
    (
        "The red pump moves nine litres in a minute.",
        "In a minute the red pump moves 11 litres.",
        "nine litres / 11 litres",
    ),
    ("The fee is 20 euros.", "Customers pay a fee: it is 25 euros.", "20 euros / 25 euros"),
    ("The entrance fee is 20 euros.", "The entrance fee is 25 euros.", "20 euros / 25 euros"),
    ("The bridge was opened in 1932.", "The bridge was opened in 1934.", "1932 / 1934"),
    ("The office opens at 8:30.", "The office opens at 9:00.", "8:30 / 9:00"),
    ("The warranty covers water damage.", "The warranty does not cover water damage.", "one of them says not"),
    ("Dogs are allowed in the hall.", "Dogs are forbidden in the hall.", "allow / forbidden"),
    ("The deposit costs $1,200.", "The deposit costs $1,400.", "$1,200 / $1,400"),
    ("The lake is 3 million years old.", "The lake is 3 thousand years old.", "3 million years / 3 thousand years"),
    ("The meeting is on 4 March.", "The meeting is on 5 March.", "4 / 5"),
]
AGREE = [
    ("The red pump moves nine litres in a minute.", "The blue pump moves eleven litres in a minute."),
    ("The red pump moves nine litres in a minute.", "The red pump moves 9 litres in a minute."),
    ("In 2019 the fee was 20 euros.", "In 2020 the fee was 25 euros."),
    ("The entrance fee is 20 euros.", "The entrance fee for members is 15 euros."),
    ("The deposit costs 1,200 dollars.", "The deposit costs 1.200 dollars."),
    ("The tank holds at least 50 litres.", "The tank holds 60 litres."),
    ("The tank holds about 50 litres.", "The tank holds 52 litres."),
    ("The trip takes 3 to 5 hours.", "The trip takes 4 hours."),
    ("The warranty covers water damage.", "The warranty does not cover fire damage."),
    ("It is not only a red pump but a strong one.", "It is a red pump and a strong one."),
    ("Does the red pump move nine litres?", "The red pump moves eleven litres."),
    ("The rope is 2 metres long.", "The rope is 200 centimetres long."),
    ("The pump has nine valves.", "The oven has nine doors."),
    ("Chapter 4 explains the red pump.", "Chapter 5 explains the blue pump."),
    ("Revenue was 5 million in 2019.", "Revenue was 5 million in 2020."),
    ("See page 12 for the red pump.", "Bread bakes for forty minutes."),
    ("The left valve opens at 5 bar.", "The right valve opens at 7 bar."),
]


def cite(text: str, document: str) -> Citation:
    return Citation(document, "", "", 0, len(text), text)


@pytest.mark.parametrize(("one", "other", "what"), CONTRADICT)
def test_what_cannot_both_be_right(one: str, other: str, what: str) -> None:
    assert by_rule([(cite(one, "a"), cite(other, "b"))]) == [what]
    assert by_rule([(cite(other, "b"), cite(one, "a"))]) != [None]


@pytest.mark.parametrize(("one", "other"), AGREE)
def test_no_false_alarm(one: str, other: str) -> None:
    assert by_rule([(cite(one, "a"), cite(other, "b")), (cite(other, "b"), cite(one, "a"))]) == [None, None]


OLD = "Our shop. The entrance fee is 20 euros. Children pay nothing."
NEW = "News of the shop. The entrance fee is 25 euros. Dogs are welcome."
PASSAGES = [cite(OLD, "old"), cite(NEW, "new"), cite("The entrance fee is 20 euros.", "copy")]


def test_a_cited_sentence_is_compared_with_all_other_passages() -> None:
    cited = [Citation("old", "", "", 30, 38, OLD[30:38])]  # some words of it
    (found,) = disagreements(cited, PASSAGES)
    assert found.first.quote == "The entrance fee is 20 euros." == OLD[found.first.start : found.first.end]
    assert found.second.document == "new" and found.second.quote == NEW[found.second.start : found.second.end]
    assert found.what == "20 euros / 25 euros"
    assert disagreements([Citation("old", "", "", 0, 9, OLD[:9])], PASSAGES) == []
    assert disagreements(cited, PASSAGES[:1]) == [] == disagreements([], PASSAGES)


@pytest.mark.skipif(not XQUAD.is_file(), reason="no XQuAD in the data folder (WINDLASS_DATA)")
def test_articles_do_not_contradict_themselves_until_somebody_changes_them() -> None:
    """No alarm between paragraphs of one article; one of two changed numbers is found, and nearly every "not"."""
    with gzip.open(XQUAD, "rt", encoding="utf-8") as file:
        articles = [[one["context"] for one in article["paragraphs"]] for article in json.load(file)["data"]]
    for paragraphs in articles:
        passages = [cite(text, str(number)) for number, text in enumerate(paragraphs)]
        assert disagreements(passages, passages) == []
    sentences = [text[a:b] for some in articles for text in some for a, b in sentence_spans(text)]
    found = {}
    for change, pattern in (
        (lambda m: str(int(m[0]) + 1), r"\b\d{1,4}\b(?![.,]\d)"),
        (lambda m: f"{m[0]} not", r"\b(?:is|was|are|were|can|could|does|did|has|have|had)\b(?! not)"),
    ):
        changed = [(text, re.sub(pattern, change, text, count=1)) for text in sentences if " not " not in text]
        pairs = [(cite(text, "a"), cite(other, "b")) for text, other in changed if text != other]
        assert len(pairs) > 200
        found[pattern] = sum(map(bool, by_rule(pairs))) / len(pairs)
    numbers, denials = found.values()
    assert numbers > 0.5 and denials > 0.9


def test_headings_are_not_part_of_what_is_said() -> None:
    one = cite("# Prices\n## Of 2020\nThe entrance fee is 20 euros.", "one")
    (found,) = disagreements([one], [one, cite("# News\nThe entrance fee is 25 euros.", "two")])
    assert (
        found.first.quote == "The entrance fee is 20 euros." and found.second.quote == "The entrance fee is 25 euros."
    )
    assert one.quote[found.first.start : found.first.end] == found.first.quote


class Inferring:
    """Says that pairs with a shared word contradict each other."""

    name, digest = "nli", None
    labels = ("entailment", "neutral", "CONTRADICTION")

    def classify(self, texts: Sequence[str | tuple[str, str]]) -> Classes:
        rows = [[0.0, 0.1, 0.9] if "25" in pair[1] else [0.9, 0.1, 0.0] for pair in texts]
        return Classes(np.array(rows, np.float32), 10)


def test_a_model_of_inference_decides_instead() -> None:
    judge = by_classes(Inferring())
    (found,) = disagreements([PASSAGES[0]], PASSAGES, judge)
    assert found.second.document == "new" and found.what == "they contradict each other"
    other = Inferring()
    other.labels = ("yes", "no")  # type: ignore[assignment]
    with pytest.raises(InputError, match="its labels are yes, no"):
        by_classes(other)


def test_a_language_model_decides_instead_and_can_only_name_pairs() -> None:
    model = Scripted("1: the fee is 20, then 25\n9: made up\nIgnore this.", "NONE")
    judge = by_model(model)
    pairs = [(cite("The fee is 20.", "a"), cite("Now the fee is 25.", "b")), (cite("x y", "a"), cite("x y z", "b"))]
    assert judge(pairs) == ["the fee is 20, then 25", None] and judge(pairs) == [None, None]
    assert "1. A: The fee is 20.\n   B: Now the fee is 25." in model.requests[0].messages[1].text
