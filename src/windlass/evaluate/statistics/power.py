"""How many items a comparison needs: from a pilot's differences to the sample that can tell."""

from __future__ import annotations

import math

from numpy.typing import ArrayLike

from windlass.core.errors import InputError
from windlass.evaluate.statistics.checks import Clusters, level_checked
from windlass.evaluate.statistics.distributions import normal_cdf, normal_quantile
from windlass.evaluate.statistics.intervals import mean_error


def items_for_half_width(
    differences: ArrayLike, half_width: float, clusters: Clusters | None = None, level: float = 0.95
) -> int:
    """Items in all, with clusters of the pilot's size, until the interval is `estimate +- half_width`."""
    return _scaled(differences, clusters, normal_quantile(0.5 + level_checked(level) / 2), half_width)


def items_for_effect(
    differences: ArrayLike,
    effect: float,
    clusters: Clusters | None = None,
    *,
    error_rate: float = 0.025,
    power: float = 0.8,
) -> int:
    """Items in all until a true difference of `effect` is found with probability `power` at one-sided `error_rate`."""
    return _scaled(differences, clusters, normal_quantile(1 - error_rate) + normal_quantile(power), effect)


def items_for_margin(
    differences: ArrayLike,
    margin: float,
    clusters: Clusters | None = None,
    *,
    effect: float = 0.0,
    error_rate: float = 0.025,
    power: float = 0.8,
    equivalence: bool = False,
) -> int:
    """Items in all until a candidate with a true difference of `effect` is shown to be at most `margin` worse; with
    `equivalence`, to differ by less than `margin` in either direction.

    Differences are turned so that more is better. For equivalence without an effect both one-sided tests must succeed,
    each with half of what may fail (Chow, Shao & Wang, "Sample Size Calculations in Clinical Research", section 3.1).
    """
    room = margin - abs(effect) if equivalence else margin + effect
    if not room > 0:
        raise InputError(f"A true difference of {effect:g} does not lie within a margin of {margin:g}.")
    success = 1 - (1 - power) / 2 if equivalence and effect == 0 else power
    return _scaled(differences, clusters, normal_quantile(1 - error_rate) + normal_quantile(success), room)


def power_of(
    differences: ArrayLike,
    effect: float,
    items: int,
    clusters: Clusters | None = None,
    *,
    error_rate: float = 0.025,
) -> float:
    """With what probability that many items find a true difference of `effect`, by the spread of a pilot's
    differences."""
    pilot = mean_error(differences, clusters)
    if items < 2 or not effect > 0:
        raise InputError(f"{items} items cannot find a difference of {effect:g}.")
    if math.isinf(pilot.error):
        raise InputError("All items of the pilot come from one cluster.", "Take the pilot's items from several.")
    error = pilot.error * math.sqrt(pilot.n / items)
    return 1.0 if error == 0.0 else normal_cdf(effect / error - normal_quantile(1 - error_rate))


def minimum_detectable_effect(
    differences: ArrayLike, clusters: Clusters | None = None, *, error_rate: float = 0.025, power: float = 0.8
) -> float:
    """The smallest true difference that as many items as the pilot had find with probability `power`."""
    return (normal_quantile(1 - error_rate) + normal_quantile(power)) * mean_error(differences, clusters).error


def _scaled(differences: ArrayLike, clusters: Clusters | None, deviations: float, target: float) -> int:
    if not target > 0:
        raise InputError(f"No number of items resolves a difference of {target}.", "Ask for one greater than 0.")
    pilot = mean_error(differences, clusters)
    if math.isinf(pilot.error):
        raise InputError("All items of the pilot come from one cluster.", "Take the pilot's items from several.")
    # The standard error falls with the root of the items when the clusters keep their sizes.
    return max(2, math.ceil(pilot.n * (deviations * pilot.error / target) ** 2))
