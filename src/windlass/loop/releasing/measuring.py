"""What live traffic says of the arms of a trial: one value per user or session, from the traces and their scores."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from windlass.core.records import TraceSummary
from windlass.core.workspace import Workspace
from windlass.evaluate.moments import Moments
from windlass.evaluate.online import Tally
from windlass.loop.releasing.trial import Trial

TRIAL, ARM, UNIT, PROPENSITY = (f"windlass.trial.{name}" for name in ("id", "arm", "unit", "propensity"))
FAILED = "failed"
BOUNDS = {FAILED: (0.0, 1.0), "feedback": (0.0, 1.0), "latency_ms": (0.0, math.inf), "cost_usd": (0.0, math.inf)}
"""Between which the values of every trace lie; those of other scores are not known."""
_PAGE = 5_000


@dataclass(frozen=True, slots=True)
class Seen:
    """What the calls of a trial add up to, by arm. A unit stands for one value, the mean over its calls, and counts in
    the arm where it was first: what it sees later is coloured by what it saw before."""

    units: Mapping[str, int]
    calls: Mapping[str, int]
    sums: Mapping[str, Mapping[str, Moments]]
    """Arm -> metric -> its values, one for each unit that has one."""
    arrivals: Mapping[str, Mapping[float, int]]
    """Arm -> propensity -> how many units came when the arm had that share."""

    def tallies(self, arm: str, metrics: tuple[str, ...], *, weighted: bool = False) -> dict[str, Tally]:
        """`weighted`: each unit by one over the share that its arm had when it came."""
        sums = {metric: self.sums[arm].get(metric, Moments()) for metric in metrics}
        return {metric: one.weighted() if weighted else one.tally() for metric, one in sums.items()}


def before(ws: Workspace, trial: Trial, metric: str, seconds: float = 14 * 86_400) -> dict[str, float]:
    """Unit -> mean of the metric in the time before the trial began, of the units that were there: for CUPED."""
    found: dict[str, list[float]] = {}
    for trace in _pages(ws, trial.task, trial.began - seconds):
        unit = trace.root.attributes.get(UNIT)
        if unit is not None and trace.root.start_ns < trial.began * 1e9:
            value = values_of(trace).get(metric)
            if value is not None:
                found.setdefault(unit, []).append(value)
    return {unit: sum(some) / len(some) for unit, some in found.items()}


def values_of(trace: TraceSummary) -> dict[str, float]:
    """Latency, cost as far as it is known, whether the call failed, and whatever scores were given."""
    found = {"latency_ms": trace.root.duration_ms, FAILED: float(trace.root.status == "error"), **trace.scores}
    if trace.cost_usd is not None:
        found["cost_usd"] = trace.cost_usd
    return found


def _pages(ws: Workspace, task: str, since: float) -> Iterator[TraceSummary]:
    """Newest first."""
    offset = 0
    while page := ws.store.traces(name=task, since=since, limit=_PAGE, offset=offset):
        yield from page
        offset += len(page)
