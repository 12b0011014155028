"""Measures of encoders against scikit-learn, SciPy and worked examples."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from windlass.build.adapt.objectives.measures import (
    entities,
    macro_f1,
    ndcg,
    pearson,
    reciprocal_rank,
    several_f1,
    spearman,
    wilson,
)


@pytest.mark.parametrize("seed", range(5))
def test_shares_and_correlations(seed):
    generator = np.random.default_rng(seed)
    right, found = generator.integers(0, 4, 60), generator.integers(0, 5, 60)
    assert macro_f1(right, found, 6) == pytest.approx(metrics.f1_score(right, found, average="macro"))
    a, b = generator.random((40, 3)) < 0.4, generator.random((40, 3)) < 0.4
    micro, macro = several_f1(a, b)
    assert micro == pytest.approx(metrics.f1_score(a, b, average="micro"))
    assert macro == pytest.approx(metrics.f1_score(a, b, average="macro"))
    x = generator.integers(0, 6, 50).astype(float)
    y = x + generator.integers(0, 6, 50)
    assert pearson(x, y) == pytest.approx(stats.pearsonr(x, y).statistic)
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)
    k, n = int(generator.integers(0, 31)), 30
    low, high = wilson(k, n)
    other = stats.binomtest(k, n).proportion_ci(method="wilson")
    assert (low, high) == pytest.approx((other.low, other.high), abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_orders(seed):
    generator = np.random.default_rng(seed)
    gains, scores = generator.integers(0, 3, 30).astype(float), generator.normal(size=30)
    assert ndcg(gains, scores) == pytest.approx(metrics.ndcg_score([gains], [scores], k=10))
    order = np.argsort(-scores)
    assert reciprocal_rank(gains, scores) == 1 / (1 + int(np.flatnonzero(gains[order] > 0)[0]))


def test_nothing_is_gained_from_ties_and_constants():
    flat, gains = np.zeros(4), np.array([1.0, 0, 0, 0])
    assert reciprocal_rank(gains, flat) == 0.25 and reciprocal_rank(flat, gains) == 0.0
    assert ndcg(gains, flat) == pytest.approx(1 / np.log2(5)) and ndcg(flat, gains) == 0.0
    assert pearson(flat, gains) == 0.0 and spearman(gains, flat) == 0.0
    assert several_f1(np.zeros((3, 2), bool), np.zeros((3, 2), bool)) == (1.0, 1.0)


def test_marked_stretches():
    assert entities(["B-X", "I-X", "O", "B-X", "B-X", "I-Y"]) == {("X", 0, 1), ("X", 3, 3), ("X", 4, 4), ("Y", 5, 5)}
    assert entities(["I-X", "I-X", "O"]) == {("X", 0, 1)} and entities(["O", "O"]) == set()
