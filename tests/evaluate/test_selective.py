"""Abstention metrics beside hand counts and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import precision_score, recall_score, roc_auc_score

from windlass.core.errors import InputError
from windlass.evaluate.metrics.selective import Selective, auroc, right_decision, right_outcome, selective

ANSWERABLE = [True, True, True, True, False, False]
ABSTAINED = [False, False, False, True, True, False]
CORRECT = [True, True, False, True, False, False]


def test_by_hand() -> None:
    assert selective(ANSWERABLE, ABSTAINED, CORRECT) == Selective(6, 4, 2, 1 / 2, 1 / 2, 2 / 4, 3 / 4)
    assert right_decision(ANSWERABLE, ABSTAINED) == pytest.approx([1, 1, 1, 0, 1, 0])
    assert right_outcome(ANSWERABLE, ABSTAINED, CORRECT) == pytest.approx([1, 1, 0, 0, 1, 0])


def test_a_rate_of_nothing_is_unknown_not_zero() -> None:
    never = selective([True], [False], [True])
    assert never.abstention_precision is None
    assert never.abstention_recall is None
    always = selective([False], [True], [False])
    assert (always.answered_accuracy, always.coverage) == (None, None)


@settings(max_examples=80, deadline=None)
@given(rows=st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 5)), min_size=2, max_size=60))
def test_parity_with_scikit_learn(rows: list[tuple[bool, bool, int]]) -> None:
    answerable, abstained, scores = (np.array(column) for column in zip(*rows))
    ours = selective(answerable, abstained, answerable)
    if abstained.any():
        assert ours.abstention_precision == pytest.approx(precision_score(~answerable, abstained))
    if not answerable.all():
        assert ours.abstention_recall == pytest.approx(recall_score(~answerable, abstained))
    if 0 < answerable.sum() < answerable.size:
        assert auroc(answerable, scores) == pytest.approx(roc_auc_score(answerable, scores))
    else:
        with pytest.raises(InputError, match="both classes"):
            auroc(answerable, scores)


def test_refused() -> None:
    with pytest.raises(InputError, match="2 answerable, 1 abstained"):
        right_decision([True, False], [True])
    with pytest.raises(InputError, match="0 answerable"):
        selective([], [], [])
    with pytest.raises(InputError, match="'abstained' holds"):
        right_decision([True], [0.5])
    with pytest.raises(InputError, match="not finite"):
        auroc([True, False], [0.1, float("nan")])
