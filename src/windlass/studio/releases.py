"""What each task serves, every change that led there, and the trials on live traffic with what could be told when."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from windlass.core.records import ArtifactRecord, ReleaseRecord
from windlass.core.scale import Scale, scale
from windlass.core.workspace import Workspace
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
    curves: Sequence[Curve]


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
    trials = {task: [_shown(one) for one in states(visit.ws, task)[:TRIALS]] for task in tasks}
    digests = {d for r in history for d in (r.variant, r.previous, r.experiment) if d}
    digests |= {arm for some in trials.values() for one in some for arm in one.state.trial.arms}
    names = {d: record.ref for d in digests if (record := visit.ws.store.artifact(d)) is not None}
    return visit.page("releases.html", "releases", tasks=tasks, names=names, trials=trials)


def _shown(state: State) -> Shown:
    curves = [_curve(state, one, metric) for one in state.trial.candidates for metric in state.trial.policy.metrics]
    return Shown(state, [curve for curve in curves if curve is not None])


def _curve(state: State, candidate: str, metric: str) -> Curve | None:
    """None before the first look that bounds anything."""
    found = [
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

    def point(at: int, value: float) -> str:
        return f"{WIDTH * at / most:.1f},{100 - axis.at(value):.2f}"

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
