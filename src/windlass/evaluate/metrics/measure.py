"""A metric over many items, with its interval: a mean with its error, or a score of the corpus with a bootstrap.

measured(metric("rouge-l"), found, right)             mean of the items' values
measured(metric("bleu"), found, right)                score of the corpus, resampled from its items' counts
difference(metric("bleu"), before, after, right)      after less before, on the same items
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from windlass.core.errors import InputError
from windlass.evaluate.metrics.catalogue import Metric
from windlass.evaluate.metrics.text.texts import References
from windlass.evaluate.statistics.bootstrap import bootstrap_sums
from windlass.evaluate.statistics.checks import Clusters
from windlass.evaluate.statistics.intervals import Interval
from windlass.evaluate.statistics.paired import paired_difference
from windlass.evaluate.statistics.shares import bounded_interval

Scores = NDArray[np.float64]


def measured(
    metric: Metric,
    found: Sequence[str],
    right: References,
    clusters: Clusters | None = None,
    *,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """The score of texts against the references of each. `clusters`: one label per item, where items belong together.

    A mean gets a t interval, a score of a corpus a bootstrap of whole clusters; neither passes the metric's bounds.
    Raises `InputError` for a metric that is not of texts, and as the metric does.
    """
    if metric.pooled:
        counts = metric.pooled.counts(found, right)
        interval = bootstrap_sums(counts, metric.pooled.score, clusters, seed=seed, level=level)
    else:
        interval = bounded_interval(values_of(metric, found, right), metric.bounds, clusters, level)
    return interval.within(*metric.bounds)


def difference(
    metric: Metric,
    before: Sequence[str],
    after: Sequence[str],
    right: References,
    clusters: Clusters | None = None,
    *,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """The score of `after` less that of `before` on the same items. For a metric of which less is better, a fall is a
    gain. Raises `InputError` as `measured`."""
    if metric.pooled is None:
        first, second = (values_of(metric, texts, right) for texts in (before, after))
        return paired_difference(first, second, clusters, level).difference
    first, second = (metric.pooled.counts(texts, right) for texts in (before, after))
    both = _difference(metric.pooled.score, first.shape[1])
    return bootstrap_sums(np.hstack([first, second]), both, clusters, seed=seed, level=level)


def values_of(metric: Metric, found: Sequence[str], right: References) -> Scores:
    """One value per item. Raises `InputError` for a metric that has none, or not of texts."""
    if metric.values is None:
        why = "belongs to a corpus, not to its items" if metric.corpus else "is not made of texts and references"
        raise InputError(f"The metric '{metric.name}' {why}.", "Choose one of the metrics of texts, as rouge-l.")
    return metric.values(found, right)


def _difference(score: Callable[[Scores], Scores], size: int) -> Callable[[Scores], Scores]:
    return lambda sums: score(sums[..., size:]) - score(sums[..., :size])
