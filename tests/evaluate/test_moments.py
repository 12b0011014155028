"""Exact sums: the order does not matter, what was added can be taken away, and weights undo what shares did."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windlass.core.errors import InputError
from windlass.evaluate.moments import Moments
from windlass.evaluate.online import Tally
from windlass.evaluate.statistics.sequences import tally_sequence

values = st.floats(-1e9, 1e9, allow_nan=False)
weighed = st.lists(st.tuples(values, st.floats(1e-3, 1.0)), max_size=12)


def of(some: list[tuple[float, float]]) -> Moments:
    return sum((Moments.of(value, propensity) for value, propensity in some), Moments())


@settings(max_examples=60, deadline=None)
@given(weighed, weighed, st.randoms(use_true_random=False))
def test_order_does_not_matter_and_what_was_added_goes_out_again(
    kept: list[tuple[float, float]], gone: list[tuple[float, float]], chance: random.Random
) -> None:
    mixed = [*kept, *gone]
    chance.shuffle(mixed)
    found = of(mixed)
    for value, propensity in gone:
        found -= Moments.of(value, propensity)
    assert found == of(kept), "to the last bit"
    assert Moments.from_json(found.to_json()) == found


@settings(max_examples=60, deadline=None)
@given(st.lists(values, min_size=1, max_size=20), st.floats(0.01, 1.0))
def test_with_equal_weights_it_is_what_numpy_says(some: list[float], propensity: float) -> None:
    found, said = of([(value, propensity) for value in some]), Tally.of(some)
    for one in (found.tally(), found.weighted()):
        assert one.n == said.n and one.mean == pytest.approx(said.mean, abs=1e-6)
        assert one.squares == pytest.approx(said.squares, rel=1e-6, abs=1e-3)


def test_large_values_close_together_keep_their_spread() -> None:
    some = [1e9 + 0.001 * n for n in range(100)]
    exact = sum((n - 49.5) ** 2 for n in range(100)) * 1e-6
    assert of([(value, 1.0) for value in some]).tally().squares == pytest.approx(exact, rel=1e-3)


def test_the_weighted_mean_and_its_error_are_those_of_a_ratio() -> None:
    rng = np.random.default_rng(0)
    x, p = rng.normal(3, 1, 500), rng.choice([0.1, 0.5, 0.9], 500)
    found = of(list(zip(x.tolist(), p.tolist()))).weighted()
    w = 1 / p
    mean = float((w * x).sum() / w.sum())
    error = math.sqrt(float((w**2 * (x - mean) ** 2).sum())) / float(w.sum())
    assert found.mean == pytest.approx(mean) and found.n == int(w.sum() ** 2 / (w**2).sum())
    assert math.sqrt(found.variance / found.n) == pytest.approx(error, rel=0.01)


def test_weights_undo_the_bias_of_a_share_that_follows_what_is_earned() -> None:
    """Rewards grow with time while a bandit shifts to an arm: its plain mean is too high, the weighted one is not, and
    its sequence holds the truth at all looks in as many repetitions as it says."""
    missed = 0
    for seed in range(40):
        chance, found, out = random.Random(seed), Moments(), False
        seen: list[float] = []
        for step in range(3_000):
            share, happy = 0.1 + 0.8 * step / 3_000, 0.2 + 0.6 * step / 3_000
            seen.append(happy)
            if chance.random() < share:
                found += Moments.of(float(chance.random() < happy), share)
            if step % 300 == 299:
                said = found.weighted()
                bound = tally_sequence(said.n, said.mean, said.variance, 0.9, planned=1_000)
                out = out or not bound.low <= sum(seen) / len(seen) <= bound.high
        missed += out
        assert found.tally().mean > 0.55 and found.weighted().mean == pytest.approx(0.5, abs=0.09)
    assert missed <= 8, "4 are expected of 40 at most"


@pytest.mark.parametrize("propensity", [0.0, -0.1, 1.5, math.nan])
def test_a_propensity_that_is_none_is_refused(propensity: float) -> None:
    with pytest.raises(InputError, match="propensity"):
        Moments.of(1.0, propensity)


def test_nothing_is_a_tally_of_nothing() -> None:
    assert Moments().tally() == Tally() == Moments().weighted()
