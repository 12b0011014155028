"""The risk-coverage curve, its area, and thresholds that keep a promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from windlass.core.errors import InputError
from windlass.evaluate.metrics.selective import aurc, excess_aurc, risk_coverage
from windlass.evaluate.statistics.distributions import beta_quantile
from windlass.evaluate.statistics.risk import guaranteed, upper_limit

ROWS = st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=40)


def test_the_curve_by_hand() -> None:
    curve = risk_coverage([0.9, 0.8, 0.8, 0.1], [False, True, False, True])
    assert curve.threshold.tolist() == [0.9, 0.8, 0.1]
    assert curve.coverage == pytest.approx([1 / 4, 3 / 4, 1])
    assert curve.risk == pytest.approx([0, 1 / 3, 1 / 2])


@given(rows=ROWS)
def test_the_curve_says_what_each_threshold_does(rows: list[tuple[int, bool]]) -> None:
    confidence, wrong = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    curve = risk_coverage(confidence, wrong)
    for threshold, coverage, risk in zip(curve.threshold, curve.coverage, curve.risk):
        answered = confidence >= threshold
        assert coverage == pytest.approx(answered.mean()) and risk == pytest.approx(wrong[answered].mean())
    assert curve.coverage[-1] == 1 and (np.diff(curve.coverage) > 0).all()


@given(rows=ROWS, seed=st.integers(0, 9))
def test_the_area_does_not_depend_on_the_order_of_equals(rows: list[tuple[int, bool]], seed: int) -> None:
    confidence, wrong = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    order = np.random.default_rng(seed).permutation(len(rows))
    assert aurc(confidence, wrong) == pytest.approx(aurc(confidence[order], wrong[order]))
    assert excess_aurc(confidence, wrong) >= -1e-12
    assert excess_aurc(np.where(wrong, 0, 1), wrong) == pytest.approx(0)


def test_the_area_by_hand() -> None:
    assert aurc([3, 2, 1], [False, True, False]) == pytest.approx((0 + 1 / 2 + 1 / 3) / 3)
    assert aurc([1, 1], [True, False]) == pytest.approx(1 / 2)
    assert excess_aurc([3, 2, 1], [False, False, True]) == pytest.approx(0)
    with pytest.raises(InputError, match="3 answers but 2 confidences"):
        aurc([1, 2], [True, False, True])


@pytest.mark.parametrize(("wrong", "n"), [(0, 10), (1, 10), (9, 10), (10, 10), (37, 500)])
def test_the_limit_is_clopper_and_pearsons(wrong: int, n: int) -> None:
    theirs = stats.binomtest(wrong, n, alternative="less").proportion_ci(0.95, method="exact").high
    assert upper_limit(wrong, n, 0.05) == pytest.approx(theirs, abs=1e-9)


@given(p=st.floats(0.001, 0.999), a=st.floats(0.5, 40), b=st.floats(0.5, 400))
def test_beta_quantiles_are_scipys(p: float, a: float, b: float) -> None:
    assert beta_quantile(p, a, b) == pytest.approx(stats.beta.ppf(p, a, b), abs=1e-9)


def test_the_promise_is_kept_as_often_as_promised() -> None:
    """Wrong with a chance of 1 - confidence: in hardly any of many draws is the true risk above what was promised."""
    rng = np.random.default_rng(7)
    broken = chosen = 0
    for _ in range(200):
        confidence = rng.random(2000)
        found = guaranteed(confidence, rng.random(2000) > confidence, 0.2, level=0.9)
        if found is not None:
            chosen += 1
            assert found.bound <= 0.2 and found.risk <= found.bound and 0 < found.coverage <= 1
            broken += (1 - found.threshold) / 2 > 0.2  # the mean of 1 - confidence above the threshold
    assert chosen > 190 and broken <= 20


def test_more_questions_allow_more_answers_and_alike_ones_fewer() -> None:
    rng = np.random.default_rng(3)
    confidence = rng.random(4000)
    wrong = rng.random(4000) > confidence
    few, many = guaranteed(confidence[:1000], wrong[:1000], 0.25), guaranteed(confidence, wrong, 0.25)
    assert few is not None and many is not None and many.coverage > few.coverage
    # each question five times over proves no more than once: the clusters say so, and without them it would
    five = np.repeat(np.arange(1000), 5)
    again = guaranteed(confidence[five], wrong[five], 0.25, clusters=five.tolist())
    fooled = guaranteed(confidence[five], wrong[five], 0.25)
    assert again is not None and fooled is not None
    assert again.effective == pytest.approx(1000, rel=0.05) and again.coverage <= fooled.coverage


def test_where_nothing_is_proved_nothing_is_promised() -> None:
    assert guaranteed([0.9, 0.8, 0.7], [False, False, False], 0.1) is None
    assert guaranteed(np.linspace(0, 1, 50), [True] * 50, 0.5) is None
    for wrong in (lambda: guaranteed([1.0], [0], 0.0), lambda: guaranteed([1.0, 2.0], [0], 0.1)):
        with pytest.raises(InputError):
            wrong()
    with pytest.raises(InputError, match="no share"):
        upper_limit(3, 2, 0.05)
