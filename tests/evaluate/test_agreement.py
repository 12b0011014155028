"""Agreement beyond chance, beside published tables and scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windlass.core.errors import InputError
from windlass.evaluate.statistics.agreement import (
    alpha_interval,
    cohen_kappa,
    gwet_ac1,
    kappa_interval,
    krippendorff_alpha,
)

N = math.nan
# Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), section C to E: four observers, twelve units.
OBSERVERS = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, N, N, N],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, N, 3],
        [N, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, N],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, N],
    ]
).T


@pytest.mark.parametrize(("measure", "published"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_of_the_published_example(measure: str, published: float) -> None:
    assert krippendorff_alpha(OBSERVERS, measure) == pytest.approx(published, abs=5e-4)  # type: ignore[arg-type]


def test_alpha_of_two_observers_as_published() -> None:
    # The same paper, section A: two observers, ten binary units, alpha 0.095.
    a = [0, 1, 0, 0, 0, 0, 0, 0, 1, 0]
    b = [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]
    assert krippendorff_alpha(np.array([a, b]).T) == pytest.approx(0.095, abs=5e-4)


@pytest.mark.parametrize("weights", ["none", "linear", "quadratic"])
def test_kappa_as_scikit_learn_has_it(weights: str) -> None:
    from sklearn.metrics import cohen_kappa_score

    rng = np.random.default_rng(1)
    a = rng.integers(0, 5, 200)
    b = np.where(rng.random(200) < 0.6, a, rng.integers(0, 5, 200))
    expected = cohen_kappa_score(a, b, weights=None if weights == "none" else weights)
    assert cohen_kappa(a, b, weights) == pytest.approx(expected, abs=1e-12)  # type: ignore[arg-type]


def test_ac1_stands_where_kappa_falls_as_published() -> None:
    # Gwet, "Kappa statistic is not satisfactory for assessing the extent of agreement between raters" (2002): of 125
    # subjects 118 are + for both raters and none - for both; kappa -0.0234, AC1 0.9408.
    a = [1] * 118 + [1] * 5 + [0] * 2
    b = [1] * 118 + [0] * 5 + [1] * 2
    assert cohen_kappa(a, b) == pytest.approx(-0.0234, abs=5e-5)
    assert gwet_ac1(np.array([a, b]).T) == pytest.approx(0.9408, abs=5e-4)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(0, 3), min_size=3, max_size=3), min_size=3, max_size=20), st.randoms())
def test_alpha_knows_neither_the_order_of_raters_nor_of_items(rows: list[list[int]], chance: object) -> None:
    table = np.array(rows, dtype=float)
    before = krippendorff_alpha(table, "interval")
    shuffled = [list(row) for row in rows]
    for row in shuffled:
        chance.shuffle(row)  # type: ignore[attr-defined]
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    after = krippendorff_alpha(np.array(shuffled, dtype=float), "interval")
    assert math.isnan(before) == math.isnan(after)
    if not math.isnan(before):
        assert after == pytest.approx(before, abs=1e-9)
        assert before <= 1.0 + 1e-12


def test_whole_agreement_is_one_and_no_variation_is_not_defined() -> None:
    assert krippendorff_alpha([[1, 1], [2, 2], [3, 3]]) == pytest.approx(1.0)
    assert math.isnan(krippendorff_alpha([[1, 1], [1, 1]]))
    assert math.isnan(cohen_kappa([1, 1], [1, 1]))
    with pytest.raises(InputError, match="undefined"):
        alpha_interval([[1, 1]] * 20)


def test_an_interval_over_items_holds_the_estimate_and_narrows() -> None:
    rng = np.random.default_rng(2)
    truth = rng.integers(0, 2, 400)
    ratings = np.stack([np.where(rng.random(400) < 0.85, truth, 1 - truth) for _ in range(3)], axis=1).astype(float)
    few, many = alpha_interval(ratings[:60], resamples=499), alpha_interval(ratings, resamples=499)
    assert few.low < few.estimate < few.high and few.n == 60
    assert many.high - many.low < few.high - few.low
    assert many.low < 0.7**2 < many.high  # two raters, each right with 0.85, agree beyond chance by (2 * 0.85 - 1)^2


def test_intervals_hold_their_level() -> None:
    # Two raters, right with 0.9 and 0.8 about a coin: they agree with 0.74, which is 2 * 0.74 - 1 = 0.48 beyond chance.
    rng = np.random.default_rng(3)
    kappas, alphas = [], []
    for repeat in range(200):
        truth = rng.integers(0, 2, 150)
        a, b = (np.where(rng.random(150) < right, truth, 1 - truth).astype(float) for right in (0.9, 0.8))
        kappas.append(kappa_interval(a, b, resamples=399, seed=repeat))
        alphas.append(alpha_interval(np.stack([a, b], axis=1), resamples=399, seed=repeat))
    for found in (kappas, alphas):
        assert 0.9 <= np.mean([one.low <= 0.48 <= one.high for one in found]) <= 0.985
    assert kappas[-1].estimate == pytest.approx(cohen_kappa(a, b), abs=1e-12) and kappas[-1].n == 150


def test_clusters_widen_and_must_match() -> None:
    rng = np.random.default_rng(4)
    a = np.repeat(rng.integers(0, 2, 30), 5).astype(float)
    b = np.where(np.repeat(rng.random(30), 5) < 0.8, a, 1 - a)
    groups = np.repeat(np.arange(30), 5)
    free, held = (alpha_interval(np.stack([a, b], axis=1), clusters=one, resamples=499) for one in (None, groups))
    assert held.high - held.low > 1.5 * (free.high - free.low) and held.clusters == 30
    assert kappa_interval(a, b, clusters=groups, resamples=499).clusters == 30
    with pytest.raises(InputError, match="150 items but 2 cluster labels"):
        alpha_interval(np.stack([a, b], axis=1), clusters=[1, 2])


def test_ratings_that_nobody_shares_are_refused() -> None:
    with pytest.raises(InputError, match="two ratings"):
        krippendorff_alpha([[1, N], [N, 2]])
    with pytest.raises(InputError, match="shape"):
        krippendorff_alpha([1.0, 2.0])
    with pytest.raises(InputError, match="infinite"):
        krippendorff_alpha([[1.0, math.inf]])
    with pytest.raises(InputError, match="3 ratings, the second 2"):
        cohen_kappa([1, 2, 3], [1, 2])
    with pytest.raises(InputError, match="categories"):
        gwet_ac1([[1, 1], [1, 1]])
