"""Where the noise of a score comes from, and where to spend: on more items, more repeats or more judges.

A score of item i in repeat r by judge j is taken as mu + item_i + repeat_ir + judge_j + (item x judge)_ij + rest_irj,
all independent and of mean 0. Their variances follow from mean squares (method of moments; Searle, Casella & McCulloch,
"Variance Components", 1992), also where items have different numbers of repeats. Intervals are bootstrapped over items,
so that right-or-wrong scores get honest ones too; that of the judges, of whom there are few, is Satterthwaite's.

A small interval cannot be bought with repeats: the variance of the mean is
item / I + repeat / (I R) + judge / J + (item x judge) / (I J) + rest / (I R J).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from windlass.core.errors import InputError
from windlass.evaluate.statistics.bootstrap import times_drawn
from windlass.evaluate.statistics.checks import cluster_codes, finite, level_checked
from windlass.evaluate.statistics.distributions import chi2_quantile
from windlass.evaluate.statistics.intervals import Interval

_RESAMPLES = 1999


@dataclass(frozen=True, slots=True)
class Components:
    """Variances, in squared units of the score, each with its interval. Estimates below 0 are shown as 0."""

    item: Interval
    """Between items; without repeats also between repeats, which then cannot be told apart."""
    repeat: Interval | None = None
    """Of the repeats of one item; with judges, what all of them see alike."""
    judge: Interval | None = None
    """Of judges' strictness; it does not shrink with items."""
    item_judge: Interval | None = None
    """How much judges differ about which items are good; without repeats, `rest` too."""
    rest: Interval | None = None
    """Of one judgement, when repeated. Without judges it is part of `repeat`."""

    def variance_of_mean(self, items: float, repeats: float = 1, judges: float = 1) -> float:
        """Of the mean score of so many items, repeats of each, and judges of each repeat."""
        if min(items, repeats, judges) < 1:
            raise InputError("At least one item, one repeat and one judge make a mean.")
        if self.repeat is None and repeats > 1:
            raise InputError("Nothing was repeated, so what repeats would save is not known.")
        parts = (
            (self.item, items),
            (self.repeat, items * repeats),
            (self.judge, judges),
            (self.item_judge, items * judges),
            (self.rest, items * repeats * judges),
        )
        return sum(part.estimate / times for part, times in parts if part is not None)


@dataclass(frozen=True, slots=True)
class Plan:
    items: int
    repeats: int
    variance: float
    """Of the mean score that this plan gives."""
    advice: str


def item_and_repeat(values: ArrayLike, items: Sequence[object], *, seed: int, level: float = 0.95) -> Components:
    """The variances between items and between the repeats of one, from one value per (item, repeat), in any order.

    Pass differences of two systems to plan a comparison: then it is they that vary. Raises `InputError` unless there
    are two items or more and one of them is repeated.
    """
    x = finite(values)
    codes, groups = cluster_codes(items, x.size)
    counts = np.bincount(codes, minlength=groups).astype(np.float64)
    if groups < 2 or x.size == groups:
        raise InputError(
            f"{x.size} values of {groups} items do not tell items from repeats.",
            "Run at least some items more than once.",
        )
    means = np.bincount(codes, weights=x, minlength=groups) / counts
    within = np.bincount(codes, weights=(x - means[codes]) ** 2, minlength=groups)
    rows = np.stack([np.ones(groups), counts, counts * means, counts * means**2, within, counts**2], axis=1)
    item, repeat = _bootstrapped(rows, _item_and_repeat, seed, level)
    return Components(item, repeat)


def item_repeat_and_judge(scores: ArrayLike, *, seed: int, level: float = 0.95) -> Components:
    """The same with judges: `scores` of shape (items, repeats, judges), every judge having seen every repeat.

    One repeat is enough to tell judges from items. Raises `InputError` for less than two items or judges, and for NaN.
    """
    x = np.asarray(scores, dtype=np.float64)
    if x.ndim != 3 or x.shape[0] < 2 or x.shape[2] < 2 or x.shape[1] < 1:
        raise InputError(
            f"The scores have shape {x.shape}; (items, repeats, judges) is needed, of two items and two judges or more."
        )
    finite(x.ravel(), "scores")
    items, repeats, judges = x.shape
    by_judge_IJ = x.mean(axis=1)
    by_repeat_IR = x.mean(axis=2)
    means_I = by_judge_IJ.mean(axis=1)
    # Sums of squares item by item, so that a resample of items is a sum of rows.
    between_I = judges * ((by_repeat_IR - means_I[:, None]) ** 2).sum(axis=1)
    left_IRJ = x - by_repeat_IR[:, :, None] - by_judge_IJ[:, None, :] + means_I[:, None, None]
    sums = (
        np.ones(items),
        means_I,
        means_I**2,
        between_I,
        (left_IRJ**2).sum(axis=(1, 2)),
        (by_judge_IJ**2).sum(axis=1),
    )
    rows = np.concatenate([np.stack(sums, axis=1), by_judge_IJ], axis=1)

    def variances(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        return _with_judges(sums, repeats, judges)

    item, repeat, item_judge, rest = _bootstrapped(rows, variances, seed, level)
    within = item_judge.estimate + (rest.estimate / repeats if repeats > 1 else 0.0)
    judge = _judge(by_judge_IJ.mean(axis=0), within / items, items, level)
    if repeats == 1:
        return Components(item, None, judge, item_judge, None)
    return Components(item, repeat, judge, item_judge, rest)


def spend(components: Components, budget: float, *, item_cost: float = 0.0, repeat_cost: float = 1.0) -> Plan:
    """The items and repeats that give the narrowest interval for a budget, with one judge.

    item_cost: of one more item (writing and checking it); repeat_cost: of one run of one. The best number of repeats is
    sqrt(item_cost / repeat_cost * repeat / item), whatever the budget (Cochran, "Sampling Techniques", section 10.6).
    Where items cost nothing but their runs, one repeat of as many items as there are is always best.
    """
    if not (repeat_cost > 0 and item_cost >= 0 and budget >= item_cost + repeat_cost):
        raise InputError("The budget does not pay for one item and one repeat, or a cost is not above 0.")
    if components.repeat is None:
        raise InputError("Nothing was repeated, so what repeats would save is not known.", "Run some items twice.")
    between, within = components.item.estimate, components.repeat.estimate
    if components.rest is not None:
        within += components.rest.estimate
    wish = math.inf if between == 0.0 else math.sqrt(item_cost / repeat_cost * within / between)
    most = max(1, int((budget - item_cost) // repeat_cost))
    plans = []
    # Whole numbers of both that pay: not always the ones next to the wish.
    for repeats in range(1, min(most, 2 * math.ceil(min(wish, most)) + 2) + 1):
        items = int(budget // (item_cost + repeats * repeat_cost))
        if items >= 1:
            plans.append((between / items + within / (items * repeats), repeats, items))
    variance, repeats, items = min(plans)
    share = within / (between + within) if between + within > 0 else 0.0
    advice = (
        f"{100 * share:.0f} % of a single run's variance is between repeats of one item. "
        f"Take {items:,} items with {repeats} {'repeat' if repeats == 1 else 'repeats'} each"
        f"{': more items tell more than more repeats' if repeats == 1 else ''}."
    )
    return Plan(items, repeats, variance, advice)


def _bootstrapped(
    rows: NDArray[np.float64],
    variances: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    seed: int,
    level: float,
) -> list[Interval]:
    """Percentile intervals of functions of sums over items; variances that exist are not below 0."""
    tail, n = (1.0 - level_checked(level)) / 2, rows.shape[0]
    found = variances(rows.sum(axis=0)[None, :])[0]
    drawn = [variances(times @ rows) for times in times_drawn(np.random.default_rng(seed), n, _RESAMPLES)]
    ends = np.quantile(np.concatenate(drawn), [tail, 1.0 - tail], axis=0)
    intervals = []
    for estimate, low, high in np.maximum(0.0, np.stack([found, *ends], axis=1)).tolist():
        method = "moments, bootstrap over items"
        intervals.append(Interval(estimate, min(low, estimate), max(high, estimate), level, n, n, method))
    return intervals


def _item_and_repeat(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """(item, repeat) variances for each row of sums over items: of 1, R, R mean, R mean^2, squares within, R^2."""
    groups, n, total, squares, within, counts = sums.T
    inside = within / np.maximum(1.0, n - groups)
    between = (squares - total**2 / n) / (groups - 1.0)
    usual = (n - counts / n) / (groups - 1.0)  # repeats an item has, as far as they tell items apart
    return np.stack([(between - inside) / usual, inside], axis=1)


def _with_judges(sums: NDArray[np.float64], repeats: int, judges: int) -> NDArray[np.float64]:
    """(item, repeat, item x judge, rest) variances for each row of sums over items, from their expected mean squares.

    E[rest] = s_e; E[item x judge] = s_e + R s_ij; E[repeat] = s_e + J s_r; E[item] = s_e + R s_ij + J s_r + R J s_i.
    """
    n, total, squares, between, left, judged = sums[:, :6].T
    by_judge = (sums[:, 6:] ** 2).sum(axis=1) / n
    grand = total**2 / n
    ms_item = repeats * judges * (squares - grand) / (n - 1.0)
    crossed = judged - judges * squares - by_judge + judges * grand
    ms_item_judge = repeats * crossed / ((n - 1.0) * (judges - 1.0))
    if repeats == 1:  # a judgement is not repeated: what it adds cannot be told from item x judge
        nothing = np.zeros_like(n)
        return np.stack([(ms_item - ms_item_judge) / judges, nothing, ms_item_judge, nothing], axis=1)
    ms_repeat = between / (n * (repeats - 1.0))
    rest = left / (n * (repeats - 1.0) * (judges - 1.0))
    item = (ms_item - ms_item_judge - ms_repeat + rest) / (repeats * judges)
    return np.stack([item, (ms_repeat - rest) / judges, (ms_item_judge - rest) / repeats, rest], axis=1)


def _judge(means_J: NDArray[np.float64], noise: float, items: int, level: float) -> Interval:
    """The variance between judges: that of their means, less what each owes to its items.

    The spread of J means is chi-square with J - 1 degrees of freedom (Satterthwaite, Biometrics Bulletin 2, 1946), so
    that two or three judges bound it hardly at all.
    """
    freedom, spread = means_J.size - 1, float(np.var(means_J, ddof=1))
    tail = (1.0 - level) / 2
    low, high = (freedom * spread / chi2_quantile(p, freedom) - noise for p in (1.0 - tail, tail))
    estimate, low, high = (max(0.0, v) for v in (spread - noise, low, high))
    n = means_J.size
    return Interval(estimate, min(low, estimate), max(high, estimate), level, items * n, n, "moments, Satterthwaite")
