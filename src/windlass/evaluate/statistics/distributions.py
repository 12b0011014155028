"""The normal, Student's t, beta, binomial and chi-square distributions without scipy."""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

_NORMAL = NormalDist()


def normal_cdf(x: float) -> float:
    return _NORMAL.cdf(x)


def normal_quantile(p: float) -> float:
    return _NORMAL.inv_cdf(p)


def t_cdf(x: float, freedom: float) -> float:
    """P(T <= x) for Student's t. `freedom` need not be whole: Satterthwaite's correction yields fractions."""
    tail = 0.5 * _incomplete_beta(freedom / 2, 0.5, freedom / (freedom + x * x))
    return 1.0 - tail if x > 0 else tail


@lru_cache(maxsize=1024)
def t_quantile(p: float, freedom: float) -> float:
    """The x with P(T <= x) = p, to about 12 digits."""
    if p == 0.5:
        return 0.0
    if p < 0.5:
        return -t_quantile(1.0 - p, freedom)
    low, high = 0.0, 1.0
    while t_cdf(high, freedom) < p:
        low, high = high, 2.0 * high
    log_front = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - 0.5 * math.log(freedom * math.pi)
    x = 0.5 * (low + high)
    while high - low > 1e-12 * high:
        above = t_cdf(x, freedom) - p
        low, high = (low, x) if above > 0.0 else (x, high)
        density = math.exp(log_front - (freedom + 1) / 2 * math.log1p(x * x / freedom))
        newton = x - above / density if density > 0.0 else x
        if abs(newton - x) <= 1e-13 * x:
            return newton
        x = newton if low < newton < high else 0.5 * (low + high)
    return x


@lru_cache(maxsize=4096)
def beta_quantile(p: float, a: float, b: float) -> float:
    """The x with I_x(a, b) = p, to about 12 digits."""
    low, high = 0.0, 1.0
    while high - low > 1e-13:
        middle = 0.5 * (low + high)
        low, high = (middle, high) if _incomplete_beta(a, b, middle) < p else (low, middle)
    return 0.5 * (low + high)


def binomial_cdf(k: int, n: int, p: float) -> float:
    """P(X <= k) of n trials, each of which succeeds with probability p."""
    if k < 0:
        return 0.0
    return 1.0 if k >= n else 1.0 - _incomplete_beta(k + 1.0, float(n - k), p)


def chi2_cdf(x: float, freedom: float) -> float:
    """P(X <= x) for a chi-square variable."""
    return _incomplete_gamma(freedom / 2, x / 2)


@lru_cache(maxsize=1024)
def chi2_quantile(p: float, freedom: float) -> float:
    """The x with P(X <= x) = p, to about 12 digits."""
    low, high = 0.0, max(1.0, freedom)
    while chi2_cdf(high, freedom) < p:
        low, high = high, 2.0 * high
    while high - low > 1e-12 * high:
        middle = 0.5 * (low + high)
        if middle in (low, high):
            break
        low, high = (middle, high) if chi2_cdf(middle, freedom) < p else (low, middle)
    return 0.5 * (low + high)


def _incomplete_gamma(a: float, x: float) -> float:
    """The regularised lower incomplete gamma function P(a, x): its series (DLMF 8.11.4) below a + 1, above it one
    minus the continued fraction of Q (DLMF 8.9.2)."""
    if x <= 0.0:
        return 0.0
    front = math.exp(a * math.log(x) - x - math.lgamma(a))
    if x < a + 1.0:
        term = total = 1.0 / a
        n = a
        while term > 1e-17 * total:
            n += 1.0
            term *= x / n
            total += term
        return min(1.0, front * total)
    b = x + 1.0 - a
    c, d = 1e300, 1.0 / b
    fraction = d
    for k in range(1, 100_000):
        step = -k * (k - a)
        b += 2.0
        d = 1.0 / (step * d + b or 1e-300)
        c = b + step / c or 1e-300
        fraction *= c * d
        if abs(c * d - 1.0) < 1e-15:
            break
    return 1.0 - front * fraction


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function I_x(a, b) by its continued fraction (DLMF 8.17.22)."""
    if x <= 0.0:
        return 0.0
    if x >= 1.0:
        return 1.0
    if x > (a + 1.0) / (a + b + 2.0):  # the fraction converges fast on this side only
        return 1.0 - _incomplete_beta(b, a, 1.0 - x)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    # Lentz's method, as modified by Thompson and Barnett: C and D are ratios of neighbouring convergents.
    tiny = 1e-300
    c, d = 1.0, 1.0 - (a + b) * x / (a + 1.0)
    d = 1.0 / (d if abs(d) > tiny else tiny)
    fraction = d
    for m in range(1, 10_000):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1.0 + term * d
            d = 1.0 / (d if abs(d) > tiny else tiny)
            c = 1.0 + term / c
            c = c if abs(c) > tiny else tiny
            fraction *= c * d
        if abs(c * d - 1.0) < 1e-15:
            break
    return math.exp(log_front) * fraction / a
