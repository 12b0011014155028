"""Right or wrong on the same items: that the exact interval errs at most as often as it says, by sums over all
samples."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from bench._gate_exact import Chances, critical, exceeded, of_latent, promoted
from scipy import stats

from windlass.core.errors import InputError
from windlass.evaluate.deciding import Pairs, decide
from windlass.evaluate.gate import non_inferiority
from windlass.evaluate.policy import Policy
from windlass.evaluate.statistics.paired import paired_difference, paired_exceeds_p
from windlass.evaluate.statistics.paired_exact import MOST, exact_exceeds_p, exact_interval
from windlass.evaluate.statistics.paired_shares import score_interval

SAMPLES = [(won, lost) for won in range(31) for lost in range(31 - won)]


def above(bar: float, n: int, level: float = 0.95) -> Callable[[int, int], bool]:
    return lambda won, lost: exact_interval(won, lost, n, level)[0] > bar


@cache
def ends() -> np.ndarray:
    return np.array([exact_interval(won, lost, 30) for won, lost in SAMPLES])


@pytest.mark.parametrize("difference", [-0.5, -0.2, -0.1, -0.05, 0.0, 0.02, 0.1, 0.4])
def test_neither_end_errs_more_often_than_it_says_whatever_the_share_that_differs(difference: float) -> None:
    """All samples of 30 items, with nothing left out."""
    won, lost = np.array(SAMPLES).T
    low, high = ends().T
    for q in np.linspace(abs(difference), 1, 50):
        p = [(q + difference) / 2, (q - difference) / 2, 1 - q]
        chance = stats.multinomial.pmf(np.stack([won, lost, 30 - won - lost], 1), 30, np.clip(p, 0, 1))
        assert chance[low > difference].sum() <= 0.025
        assert chance[high < difference].sum() <= 0.025


@pytest.mark.parametrize(
    ("n", "differ"),
    [(60, 0.1), (60, 0.6), (100, 0.02), (100, 0.3), (300, 0.1), pytest.param(2000, 0.3, marks=pytest.mark.slow)],
)
def test_equal_systems_are_promoted_at_most_at_the_stated_rate_and_hardly_less(n: int, differ: float) -> None:
    rate = promoted(Chances(n, differ / 2, differ / 2), above(0.0, n))
    assert rate <= 0.025
    assert rate > 0.02 or n * differ < 20, "few items that differ cannot give 2.5 % exactly"


@pytest.mark.parametrize(("n", "gain"), [(100, 0.12), pytest.param(1000, 0.04, marks=pytest.mark.slow)])
def test_it_finds_what_the_best_test_finds_but_for_a_point(n: int, gain: float) -> None:
    """McNemar's, told the critical value with which it keeps the rate for just this share of items that differ."""
    edge, deserves = of_latent(n, 0.7, 0.7, 0.8), of_latent(n, 0.7, 0.7 + gain, 0.8)

    def z(won: np.ndarray, lost: np.ndarray) -> np.ndarray:
        return np.asarray((won - lost) / np.sqrt(np.maximum(won + lost, 1)))

    best = exceeded(deserves, z, critical(edge, z, 0.025, 1.96))
    assert best - 0.015 < promoted(deserves, above(0.0, n)) < best + 0.01


@pytest.mark.parametrize(("won", "lost"), [(0, 0), (0, 3), (2, 1), (6, 1), (1, 6), (7, 7), (12, 2), (20, 0)])
def test_an_end_is_where_what_favours_the_candidate_as_much_has_the_chance_allowed(won: int, lost: int) -> None:
    """Buehler's limit by enumeration: every sample of 20 ordered by the end of its score interval."""
    n, low = 20, exact_interval(won, lost, 20)[0]
    seen = score_interval(won, lost, n)[0]
    favourable = [
        (b, c) for b in range(n + 1) for c in range(n + 1 - b) if score_interval(b, c, n)[0] >= seen - 1e-9
    ]  # fmt: skip
    shares = stats.binomtest(won + lost, n).proportion_ci(1 - 0.000025, "exact")
    samples = np.array([(b, c, n - b - c) for b, c in favourable])
    chances = []
    for q in np.linspace(max(shares.low, abs(low)), shares.high, 400):
        p = np.clip([(q + low) / 2, (q - low) / 2, 1 - q], 0, 1)
        chances.append(float(stats.multinomial.pmf(samples, n, p).sum()))
    assert max(chances) == pytest.approx(0.999 * 0.025, rel=2e-3)


def test_a_win_more_never_lowers_an_end_and_a_loss_more_never_raises_one() -> None:
    found = dict(zip(SAMPLES, ends()))
    for (won, lost), (low, high) in found.items():
        assert -1 <= low <= (won - lost) / 30 <= high <= 1
        for more, sign in (((won + 1, lost), 1), ((won, lost + 1), -1)):
            if more in found:
                assert (sign * (found[more] - (low, high)) >= -1e-7).all()
        mirrored = found[lost, won]
        assert (low, high) == pytest.approx((-mirrored[1], -mirrored[0]))


def test_p_values_say_what_the_interval_says() -> None:
    for won, lost in SAMPLES[::3]:
        low = exact_interval(won, lost, 30)[0]
        assert (exact_exceeds_p(won, lost, 30) <= 0.025) == (low > 0.0)
        assert (exact_exceeds_p(won, lost, 30, -0.1) <= 0.025) == (low > -0.1)
    assert exact_exceeds_p(3, 3, 30) > 0.5 and exact_exceeds_p(0, 0, 30, 1.0) == 1.0
    assert exact_exceeds_p(400, 100, 800) < 1e-30


@pytest.mark.parametrize("kind", ["right", "right in clusters", "graded", "graded in clusters"])
def test_every_paired_p_value_agrees_with_its_interval(kind: str) -> None:
    rng = np.random.default_rng(1)
    codes = np.repeat(np.arange(20), 4) if "clusters" in kind else None
    seen = set()
    for _ in range(60):
        shift = rng.normal(0.1, 0.08)
        old, new = rng.normal(size=80), rng.normal(size=80) + 3 * shift
        if "right" in kind:
            old, new = (old > 0).astype(float), (new > 0).astype(float)
        found = paired_difference(old, new, codes)
        outside = not found.difference.low <= 0.0 <= found.difference.high
        assert (found.p_value < 0.05) == outside
        bar = found.difference.low
        assert paired_exceeds_p(new - old, bar - 1e-6, codes) < 0.025 < paired_exceeds_p(new - old, bar + 1e-6, codes)
        seen.add(outside)
    assert seen == {True, False}


@pytest.mark.parametrize("margin", [0.05, 0.0711, 0.073, 0.1])
@pytest.mark.parametrize("won", [0.0, 0.01, 0.05])
def test_the_gate_keeps_the_rate_also_where_no_item_differs(margin: float, won: float) -> None:
    """Of 50 items that all come out the same the gate has a rule of its own; at a margin of 7.11 points it passes."""
    policy = Policy("score", non_inferiority(margin))

    def go(better: int, worse: int) -> bool:
        old, new = np.zeros(50), np.zeros(50)
        new[:better], old[better : better + worse] = 1.0, 1.0
        return decide(policy, {"score": Pairs(old, new, bounds=(0, 1))}).decision == "GO"

    assert promoted(Chances(50, won, won + margin), go) <= 0.025


def test_where_many_items_differ_the_score_interval_is_as_good() -> None:
    n, half = 3 * MOST, MOST // 2
    exact, score = exact_interval(half + 90, half - 90, n), score_interval(half + 90, half - 90, n)
    assert exact == pytest.approx(score, abs=2e-5) and exact != score
    assert exact_interval(half + 91, half, n) == score_interval(half + 91, half, n)


def test_none_all_and_what_cannot_be() -> None:
    assert exact_interval(0, 0, 1) == pytest.approx((-0.975, 0.975), abs=1e-3)
    low, high = exact_interval(0, 0, 50)
    assert low == -high and 1 - math.pow(0.025, 1 / 50) < high < 0.075
    assert exact_interval(0, 50, 50)[0] == -1.0 and exact_interval(50, 0, 50)[1] == 1.0
    with pytest.raises(InputError, match="cannot be"):
        exact_interval(8, 3, 10)


def test_sums_are_those_of_all_samples() -> None:
    chances, n = Chances(12, 0.2, 0.1), 12
    cells = [(b, c) for b in range(n + 1) for c in range(n + 1 - b)]
    pmf = {(b, c): stats.multinomial.pmf([b, c, n - b - c], n, [0.2, 0.1, 0.7]) for b, c in cells}
    assert promoted(chances, lambda b, c: b - c >= 3) == pytest.approx(sum(pmf[b, c] for b, c in cells if b - c >= 3))

    def gain(won: np.ndarray, lost: np.ndarray) -> np.ndarray:
        return np.asarray((won - lost) / n)

    bar = critical(chances, gain, 0.05, -1.0)
    assert exceeded(chances, gain, bar) == pytest.approx(sum(p for (b, c), p in pmf.items() if (b - c) / n > bar))
    assert exceeded(chances, gain, bar) <= 0.05 < exceeded(chances, gain, bar - 1e-6)
    assert critical(chances, gain, 0.05, 0.9) == 0.9
    latent = of_latent(100, 0.7, 0.75, 0.8)
    assert latent.won - latent.lost == pytest.approx(0.05, abs=1e-6)
