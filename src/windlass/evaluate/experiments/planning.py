"""Power, stated before a comparison is made: which difference it can find, with how many items.

From a pilot it is computed with the pilot's own differences and clusters. Without one, the spread must be assumed, and
the plan says what was assumed: looking at the results first and computing the power from them says nothing new.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from numpy.typing import ArrayLike

from windlass.core.errors import InputError
from windlass.evaluate.statistics.checks import Clusters
from windlass.evaluate.statistics.distributions import normal_cdf, normal_quantile
from windlass.evaluate.statistics.intervals import mean_error

ASSUMED = 0.5
"""Standard deviation of a difference of scores from 0 to 1, if on a quarter of the items the variants disagree."""


@dataclass(frozen=True, slots=True)
class Plan:
    metric: str
    effect: float
    """The difference that matters, in units of the metric; above 0."""
    items: int
    """As many there are."""
    deviation: float
    """Standard deviation of the difference, from item to item; with clusters, as if the items were independent."""
    basis: Literal["pilot", "assumption"]
    error_rate: float
    """One-sided."""
    power: float
    """The chance that these items show the effect, if it is there."""
    needed: int
    """Items for a power of 0.8."""

    def __str__(self) -> str:
        whence = "from a pilot" if self.basis == "pilot" else "assumed"
        enough = "" if self.items >= self.needed else f"; {self.needed:,} items are needed for 80 %"
        return (
            f"A difference of {self.effect:g} in {self.metric} is found by {self.items:,} items with a chance of "
            f"{self.power:.0%} (spread {self.deviation:.2g}, {whence}; error rate {self.error_rate:g}){enough}."
        )


def planned(
    metric: str,
    effect: float,
    items: int,
    *,
    pilot: ArrayLike | None = None,
    clusters: Clusters | None = None,
    deviation: float = ASSUMED,
    error_rate: float = 0.025,
    wanted: float = 0.8,
) -> Plan:
    """pilot: differences by item of an earlier comparison, with their clusters; else `deviation` is assumed.

    Raises `InputError` for an effect that is not above 0, no items, and a pilot of one cluster.
    """
    if not effect > 0 or not math.isfinite(effect):
        raise InputError(f"An effect of {effect:g} cannot be looked for.", "State one above 0, such as 0.05.")
    if items < 1:
        raise InputError("No items find no effect.")
    if pilot is not None:
        found = mean_error(pilot, clusters)
        if math.isinf(found.error):
            raise InputError("All items of the pilot come from one cluster.", "Take the pilot's items from several.")
        deviation = found.error * math.sqrt(found.n)
    z = normal_quantile(1 - error_rate)
    power = 1.0 if deviation == 0 else normal_cdf(effect * math.sqrt(items) / deviation - z)
    needed = max(2, math.ceil(((z + normal_quantile(wanted)) * deviation / effect) ** 2))
    return Plan(metric, effect, items, deviation, "assumption" if pilot is None else "pilot", error_rate, power, needed)
