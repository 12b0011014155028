"""Means under a judge that errs: the intervals hold what people would say as often as they claim. By simulation."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from windlass.core.errors import InputError
from windlass.evaluate.statistics.intervals import Interval, mean_interval
from windlass.evaluate.statistics.judged import (
    error_rates,
    prediction_powered,
    rogan_gladen,
    rogan_gladen_difference,
)

Array = NDArray[np.float64]
REPEATS = 400
LEAST, MOST = 0.92, 0.985  # 0.95 give or take two and a half standard errors of 400 repeats


def judged(rng: np.random.Generator, truth: Array, se: float, sp: float) -> Array:
    """What a judge with these rates says of items of which people say `truth`."""
    return np.where(rng.random(truth.size) < np.where(truth == 1, se, 1 - sp), 1.0, 0.0)


def covers(intervals: list[Interval], truth: float) -> float:
    return float(np.mean([one.low <= truth <= one.high for one in intervals]))


@pytest.mark.parametrize(
    ("share", "se", "sp", "labels", "method", "repeats"),
    [
        (0.5, 0.95, 0.7, 100, "delta", 600),
        (0.9, 0.95, 0.7, 200, "delta", 600),
        (0.2, 0.9, 0.8, 60, "delta", 600),
        (0.5, 0.95, 0.7, 100, "bootstrap", 200),
    ],
)
def test_rogan_gladen_holds_its_level(
    share: float, se: float, sp: float, labels: int, method: Literal["delta", "bootstrap"], repeats: int
) -> None:
    rng = np.random.default_rng(labels)
    found, raw = [], []
    for _ in range(repeats):
        truth = (rng.random(300) < share).astype(float)
        said = judged(rng, truth, se, sp)
        human = np.r_[np.ones(labels // 2), np.zeros(labels // 2)]  # another mix than that of the items
        found.append(rogan_gladen(said, human, judged(rng, human, se, sp), method=method))
        raw.append(mean_interval(said))
    assert LEAST <= covers(found, share) <= 0.995
    # The judge's own mean, with an interval that knows nothing of its errors, misses far more often.
    assert covers(raw, share) < 0.9


def test_a_judge_without_an_observed_error_is_not_taken_for_perfect() -> None:
    human = np.r_[np.ones(15), np.zeros(15)]
    found = rogan_gladen(np.r_[np.ones(500), np.zeros(500)], human, human)
    naive = mean_interval(np.r_[np.ones(500), np.zeros(500)])
    assert found.estimate == 0.5 and found.low < naive.low - 0.03 and found.high > naive.high + 0.03


@pytest.mark.parametrize("labels", [25, 100])
def test_prediction_powered_holds_its_level_and_is_shorter_than_labels_alone(labels: int) -> None:
    rng = np.random.default_rng(labels)
    found, alone = [], []
    for _ in range(REPEATS):
        truth = rng.normal(3.0, 1.0, 1000 + labels)
        said = truth + rng.normal(0.7, 0.5, truth.size)  # too generous by 0.7, and noisy
        found.append(prediction_powered(said[labels:], truth[:labels], said[:labels]))
        alone.append(mean_interval(truth[:labels]))
    assert LEAST <= covers(found, 3.0) <= MOST
    widths = [float(np.mean([one.high - one.low for one in group])) for group in (found, alone)]
    assert widths[0] < 0.65 * widths[1]


def test_a_judge_that_guesses_costs_next_to_no_width() -> None:
    rng = np.random.default_rng(5)
    found, alone = [], []
    for _ in range(REPEATS):
        truth = (rng.random(1050) < 0.6).astype(float)
        said = rng.random(1050)
        found.append(prediction_powered(said[50:], truth[:50], said[:50]))
        alone.append(mean_interval(truth[:50]))
    assert LEAST <= covers(found, 0.6) <= MOST
    widths = [float(np.mean([one.high - one.low for one in group])) for group in (found, alone)]
    assert widths[0] < 1.03 * widths[1]


def test_prediction_powered_of_two_systems_is_right_where_the_judge_favours_one() -> None:
    rng = np.random.default_rng(7)
    powered, shared = [], []
    for _ in range(REPEATS):
        old, new = (rng.random(600) < 0.6).astype(float), (rng.random(600) < 0.7).astype(float)
        said_old, said_new = judged(rng, old, 0.8, 0.8), judged(rng, new, 0.95, 0.6)  # kinder to the new one
        k = 100
        powered.append(prediction_powered((said_new - said_old)[k:], (new - old)[:k], (said_new - said_old)[:k]))
        human = np.r_[old[:k], new[:k]]
        shared.append(rogan_gladen_difference(said_old, said_new, human, np.r_[said_old[:k], said_new[:k]]))
    assert LEAST <= covers(powered, 0.1) <= MOST
    assert covers(shared, 0.1) < 0.85  # its assumption does not hold, as its docstring says


def test_rogan_gladen_difference_holds_its_level_where_the_judge_errs_alike() -> None:
    rng = np.random.default_rng(8)
    found = []
    for _ in range(REPEATS):
        old, new = (rng.random(400) < 0.5).astype(float), (rng.random(400) < 0.65).astype(float)
        human = np.r_[np.ones(60), np.zeros(60)]
        found.append(
            rogan_gladen_difference(
                judged(rng, old, 0.85, 0.8), judged(rng, new, 0.85, 0.8), human, judged(rng, human, 0.85, 0.8)
            )
        )
    assert LEAST <= covers(found, 0.15) <= MOST


def test_clusters_widen_both() -> None:
    rng = np.random.default_rng(9)
    groups = np.repeat(np.arange(40), 10)
    truth = np.repeat((rng.random(40) < 0.6).astype(float), 10)
    said = judged(rng, truth, 0.95, 0.9)
    human = np.r_[np.ones(80), np.zeros(80)]
    known = judged(rng, human, 0.95, 0.9)
    free, held = rogan_gladen(said, human, known), rogan_gladen(said, human, known, clusters=groups)
    assert held.high - held.low > 1.5 * (free.high - free.low) and held.clusters == 40
    free = prediction_powered(said[100:], truth[:100], said[:100])
    held = prediction_powered(
        said[100:], truth[:100], said[:100], clusters=groups[100:], labelled_clusters=groups[:100]
    )
    assert held.high - held.low > 1.5 * (free.high - free.low)


def test_the_weight_of_a_perfect_judge_is_what_ppi_plus_plus_says() -> None:
    # PPI++ (arXiv 2311.01453): for a mean cov(Y, f) / ((1 + n / N) var(f)), which is N / (n + N) where f is Y.
    truth = np.random.default_rng(0).normal(size=4000)
    found = prediction_powered(truth[1000:], truth[:1000], truth[:1000])
    weight = float(found.method.split("weight ")[1][:4])
    assert weight == pytest.approx(0.75 * np.var(truth[:1000]) / np.var(truth), abs=0.01)
    alone = prediction_powered(truth[10:], truth[:10], truth[:10], weight=0.0)
    assert alone.estimate == truth[:10].mean()
    whole = prediction_powered(truth[10:], truth[:10], truth[:10], weight=1.0)
    assert whole.estimate == truth[10:].mean()


@pytest.mark.parametrize(
    ("skipped", "labels", "others", "point", "low", "high"),
    [
        ([], 30, 300, 2.89760821, 2.71401284, 3.08120358),
        ([330], 100, 1000, 2.9474023, 2.82106832, 3.07373629),
        ([330, 1100], 500, 800, 3.02198361, 2.95415743, 3.0898098),
    ],
)
def test_prediction_powered_as_ppi_py_has_it(
    skipped: list[int], labels: int, others: int, point: float, low: float, high: float
) -> None:
    # What ppi_py 0.2.3 gives for these draws (`ppi_mean_ci`, lam=None). Its interval is by the normal distribution,
    # ours by Student's and the jackknife, and its weight divides one covariance by n where ours divides by n - 1.
    rng = np.random.default_rng(0)
    for size in skipped:
        rng.normal(3, 1, size), rng.normal(0.5, 0.7, size)
    y = rng.normal(3, 1, labels + others)
    f = y + rng.normal(0.5, 0.7, labels + others)
    found = prediction_powered(f[labels:], y[:labels], f[:labels])
    assert found.estimate == pytest.approx(point, abs=1e-3)
    assert found.low < low < high < found.high
    assert found.high - found.low < (1 + 3 / labels) * (high - low)


def test_the_estimate_of_rogan_gladen_is_the_formula() -> None:
    human, judge = np.r_[np.ones(10), np.zeros(10)], np.r_[np.ones(9), np.zeros(1), np.ones(2), np.zeros(8)]
    rates = error_rates(human, judge)
    assert (rates.sensitivity.estimate, rates.specificity.estimate) == (0.9, 0.8)
    found = rogan_gladen(np.r_[np.ones(60), np.zeros(40)], human, judge)
    assert found.estimate == pytest.approx((0.6 + 0.8 - 1) / (0.9 + 0.8 - 1))
    assert found.low < found.estimate < found.high


def test_what_cannot_be_corrected_is_refused() -> None:
    human = np.r_[np.ones(20), np.zeros(20)]
    guess = np.tile([1.0, 0.0], 20)
    with pytest.raises(InputError, match="cannot be told from one that guesses"):
        rogan_gladen(np.ones(50), human, guess)
    with pytest.raises(InputError, match="cannot be told"):
        rogan_gladen_difference(np.ones(50), np.zeros(50), human, 1 - human)
    with pytest.raises(InputError, match="pass 5 of the 5"):
        error_rates(np.ones(5), np.ones(5))
    with pytest.raises(InputError, match="no share of right ones explains"):
        rogan_gladen(np.ones(400), human, np.r_[np.ones(12), np.zeros(8), np.zeros(20)])
    with pytest.raises(InputError, match="not all 0 or 1"):
        rogan_gladen([0.5], human, human)
    with pytest.raises(InputError, match="40 labels stand against 1"):
        rogan_gladen([1.0], human, [1.0])
    with pytest.raises(InputError, match="One label"):
        prediction_powered([1.0, 2.0], [1.0], [1.0])
