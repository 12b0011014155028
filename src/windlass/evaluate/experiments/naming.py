"""What a metric is called in reports, which direction is better, and between which bounds it lies."""

from __future__ import annotations

import math
from typing import Literal

from windlass.evaluate.outcomes import METRICS

Direction = Literal["higher", "lower"]
_LOWER = ("cost_usd", "latency_ms", "tokens")


def label(metric: str) -> str:
    return METRICS[metric].label if metric in METRICS else metric


def direction(metric: str) -> Direction:
    """Of a metric that nobody has described: more is better."""
    if metric in METRICS:
        return METRICS[metric].better
    return "lower" if metric in _LOWER else "higher"


def bounds(metric: str) -> tuple[float, float]:
    if metric in METRICS:
        return METRICS[metric].bounds
    return (0.0, math.inf) if metric in _LOWER else (-math.inf, math.inf)
