"""Variance components beside their expected mean squares, their coverage, and what they say about spending."""

from __future__ import annotations

import numpy as np
import pytest

from windlass.core.errors import InputError
from windlass.evaluate.statistics.components import Components, item_and_repeat, item_repeat_and_judge, spend
from windlass.evaluate.statistics.intervals import Interval


def scores(rng: np.random.Generator, shape: tuple[int, int, int], sd: tuple[float, ...]) -> np.ndarray:
    """Items, repeats within items, judges, items x judges and the rest, each with its standard deviation."""
    i, r, j = shape
    parts = [(i, 1, 1), (i, r, 1), (1, 1, j), (i, 1, j), (i, r, j)]
    return sum(s * rng.normal(size=part) for s, part in zip(sd, parts))


def test_one_way_is_the_anova_of_the_textbook() -> None:
    x = np.array([[3.0, 5.0], [6.0, 8.0], [1.0, 1.0]])
    found = item_and_repeat(x.ravel(), np.repeat(["a", "b", "c"], 2), seed=0)
    within = (2 + 2 + 0) / 3
    between = 2 * np.sum((x.mean(axis=1) - x.mean()) ** 2) / 2
    assert found.repeat is not None and found.repeat.estimate == pytest.approx(within)
    assert found.item.estimate == pytest.approx((between - within) / 2)


def test_estimates_are_right_on_average_also_with_unequal_repeats() -> None:
    rng = np.random.default_rng(1)
    items = np.repeat(np.arange(30), rng.integers(1, 6, size=30))
    found = []
    for seed in range(300):
        x = rng.normal(0, 1, 30)[items] + rng.normal(0, 0.6, items.size)
        one = item_and_repeat(x, items.tolist(), seed=seed)
        assert one.repeat is not None
        found.append((one.item.estimate, one.repeat.estimate))
    assert np.mean(found, axis=0) == pytest.approx([1.0, 0.36], abs=0.06)


def test_judges_are_told_from_items_and_repeats() -> None:
    rng = np.random.default_rng(2)
    sd = (1.0, 0.7, 0.5, 0.4, 0.3)
    found = []
    for seed in range(60):
        one = item_repeat_and_judge(scores(rng, (60, 3, 4), sd), seed=seed)
        parts = (one.item, one.repeat, one.judge, one.item_judge, one.rest)
        found.append([part.estimate for part in parts if part is not None])
    assert np.mean(found, axis=0) == pytest.approx([s * s for s in sd], abs=0.1)


def test_without_repeats_judges_are_still_told_from_items() -> None:
    rng = np.random.default_rng(3)
    one = item_repeat_and_judge(scores(rng, (400, 1, 3), (1.0, 0.0, 0.6, 0.5, 0.0)), seed=0)
    assert one.repeat is None and one.rest is None and one.judge is not None and one.item_judge is not None
    assert (one.item.estimate, one.item_judge.estimate) == pytest.approx((1.0, 0.25), abs=0.15)
    assert one.judge.low <= 0.36 <= one.judge.high
    with pytest.raises(InputError, match="Nothing was repeated"):
        one.variance_of_mean(10, repeats=2)
    with pytest.raises(InputError, match="Nothing was repeated"):
        spend(one, 100)


@pytest.mark.slow
def test_intervals_cover_for_normal_and_for_right_or_wrong() -> None:
    rng = np.random.default_rng(4)
    missed = {"item": 0, "repeat": 0, "judge": 0, "share": 0}
    items = np.repeat(np.arange(100), 3).tolist()
    for seed in range(400):
        one = item_repeat_and_judge(scores(rng, (100, 2, 4), (1.0, 0.7, 0.5, 0.4, 0.3)), seed=seed)
        assert one.repeat is not None and one.judge is not None
        missed["item"] += not one.item.low <= 1.0 <= one.item.high
        missed["repeat"] += not one.repeat.low <= 0.49 <= one.repeat.high
        missed["judge"] += not one.judge.low <= 0.25 <= one.judge.high
        chance = np.repeat(rng.beta(2, 2, 100), 3)
        right = item_and_repeat((rng.random(300) < chance).astype(float), items, seed=seed)
        missed["share"] += not right.item.low <= 0.05 <= right.item.high  # the variance of Beta(2, 2)
    # Percentile intervals of variances of 100 items fall a little short of their level.
    assert all(count / 400 <= 0.09 + 3 * np.sqrt(0.09 * 0.91 / 400) for count in missed.values()), missed


def test_the_variance_of_the_mean_is_what_simulation_gives() -> None:
    rng = np.random.default_rng(5)
    sd = (1.0, 0.7, 0.5, 0.4, 0.3)

    def part(v: float) -> Interval:
        return Interval(v * v, v * v, v * v, 0.95, 1, 1, "known")

    known = Components(*(part(v) for v in sd))
    means = [scores(rng, (20, 2, 3), sd).mean() for _ in range(4000)]
    assert np.var(means) == pytest.approx(known.variance_of_mean(20, 2, 3), rel=0.08)


def test_where_to_spend() -> None:
    def of(item: float, repeat: float) -> Components:
        return Components(*(Interval(v, v, v, 0.95, 1, 1, "known") for v in (item, repeat)))

    cheap = spend(of(1.0, 4.0), 100, item_cost=0, repeat_cost=1)
    assert (cheap.items, cheap.repeats) == (100, 1) and "more items tell more" in cheap.advice
    dear = spend(of(1.0, 4.0), 100, item_cost=4, repeat_cost=1)
    assert (dear.repeats, dear.items) == (5, 11), "sqrt(4 / 1 * 4 / 1) is 4, but 12 items of 4 would leave money over"
    tried = [(1.0 / (100 // (4 + r)) + 4.0 / (100 // (4 + r) * r), r) for r in range(1, 40) if 100 // (4 + r)]
    assert dear.variance == pytest.approx(min(tried)[0])
    same = spend(of(0.0, 1.0), 10, item_cost=3, repeat_cost=1)
    assert (same.items, same.repeats) == (1, 7), "items that do not differ: one is enough"
    with pytest.raises(InputError, match="budget"):
        spend(of(1.0, 1.0), 1, item_cost=4)


@pytest.mark.parametrize("wrong", ["once", "one item", "shape", "nan"])
def test_what_does_not_tell_the_parts_apart_is_refused(wrong: str) -> None:
    with pytest.raises(InputError):
        if wrong == "once":
            item_and_repeat([1.0, 2.0], ["a", "b"], seed=0)
        elif wrong == "one item":
            item_and_repeat([1.0, 2.0], ["a", "a"], seed=0)
        elif wrong == "shape":
            item_repeat_and_judge(np.zeros((4, 2)), seed=0)
        else:
            item_repeat_and_judge(np.full((4, 2, 2), np.nan), seed=0)
