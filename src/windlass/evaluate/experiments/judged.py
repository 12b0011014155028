"""Metrics whose values a judge gave: what a comparison by them rests on, and how a report says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from windlass.evaluate.experiments.pairing import Pair
from windlass.evaluate.experiments.results import JUDGES, Results
from windlass.evaluate.judges.correcting import Corrected, corrected
from windlass.evaluate.judges.trust import Trust, trusts
from windlass.evaluate.statistics.intervals import Interval


@dataclass(frozen=True, slots=True)
class Judged:
    """What the comparison of one metric rests on."""

    worth: str
    """What is known of the judge, in words."""
    calibrated: bool
    corrected: bool
    """Whether the difference is the one that people would find, and not what the judge says."""
    note: str
    """What the correction takes for granted, or why there is none."""
    difference: Interval
    """As the judge has it."""

    def __str__(self) -> str:
        if not self.calibrated:
            return self.worth
        if not self.corrected:
            return f"{self.worth}. The difference is not corrected: {self.note.rstrip('.')}"
        d = self.difference
        own = f"{d.estimate:+.4f} [{d.low:+.4f}, {d.high:+.4f}]"
        return f"{self.worth}. Shown is what people would say ({self.note}); the judge itself says {own}"


@dataclass(frozen=True, slots=True)
class ByJudge:
    trust: Trust
    people: Corrected

    def told(self, difference: Interval) -> Judged:
        """difference: as the judge has it."""
        known, people = self.trust.calibration is not None, self.people
        return Judged(self.trust.worth, known, people.difference is not None, people.note, difference)


def by_judges(before: Results, after: Results, pairs: Sequence[Pair], level: float) -> Mapping[str, ByJudge]:
    """Of every metric that a judge gave and that any pair has, what people would say of it."""
    if JUDGES not in before.made_with and JUDGES not in after.made_with:
        return {}
    found = {}
    for metric, trust in trusts((before, after)).items():
        having = [(a, b) for a, b in pairs if metric in a.values and metric in b.values]
        if having:
            found[metric] = ByJudge(trust, corrected(metric, having, trust, level))
    return found
