"""Axes of the small drawings: from values to percentages of a width, with round tick marks."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scale:
    low: float
    high: float
    ticks: tuple[float, ...]

    def at(self, value: float) -> float:
        """Percent of the width, 0 to 100; values beyond the ends stay at the ends."""
        return round(min(100.0, max(0.0, 100 * (value - self.low) / (self.high - self.low))), 3)


def scale(values: Iterable[float], *, wanted: int = 5, margin: float = 0.06) -> Scale:
    """A scale that holds all finite `values` with a margin, and about `wanted` ticks at steps of 1, 2 or 5."""
    finite = [v for v in values if math.isfinite(v)] or [0.0]
    low, high = min(finite), max(finite)
    room = (high - low) * margin
    if high - low < 1e-9 * max(1.0, abs(low), abs(high)):  # one value, as far as a drawing can tell
        room = max(0.01, abs(high) * margin)
    low, high = low - room, high + room
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * 0.999)
    first = math.ceil(low / step)
    ticks = tuple(round(i * step, 12) for i in range(first, math.floor(high / step) + 1))
    return Scale(min(low, ticks[0]), max(high, ticks[-1]), ticks)  # a rounded tick may lie a hair outside
