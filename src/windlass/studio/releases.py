"""What each task serves, every change that led there, and the trials on live traffic with what could be told when."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from windlass.core.records import ArtifactRecord, ReleaseRecord
from windlass.core.scale import Scale, scale
from windlass.core.workspace import Workspace
from windlass.loop.releasing.showing import asked
from windlass.loop.releasing.trial import State, states
from windlass.studio.web import Visit

TRIALS = 3
"""Of each task, the newest."""
WIDTH = 1000.0
DRAWN = 400
"""Looks drawn at most; of more, every so many."""


@dataclass(frozen=True, slots=True)
class Curve:
    """The confidence sequence of one candidate on one metric, look by look, in percent of the drawing."""

    candidate: str
    metric: str
    band: str
    """Points of a polygon."""
    line: str
    """Points of the estimate."""
    scale: Scale
    last: Mapping[str, Any]
    """The newest interval."""
    decision: str


@dataclass(frozen=True, slots=True)
class Shown:
    state: State
    story: str
    """What is going on, for somebody who was not there."""
    asked: str
    """What must hold."""
    metrics: Sequence[str]
    curves: Sequence[Curve]
    shares: Sequence[tuple[str, str]]
    """Arm, and the points of its share over time; empty where shares never changed."""


def live_releases(ws: Workspace) -> list[tuple[ReleaseRecord, ArtifactRecord | None]]:
    """The newest release of each task with its variant."""
    newest: dict[str, ReleaseRecord] = {}
    for release in ws.store.releases():
        newest.setdefault(release.task, release)
    return [(release, ws.store.artifact(release.variant)) for release in newest.values()]


def show(visit: Visit) -> Response:
    history = visit.ws.store.releases()
    tasks: dict[str, list[ReleaseRecord]] = {}
    for release in history:
        tasks.setdefault(release.task, []).append(release)
    found = {task: states(visit.ws, task)[:TRIALS] for task in tasks}
    digests = {d for r in history for d in (r.variant, r.previous, r.experiment) if d}
    digests |= {arm for some in found.values() for one in some for arm in one.trial.arms}
    names = {d: record.ref for d in digests if (record := visit.ws.store.artifact(d)) is not None}
    trials = {task: [_shown(one, names, time.time()) for one in some] for task, some in found.items()}
    return visit.page("releases.html", "releases", tasks=tasks, names=names, trials=trials)


def _shown(state: State, names: Mapping[str, str], now: float) -> Shown:
    trial = state.trial
    curves = [_curve(state, one, metric) for one in trial.candidates for metric in trial.policy.metrics]
    metrics = list(dict.fromkeys([*trial.policy.metrics, *([trial.reward] if trial.reward else [])]))
    drawn = [one for one in curves if one is not None]
    return Shown(state, _story(state, names), asked(trial.policy), metrics, drawn, _shares(state, now))


def _story(state: State, names: Mapping[str, str]) -> str:
    trial = state.trial
    called = {one: names.get(one, one[:12]) for one in trial.arms}
    if not state.running:
        tried = " and ".join(called[one] for one in trial.candidates)
        return {
            "promoted": f"{called.get(state.winner or '', 'The winner')} passed, and went live for everybody.",
            "rolled back": f"{tried} did harm, or no good, and was taken back; all have {called[trial.incumbent]}.",
            "stopped": f"The trial of {tried} was stopped; everybody has what is live.",
        }[str(state.outcome)]
    parts = " and ".join(f"{100 * state.shares[one]:.3g} % of the users get {called[one]}" for one in state.left)
    last = state.looks[-1] if state.looks else None
    if last is None:
        return f"{parts}. Nobody has looked yet."
    seen = f"{sum(last.units.values()):,} users so far"
    passed = [called[one] for one in state.left if last.decisions.get(one) == "GO"]
    if passed:
        return f"{parts}. After {seen}: {' and '.join(passed)} may go live for everybody."
    return f"{parts}. After {seen}, no harm is shown, and it cannot be told yet whether it may go live."


def _shares(state: State, now: float) -> list[tuple[str, str]]:
    """Each arm's share over time, as steps, in percent of the drawing."""
    if state.steady:
        return []
    first, last = state.changes[0][0], state.ended or max(now, state.changes[-1][0])
    span = max(last - first, 1e-9)
    changes = state.changes[:: math.ceil(len(state.changes) / DRAWN)]
    lines = []
    for arm in state.trial.arms:
        points, height = list[str](), 0.0
        for at, shares, _ in changes:
            x = WIDTH * (at - first) / span
            points += [f"{x:.1f},{100 - height:.2f}"] if points else []
            height = 100 * shares[arm]
            points.append(f"{x:.1f},{100 - height:.2f}")
        lines.append((arm, " ".join([*points, f"{WIDTH:.1f},{100 - 100 * state.shares[arm]:.2f}"])))
    return lines


def _curve(state: State, candidate: str, metric: str) -> Curve | None:
    """None before the first look that bounds anything."""
    found: list[tuple[float, Mapping[str, Any]]] = [
        (at, interval)
        for at, look in enumerate(state.looks)
        if (interval := look.differences.get(candidate, {}).get(metric)) is not None
        and interval["low"] is not None
        and interval["high"] is not None
    ]
    if not found:
        return None
    found = found[:: math.ceil(len(found) / DRAWN)] if len(found) > DRAWN else found
    last = found[-1][1]
    width = last["high"] - last["low"]
    # The first looks know next to nothing: the axis shows what is told by now, three times as wide.
    axis = scale([0.0, last["low"] - width, last["high"] + width])
    most = max(1, len(state.looks) - 1)

    def point(at: float, value: float) -> str:
        return f"{WIDTH * at / most:.1f},{100 - axis.at(value):.2f}"

    if len(found) == 1:  # one look alone has no width: it is drawn as wide as from the look before it
        found = [(max(0.0, found[0][0] - 0.5), last), *found]
    low = [point(at, one["low"]) for at, one in found]
    high = [point(at, one["high"]) for at, one in found]
    return Curve(
        candidate,
        metric,
        " ".join([*low, *reversed(high)]),
        " ".join(point(at, one["estimate"]) for at, one in found),
        axis,
        last,
        state.looks[-1].decisions.get(candidate, ""),
    )
