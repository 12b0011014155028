"""What live traffic says of the arms of a trial: one value per user or session, from the traces and their scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from windlass.core.records import TraceSummary
from windlass.core.workspace import Workspace
from windlass.evaluate.online import Tally
from windlass.loop.releasing.trial import Trial

TRIAL, ARM, UNIT, PROPENSITY = (f"windlass.trial.{name}" for name in ("id", "arm", "unit", "propensity"))
FAILED = "failed"
_PAGE = 5_000


@dataclass(frozen=True, slots=True)
class Seen:
    """What the traces of a trial hold, by arm and unit."""

    values: Mapping[str, Mapping[str, Mapping[str, float]]]
    """Arm -> unit -> metric -> its mean over the unit's calls."""
    calls: Mapping[str, int]

    @property
    def units(self) -> dict[str, int]:
        return {arm: len(units) for arm, units in self.values.items()}

    def column(self, arm: str, metric: str) -> dict[str, float]:
        """Unit -> value, of those that have one."""
        return {unit: found[metric] for unit, found in self.values[arm].items() if metric in found}

    def tallies(self, arm: str, metrics: tuple[str, ...]) -> dict[str, Tally]:
        return {metric: Tally.of(list(self.column(arm, metric).values())) for metric in metrics}


def seen(ws: Workspace, trial: Trial) -> Seen:
    """Everything since the trial began. A unit that was moved from one arm to another counts where it was first: what
    it sees later is coloured by what it saw before."""
    ws.recorder.flush()
    sums: dict[str, dict[str, dict[str, list[float]]]] = {arm: {} for arm in trial.arms}
    calls = dict.fromkeys(trial.arms, 0)
    first: dict[str, str] = {}
    for trace in _oldest_first(ws, trial):
        said = trace.root.attributes
        arm, unit = said.get(ARM), said.get(UNIT)
        if said.get(TRIAL) != trial.id or arm not in sums or unit is None:
            continue
        calls[arm] += 1
        if first.setdefault(unit, arm) != arm:
            continue
        unit_sums = sums[arm].setdefault(unit, {})
        for metric, value in values_of(trace).items():
            unit_sums.setdefault(metric, []).append(value)
    means = {
        arm: {unit: {metric: sum(some) / len(some) for metric, some in found.items()} for unit, found in units.items()}
        for arm, units in sums.items()
    }
    return Seen(means, calls)


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


def _oldest_first(ws: Workspace, trial: Trial) -> list[TraceSummary]:
    return list(_pages(ws, trial.task, trial.began))[::-1]


def _pages(ws: Workspace, task: str, since: float) -> Iterator[TraceSummary]:
    """Newest first."""
    offset = 0
    while page := ws.store.traces(name=task, since=since, limit=_PAGE, offset=offset):
        yield from page
        offset += len(page)
