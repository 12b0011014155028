"""Runs side by side: where their settings differ, how they ended, and what each needed to reach the same loss."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from windlass.core.errors import InputError, NotFound
from windlass.core.records import MetricPoint, RunRecord
from windlass.core.tables import table
from windlass.core.workspace import Workspace
from windlass.loop.training.chart import Series, chart, short

LOSS, HELD_OUT, TOKENS = "train_loss", "heldout_loss", "tokens"
_WINDOW = 0.05
"""Share of a run that the loss is averaged over."""


@dataclass(frozen=True, slots=True)
class Tracked:
    """A run with its metrics."""

    record: RunRecord
    series: Mapping[str, Sequence[MetricPoint]]

    def last(self, name: str) -> float | None:
        return self.series[name][-1].value if name in self.series else None

    def curve(self, name: str) -> Series:
        return [(point.step, point.value) for point in self.series.get(name, ())]


@dataclass(frozen=True, slots=True)
class Reached:
    """What a run had needed when its loss, averaged over some steps, first was as low as asked."""

    step: int
    tokens: float | None
    seconds: float | None
    """Of training alone: neither measurements nor checkpoints, nor pauses between processes. None, like `tokens`, when
    the run logged too little to know."""


def tracked(ws: Workspace, identifier: str) -> Tracked:
    """Raises `NotFound` when there is no such run."""
    record = ws.runs.get(identifier)
    if record is None:
        raise NotFound(f"There is no run '{identifier}' in this workspace.", "`windlass runs` lists them.")
    series: dict[str, list[MetricPoint]] = {}
    for point in ws.store.metrics(record.id):
        series.setdefault(point.name, []).append(point)
    return Tracked(record, {name: sorted(points, key=lambda p: p.step) for name, points in series.items()})


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under dotted names."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def differences(runs: Sequence[Tracked]) -> dict[str, list[Any]]:
    """Settings that are not the same in all runs, each with its value in every run; None where it is not set."""
    settings = [{**flat(run.record.config), "seed": run.record.seed} for run in runs]
    settings = [one | {"revision": run.record.environment.get("revision")} for one, run in zip(settings, runs)]
    names = dict.fromkeys(name for one in settings for name in one)
    values = {name: [one.get(name) for one in settings] for name in names}
    return {name: row for name, row in values.items() if any(value != row[0] for value in row)}


def smoothed(points: Sequence[MetricPoint]) -> list[tuple[int, float]]:
    """(step, mean of the last steps up to it), over a twentieth of the run; the first steps have no mean yet."""
    width = max(1, round(len(points) * _WINDOW))
    values = [point.value for point in points]
    return [
        (points[i].step, sum(values[i + 1 - width : i + 1]) / width)
        for i in range(width - 1, len(points))
        if all(map(math.isfinite, values[i + 1 - width : i + 1]))
    ]


def equal_loss(runs: Sequence[Tracked], name: str = LOSS) -> float | None:
    """The lowest loss that all the runs have reached, averaged; None when one has none."""
    ends = [min((value for _, value in smoothed(run.series.get(name, ()))), default=math.inf) for run in runs]
    return max(ends) if ends and all(map(math.isfinite, ends)) else None


def reached(run: Tracked, loss: float, name: str = LOSS) -> Reached | None:
    """None when the run never got there."""
    step = next((step for step, value in smoothed(run.series.get(name, ())) if value <= loss), None)
    if step is None:
        return None
    tokens = {point.step: point.value for point in run.series.get(TOKENS, ())}
    speed = {point.step: point.value for point in run.series.get("tokens_per_s", ())}
    if step not in tokens or any(s not in speed for s in tokens if s <= step):
        return Reached(step, tokens.get(step), None)
    seconds = before = 0.0
    for at in sorted(s for s in tokens if s <= step):
        seconds += (tokens[at] - before) / speed[at]
        before = tokens[at]
    return Reached(step, tokens[step], seconds)


def comparison(runs: Sequence[Tracked], *, colour: bool = False) -> str:
    """Differences, last values, curves over each other, and the cost of an equal loss. Raises `InputError` for fewer
    than two runs."""
    if len(runs) < 2:
        raise InputError("A comparison needs at least two runs.", "`windlass runs` lists them.")
    names = labels(runs)
    parts = [table(("run", "kind", "status"), [(run.record.id, run.record.kind, run.record.status) for run in runs])]
    differing = differences(runs)
    rows = [(name, *map(_value, row)) for name, row in differing.items()]
    parts.append(table(("setting", *names), rows) if rows else "The settings are the same.")
    metrics = [name for name in dict.fromkeys(n for run in runs for n in run.series) if name != "lr"]
    if metrics:
        ends = [(name, *(_number(run.last(name)) for run in runs)) for name in metrics]
        parts.append(table(("last value", *names), ends, right=range(1, len(names) + 1)))
    for metric in (LOSS, HELD_OUT):
        if sum(len(run.curve(metric)) > 1 for run in runs) > 1:
            curves = {name: run.curve(metric) for name, run in zip(names, runs)}
            parts.append(f"{metric}\n{chart(curves, colour=colour)}")
    loss = equal_loss(runs)
    if loss is not None:
        costs = [reached(run, loss) for run in runs]
        parts.append(
            f"To a training loss of {loss:.4f}, averaged over a twentieth of the run:\n" + _costs(names, costs)
        )
    return "\n\n".join(parts)


def summary(run: Tracked) -> str:
    """A run at its end: its curves, and what it took."""
    parts = []
    curves = {name: run.curve(name) for name in (LOSS, HELD_OUT) if len(run.curve(name)) > 1}
    if curves:
        parts.append(chart(curves) if len(curves) > 1 else f"{next(iter(curves))}\n{chart(curves)}")
    facts = []
    if (tokens := run.last(TOKENS)) is not None:
        facts.append(f"{tokens:,.0f} tokens")
    for name, unit, form in (("tokens_per_s", "tokens/s", ",.0f"), ("mfu", "MFU", ".0%")):
        if values := sorted(point.value for point in run.series.get(name, ())):
            facts.append(f"{values[len(values) // 2]:{form}} {unit} (median)")
    return "\n".join([*parts, *([" · ".join(facts)] if facts else [])])


def labels(runs: Iterable[Tracked]) -> list[str]:
    """A short name for each run: that of what it made, with the end of its id where several have it."""
    records = [run.record for run in runs]
    names = [record.name for record in records]
    return [r.name if names.count(r.name) == 1 else f"{r.name} {r.id.rpartition('-')[2]}" for r in records]


def _costs(names: Sequence[str], costs: Sequence[Reached | None]) -> str:
    first = costs[0]
    rows = []
    for name, cost in zip(names, costs):
        tokens, seconds = (cost.tokens, cost.seconds) if cost else (None, None)
        share = tokens / first.tokens if tokens and first and first.tokens else None
        rows.append(
            (
                name,
                cost.step if cost else None,
                None if tokens is None else short(tokens),
                None if share is None else f"{share:.2f}x",
                None if seconds is None else f"{seconds:,.0f} s",
            )
        )
    return table(("", "steps", "tokens", "of the first's", "training time"), rows, right=(2, 3, 4))


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else "-" if value is None else json.dumps(value)
    return text if len(text) <= 40 else text[:12] + "…"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.4g}" if abs(value) < 1e6 else f"{value:,.0f}"
