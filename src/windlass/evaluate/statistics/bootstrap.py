"""Bootstrap intervals, bias-corrected and accelerated (BCa), over values or whole clusters; always seeded.

Source: Efron, "Better bootstrap confidence intervals", JASA 82 (1987). Clusters are resampled whole and the
jackknife that measures the acceleration leaves one cluster out at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from windlass.core.errors import InputError
from windlass.evaluate.statistics.checks import Clusters, cluster_codes, finite, level_checked
from windlass.evaluate.statistics.distributions import normal_cdf, normal_quantile
from windlass.evaluate.statistics.intervals import Interval

_CELLS = 4_000_000
"""Random indices drawn at a time: bounds the memory at some 32 MB whatever the number of resamples."""


def bootstrap_mean(
    values: ArrayLike, clusters: Clusters | None = None, *, seed: int, resamples: int = 9999, level: float = 0.95
) -> Interval:
    """BCa interval of a mean. Vectorised: a resample of clusters is a ratio of two sums."""
    x = finite(values)
    codes, groups = cluster_codes(clusters, x.size)
    sums = np.bincount(codes, weights=x, minlength=groups)
    counts = np.bincount(codes, minlength=groups)
    _enough(groups, resamples)
    rng = np.random.default_rng(seed)
    replicates = np.empty(resamples)
    step = max(1, _CELLS // groups)
    for start in range(0, resamples, step):
        stop = min(start + step, resamples)
        drawn = rng.integers(0, groups, size=(stop - start, groups))
        replicates[start:stop] = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    without = (sums.sum() - sums) / (counts.sum() - counts)
    low, high = _bca(float(x.mean()), replicates, without, level)
    return Interval(float(x.mean()), low, high, level, x.size, groups, _method(clusters))


def bootstrap(
    statistic: Callable[[NDArray[np.intp]], float],
    n: int,
    clusters: Clusters | None = None,
    *,
    seed: int,
    resamples: int = 1999,
    level: float = 0.95,
) -> Interval:
    """BCa interval of any statistic, for example an AUROC.

    `statistic` takes the indices (into 0..n-1, repeats included) of one resample and returns its value, or NaN
    where it is not defined for that resample; more than 1 % of those is refused, as their loss would bias.
    """
    codes, groups = cluster_codes(clusters, n)
    _enough(groups, resamples)
    order = np.argsort(codes, kind="stable").astype(np.intp)
    members = np.split(order, np.cumsum(np.bincount(codes, minlength=groups))[:-1])
    rng = np.random.default_rng(seed)

    def drawn() -> NDArray[np.intp]:
        some = rng.integers(0, groups, size=groups)
        return order[some] if groups == n else np.concatenate([members[g] for g in some])

    replicates = np.array([statistic(drawn()) for _ in range(resamples)])
    without = np.array([statistic(order[codes[order] != g]) for g in range(groups)])
    kept = replicates[np.isfinite(replicates)]
    if kept.size < 0.99 * resamples or not np.isfinite(without).all():
        raise InputError(
            f"The statistic is undefined on {resamples - kept.size} of {resamples} resamples.",
            "There are too few items of one class; collect more of them.",
        )
    estimate = float(statistic(np.arange(n, dtype=np.intp)))
    low, high = _bca(estimate, kept, without, level)
    return Interval(estimate, low, high, level, n, groups, _method(clusters))


def bootstrap_sums(
    parts: ArrayLike,
    value: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    clusters: Clusters | None = None,
    *,
    seed: int,
    resamples: int = 9999,
    level: float = 0.95,
) -> Interval:
    """BCa interval of a score that is a function of sums over items, as BLEU is of its counts.

    parts: shape (items, k), what each item adds. value: from sums, shape (..., k), to scores, shape (...). No item is
    looked at again: a resample is a row of counts times the parts, so ten thousand take a fraction of a second.
    Raises `InputError` for parts that are not finite, and where the score is not defined on 1 % of the resamples.
    """
    table = np.asarray(parts, dtype=np.float64)
    if table.ndim != 2:
        raise InputError(f"The parts have shape {table.shape}; a row for each item is needed.")
    finite(table.ravel(), "parts")
    codes, groups = cluster_codes(clusters, len(table))
    _enough(groups, resamples)
    sums = np.zeros((groups, table.shape[1]))
    np.add.at(sums, codes, table)
    replicates = np.concatenate(
        [value(times @ sums) for times in times_drawn(np.random.default_rng(seed), groups, resamples)]
    )
    total = sums.sum(axis=0)
    estimate, without = float(value(total)), value(total - sums)
    kept = replicates[np.isfinite(replicates)]
    if kept.size < 0.99 * resamples or not np.isfinite(without).all() or not np.isfinite(estimate):
        raise InputError(
            f"The score is undefined on {resamples - kept.size} of {resamples} resamples.", "Collect more items."
        )
    low, high = _bca(estimate, kept, without, level)
    return Interval(estimate, low, high, level, len(table), groups, _method(clusters))


def times_drawn(rng: np.random.Generator, groups: int, resamples: int) -> Iterator[NDArray[np.int64]]:
    """How often each group stands in each resample, shape (some resamples, groups), part by part."""
    step = max(1, _CELLS // groups)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = rng.integers(0, groups, size=(rows, groups)) + groups * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * groups).reshape(rows, groups)


def _bca(
    estimate: float, replicates: NDArray[np.float64], jackknife: NDArray[np.float64], level: float
) -> tuple[float, float]:
    level_checked(level)
    if np.ptp(replicates) == 0.0:
        return estimate, estimate
    # Ties with the estimate count half, which matters for the coarse values of small samples.
    below = (np.sum(replicates < estimate) + np.sum(replicates <= estimate)) / (2 * replicates.size)
    edge = 0.5 / replicates.size
    bias = normal_quantile(float(np.clip(below, edge, 1 - edge)))
    deviation = jackknife.mean() - jackknife
    spread = float(np.sum(deviation**2))
    acceleration = float(np.sum(deviation**3)) / (6 * spread**1.5) if spread > 0 else 0.0

    def adjusted(p: float) -> float:
        z = bias + normal_quantile(p)
        return normal_cdf(bias + z / (1 - acceleration * z))

    tail = (1 - level) / 2
    low, high = np.quantile(replicates, [adjusted(tail), adjusted(1 - tail)])
    return float(low), float(high)


def _enough(groups: int, resamples: int) -> None:
    if groups < 2:
        raise InputError("A bootstrap needs at least 2 independent values or clusters.")
    if resamples < 99:
        raise InputError(f"{resamples} resamples say nothing about the tails.", "Use 999 or more.")


def _method(clusters: Clusters | None) -> str:
    return "bootstrap (BCa)" if clusters is None else "cluster bootstrap (BCa)"
