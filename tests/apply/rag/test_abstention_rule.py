"""When the assistant says that it does not know: the rule, and how it is learnt."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass.apply.rag.answers.abstention import FEATURES, AbstentionRule, best_threshold, fit
from windlass.core.errors import InputError


def balanced(probabilities: np.ndarray, answered: np.ndarray, threshold: float) -> float:
    says = probabilities >= threshold
    return (says[answered].mean() + (~says[~answered]).mean()) / 2


@given(st.lists(st.tuples(st.integers(0, 1000), st.booleans()), min_size=2, max_size=40))
def test_the_threshold_is_the_best_of_all(examples: list[tuple[int, bool]]) -> None:
    answered = np.array([one for _, one in examples])
    if answered.all() or not answered.any():
        return
    p = np.array([thousandths / 1000 for thousandths, _ in examples])
    most = max(balanced(p, answered, t) for t in [*(np.arange(2003) - 0.5) / 2000, 1.1])
    found = best_threshold(p, answered)
    assert 0 <= found <= 1
    if not (p == 1.0).any():  # a threshold of 1 cannot abstain from a probability of 1
        assert balanced(p, answered, found) == pytest.approx(most)


def test_a_rule_is_learnt_as_scikit_learn_learns_it() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(0)
    features = rng.normal(size=(400, len(FEATURES))) * [1, 0.1, 3, 1, 1]
    answered = features @ [1.0, 5.0, -0.5, 0.0, 0.2] + rng.normal(size=400) > 0.8
    rule = fit(features, answered.tolist())
    scaled = (features - features.mean(0)) / features.std(0)
    peer = linear.LogisticRegression(C=1.0, class_weight="balanced", tol=1e-10, max_iter=1000).fit(scaled, answered)
    assert rule.probabilities(features) == pytest.approx(peer.predict_proba(scaled)[:, 1], abs=1e-4)


def test_separable_examples_give_a_finite_rule_that_separates_them() -> None:
    features = np.repeat(np.eye(len(FEATURES))[:2], 10, axis=0)
    answered = [True] * 10 + [False] * 10
    rule = fit(features, answered)
    assert np.isfinite([rule.bias, *rule.weights]).all()
    assert ((rule.probabilities(features) >= rule.threshold) == answered).all()


def test_one_kind_of_question_alone_teaches_nothing() -> None:
    for answered in ([True] * 3, [False] * 3):
        with pytest.raises(InputError, match="one kind is missing"):
            fit(np.zeros((3, len(FEATURES))), answered)
    with pytest.raises(InputError, match="5 weights"):
        AbstentionRule(weights=(1.0,))
