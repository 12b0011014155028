"""Confidence intervals of a proportion and of a mean, with clusters where the values have them."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from windlass.core.errors import InputError
from windlass.evaluate.statistics.checks import Clusters, cluster_codes, finite, level_checked
from windlass.evaluate.statistics.distributions import normal_quantile, t_cdf, t_quantile


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and the range around it that holds the true value in `level` of all repetitions."""

    estimate: float
    low: float
    high: float
    level: float
    """Two-sided coverage: 0.95 leaves 2.5 % beyond each end."""
    n: int
    """Values it rests on."""
    clusters: int
    """Independent groups among them; equal to `n` when the values are independent."""
    method: str

    def __neg__(self) -> Interval:
        """The same interval seen from the other side, for scores where less is better."""
        return Interval(-self.estimate, -self.high, -self.low, self.level, self.n, self.clusters, self.method)

    def within(self, least: float, most: float) -> Interval:
        """The part of the interval in which the true value can lie at all; as likely to hold it as the whole."""
        return replace(self, low=max(self.low, least), high=min(self.high, most))

    def __str__(self) -> str:
        return f"{self.estimate:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def to_json(self) -> dict[str, Any]:
        """A JSON object. Ends of an interval that nothing bounds become null, as JSON knows no infinity."""
        return {k: None if isinstance(v, float) and math.isinf(v) else v for k, v in asdict(self).items()}

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Interval:
        low, high = row["low"], row["high"]
        return cls(**{**row, "low": -math.inf if low is None else low, "high": math.inf if high is None else high})


def wilson_interval(successes: int, n: int, level: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion of independent trials; stays inside [0, 1] (Wilson 1927)."""
    level_checked(level)
    if n <= 0 or not 0 <= successes <= n:
        raise InputError(f"{successes} successes of {n} trials is not a proportion.")
    p, z = successes / n, normal_quantile(0.5 + level / 2)
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # At 0 and n the bound is exactly 0 and 1; rounding would put it a hair beside.
    low, high = 0.0 if successes == 0 else centre - half, 1.0 if successes == n else centre + half
    return Interval(p, low, high, level, n, n, "wilson")


@dataclass(frozen=True, slots=True)
class MeanError:
    """A mean, its standard error, and the degrees of freedom to judge it with."""

    mean: float
    error: float
    freedom: float
    n: int
    clusters: int


def mean_error(values: ArrayLike, clusters: Clusters | None = None) -> MeanError:
    """Mean and cluster-robust standard error (CR2), with Satterthwaite's degrees of freedom.

    For a plain mean both have a closed form. A cluster of m values out of n has the leverage m/n, so its squared
    residual sum is divided by 1 - m/n. The degrees of freedom are those of values of which any two of a cluster
    correlate by as much as these do (Imbens & Kolesar); those for independent values (Bell & McCaffrey) reject slightly
    too often where clusters differ in size, those for full correlation far too seldom. With every value its own cluster
    this is the textbook standard error with n - 1 degrees of freedom.

    Source: Bell & McCaffrey, "Bias reduction in standard errors for linear regression with multi-stage samples",
    Survey Methodology 28 (2002); Imbens & Kolesar, "Robust standard errors in small samples", REStat 98 (2016).
    """
    x = finite(values)
    codes, groups = cluster_codes(clusters, x.size)
    n, mean = x.size, float(x.mean())
    if groups < 2:
        return MeanError(mean, math.inf, 0.0, n, groups)
    sizes = np.bincount(codes, minlength=groups).astype(np.float64)
    sums = np.bincount(codes, weights=x - mean, minlength=groups).astype(np.float64)
    variance = float(np.sum(sums * sums / (1.0 - sizes / n))) / (n * n)
    freedom = _freedom(sizes, _correlation(x - mean, sums, sizes))
    # Rounding of `x - mean` leaves dust where all values are equal: no spread at all is a zero, not 1e-17.
    if np.ptp(x) == 0.0:
        variance = 0.0
    return MeanError(mean, math.sqrt(variance), freedom, n, groups)


def mean_interval(values: ArrayLike, clusters: Clusters | None = None, level: float = 0.95) -> Interval:
    """Student-t interval of a mean, cluster-robust when `clusters` are given. One cluster bounds nothing."""
    level_checked(level)
    found = mean_error(values, clusters)
    half = math.inf if math.isinf(found.error) else t_quantile(0.5 + level / 2, found.freedom) * found.error
    method = "t" if clusters is None else "t, cluster-robust (CR2)"
    return Interval(found.mean, found.mean - half, found.mean + half, level, found.n, found.clusters, method)


def exceeds_p(found: MeanError, bar: float) -> float:
    """One-sided p-value of "the mean is at most `bar`": small when it is shown to be above."""
    if math.isinf(found.error):
        return 1.0
    if found.error == 0.0:
        return 0.0 if found.mean > bar else 1.0
    return t_cdf((bar - found.mean) / found.error, found.freedom)


def _correlation(residuals: NDArray[np.float64], sums: NDArray[np.float64], sizes: NDArray[np.float64]) -> float:
    """Of two values of one cluster, by the mean product of their residuals; between 0 and 1."""
    pairs, squares = float(np.sum(sizes * (sizes - 1.0))), float(np.sum(residuals * residuals))
    if pairs == 0.0 or squares == 0.0:
        return 0.0
    return min(1.0, max(0.0, (float(np.sum(sums * sums)) - squares) / pairs / (squares / residuals.size)))


def _freedom(sizes: NDArray[np.float64], correlation: float) -> float:
    """Satterthwaite's tr(B)^2 / tr(B^2), B the covariance of the scaled residual sums of values that correlate so.

    B = (1 - r) I + r J, where I[g, h] = k_g k_h m_g (1[g = h] - w_h) is that of independent values and
    J[g, h] = c_g c_h (1[g = h] - w_g - w_h + sum w^2) that of equal ones; m are the sizes, w = m / n,
    k = (1 - w)^-1/2 and c = m k.
    """
    n = sizes.sum()
    w = sizes / n
    c2 = sizes * sizes / (1.0 - w)
    squares = np.sum(w * w)
    zeroth, first, second = c2.sum(), np.sum(c2 * w), np.sum(c2 * w * w)
    q = c2 / n
    of_independent = np.sum(sizes * sizes) + q.sum() ** 2 - np.sum(q * q)
    diagonal = np.sum(c2 * c2 * (1.0 + 2.0 * (squares - 2.0 * w)))
    everywhere = 2.0 * zeroth * second + (squares * zeroth) ** 2 + 2.0 * first**2 - 4.0 * squares * zeroth * first
    of_equal = diagonal + everywhere
    own = 1.0 - 2.0 * w + squares
    of_both = np.sum(c2 * c2 / sizes * own) - (np.sum(c2 * c2) + squares * zeroth**2 - 2.0 * first * zeroth) / n
    r, other = correlation, 1.0 - correlation
    trace = other * n + r * np.sum(c2 * own)
    return float(trace**2 / (other**2 * of_independent + 2.0 * r * other * of_both + r**2 * of_equal))
