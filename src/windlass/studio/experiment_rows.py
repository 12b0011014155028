"""One metric of an experiment, as the drawings and tables of all its pages show it."""

from __future__ import annotations

from dataclasses import dataclass

from windlass.core.scale import Scale
from windlass.evaluate.experiment import Comparison
from windlass.evaluate.statistics.intervals import Interval


@dataclass(frozen=True, slots=True)
class Row:
    """One metric of both variants."""

    metric: str
    label: str
    lower_is_better: bool
    incumbent: Interval
    candidate: Interval
    comparison: Comparison
    decision: str
    """Of the gate on this metric; empty where the gate does not look."""
    values: Scale
    gains: Scale

    @property
    def difference(self) -> Interval:
        return self.comparison.difference
