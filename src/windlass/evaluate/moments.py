"""Sums from which means and their errors follow, kept exactly: what was added can be taken away again.

A figure that is brought up to date by what is new must not depend on the order in which that came, nor drift away from
the one that counts everything again. Sums of floats do both, so these are fractions (every float is one).

**Weights.** Where the share of an arm changed on the way, its values do not stand for all units alike: those of a time
when it got much are too many. Each value counts by one over the share that the arm had when its unit came (its
propensity), divided by the sum of these weights (Hajek 1971); without that, an arm that grows while users become
happier looks better than it is. The error is that of a ratio of sums (Sarndal, Swensson and Wretman 1992, 5.7). Under a
bandit, whose shares follow from earlier values, the weighted residuals are a martingale, so that confidence sequences
hold (Waudby-Smith et al., "Anytime-valid off-policy inference for contextual bandits", 2022).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from windlass.core.errors import InputError
from windlass.evaluate.online import Tally

_NONE = (Fraction(0),) * 7


@dataclass(frozen=True, slots=True)
class Moments:
    """Of values x with weights w."""

    n: int = 0
    sums: Sequence[Fraction] = _NONE
    """Of x, x^2, w, wx, w^2, w^2 x, w^2 x^2."""

    @classmethod
    def of(cls, value: float, propensity: float = 1.0) -> Moments:
        """Of one value. Raises `InputError` for a propensity that is none."""
        if not 0 < propensity <= 1:
            raise InputError(f"A propensity of {propensity:g} cannot be.", "It is a share above 0 and up to 1.")
        x, w = Fraction(value), Fraction(1.0 / propensity)
        wx = w * x
        return cls(1, (x, x * x, w, wx, w * w, w * wx, wx * wx))

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.n + other.n, tuple(a + b for a, b in zip(self.sums, other.sums, strict=True)))

    def __sub__(self, other: Moments) -> Moments:
        return Moments(self.n - other.n, tuple(a - b for a, b in zip(self.sums, other.sums, strict=True)))

    def tally(self) -> Tally:
        """The values as they came."""
        if not self.n:
            return Tally()
        x, xx = self.sums[:2]
        return Tally(self.n, float(x / self.n), float(xx - x * x / self.n))

    def weighted(self) -> Tally:
        """The same in the place of all units: as many values of equal weight as tell as much (Kish 1965). With equal
        weights it is `tally`."""
        if not self.n:
            return Tally()
        w, wx, ww, wwx, wwxx = self.sums[2:]
        mean = wx / w
        residuals = wwxx - 2 * mean * wwx + mean * mean * ww
        n = int(w * w / ww)
        return Tally(n, float(mean), float(residuals / (w * w) * n * n))

    def to_json(self) -> list[Any]:
        return [self.n, *map(str, self.sums)]

    @classmethod
    def from_json(cls, said: Sequence[Any]) -> Moments:
        return cls(said[0], tuple(map(Fraction, said[1:])))
