"""Looking again and again: confidence sequences, always-valid p-values, betting and traffic shares, by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from windlass.core.errors import InputError
from windlass.evaluate.statistics.betting import betting_interval, betting_p, betting_sequence
from windlass.evaluate.statistics.distributions import chi2_cdf, chi2_quantile
from windlass.evaluate.statistics.sequences import (
    always_valid_p,
    arms_sequence,
    mean_sequence,
    mixture_half_width,
    mixture_variance,
    paired_sequence,
    running,
    tally_sequence,
)
from windlass.evaluate.statistics.srm import ratio_mismatch_p, sequential_mismatch_p


def chance(rate: float, repetitions: int) -> float:
    return 3 * math.sqrt(rate * (1 - rate) / repetitions)


def test_the_boundary_is_where_the_mixture_of_likelihood_ratios_is_one_over_alpha() -> None:
    """The closed form beside the integral over effects that it stands for."""
    error, tau2, alpha = 0.2, 0.3, 0.05
    half = mixture_half_width(error, tau2, alpha)
    effects = np.linspace(-8, 8, 400_001)
    ratio = np.exp((half * effects - effects**2 / 2) / error**2) * stats.norm.pdf(effects, 0, math.sqrt(tau2))
    assert np.trapezoid(ratio, effects) == pytest.approx(1 / alpha, rel=1e-6)
    assert always_valid_p(half, error, tau2) == pytest.approx(alpha)
    assert always_valid_p(0.0, error, tau2) == 1.0
    assert always_valid_p(100.0, error, tau2) == 0.0


def test_the_mixture_chosen_is_the_narrowest() -> None:
    best = mixture_variance(0.1, 0.05)
    width = mixture_half_width(0.1, best, 0.05)
    assert all(mixture_half_width(0.1, best * factor, 0.05) >= width for factor in (0.7, 0.9, 1.1, 1.4))
    with pytest.raises(InputError):
        mixture_variance(0.0, 0.05)


def test_a_sequence_holds_at_every_look_where_a_fixed_interval_does_not() -> None:
    """A/A, skewed differences, looked at after every item from the first look on to 1,000."""
    rng = np.random.default_rng(1)
    repetitions, n = 1500, 1000
    x = rng.exponential(1, size=(repetitions, n)) - 1
    count = np.arange(1, n + 1)
    mean = np.cumsum(x, axis=1) / count
    error = np.sqrt((np.cumsum(x**2, axis=1) / count - mean**2) / (count - 1).clip(1))
    late = slice(49, None)
    half = np.array(
        [mixture_half_width(1.0, mixture_variance(math.sqrt(k / (n / 2)), 0.05), 0.05) for k in count]
    )  # in units of the error
    sequence = (np.abs(mean) > half * error)[:, late].any(axis=1).mean()
    fixed = (np.abs(mean) > 1.96 * error)[:, late].any(axis=1).mean()
    assert sequence <= 0.05 + chance(0.05, repetitions)
    assert fixed > 0.25
    ours = mean_sequence(x[0, :400], planned=n)
    spread = x[0, :400].std(ddof=1) / 20
    assert ours.high - ours.estimate == pytest.approx(half[399] * spread, rel=1e-9)


def test_sequences_of_pairs_of_tallies_and_of_arms_agree() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=300), rng.normal(size=300)
    of_pairs = paired_sequence(a, b, planned=1000)
    d = b - a
    assert of_pairs.low == pytest.approx(tally_sequence(300, d.mean(), d.var(ddof=1), planned=1000).low)
    arms = arms_sequence((300, a.mean(), a.var(ddof=1)), (300, b.mean(), b.var(ddof=1)), planned=1000)
    assert arms.estimate == pytest.approx(of_pairs.estimate)
    assert arms.high > arms.estimate > arms.low and (arms.n, arms.clusters) == (600, 600)


def test_too_few_bound_nothing_nor_do_those_that_have_not_varied_yet() -> None:
    assert mean_sequence([0.1] * 10 + [0.2], planned=100).high == math.inf
    assert arms_sequence((1, 0.0, 0.0), (500, 1.0, 1.0), planned=100).low == -math.inf
    same = mean_sequence([0.5] * 40, planned=100)
    assert (same.low, same.high) == (-math.inf, math.inf)
    with pytest.raises(InputError, match="planned"):
        mean_sequence([0.5] * 40, planned=1)


def test_looks_together_are_never_wider_than_the_last() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=600)
    seen = [mean_sequence(x[:k], planned=600) for k in (100, 200, 400, 600)]
    both = running(seen)
    assert both.low == max(one.low for one in seen) and both.high == min(one.high for one in seen)
    far = mean_sequence(x + 9, planned=600)
    assert running([*seen, far]) == far, "looks that contradict each other leave the latest"
    with pytest.raises(InputError, match="no look"):
        running([])


def test_a_sequence_with_clusters_holds_at_every_look() -> None:
    rng = np.random.default_rng(4)
    missed = 0
    for _ in range(300):
        sizes = rng.integers(1, 8, size=200)
        codes = np.repeat(np.arange(200), sizes)
        x = rng.normal(size=200)[codes] + rng.normal(size=codes.size)
        ends = np.cumsum(sizes)[[39, 79, 119, 159, 199]]
        looks = [mean_sequence(x[:k], codes[:k], planned=800) for k in ends]
        missed += any(not one.low <= 0 <= one.high for one in looks)
    assert missed / 300 <= 0.05 + chance(0.05, 300)


def wealth_by_definition(x: list[float], m: float, level: float) -> list[float]:
    """The stake of Waudby-Smith and Ramdas' eq. 26, value by value, for a bet that the mean is above m."""
    alpha, wealth, found = 1 - level, 1.0, []
    mean, spread, before = 0.5, 0.25, 0.25
    total, squares = 0.5, 0.25
    for t, value in enumerate(x, start=1):
        bet = math.sqrt(2 * math.log(2 / alpha) / (before * t * math.log(t + 1)))
        wealth *= 1 + min(bet, 0.75 / m) * (value - m)
        found.append(wealth)
        total += value
        mean = total / (t + 1)
        squares += (value - mean) ** 2
        spread = squares / (t + 1)
        before = spread
    return found


def test_betting_is_the_definition_computed_slowly() -> None:
    rng = np.random.default_rng(5)
    x = rng.beta(2, 5, size=120)
    found = betting_sequence(x, level=0.9)
    grid = np.linspace(0.001, 0.999, 999)
    kept = [
        m
        for m in grid
        if max(wealth_by_definition(x.tolist(), m, 0.9)) < 20
        and max(wealth_by_definition((1 - x).tolist(), 1 - m, 0.9)) < 20
    ]
    assert (found.low, found.high) == pytest.approx((min(kept), max(kept)), abs=0.0011)


@settings(max_examples=80, deadline=None)
@given(x=st.lists(st.floats(0, 1), min_size=1, max_size=60), shift=st.floats(-5, 5), scale=st.floats(0.5, 10))
def test_betting_stays_in_bounds_and_moves_with_the_values(x: list[float], shift: float, scale: float) -> None:
    for bet in (betting_interval, betting_sequence):
        unit = bet(x)
        assert 0 <= unit.low <= unit.estimate <= unit.high <= 1
        moved = bet([min(shift + scale, max(shift, shift + scale * v)) for v in x], (shift, shift + scale))
        assert moved.low == pytest.approx(shift + scale * unit.low, abs=1e-6)
        mirrored = bet([1 - v for v in x])
        assert mirrored.low == pytest.approx(1 - unit.high, abs=1e-9)


@pytest.mark.parametrize("kind", ["rare", "beta", "mixed"])
def test_betting_covers_what_t_does_not(kind: str) -> None:
    """Rare events, where the t interval of a sample without any is a point."""
    rng = np.random.default_rng(6)
    draws = {
        "rare": (lambda: (rng.random(60) < 0.02).astype(float), 0.02),
        "beta": (lambda: rng.beta(0.1, 0.9, 60), 0.1),
        "mixed": (lambda: np.where(rng.random(60) < 0.03, 1.0, 0.01), 0.03 + 0.97 * 0.01),
    }
    draw, truth = draws[kind]
    found = [betting_interval(draw()) for _ in range(800)]
    assert np.mean([not one.low <= truth <= one.high for one in found]) <= 0.05 + chance(0.05, 800)


def test_betting_at_every_look_keeps_its_level_and_its_p_value_too() -> None:
    rng = np.random.default_rng(7)
    missed = alarms = 0
    for _ in range(400):
        x = (rng.random(400) < 0.3).astype(float)
        last = betting_sequence(x)  # holds what every look before has refuted
        missed += not last.low <= 0.3 <= last.high
        alarms += betting_p(x, 0.3) <= 0.05
    assert missed / 400 <= 0.05 + chance(0.05, 400)
    assert alarms / 400 <= 0.05 + chance(0.05, 400)
    assert betting_p(np.ones(200), 0.3) < 1e-6


def test_betting_narrows_nearly_as_fast_as_students_interval() -> None:
    x = np.random.default_rng(8).beta(5, 5, 1000)
    ours = betting_interval(x)
    student = 2 * stats.t.ppf(0.975, 999) * stats.sem(x)
    assert ours.high - ours.low < 1.5 * student


def test_what_cannot_be_bet_on_is_refused() -> None:
    with pytest.raises(InputError, match="finite bounds"):
        betting_interval([0.5], (0.0, math.inf))
    with pytest.raises(InputError, match=r"Value number 2 is 1.5"):
        betting_interval([0.5, 1.5])
    with pytest.raises(InputError, match="between the bounds"):
        betting_p([0.5], 1.0)


@pytest.mark.parametrize("freedom", [1, 2, 3.5, 10, 99, 4000])
def test_chi_square_is_scipys(freedom: float) -> None:
    for x in (0.001, 0.4, 1.0, freedom, 2 * freedom + 5):
        assert chi2_cdf(x, freedom) == pytest.approx(stats.chi2.cdf(x, freedom), abs=1e-12)
    for p in (0.001, 0.025, 0.5, 0.975, 0.999):
        assert chi2_quantile(p, freedom) == pytest.approx(stats.chi2.ppf(p, freedom), rel=1e-9)


def test_the_ratio_test_is_chi_square() -> None:
    assert ratio_mismatch_p([480, 520], [0.5, 0.5]) == pytest.approx(stats.chisquare([480, 520]).pvalue)
    expected = [720, 180, 100]
    assert ratio_mismatch_p([700, 210, 90], [0.72, 0.18, 0.1]) == pytest.approx(
        stats.chisquare([700, 210, 90], expected).pvalue
    )
    assert ratio_mismatch_p([0, 0], [0.5, 0.5]) == 1.0 == sequential_mismatch_p([0, 0], [0.5, 0.5])


def test_the_sequential_ratio_test_is_a_bayes_factor() -> None:
    """Beside the integral over other shares, for two arms."""
    counts, share, strength = (30, 10), 0.6, 20.0
    grid = np.linspace(0, 1, 200_003)[1:-1]
    prior = stats.beta.pdf(grid, strength * share, strength * (1 - share))
    ratio = (grid / share) ** counts[0] * ((1 - grid) / (1 - share)) ** counts[1]
    factor = np.trapezoid(prior * ratio, grid)
    assert sequential_mismatch_p(counts, (share, 1 - share), strength) == pytest.approx(min(1, 1 / factor), rel=1e-5)


def test_the_sequential_ratio_test_alarms_rarely_and_finds_what_is_lost() -> None:
    rng = np.random.default_rng(9)
    looks = range(500, 10_001, 500)

    def alarms(true: float) -> float:
        found = 0
        for _ in range(200):
            arrived = np.cumsum(rng.random(10_000) < true)
            found += any(
                sequential_mismatch_p((int(k - arrived[k - 1]), int(arrived[k - 1])), (0.5, 0.5)) < 0.01 for k in looks
            )
        return found / 200

    assert alarms(0.5) <= 0.01 + chance(0.01, 200)
    assert alarms(0.45) > 0.95


@pytest.mark.parametrize(
    ("counts", "shares"),
    [([1], [1.0]), ([1, 2], [0.5, 0.4]), ([1, -2], [0.5, 0.5]), ([1.5, 2], [0.5, 0.5]), ([1, 2], [1.0, 0.0])],
)
def test_counts_and_shares_that_are_none(counts: list[int], shares: list[float]) -> None:
    for test in (ratio_mismatch_p, sequential_mismatch_p):
        with pytest.raises(InputError):
            test(counts, shares)
