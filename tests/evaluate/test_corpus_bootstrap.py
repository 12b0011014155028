"""Statistics of a whole corpus compared on the same resamples: beside the mean's bootstrap, scipy and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from windlass.core.errors import InputError
from windlass.evaluate.statistics.bootstrap import bootstrap_mean, bootstrap_sums
from windlass.evaluate.statistics.paired_bootstrap import paired_bootstrap

RNG = np.random.default_rng(1)


def f1(rows: NDArray[np.float64]) -> float:
    """Micro F1 from (right, said, true) of each item."""
    return float(pooled_f1(rows.sum(axis=0)))


def pooled_f1(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    right, said, true = np.moveaxis(sums, -1, 0)
    return 2 * right / (said + true)


def labels(rng: np.random.Generator, n: int, skill: float) -> NDArray[np.float64]:
    true = rng.integers(1, 6, n)
    right = rng.binomial(true, skill)
    return np.stack([right, right + rng.binomial(3, 0.3, n), true], axis=1).astype(float)


def test_of_a_mean_it_is_the_bootstrap_of_the_differences() -> None:
    a, b = RNG.exponential(1, 80), RNG.exponential(1.3, 80)
    codes = np.repeat(np.arange(20), 4)
    ours = paired_bootstrap(lambda rows: float(rows.mean()), a, b, codes, seed=1, resamples=6000)
    mean = bootstrap_mean(b - a, codes, seed=2, resamples=20_000)
    width = mean.high - mean.low
    assert ours.difference.estimate == pytest.approx(mean.estimate) == pytest.approx(ours.after - ours.before)
    assert (ours.difference.low, ours.difference.high) == pytest.approx((mean.low, mean.high), abs=0.05 * width)


@pytest.mark.parametrize("clusters", [None, np.repeat(np.arange(30), 4)])
def test_of_sums_it_is_the_bootstrap_of_sums(clusters: NDArray[np.int64] | None) -> None:
    a, b = labels(RNG, 120, 0.6), labels(RNG, 120, 0.7)
    slow = paired_bootstrap(f1, a, b, clusters, seed=1, resamples=4000)
    fast = bootstrap_sums(
        np.hstack([a, b]), lambda sums: pooled_f1(sums[..., 3:]) - pooled_f1(sums[..., :3]), clusters, seed=2
    )
    width = fast.high - fast.low
    assert slow.after - slow.before == pytest.approx(fast.estimate) == pytest.approx(slow.difference.estimate)
    assert (slow.difference.low, slow.difference.high) == pytest.approx((fast.low, fast.high), abs=0.06 * width)


@pytest.mark.slow
def test_it_covers_and_finds() -> None:
    rng = np.random.default_rng(2)
    missed = found = 0
    for seed in range(300):
        a = labels(rng, 100, 0.6)
        even = paired_bootstrap(f1, a, labels(rng, 100, 0.6), seed=seed, resamples=499).difference
        missed += not even.low <= 0 <= even.high
        found += paired_bootstrap(f1, a, labels(rng, 100, 0.75), seed=seed, resamples=499).difference.low > 0
    assert missed / 300 <= 0.065 + 3 * math.sqrt(0.065 * 0.935 / 300)
    assert found / 300 > 0.9


def test_the_same_seed_gives_the_same_interval() -> None:
    a, b = labels(RNG, 60, 0.6), labels(RNG, 60, 0.7)
    assert paired_bootstrap(f1, a, b, seed=3, resamples=199) == paired_bootstrap(f1, a, b, seed=3, resamples=199)
    assert paired_bootstrap(f1, a, b, seed=3, resamples=199) != paired_bootstrap(f1, a, b, seed=4, resamples=199)


def test_rows_that_do_not_match_or_are_no_numbers_are_named() -> None:
    a = labels(RNG, 20, 0.5)
    with pytest.raises(InputError, match=r"shape \(20, 3\), the candidate's \(19, 3\)"):
        paired_bootstrap(f1, a, a[1:], seed=0)
    with pytest.raises(InputError, match="Row 3 of the candidate is not finite"):
        paired_bootstrap(f1, a, np.where(np.arange(20)[:, None] == 2, np.nan, a), seed=0)
    with pytest.raises(InputError, match="shape"):
        paired_bootstrap(f1, np.zeros((0, 3)), np.zeros((0, 3)), seed=0)
    rare = np.zeros((20, 3))
    rare[0] = 1.0
    with pytest.raises(InputError, match="undefined on"), np.errstate(invalid="ignore"):
        paired_bootstrap(f1, rare, rare, seed=0)
