"""How far people agree on a queue: over all of them, of any two, and on which items they do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

import numpy as np

from windlass.core.errors import InputError
from windlass.evaluate.judges.items import Item
from windlass.evaluate.judges.judge import Criterion
from windlass.evaluate.review.labels import Labels, votes
from windlass.evaluate.statistics.agreement import Measure, alpha_interval, cohen_kappa
from windlass.evaluate.statistics.intervals import Interval, wilson_interval
from windlass.evaluate.statistics.shares import bounded_interval


@dataclass(frozen=True, slots=True)
class Two:
    """Any two people on the items that both labelled."""

    first: str
    second: str
    items: int
    same: float
    kappa: float | None
    """Weighted (quadratic) where there are more than two levels; None where it is not defined."""


@dataclass(frozen=True, slots=True)
class Agreement:
    criterion: Criterion
    items: int
    """That somebody labelled."""
    shared: int
    """That two or more did."""
    alpha: Interval | None
    """Krippendorff's, with an interval over items; None where too few are shared, or all are the same."""
    two: Sequence[Two]


@dataclass(frozen=True, slots=True)
class Disagreement:
    item: Item
    criterion: Criterion
    values: dict[str, float]
    """Author -> value."""

    @property
    def spread(self) -> float:
        return max(self.values.values()) - min(self.values.values())


def agreement(labels: Labels, criterion: Criterion) -> Agreement:
    by_item = votes(labels, criterion.name)
    authors = sorted({author for said in by_item.values() for author in said})
    ratings = np.array([[said.get(author, np.nan) for author in authors] for said in by_item.values()])
    shared = sum(len(said) > 1 for said in by_item.values())
    two = []
    for first, second in combinations(authors, 2):
        both = [(said[first], said[second]) for said in by_item.values() if first in said and second in said]
        if both:
            a, b = [x for x, _ in both], [y for _, y in both]
            kappa = cohen_kappa(a, b, "none" if criterion.is_binary else "quadratic")
            same = fmean(x == y for x, y in both)
            two.append(Two(first, second, len(both), same, None if np.isnan(kappa) else kappa))
    try:
        measure: Measure = "nominal" if criterion.is_binary else "interval"
        alpha = alpha_interval(ratings, measure) if shared else None
    except InputError:  # too few items, or too equal ones
        alpha = None
    return Agreement(criterion, len(by_item), shared, alpha, two)


def disagreements(labels: Labels) -> list[Disagreement]:
    """Those that people label differently, the farthest apart first."""
    found = [
        Disagreement(labels.queue.by_id[item], criterion, dict(said))
        for criterion in labels.queue.rubric.criteria
        for item, said in votes(labels, criterion.name).items()
        if len(set(said.values())) > 1
    ]
    return sorted(found, key=lambda one: -one.spread)


def outcome(labels: Labels, criterion: Criterion) -> Interval | None:
    """What people say over all: the mean of the items' means; of pairs, how often the first system is preferred, ties
    half. None where nothing is labelled."""
    by_item = votes(labels, criterion.name)
    if not by_item:
        return None
    means = [fmean(said.values()) for said in by_item.values()]
    if criterion.is_binary and set(means) <= {criterion.lowest, criterion.highest}:
        return wilson_interval(sum(criterion.passed(mean) for mean in means), len(means))
    return bounded_interval(means, (criterion.lowest, criterion.highest))
