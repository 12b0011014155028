"""One metric of one variant: item by item, means over repeats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from windlass.evaluate.deciding import Pairs
from windlass.evaluate.experiments.results import Results, counted_errors
from windlass.evaluate.statistics.intervals import Interval
from windlass.evaluate.statistics.shares import score_interval


@dataclass(frozen=True, slots=True)
class Column:
    values: Sequence[float]
    clusters: Sequence[str]
    missing: int
    """Answers that should have a value and have none."""
    reasons: Mapping[str, int]
    asked: int
    """Answers that have the metric, or should."""

    def pairs(self, bounds: tuple[float, float]) -> Pairs:
        """As the gate's limits take it."""
        apart = len(set(self.clusters)) == len(self.clusters)
        return Pairs(self.values, self.values, None if apart else self.clusters, bounds=bounds)

    def interval(self, level: float = 0.95) -> Interval:
        return score_interval(self.values, self.clusters, level)


def column(results: Results, metric: str) -> Column:
    found: dict[str, list[float]] = {}
    groups: dict[str, str] = {}
    for one in results.items:
        if metric in one.values:
            found.setdefault(one.item, []).append(one.values[metric])
            groups[one.item] = one.group
    reasons = counted_errors(results.items, metric)
    missing = reasons.total()
    return Column(
        [sum(some) / len(some) for some in found.values()],
        list(groups.values()),
        missing,
        dict(reasons.most_common()),
        missing + sum(map(len, found.values())),
    )
