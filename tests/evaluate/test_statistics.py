"""Intervals, bootstrap, paired tests, power and Holm beside scipy and closed forms."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.stats import bootstrap as scipy_bootstrap

from windlass.core.errors import InputError
from windlass.evaluate.statistics.bootstrap import bootstrap, bootstrap_mean
from windlass.evaluate.statistics.distributions import t_cdf, t_quantile
from windlass.evaluate.statistics.intervals import (
    Interval,
    _correlation,
    _freedom,
    mean_error,
    mean_interval,
    wilson_interval,
)
from windlass.evaluate.statistics.multiple import holm
from windlass.evaluate.statistics.paired import mcnemar_mid_p, paired_difference, sign_flip_p
from windlass.evaluate.statistics.power import items_for_effect, items_for_half_width, minimum_detectable_effect

RNG = np.random.default_rng(7)


@pytest.mark.parametrize("freedom", [1, 2.5, 9, 31.7, 400, 1e5])
def test_t_distribution_is_scipys(freedom: float) -> None:
    for x in (-40.0, -3.1, -0.2, 0.0, 0.7, 12.0):
        assert t_cdf(x, freedom) == pytest.approx(stats.t.cdf(x, freedom), rel=1e-9, abs=1e-15)
    for p in (0.001, 0.025, 0.4, 0.5, 0.9, 0.975, 0.9995):
        assert t_quantile(p, freedom) == pytest.approx(stats.t.ppf(p, freedom), rel=1e-8)


@pytest.mark.parametrize(("k", "n"), [(0, 1), (1, 1), (0, 40), (3, 40), (20, 40), (40, 40), (999, 3000)])
@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_wilson_is_scipys(k: int, n: int, level: float) -> None:
    ours, theirs = wilson_interval(k, n, level), stats.binomtest(k, n).proportion_ci(level, method="wilson")
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_mean_interval_without_clusters_is_students() -> None:
    x = RNG.normal(2, 3, 37)
    low, high = stats.t.interval(0.9, 36, loc=x.mean(), scale=stats.sem(x))
    ours = mean_interval(x, level=0.9)
    assert (ours.estimate, ours.low, ours.high) == pytest.approx((x.mean(), low, high))
    assert (ours.n, ours.clusters) == (37, 37)


def test_one_label_per_value_is_the_same_as_no_labels() -> None:
    x = RNG.normal(size=20)
    with_labels, without = mean_error(x, list(range(20))), mean_error(x)
    assert with_labels.error == pytest.approx(without.error)
    assert with_labels.freedom == pytest.approx(19)


def test_equal_clusters_are_a_t_test_on_cluster_means() -> None:
    """With m values in every cluster the mean is a mean of cluster means, for which Student's interval is exact."""
    x = RNG.normal(size=(12, 5)) + RNG.normal(size=(12, 1))
    ours = mean_interval(x.ravel(), np.repeat(np.arange(12), 5))
    low, high = stats.t.interval(0.95, 11, loc=x.mean(), scale=stats.sem(x.mean(axis=1)))
    assert (ours.low, ours.high) == pytest.approx((low, high))


def test_cr2_is_the_matrix_formula() -> None:
    """The closed forms beside Bell and McCaffrey's definition computed with explicit matrices."""
    sizes = [1, 4, 2, 9, 3, 3]
    codes = np.repeat(np.arange(len(sizes)), sizes)
    n = codes.size
    x = RNG.normal(size=n)
    residual = x - x.mean()
    columns, variance = [], 0.0
    annihilator = np.eye(n) - np.full((n, n), 1 / n)
    for g in range(len(sizes)):
        inside = codes == g
        m = int(inside.sum())
        values, vectors = np.linalg.eigh(np.eye(m) - np.full((m, m), 1 / n))
        adjust = vectors @ np.diag(values**-0.5) @ vectors.T
        variance += float(np.ones(m) @ adjust @ residual[inside]) ** 2 / n**2
        columns.append(annihilator[:, inside] @ adjust @ np.ones(m) / n)
    ours = mean_error(x, codes)
    assert ours.error == pytest.approx(math.sqrt(variance))
    weights = np.stack(columns, axis=1)
    same = codes[:, None] == codes
    together = same & ~np.eye(n, dtype=bool)
    correlation = max(0.0, float(np.outer(residual, residual)[together].mean() / np.mean(residual**2)))
    assert _correlation(residual, np.bincount(codes, residual), np.array(sizes, float)) == pytest.approx(correlation)
    for r in (0.0, 0.3, 1.0, correlation):
        spread = weights.T @ ((1 - r) * np.eye(n) + r * same) @ weights
        expected = np.trace(spread) ** 2 / np.trace(spread @ spread)
        assert _freedom(np.array(sizes, float), r) == pytest.approx(expected)
    assert ours.freedom == pytest.approx(expected)


def test_one_cluster_bounds_nothing() -> None:
    interval = mean_interval([1.0, 2.0, 3.0], ["a", "a", "a"])
    assert (interval.low, interval.high) == (-math.inf, math.inf)
    assert Interval.from_json(interval.to_json()) == interval
    assert interval.to_json()["low"] is None


@pytest.mark.parametrize("bad", [[], [1.0, math.nan], [math.inf], [[1.0, 2.0]]])
def test_what_cannot_be_averaged_is_refused(bad: list[float]) -> None:
    with pytest.raises(InputError):
        mean_interval(bad)
    with pytest.raises(InputError):
        bootstrap_mean(bad, seed=0)


def test_labels_must_match_values() -> None:
    with pytest.raises(InputError, match="3 values but 2"):
        mean_interval([1.0, 2.0, 3.0], ["a", "b"])


def test_bca_is_scipys() -> None:
    x = RNG.exponential(size=60)
    theirs = scipy_bootstrap(
        (x,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(1)
    ).confidence_interval
    ours = bootstrap_mean(x, seed=1, resamples=20_000)
    width = theirs.high - theirs.low
    assert ours.low == pytest.approx(theirs.low, abs=0.02 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.02 * width)


def test_bootstrap_of_any_statistic_agrees_with_the_fast_mean() -> None:
    x = RNG.exponential(size=80)
    clusters = np.repeat(np.arange(20), 4)
    slow = bootstrap(lambda chosen: float(x[chosen].mean()), 80, clusters, seed=3, resamples=4000)
    fast = bootstrap_mean(x, clusters, seed=4, resamples=20_000)
    width = fast.high - fast.low
    assert (slow.low, slow.high) == pytest.approx((fast.low, fast.high), abs=0.06 * width)
    assert slow.clusters == fast.clusters == 20


def test_bootstrap_repeats_with_its_seed_and_only_with_it() -> None:
    x = RNG.normal(size=50)
    assert bootstrap_mean(x, seed=5) == bootstrap_mean(x, seed=5)
    assert bootstrap_mean(x, seed=5) != bootstrap_mean(x, seed=6)


def test_bootstrap_refuses_a_statistic_that_is_often_undefined() -> None:
    labels = np.array([1] + [0] * 19)
    with pytest.raises(InputError, match="undefined on"):
        bootstrap(lambda chosen: math.nan if not labels[chosen].any() else 1.0, 20, seed=0)


def test_paired_difference_is_the_paired_t_test() -> None:
    a, b = RNG.normal(size=30), RNG.normal(0.3, 1, size=30)
    ours, theirs = paired_difference(a, b), stats.ttest_rel(b, a)
    interval = theirs.confidence_interval()
    assert ours.p_value == pytest.approx(theirs.pvalue)
    width = interval.high - interval.low
    assert interval.low - 0.1 * width < ours.difference.low <= interval.low + 1e-12
    assert interval.high - 1e-12 <= ours.difference.high < interval.high + 0.1 * width, "but for the skewness"
    assert ours.better + ours.worse + ours.same == 30


def test_identical_systems_differ_by_exactly_nothing() -> None:
    found = paired_difference([0.1] * 60, [0.1] * 60)
    assert (found.difference.low, found.difference.high, found.p_value) == (0.0, 0.0, 1.0)


def test_sign_flip_is_exact_for_few_clusters() -> None:
    x = RNG.normal(0.4, 1, size=12)
    theirs = stats.permutation_test((x,), lambda v, axis: v.mean(axis=axis), permutation_type="samples",
                                    vectorized=True, n_resamples=5000).pvalue  # fmt: skip
    assert sign_flip_p(x) == pytest.approx(theirs)
    clusters = np.repeat(np.arange(4), 3)
    sums = x.reshape(4, 3).sum(axis=1)
    flips = [abs(np.dot(signs, sums)) >= abs(sums.sum()) - 1e-12 for signs in product((1, -1), repeat=4)]
    assert sign_flip_p(x, clusters) == pytest.approx(np.mean(flips))


def test_sign_flip_draws_agree_with_the_t_test_for_many() -> None:
    x = RNG.normal(0.15, 1, size=200)
    assert sign_flip_p(x, seed=1, permutations=19_999) == pytest.approx(stats.ttest_1samp(x, 0).pvalue, abs=0.01)
    assert sign_flip_p(np.ones(200)) == pytest.approx(1 / 5_000), "never exactly zero"


@pytest.mark.parametrize(("better", "worse"), [(0, 0), (5, 5), (9, 1), (1, 9), (30, 12), (700, 640)])
def test_mcnemar_mid_p(better: int, worse: int) -> None:
    incumbent = [0] * better + [1] * worse + [1, 0]
    candidate = [1] * better + [0] * worse + [1, 0]
    n, fewer = better + worse, min(better, worse)
    exact = stats.binomtest(fewer, n).pvalue if n else 1.0
    expected = 1.0 if better == worse else exact - stats.binom.pmf(fewer, n, 0.5)
    assert mcnemar_mid_p(incumbent, candidate) == pytest.approx(expected)


def test_mcnemar_refuses_graded_scores() -> None:
    with pytest.raises(InputError, match="0 and 1"):
        mcnemar_mid_p([0.5, 1], [1, 1])


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])
    with pytest.raises(InputError):
        holm([0.5, 1.5])


def test_items_for_effect_gives_the_power_it_promises() -> None:
    pilot = RNG.normal(0, 1, 100)
    n = items_for_effect(pilot, 0.25)
    spread = pilot.std(ddof=1)
    assert stats.norm.cdf(0.25 * math.sqrt(n) / spread - 1.96) == pytest.approx(0.8, abs=0.005)
    assert minimum_detectable_effect(pilot) == pytest.approx(0.25 * math.sqrt(n / 100), rel=0.01)
    assert 1.96 * spread / math.sqrt(items_for_half_width(pilot, 0.1)) == pytest.approx(0.1, rel=0.01)
    with pytest.raises(InputError):
        items_for_effect(pilot, 0.0)


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.floats(-1e3, 1e3), min_size=4, max_size=40),
    groups=st.integers(2, 6),
    shift=st.floats(-50, 50),
)
def test_interval_is_ordered_shifts_and_ignores_order(values: list[float], groups: int, shift: float) -> None:
    clusters = [i % groups for i in range(len(values))]
    interval = mean_interval(values, clusters)
    assert interval.low <= interval.estimate <= interval.high
    moved = mean_interval([v + shift for v in values], clusters)
    assert moved.low - interval.low == pytest.approx(shift, abs=1e-6)
    turned = mean_interval(values[::-1], clusters[::-1])
    assert turned.high == pytest.approx(interval.high, abs=1e-6)


def test_an_interval_is_cut_to_where_the_value_can_lie() -> None:
    wide = mean_interval([1.0, 1.0, 1.0, 0.0])
    assert wide.high > 1.0
    cut = wide.within(0.0, 1.0)
    assert (cut.low, cut.high, cut.estimate) == (max(wide.low, 0.0), 1.0, wide.estimate)
