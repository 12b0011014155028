"""What functions of `evaluate.statistics` promise, where no other file holds them to it: by simulation."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from windlass.evaluate.statistics.agreement import alpha_interval, kappa_interval
from windlass.evaluate.statistics.bootstrap import bootstrap, bootstrap_sums
from windlass.evaluate.statistics.equivalence import exceeds_p
from windlass.evaluate.statistics.intervals import Interval, mean_error
from windlass.evaluate.statistics.judged import error_rates, prediction_powered, rogan_gladen, rogan_gladen_difference
from windlass.evaluate.statistics.paired import mcnemar_p, paired_difference
from windlass.evaluate.statistics.power import (
    items_for_effect,
    items_for_half_width,
    minimum_detectable_effect,
    power_of,
)
from windlass.evaluate.statistics.ratios import independent_ratio, paired_ratio
from windlass.evaluate.statistics.risk import upper_limit
from windlass.evaluate.statistics.sequences import (
    always_valid_p,
    arms_sequence,
    mixture_variance,
    paired_sequence,
    running,
    tally_sequence,
)
from windlass.evaluate.statistics.shares import score_interval
from windlass.evaluate.statistics.skewed import skewed_paired_ratio
from windlass.evaluate.statistics.srm import ratio_mismatch_p

Array = NDArray[np.float64]
SIZES = np.random.default_rng(0).integers(1, 9, size=50)
CODES = np.repeat(np.arange(SIZES.size), SIZES)


def at_most(rate: float, repeats: int) -> float:
    """The rate that a simulation may show by chance, three standard errors above what is promised."""
    return rate + 3 * math.sqrt(rate * (1 - rate) / repeats)


def missed(draw: Callable[[np.random.Generator], Interval], truth: float, repeats: int, seed: int = 1) -> float:
    rng = np.random.default_rng(seed)
    return float(np.mean([not one.low <= truth <= one.high for one in (draw(rng) for _ in range(repeats))]))


def alike(rng: np.random.Generator, share: float = 0.5) -> Array:
    """Normal values of which those of one source correlate."""
    values = math.sqrt(share) * rng.normal(size=SIZES.size)[CODES] + math.sqrt(1 - share) * rng.normal(size=CODES.size)
    return np.asarray(values)


def test_the_bootstrap_of_any_statistic_covers_with_clusters() -> None:
    def draw(rng: np.random.Generator) -> Interval:
        x, y = alike(rng) + 4, alike(rng) + 2
        return bootstrap(lambda rows: float(y[rows].sum() / x[rows].sum()), x.size, CODES, seed=1, resamples=299)

    assert missed(draw, 0.5, 120) <= at_most(0.07, 120)


def test_the_bootstrap_of_sums_covers_with_clusters() -> None:
    def draw(rng: np.random.Generator) -> Interval:
        parts = np.stack([alike(rng) + 4, alike(rng) + 2], axis=1)
        return bootstrap_sums(parts, lambda sums: sums[..., 1] / sums[..., 0], CODES, seed=1, resamples=799)

    assert missed(draw, 0.5, 300) <= at_most(0.065, 300)


@pytest.mark.parametrize("share", [0.05, 0.3])
def test_exact_mcnemar_calls_equals_different_at_most_at_its_rate(share: float) -> None:
    rng = np.random.default_rng(2)
    repeats, found = 1500, 0
    for _ in range(repeats):
        differs = rng.random(80) < share
        a = (rng.random(80) < 0.6).astype(float)
        found += mcnemar_p(a, np.where(differs, (rng.random(80) < 0.5).astype(float), a)) <= 0.05
    assert found / repeats <= at_most(0.05, repeats)


def test_the_ratio_test_alarms_at_its_rate() -> None:
    rng = np.random.default_rng(3)
    shares = [0.5, 0.4, 0.1]
    p = np.array([ratio_mismatch_p(rng.multinomial(2000, shares).tolist(), shares) for _ in range(2000)])
    assert at_most(0.05, 2000) >= np.mean(p <= 0.05) >= 0.05 - (at_most(0.05, 2000) - 0.05)
    lost = [ratio_mismatch_p(rng.multinomial(2000, [0.52, 0.4, 0.08]).tolist(), shares) for _ in range(200)]
    assert np.mean(np.array(lost) <= 0.05) > 0.7


def test_sequences_hold_at_all_looks_together() -> None:
    """A/A of pairs, of a tally and of two arms, at twelve looks, and by p-value."""
    rng = np.random.default_rng(4)
    repeats, looks = 400, [*range(50, 601, 50)]
    wrong = dict.fromkeys(("pairs", "tally", "arms", "p"), 0)
    tau2 = mixture_variance(math.sqrt(2 / 300), 0.05)
    for _ in range(repeats):
        a, b = rng.exponential(1, 600), rng.exponential(1, 600)
        d = b - a
        seen: dict[str, list[Interval]] = {"pairs": [], "tally": [], "arms": []}
        p = 1.0
        for n in looks:
            seen["pairs"].append(paired_sequence(a[:n], b[:n], planned=600))
            seen["tally"].append(tally_sequence(n, float(d[:n].mean()), float(d[:n].var(ddof=1)), planned=600))
            sides = [(n, float(x[:n].mean()), float(x[:n].var(ddof=1))) for x in (a, b)]
            seen["arms"].append(arms_sequence(sides[0], sides[1], planned=1200))
            p = min(p, always_valid_p(float(d[:n].mean()), float(d[:n].std(ddof=1) / math.sqrt(n)), tau2))
        for name, some in seen.items():
            outside = any(not one.low <= 0 <= one.high for one in some)
            wrong[name] += outside
            last = running(some)
            assert outside or last.low <= 0 <= last.high
        wrong["p"] += p <= 0.05
    assert all(count / repeats <= at_most(0.05, repeats) for count in wrong.values()), wrong


def test_ratios_cover_alone_in_clusters_and_of_two_groups() -> None:
    def pairs(rng: np.random.Generator) -> Interval:
        shared = alike(rng)
        return paired_ratio(6 + shared + alike(rng), 9 + shared + alike(rng), CODES)

    def groups(rng: np.random.Generator) -> Interval:
        return independent_ratio(rng.normal(6, 2, 60), 9 + alike(rng), (None, CODES))

    def skewed(rng: np.random.Generator) -> Interval:
        took = rng.lognormal(0, 0.6, 80)
        return skewed_paired_ratio(took, took * rng.lognormal(0, 0.3, 80))

    assert missed(pairs, 1.5, 1500) <= at_most(0.05, 1500)
    assert missed(groups, 1.5, 1500) <= at_most(0.05, 1500)
    assert missed(skewed, math.exp(0.045), 250) <= at_most(0.06, 250)


def test_what_is_exactly_at_the_bar_is_seldom_said_to_be_above() -> None:
    rng = np.random.default_rng(5)
    p = np.array([exceeds_p(mean_error(alike(rng) + 0.3, CODES), 0.3) for _ in range(2000)])
    assert np.mean(p <= 0.05) == pytest.approx(0.05, abs=at_most(0.05, 2000) - 0.05)


def test_plans_keep_their_word_with_clusters() -> None:
    """Power and width as planned from a pilot are those that the planned comparison has."""
    rng = np.random.default_rng(6)
    whole = np.concatenate([alike(rng) for _ in range(200)])  # a pilot so large that its own chance does not matter
    codes = np.concatenate([CODES + SIZES.size * n for n in range(200)])
    least = minimum_detectable_effect(whole[: CODES.size], CODES)
    needed = items_for_effect(whole, 0.4, codes)
    assert power_of(whole, 0.4, needed, codes) == pytest.approx(0.8, abs=0.005)
    factor = needed / CODES.size

    def found(effect: float, times: int, repeats: int = 400) -> tuple[float, float]:
        groups = np.concatenate([CODES + SIZES.size * n for n in range(times)])
        made = []
        for _ in range(repeats):
            x = np.concatenate([alike(rng) for _ in range(times)]) + effect
            made.append(paired_difference(np.zeros(x.size), x, groups).difference)
        return float(np.mean([one.low > 0 for one in made])), float(np.mean([one.high - one.low for one in made]) / 2)

    effect = 0.4 * math.sqrt(factor)  # with as many items as one draw has, the same power
    power, width = found(effect, 1)
    assert power == pytest.approx(0.8, abs=3 * math.sqrt(0.16 / 400) + 0.02)
    assert power_of(whole, effect, CODES.size, codes) == pytest.approx(0.8, abs=0.01)
    assert least == pytest.approx(effect, rel=0.25), "of so small a pilot"
    assert items_for_half_width(whole, width, codes) == pytest.approx(CODES.size, rel=0.08)


def says(rng: np.random.Generator, truth: Array) -> Array:
    return np.where(rng.random(truth.size) < np.where(truth == 1, 0.9, 0.2), 1.0, 0.0)


def test_corrections_of_judges_cover_with_clusters() -> None:
    people = np.r_[np.ones(60), np.zeros(60)]

    def passed(rng: np.random.Generator, bar: float) -> Array:
        return (alike(rng) < bar).astype(float)  # half of them at 0

    def share(rng: np.random.Generator) -> Interval:
        return rogan_gladen(says(rng, passed(rng, 0.0)), people, says(rng, people), clusters=CODES)

    def gain(rng: np.random.Generator) -> Interval:
        base = alike(rng)
        old, new = ((base < bar).astype(float) for bar in (0.0, 0.5244))  # 0.5 and 0.7 pass
        return rogan_gladen_difference(says(rng, old), says(rng, new), people, says(rng, people), clusters=CODES)

    def powered(rng: np.random.Generator) -> Interval:
        truth, own = passed(rng, 0.0), passed(rng, 0.0)
        return prediction_powered(says(rng, truth), own, says(rng, own), clusters=CODES, labelled_clusters=CODES)

    for draw, truth in ((share, 0.5), (gain, 0.2), (powered, 0.5)):
        assert missed(draw, truth, 400) <= at_most(0.055, 400), draw.__name__


def test_error_rates_and_shares_cover() -> None:
    people = np.r_[np.ones(40), np.zeros(40)]
    assert missed(lambda rng: error_rates(people, says(rng, people)).sensitivity, 0.9, 1500) <= at_most(0.06, 1500)
    assert missed(lambda rng: error_rates(people, says(rng, people)).specificity, 0.8, 1500) <= at_most(0.06, 1500)
    assert missed(lambda rng: score_interval((rng.random(30) < 0.97).astype(float)), 0.97, 1500) <= at_most(0.05, 1500)
    assert missed(lambda rng: score_interval(rng.beta(2, 2, 30)), 0.5, 1500) <= at_most(0.05, 1500)
    rng = np.random.default_rng(7)
    above = [upper_limit(int(rng.binomial(50, 0.1)), 50, 0.05) < 0.1 for _ in range(3000)]
    assert np.mean(above) <= at_most(0.05, 3000)


def test_agreement_covers_with_clusters() -> None:
    # A source is whole of one kind; raters are right with 0.9 and 0.8 about each item.
    rng = np.random.default_rng(8)
    codes = np.repeat(np.arange(80), 3)
    found: tuple[list[Interval], list[Interval]] = ([], [])
    for seed in range(150):
        truth = rng.integers(0, 2, 80)[codes]
        a, b = (np.where(rng.random(240) < right, truth, 1 - truth).astype(float) for right in (0.9, 0.8))
        found[0].append(kappa_interval(a, b, clusters=codes, resamples=399, seed=seed))
        found[1].append(alpha_interval(np.stack([a, b], axis=1), clusters=codes, resamples=399, seed=seed))
    for some in found:
        assert np.mean([not one.low <= 0.48 <= one.high for one in some]) <= at_most(0.065, 150)
