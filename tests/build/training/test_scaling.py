"""The fitter finds constants that are known, and says how sure it is."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windlass.build.training.measuring.scaling import Law, Observation, fit
from windlass.core.errors import InputError

SIZES, TOKENS = (1e5, 3e5, 1e6, 3e6), (1e6, 4e6, 1.6e7, 6.4e7)
CHINCHILLA = Law(1.69, 406.4, 0.34, 410.7, 0.28)
"""Hoffmann et al., equation 10."""


def runs(law: Law, noise: float = 0.0, seed: int = 0) -> list[Observation]:
    chance = np.random.default_rng(seed)
    return [
        Observation(n, d, law.loss(n, d) * (1 + noise * float(chance.standard_normal())))
        for n, d in itertools.product(SIZES, TOKENS)
    ]


def test_published_constants_are_found_again() -> None:
    law = fit(runs(CHINCHILLA), draws=5).law
    assert law.floor == pytest.approx(1.69, rel=0.02)
    assert law.alpha == pytest.approx(0.34, rel=0.01)
    assert law.beta == pytest.approx(0.28, rel=0.01)
    assert law.width == pytest.approx(406.4, rel=0.1)
    assert law.data == pytest.approx(410.7, rel=0.1)


@settings(max_examples=15, deadline=None)
@given(st.floats(0.2, 3), st.floats(0.15, 0.9), st.floats(0.15, 0.9), st.floats(0.2, 2), st.floats(0.2, 2))
def test_any_law_is_found_again_and_carries_to_larger_runs(
    floor: float, alpha: float, beta: float, width: float, data: float
) -> None:
    law = Law(floor, width * SIZES[1] ** alpha, alpha, data * TOKENS[1] ** beta, beta)
    found = fit(runs(law), draws=1).law
    assert found.alpha == pytest.approx(alpha, rel=0.05)
    assert found.beta == pytest.approx(beta, rel=0.05)
    assert found.loss(1e7, 2e8) == pytest.approx(law.loss(1e7, 2e8), rel=0.01)


def test_one_run_that_went_wrong_does_not_bend_the_law() -> None:
    spoilt = runs(CHINCHILLA, noise=0.001)
    spoilt[5] = Observation(spoilt[5].parameters, spoilt[5].tokens, spoilt[5].loss * 1.5)
    found = fit(spoilt, draws=1).law
    assert found.loss(1e7, 2e8) == pytest.approx(CHINCHILLA.loss(1e7, 2e8), rel=0.02)


@pytest.mark.slow
def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    larger = (1e7, 2e8)
    inside = 0
    for seed in range(20):
        value, low, high = fit(runs(CHINCHILLA, noise=0.01, seed=seed), draws=100).predict(*larger)
        assert low <= value * 1.05 and value <= high * 1.05
        inside += low <= CHINCHILLA.loss(*larger) <= high
    assert inside >= 15  # 18 expected; fewer than 15 would come once in forty times


def test_more_noise_makes_wider_intervals() -> None:
    widths = []
    for noise in (0.001, 0.02):
        _, low, high = fit(runs(CHINCHILLA, noise), draws=40).predict(1e7, 2e8)
        widths.append(high - low)
    assert widths[1] > 3 * widths[0]


def test_constants_are_never_negative_and_the_same_every_time() -> None:
    chance = np.random.default_rng(1)
    anything = [Observation(n, d, float(chance.uniform(1, 5))) for n, d in itertools.product(SIZES, TOKENS)]
    law = fit(anything, draws=1).law
    assert min(law.floor, law.width, law.data) >= 0
    assert law == fit(anything, draws=1).law


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (runs(CHINCHILLA)[:4], "too few"),
        ([Observation(1e6, d, 3.0) for d in (1, 2, 3, 4, 5)], "same size"),
        ([Observation(n, 1e6, 3.0) for n in (1, 2, 3, 4, 5)], "same number of tokens"),
        ([*runs(CHINCHILLA), Observation(1e6, 1e6, float("nan"))], "is no run"),
    ],
)
def test_what_cannot_be_fitted_is_refused(bad: list[Observation], message: str) -> None:
    with pytest.raises(InputError, match=message):
        fit(bad)
