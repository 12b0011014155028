"""What few items and rare events may hide: paired intervals, shares and quantiles, by exact sums and by simulation."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from bench import _gate_exact as sums
from scipy import optimize, stats

from windlass.core.errors import InputError
from windlass.evaluate.statistics.intervals import Interval, mean_interval
from windlass.evaluate.statistics.paired import mcnemar_p, paired_difference, paired_interval
from windlass.evaluate.statistics.paired_shares import score_interval, score_statistic
from windlass.evaluate.statistics.quantiles import paired_quantile_difference, quantile, quantile_interval
from windlass.evaluate.statistics.shares import bounded_interval, share_interval


def chance(rate: float, repetitions: int) -> float:
    return 3 * math.sqrt(rate * (1 - rate) / repetitions)


def pair(better: int, worse: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    old = np.array([0.0] * better + [1.0] * (n - better))
    new = np.array([1.0] * better + [0.0] * worse + [1.0] * (n - better - worse))
    return old, new


def promoted(n: int, won: float, lost: float, bar: float) -> tuple[float, float]:
    """The exact chance that the interval lies above the bar: ours, and the t interval alone."""

    def above(interval: Callable[[np.ndarray, np.ndarray], Interval]) -> float:
        # That none differs is the gate's own case.
        return sums.promoted(
            sums.Chances(n, won, lost), lambda b, c: b + c > 0 and interval(*pair(b, c, n)).low > bar
        )  # fmt: skip

    return above(lambda old, new: paired_interval(new - old)), above(lambda old, new: mean_interval(new - old))


@pytest.mark.parametrize(("n", "differ"), [(50, 0.04), (50, 0.1), (50, 0.3), (100, 0.05)])
def test_equal_systems_are_rarely_told_apart_whatever_the_share_that_differs(n: int, differ: float) -> None:
    ours, _ = promoted(n, differ / 2, differ / 2, 0.0)
    assert ours <= 0.025


@pytest.mark.parametrize(("n", "margin", "won"), [(50, 0.1, 0.0), (100, 0.05, 0.0), (50, 0.1, 0.05), (60, 0.05, 0.1)])
def test_rare_losses_are_not_taken_for_none(n: int, margin: float, won: float) -> None:
    ours, student = promoted(n, won, won + margin, -margin)
    assert ours <= 0.025
    if won == 0.0:
        assert student > 0.1, "what the t interval alone would do"


@pytest.mark.parametrize(("better", "worse", "n"), [(12, 2, 50), (0, 3, 40), (5, 0, 60), (7, 7, 30), (1, 0, 10)])
def test_the_score_interval_is_where_the_constrained_likelihood_puts_it(better: int, worse: int, n: int) -> None:
    """Tango's closed form beside the likelihood maximised numerically at the ends."""
    for end, sign in zip(score_interval(better, worse, n), (1, -1)):

        def loss(q: float, d: float = end) -> float:
            parts = ((better, q + d), (worse, q), (n - better - worse, 1 - 2 * q - d))
            return -sum(k * math.log(p) for k, p in parts if k)

        lowest = max(0.0, -end)
        q = optimize.minimize_scalar(
            loss, bounds=(lowest + 1e-12, (1 - end) / 2 - 1e-12), method="bounded", options={"xatol": 1e-12}
        ).x
        z = (better - worse - n * end) / math.sqrt(n * (2 * q + end * (1 - end)))
        assert sign * z == pytest.approx(stats.norm.ppf(0.975), abs=2e-4)
    assert score_statistic(better, worse, n, 0.0) == pytest.approx((better - worse) / math.sqrt(better + worse))


def test_the_score_interval_of_none_and_of_all() -> None:
    z2 = stats.norm.ppf(0.975) ** 2
    assert score_interval(0, 0, 50) == pytest.approx((-z2 / (50 + z2), z2 / (50 + z2)))
    low, high = score_interval(50, 0, 50)
    assert 0.8 < low < high == 1.0
    with pytest.raises(InputError, match="cannot be"):
        score_interval(8, 3, 10)


def test_corrections_cost_hardly_any_width_where_many_items_differ() -> None:
    rng = np.random.default_rng(1)
    graded, right = rng.integers(0, 5, (2, 400)) / 4, rng.integers(0, 2, (2, 400)).astype(float)
    for old, new in (graded, right):
        plain, ours = mean_interval(new - old), paired_difference(old, new)
        assert ours.difference.estimate == plain.estimate
        assert (ours.difference.high - ours.difference.low) / (plain.high - plain.low) == pytest.approx(1, abs=0.02)
    assert "score" in ours.difference.method


@pytest.mark.parametrize("whole", [True, False])
def test_sources_that_break_count_as_one_each(whole: bool) -> None:
    """60 sources of 8 items; 8 % of them break at once, or 8 % of the items one by one."""
    rng = np.random.default_rng(2)
    wrong = 0
    codes = np.repeat(np.arange(60), 8)
    for _ in range(1000):
        lost = np.repeat(rng.random(60) < 0.08, 8) if whole else rng.random(480) < 0.08
        if lost.any():
            wrong += paired_difference(np.ones(480), 1.0 - lost, codes).difference.low > -0.08
    assert wrong / 1000 <= 0.025 + chance(0.025, 1000)


@pytest.mark.parametrize(("better", "worse"), [(0, 0), (1, 0), (5, 5), (9, 1), (1, 9), (30, 12)])
def test_exact_mcnemar_is_the_binomial_test(better: int, worse: int) -> None:
    expected = stats.binomtest(min(better, worse), better + worse).pvalue if better + worse else 1.0
    assert mcnemar_p(*pair(better, worse, 80)) == pytest.approx(expected)


@pytest.mark.parametrize(("right", "n"), [(0, 50), (1, 50), (30, 50), (50, 50)])
def test_shares_are_clopper_and_pearsons(right: int, n: int) -> None:
    ours = share_interval(np.repeat([1.0, 0.0], [right, n - right]), level=0.9)
    theirs = stats.binomtest(right, n).proportion_ci(0.9, method="exact")
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


@pytest.mark.parametrize("together", [False, True])
def test_shares_cover_with_clusters_also_where_events_are_rare(together: bool) -> None:
    rng = np.random.default_rng(3)
    codes, missed = np.repeat(np.arange(60), 6), 0
    for _ in range(800):
        events = rng.random(60) < 0.03 if together else rng.random(360) < 0.03
        values = 1.0 - (np.repeat(events, 6) if together else events)
        missed += share_interval(values, codes).low > 0.97
    assert missed / 800 <= 0.025 + chance(0.025, 800)


def test_a_failure_more_never_helps() -> None:
    codes = np.repeat(np.arange(50), 10)
    lows = [share_interval(np.where(np.arange(500) < k, 0.0, 1.0), codes).low for k in range(12)]
    assert lows == sorted(lows, reverse=True)
    alone = [share_interval(np.where(np.arange(500) % 50 == 0, np.arange(500) // 50 >= k, 1.0)).low for k in range(10)]
    assert alone == sorted(alone, reverse=True)


def test_shares_are_of_zeros_and_ones() -> None:
    with pytest.raises(InputError, match="zeros and ones"):
        share_interval([0.0, 0.5])


def test_quantiles_by_hand() -> None:
    values = [5.0, 1.0, 4.0, 2.0, 3.0]
    assert [quantile(values, p) for p in (0.2, 0.21, 0.5, 0.8, 0.95)] == [1, 2, 3, 4, 5]
    few = quantile_interval(values, 0.95)
    assert (few.estimate, few.high) == (5.0, math.inf), "five values do not bound p95 from above"
    with pytest.raises(InputError, match="between 0 and 1"):
        quantile(values, 95)


@pytest.mark.parametrize(("share", "n"), [(0.5, 30), (0.95, 200)])
def test_quantiles_cover_whatever_the_distribution(share: float, n: int) -> None:
    rng = np.random.default_rng(4)
    truth = stats.lognorm(1.5).ppf(share)
    found = [quantile_interval(rng.lognormal(0, 1.5, n), share) for _ in range(1500)]
    assert np.mean([one.high < truth for one in found]) <= 0.025 + chance(0.025, 1500)
    assert np.mean([one.low > truth for one in found]) <= 0.025 + chance(0.025, 1500)
    assert np.mean([math.isfinite(one.high) for one in found]) > 0.9


def test_quantiles_cover_with_clusters() -> None:
    rng = np.random.default_rng(5)
    codes, missed = np.repeat(np.arange(60), 8), 0
    truth = math.sqrt(2) * stats.norm.ppf(0.9)
    for _ in range(600):
        x = rng.normal(size=60)[codes] + rng.normal(size=480)
        one = quantile_interval(x, 0.9, codes)
        missed += not one.low <= truth <= one.high
    assert missed / 600 <= 0.06 + chance(0.06, 600)


def test_quantiles_of_pairs_by_hand_and_their_limits() -> None:
    rng = np.random.default_rng(6)
    a = rng.lognormal(0, 1, 400)
    twice = paired_quantile_difference(a, 2 * a, 0.9, seed=1, relative=True)
    assert (twice.low, twice.estimate, twice.high) == pytest.approx((1.0, 1.0, 1.0))
    assert paired_quantile_difference(a, a, 0.9, seed=1).high == 0.0
    with pytest.raises(InputError, match=r"only 4 lie beyond the 99 % quantile.*\n.*1,000 items"):
        paired_quantile_difference(a, a, 0.99, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("clusters", [False, True])
def test_quantiles_of_pairs_cover(clusters: bool) -> None:
    rng = np.random.default_rng(7)
    codes, missed = np.repeat(np.arange(100), 4), 0
    for seed in range(300):
        shared = rng.normal(size=100)[codes] if clusters else rng.normal(size=400)
        a, b = (np.exp(shared + rng.normal(0, 0.5, 400)) for _ in range(2))
        one = paired_quantile_difference(a, b, 0.9, codes if clusters else None, seed=seed, resamples=499)
        missed += not one.low <= 0 <= one.high
    assert missed / 300 <= 0.07 + chance(0.07, 300)


def test_values_that_are_all_the_same_do_not_show_that_all_are() -> None:
    """Student's interval of a hundred ties is [0.5, 0.5]."""
    narrow = bounded_interval([0.5] * 100, (0.0, 1.0))
    assert narrow.estimate == 0.5 and narrow.low < 0.48 and narrow.high > 0.52
    few = bounded_interval([0.5] * 100, (0.0, 1.0), [str(n // 20) for n in range(100)])
    assert few.high - few.low > 2 * (narrow.high - narrow.low) and (few.n, few.clusters) == (100, 5)
    top = bounded_interval([4.0] * 30, (1.0, 4.0))
    assert top.low < 3.6 and top.high == 4.0
    spread = [0.2, 0.4, 0.9, 0.7]
    assert bounded_interval(spread, (0.0, 1.0)) == mean_interval(spread).within(0.0, 1.0)
    assert bounded_interval([3.0] * 9, (0.0, math.inf)).low == 3.0, "without bounds nothing is known"
