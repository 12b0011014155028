"""Rows for a reranker: what is right is not wrong too, and no answer holds what its question was made of."""

from __future__ import annotations

import pytest
from tests.apply.rag.retrieving.small_index import DOCUMENTS, SmallIndex

from windlass.apply.rag.retrieving.ranking_rows import Answered, rows, self_asked
from windlass.core.values import Citation

TEXT = "The red pump moves nine litres of water. It must be oiled by hand each week. Store it in a dry room."


def cited(quote: str, heading: str = "", title: str = "Pump") -> Citation:
    return Citation("pump", title, heading, 0, len(quote), quote)


def test_wrong_passages_are_what_the_search_finds_in_other_documents() -> None:
    index = SmallIndex()
    (row,) = rows(index, [Answered("how many litres does the red pump move", "pump")], negatives=4)
    assert row["query"].startswith("how many") and row["positive"] == ["Pump\n" + DOCUMENTS[0][1]]
    assert len(row["negatives"]) == len(set(row["negatives"])) == 4
    assert not set(row["positive"]) & set(row["negatives"])
    assert "Pump-Again\n" + DOCUMENTS[1][1] in row["negatives"]


def test_labels_hold_for_what_is_learned_from() -> None:
    asked = [Answered("who oils the red pump", "oil"), Answered("red pump", "pump")]
    found = list(rows(SmallIndex(), asked, negatives=9))
    assert [row["query"] for row in found] == ["red pump"]
    assert not any("oils" in text for row in found for text in row["negatives"])
    assert len(list(rows(SmallIndex(), asked, access=["staff"]))) == 2


def test_a_document_far_down_is_found_all_the_same() -> None:
    (row,) = rows(SmallIndex(), [Answered("red pump", "violin")], depth=2)
    assert row["positive"] == ["Violin\nA violin has four strings."] and len(row["negatives"]) == 2


def test_the_same_seed_draws_the_same_rows() -> None:
    asked = [Answered("red pump in the oven", "pump")]
    drawn = [list(rows(SmallIndex(), asked, negatives=2, seed=seed)) for seed in (1, 1, 2, 3, 4, 5)]
    assert drawn[0] == drawn[1] and any(one != drawn[0] for one in drawn[2:])


def test_a_collection_asks_by_headings_and_sentences_in_turn() -> None:
    passages = [cited(TEXT, "Care > Oil and storage")] * 4
    asked = list(self_asked(passages))
    assert len(asked) == 4
    headings = [one for one in asked if one.question == "Oil and storage"]
    sentences = [one for one in asked if one not in headings]
    assert len(headings) == len(sentences) == 2
    assert all(one.passage == TEXT for one in headings), "the heading does not stand above its own answer"
    for one in sentences:
        assert one.question in TEXT and one.passage is not None and one.question not in one.passage
        assert one.passage.startswith("Pump > Care > Oil and storage\n")


def test_a_title_asks_for_the_abstract_below_it() -> None:
    title, rest = "Wings in a slipstream", "lift was measured at four angles of attack ."
    for head in (f"{title} .", "wings in a\nslipstream .", "# Wings in a slipstream\n\n", f"{title}: ", f"{title}\n"):
        (asked,) = self_asked([cited(f"{head} {rest}", title=title)])
        assert (asked.question, asked.passage, asked.bare) == (title, rest, True)
    (whole,) = self_asked([cited(rest, title=title)])
    assert whole.passage == rest
    assert not list(self_asked([cited(title, title=title)])), "nothing stands below it"
    assert not list(self_asked([cited("Wings in a slipstreamed flow.", title=title)])), "it only begins alike"
    assert not list(self_asked([cited("Wings in a slipstream lift more.", title=title)])), (
        "a sentence needs its subject"
    )


def test_right_and_wrong_passages_are_shown_alike() -> None:
    asked = [Answered("The red pump", "pump", DOCUMENTS[0][1], bare=True)]
    (row,) = rows(SmallIndex(), asked, negatives=4)
    texts = {text for _, text, _ in DOCUMENTS}
    assert set(row["positive"]) <= texts and set(row["negatives"]) <= texts, "no title above any of them"


@pytest.mark.parametrize(
    ("passage", "questions"),
    [
        (cited("One sentence of more than six words stands here."), 0),
        (cited("Too short. Far too short.", title=""), 0),
        (cited("It says Oil and storage itself.", "Oil and storage"), 0),
        (cited("Only a heading asks here.", "Oil and storage"), 1),
        (cited(TEXT, title=""), 1),
    ],
)
def test_what_asks_nothing(passage: Citation, questions: int) -> None:
    assert len(list(self_asked([passage]))) == questions
