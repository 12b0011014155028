"""Two groups: differences, ratios, equivalence, CUPED and sample sizes beside scipy, and their coverage by
simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from windlass.core.errors import InputError
from windlass.evaluate.statistics.cuped import cuped
from windlass.evaluate.statistics.equivalence import equivalence_p
from windlass.evaluate.statistics.independent import difference_of_means, difference_of_shares
from windlass.evaluate.statistics.intervals import Interval, mean_interval
from windlass.evaluate.statistics.power import items_for_effect, items_for_margin, power_of
from windlass.evaluate.statistics.ratios import independent_ratio, paired_ratio
from windlass.evaluate.statistics.skewed import skewed_mean_interval, skewed_paired_ratio

RNG = np.random.default_rng(3)


def beyond(intervals: list[Interval], truth: float) -> tuple[float, float]:
    """Shares of intervals that lie wholly (below, above) the truth."""
    return float(np.mean([i.high < truth for i in intervals])), float(np.mean([i.low > truth for i in intervals]))


def chance(rate: float, repetitions: int) -> float:
    return 3 * math.sqrt(rate * (1 - rate) / repetitions)


def test_welch_is_scipys() -> None:
    a, b = RNG.normal(0, 1, 20), RNG.normal(0.5, 3, 35)
    theirs = stats.ttest_ind(b, a, equal_var=False).confidence_interval(0.9)
    ours = difference_of_means(a, b, level=0.9)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high))
    assert difference_of_means([1.0, 1.0], [2.0, 2.0]).low == 1.0


def test_welch_with_clusters_covers() -> None:
    rng = np.random.default_rng(1)

    def arm() -> tuple[np.ndarray, np.ndarray]:
        codes = np.repeat(np.arange(25), rng.integers(1, 9, size=25))
        return rng.normal(size=25)[codes] + rng.normal(size=codes.size), codes

    found = []
    for _ in range(800):
        (a, of_a), (b, of_b) = arm(), arm()
        found.append(difference_of_means(a, b, (of_a, of_b)))
    assert sum(beyond(found, 0.0)) == pytest.approx(0.05, abs=chance(0.05, 800))


def test_newcombe_by_the_published_example() -> None:
    """56/70 and 48/80 (Newcombe 1998, table II, method 10)."""
    found = difference_of_shares((48, 80), (56, 70))
    assert (found.estimate, found.low, found.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)
    rare = difference_of_shares((0, 10), (0, 10))
    assert rare.low == pytest.approx(-0.2775, abs=5e-5) and rare.high == pytest.approx(0.2775, abs=5e-5)


@pytest.mark.parametrize(("p", "q"), [(0.02, 0.02), (0.3, 0.5)])
def test_newcombe_covers(p: float, q: float) -> None:
    rng = np.random.default_rng(2)
    found = [difference_of_shares((int(rng.binomial(60, p)), 60), (int(rng.binomial(90, q)), 90)) for _ in range(3000)]
    assert sum(beyond(found, q - p)) <= 0.06 + chance(0.06, 3000)


def test_fieller_is_where_the_t_test_of_the_contrast_turns() -> None:
    a = RNG.lognormal(0, 0.5, 60)
    b = a * RNG.lognormal(0.1, 0.2, 60)
    ours = paired_ratio(a, b)
    for end in (ours.low, ours.high):
        assert stats.ttest_1samp(b - end * a, 0).pvalue == pytest.approx(0.05, abs=1e-6)
    assert ours.estimate == pytest.approx(b.mean() / a.mean())
    apart = independent_ratio(a, b[:40])
    assert apart.low < apart.estimate < apart.high and apart.high - apart.low > ours.high - ours.low


def test_a_ratio_of_what_may_be_nothing_has_no_bounds() -> None:
    around_zero = paired_ratio(RNG.normal(0.01, 1, 30), RNG.normal(1, 1, 30))
    assert (around_zero.low, around_zero.high) == (-math.inf, math.inf)
    with pytest.raises(InputError, match="mean is 0"):
        paired_ratio([1.0, -1.0], [1.0, 2.0])
    with pytest.raises(InputError, match="2 values, the candidate 3"):
        paired_ratio([1.0, 1.0], [1.0, 2.0, 3.0])


def test_the_skewed_ratio_is_fiellers_or_wider() -> None:
    a = RNG.lognormal(0, 1, 200)
    b = a * RNG.lognormal(0, 0.3, 200)
    plain, skewed = paired_ratio(a, b), skewed_paired_ratio(a, b)
    assert skewed.low <= plain.low + 1e-3 and skewed.high >= plain.high - 1e-3
    assert skewed.estimate == plain.estimate
    codes = np.repeat(np.arange(50), 4)
    assert skewed_paired_ratio(a, b, codes).clusters == 50
    assert skewed_paired_ratio(a, 2 * a).low == pytest.approx(2) == skewed_paired_ratio(a, 2 * a).high


def test_skewed_means_are_bounded_where_students_are_too_low() -> None:
    """100 log-normal values: Student's upper end misses three to four times as often as it says, ours twice."""
    rng = np.random.default_rng(4)
    samples = rng.lognormal(0, 1, size=(3000, 100))
    truth = math.exp(0.5)
    below, above = beyond([skewed_mean_interval(x) for x in samples], truth)
    means, errors = samples.mean(axis=1), samples.std(axis=1, ddof=1) / 10
    student = float(np.mean(means + stats.t.ppf(0.975, 99) * errors < truth))
    assert student > 0.06
    assert below <= 0.06 < student and above <= 0.025 + chance(0.025, 3000)


def test_few_large_losses_are_not_taken_for_none() -> None:
    """5 % of 100 graded scores fall by 0.5 to 1, on average 0.0375 over all; a margin of that is not to be shown."""
    rng = np.random.default_rng(11)
    ours = student = 0
    for _ in range(800):
        loss = (rng.random(100) < 0.05) * rng.uniform(0.5, 1, 100) + rng.normal(0, 0.02, 100)
        ours += skewed_mean_interval(-loss).low > -0.0375
        student += mean_interval(-loss).low > -0.0375
    assert ours / 800 <= 0.025 + chance(0.025, 800) and student / 800 > 0.05


def test_of_symmetric_values_the_skewed_interval_is_hardly_wider() -> None:
    widths = []
    for _ in range(100):
        x = RNG.normal(size=200)
        found, low_high = skewed_mean_interval(x), stats.t.interval(0.95, 199, x.mean(), stats.sem(x))
        assert found.low <= low_high[0] + 1e-12 and found.high >= low_high[1] - 1e-12
        widths.append((found.high - found.low) / (low_high[1] - low_high[0]))
    assert np.mean(widths) < 1.02


def test_equivalence_is_two_t_tests() -> None:
    a, b = RNG.normal(0, 1, 80), RNG.normal(0.02, 1, 80)
    lower = stats.ttest_rel(b, a - 0.4, alternative="greater").pvalue
    upper = stats.ttest_rel(b, a + 0.4, alternative="less").pvalue
    assert equivalence_p(a, b, 0.4) == pytest.approx(max(lower, upper))
    assert equivalence_p([1.0] * 5, [1.0] * 5, 0.1) == 0.0
    assert equivalence_p([1.0] * 5, [2.0] * 5, 0.1) == 1.0
    assert equivalence_p([1.0, 2.0], [1.0, 2.0], 0.1, ["a", "a"]) == 1.0, "one cluster shows nothing"
    with pytest.raises(InputError, match="margin above 0"):
        equivalence_p(a, b, 0.0)


def test_equivalence_is_claimed_at_most_at_its_rate_at_the_margin() -> None:
    rng = np.random.default_rng(5)
    p = [equivalence_p(np.zeros(60), rng.normal(0.5, 1, 60), 0.5) for _ in range(3000)]
    assert np.mean(np.array(p) <= 0.05) == pytest.approx(0.05, abs=chance(0.05, 3000))


def test_cuped_says_how_much_it_saves_and_covers() -> None:
    rng = np.random.default_rng(6)
    found, reductions, narrower = [], [], []
    for _ in range(400):
        x, z = rng.normal(5, 2, 80), rng.normal(5, 2, 60)
        adjusted = cuped(x + rng.normal(0, 1, 80), z + 1 + rng.normal(0, 1, 60), x, z)
        found.append(adjusted.difference)
        reductions.append(adjusted.reduction)
        width, before = (i.high - i.low for i in (adjusted.difference, adjusted.plain))
        narrower.append(width / before)
    assert sum(beyond(found, 1.0)) <= 0.05 + chance(0.05, 400)
    assert np.mean(reductions) == pytest.approx(0.8, abs=0.02), "4 of the 5 parts of the variance were known before"
    assert np.mean(narrower) == pytest.approx(math.sqrt(0.2), abs=0.02)


def test_cuped_without_use_changes_nothing() -> None:
    a, b = RNG.normal(size=50), RNG.normal(size=50)
    constant = cuped(a, b, np.ones(50), np.ones(50))
    assert constant.reduction == 0.0 and constant.difference.low == constant.plain.low
    with pytest.raises(InputError, match="50 values but 49"):
        cuped(a, b, np.ones(50), np.ones(49))


def test_the_items_for_a_margin_have_the_power_they_promise() -> None:
    pilot = RNG.normal(0, 1, 200)
    pilot = (pilot - pilot.mean()) / pilot.std(ddof=1)
    n = items_for_margin(pilot, 0.2)
    assert n == items_for_effect(pilot, 0.2)
    assert power_of(pilot, 0.2, n) == pytest.approx(0.8, abs=0.003)
    rng = np.random.default_rng(8)
    two = items_for_margin(pilot, 0.2, equivalence=True)
    shown = np.mean([equivalence_p(np.zeros(two), rng.normal(0, 1, two), 0.2) <= 0.025 for _ in range(1500)])
    assert shown == pytest.approx(0.8, abs=0.035)
    assert items_for_margin(pilot, 0.2, effect=0.1) < n < items_for_margin(pilot, 0.2, effect=-0.1)
    for wrong in (
        lambda: items_for_margin(pilot, 0.1, effect=-0.1),
        lambda: power_of(pilot, 0.0, 10),
        lambda: power_of(pilot, 0.1, 10, ["one"] * 200),
    ):
        with pytest.raises(InputError):
            wrong()
