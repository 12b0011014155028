"""What a metric is called in reports, which direction is better, and between which bounds it lies."""

from __future__ import annotations

import math

from windlass.core.errors import InputError
from windlass.evaluate.exam import outcomes
from windlass.evaluate.metrics.catalogue import Better, Metric, metric

OF_RUNS = {
    "answered": Metric("answered", "higher", (0.0, 1.0), "an answer that fits was given"),
    "equal": Metric("equal", "higher", (0.0, 1.0), "the very answer"),
    "tokens": Metric("tokens", "lower", (0.0, math.inf), "tokens of all calls"),
}
"""What every evaluation of a task tells, beyond the catalogue of metrics."""


def known(name: str) -> Metric | None:
    """None for a metric of one's own, of which nothing is known."""
    if name in OF_RUNS:
        return OF_RUNS[name]
    try:
        return metric(name)
    except InputError:
        return None


def label(name: str) -> str:
    return outcomes.METRICS[name].label if name in outcomes.METRICS else name


def direction(name: str) -> Better:
    """Of a metric that nobody has described: more is better."""
    found = known(name)
    return "higher" if found is None else found.better


def bounds(name: str) -> tuple[float, float]:
    found = known(name)
    return (-math.inf, math.inf) if found is None else found.bounds
