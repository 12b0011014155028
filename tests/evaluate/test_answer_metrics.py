"""Answers, contexts and citations beside hand counts, scikit-learn and the papers' definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from windlass.core.errors import InputError
from windlass.evaluate.metrics.answers import contains, context_precision, context_recall, exact, f1, holds
from windlass.evaluate.metrics.citations import CitationScores, Cited, citation_scores
from windlass.evaluate.slices import by_slice


def test_answers_item_by_item() -> None:
    right = [["nine litres", "9 litres"], [], ["the oven"]]
    assert exact(["Nine litres.", "", "a fridge"], right).tolist() == [1, 1, 0]
    assert f1(["about nine litres", "x", "oven door"], right) == pytest.approx([0.8, 0, 2 / 3])
    with pytest.raises(InputError, match="2 answers but 3 items"):
        exact(["", ""], right)
    with pytest.raises(InputError, match="no items"):
        f1([], [])


def test_a_context_holds_words_not_parts_of_words() -> None:
    assert holds("It moves nine litres, always.", ["Nine Litres"]) and holds("In 1999.", ["", "1999"])
    assert not holds("It is ninety", ["nine"]) and not holds("anything", []) and not holds("anything", ["the"])


@given(flags=st.lists(st.booleans(), min_size=1, max_size=12))
def test_context_precision_is_average_precision(flags: list[bool]) -> None:
    ours = context_precision([flags])[0]
    if any(flags):
        assert ours == pytest.approx(average_precision_score(flags, -np.arange(len(flags))))
    else:
        assert ours == 0.0


def test_contexts_by_hand() -> None:
    assert context_precision([[True, False], [False, True], [True, False, True]]) == pytest.approx([1, 0.5, 5 / 6])
    assert context_recall([[True, False, True], [True]]) == pytest.approx([2 / 3, 1])
    with pytest.raises(InputError, match="Item 2 has no claim"):
        context_recall([[True], []])


def entails(cited: str, said: str) -> bool:
    """Every word that is said stands in what is cited."""
    return set(said.split()) <= set(cited.split())


@pytest.mark.parametrize(
    ("answer", "recall", "precision"),
    [
        ([Cited("a b", ["a b"])], 1, 1),
        ([Cited("a b", ["a", "b"])], 1, 1),  # each alone is not enough, and both are needed
        ([Cited("a b", ["a b", "c"])], 1, 1 / 2),  # the second is superfluous
        ([Cited("a b", ["a b", "b a"])], 1, 1),  # two that say it all are both right
        ([Cited("a b", ["a"]), Cited("c", [])], 0, 0),
        ([Cited("a", ["a"]), Cited("b", ["c", "d"]), Cited("e", [])], 1 / 3, 1 / 3),
        ([], 0, 0),
    ],
)
def test_citations_by_hand(answer: list[Cited], recall: float, precision: float) -> None:
    found = citation_scores(answer, entails)
    cited = sum(len(one.citations) for one in answer)
    assert found == CitationScores(pytest.approx(recall), pytest.approx(precision), len(answer), cited)


def test_slices() -> None:
    found = by_slice([1, 0, 1, 1], ["who", ["when", "long"], "who", "when"])
    assert list(found) == ["all", "when", "who", "long"]
    assert found["all"].estimate == 0.75 and found["who"].estimate == 1 and found["when"].n == 2
    clustered = by_slice([1, 0, 1, 1], ["a"] * 4, ["x", "x", "y", "z"])
    assert clustered["a"].clusters == 3 and clustered["a"].low == clustered["all"].low
    with pytest.raises(InputError, match="4 values but 1 items"):
        by_slice([1, 0, 1, 1], ["a"])
    with pytest.raises(InputError, match="called 'all'"):
        by_slice([1], ["all"])


def test_an_answer_may_stand_somewhere_in_what_was_said() -> None:
    said = ["It was Paris, I think.", "Parisian", "the 12 apostles", "?!", ""]
    assert contains(said, [["paris"], ["Paris"], ["11", "12"], ["?!"], ["x"]]).tolist() == [1, 0, 1, 1, 0]
