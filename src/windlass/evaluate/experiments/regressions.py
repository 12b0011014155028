"""The items on which a candidate differs from the incumbent, one by one: what was asked, and what either gave."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import unified_diff
from typing import Any

from windlass.evaluate.experiments.experiment import Experiment
from windlass.evaluate.experiments.results import ItemResult

_LONGEST = 100
"""Characters of a title."""


@dataclass(frozen=True, slots=True)
class Change:
    """One item of which both sides have the metric."""

    item: str
    incumbent: float
    """Means over repeats."""
    candidate: float
    gain: float
    """Positive where the candidate is better, whichever direction is better."""
    runs: Sequence[tuple[ItemResult, ItemResult]]

    @property
    def title(self) -> str:
        """What was asked, in one line; of an item that does not say so, what it is called."""
        asked = self.runs[0][0].input
        if isinstance(asked, Mapping) and len(asked) == 1:
            asked = next(iter(asked.values()))
        line = "" if asked is None else " ".join(as_text(asked).split())
        return (line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…") or self.item

    @property
    def shown(self) -> tuple[ItemResult, ItemResult]:
        """The first repeat in which the outputs differ; else the first."""
        return next((pair for pair in self.runs if pair[0].output != pair[1].output), self.runs[0])


def changes(experiment: Experiment, metric: str | None = None) -> list[Change]:
    """All items that have the metric (by default the primary one) on both sides, the worst loss first."""
    metric = metric or experiment.policy.primary
    sign = 1.0 if experiment.comparison(metric).direction == "higher" else -1.0
    found: dict[str, list[tuple[ItemResult, ItemResult]]] = {}
    for a, b in experiment.pairs:
        if metric in a.values and metric in b.values:
            found.setdefault(a.item, []).append((a, b))
    rows = []
    for item, runs in found.items():
        before, after = (sum(pair[side].values[metric] for pair in runs) / len(runs) for side in (0, 1))
        rows.append(Change(item, before, after, sign * (after - before), runs))
    return sorted(rows, key=lambda change: change.gain)


def regressions(experiment: Experiment, metric: str | None = None) -> list[Change]:
    """Those on which the candidate is worse, the worst first."""
    return [change for change in changes(experiment, metric) if change.gain < 0]


def difference(change: Change) -> Iterator[str]:
    """The lines of a unified diff from the incumbent's output to the candidate's."""
    a, b = (as_text(one.output).splitlines() for one in change.shown)
    return unified_diff(a, b, "incumbent", "candidate", lineterm="", n=2)


def as_text(output: Any) -> str:
    return output if isinstance(output, str) else json.dumps(output, indent=2, ensure_ascii=False, sort_keys=True)
