"""The list of runs, and one run with its curves."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.responses import JSONResponse, Response

from windlass.core.artifacts import Artifact
from windlass.core.errors import NotFound
from windlass.core.records import ArtifactRecord, MetricPoint, RunRecord
from windlass.loop.training.runs import HELD_OUT, LOSS, TOKENS
from windlass.studio.web import Visit

MAX_POINTS = 1_500
"""Points sent per curve; longer series are thinned evenly, keeping the first and the last."""


def listing(visit: Visit) -> Response:
    kind = visit.query("kind")
    runs = visit.ws.runs.list(kind or None, limit=500)
    return visit.page("runs.html", "runs", runs=runs, kind=kind, now=time.time())


def _run(visit: Visit) -> RunRecord:
    record = visit.ws.runs.get(visit.path("run"))
    if record is None:
        raise NotFound(f"There is no run '{visit.path('run')[:80]}'.", "The list of runs shows what there is.")
    return record


def show(visit: Visit) -> Response:
    run = _run(visit)
    made = visit.ws.store.artifacts(run=run.id)
    drawn = curves(visit.ws.store.metrics(run.id), baselines(run, made))
    return visit.page(
        "run.html",
        "runs",
        run=run,
        made=made,
        curves=[curve for curve in drawn if curve["points"] > 1],
        single=[(curve["name"], curve["last"]) for curve in drawn if curve["points"] == 1],
        environment=_flat(run.environment),
        config=_flat(run.config),
        now=time.time(),
    )


def metrics(visit: Visit) -> Response:
    """The curves as JSON, for the charts; asked for again while the run goes on."""
    run = _run(visit)
    made = visit.ws.store.artifacts(run=run.id)
    return JSONResponse(
        {"status": run.status, "curves": curves(visit.ws.store.metrics(run.id), baselines(run, made))},
        headers={"Cache-Control": "no-store"},
    )


def baselines(run: RunRecord, made: Sequence[ArtifactRecord | Artifact]) -> dict[str, float]:
    """Bits per byte of other compressors on the same text, from the cards of what the run made."""
    found: dict[str, float] = {}
    for card in [run.config, *(artifact.card for artifact in made)]:
        held = card.get("baselines")
        if isinstance(held, Mapping):
            found.update({str(name): float(v) for name, v in held.items() if isinstance(v, int | float)})
    return found


def curves(points: Sequence[MetricPoint], lines: Mapping[str, float]) -> list[dict[str, Any]]:
    """One curve per metric, held-out loss over training loss; those in bits per byte carry the baselines as lines."""
    series: dict[str, list[MetricPoint]] = {}
    for point in points:
        if point.name != TOKENS:  # grows evenly, and serves to compare runs
            series.setdefault(point.name, []).append(point)
    heldout = {HELD_OUT: series.pop(HELD_OUT)} if LOSS in series and HELD_OUT in series else {}
    drawn = []
    for name, all_points in series.items():
        bits = "bits_per_byte" in name or "bpb" in name
        over = heldout if name == LOSS else {}
        drawn.append(curve(name, {name: all_points, **over}, lines if bits else {}))
    # What a reader wants first: held-out quality, then losses, then the rest by name.
    return sorted(drawn, key=lambda c: (not c["lines"], "loss" not in str(c["name"]), str(c["name"])))


def curve(name: str, series: Mapping[str, Sequence[MetricPoint]], lines: Mapping[str, float]) -> dict[str, Any]:
    """What the page draws in one frame: the first series, and `others` over it, all at the same steps."""
    kept = {label: {p.step: p.value for p in thin(points)} for label, points in series.items()}
    steps = sorted({step for values in kept.values() for step in values})

    def column(values: Mapping[int, float]) -> list[float | None]:
        return [v if (v := values.get(step)) is not None and math.isfinite(v) else None for step in steps]

    first, *others = kept
    newest = series[first][-1]
    return {
        "name": name,
        "label": first,
        "steps": steps,
        "values": column(kept[first]),
        "others": [{"name": other, "values": column(kept[other])} for other in others],
        "points": len(series[first]),
        "last": newest.value if math.isfinite(newest.value) else None,
        "step": newest.step,
        "lines": dict(sorted(lines.items(), key=lambda item: item[1])),
    }


def thin(points: Sequence[MetricPoint]) -> Sequence[MetricPoint]:
    if len(points) <= MAX_POINTS:
        return points
    stride = (len(points) - 1) / (MAX_POINTS - 1)
    return [points[round(i * stride)] for i in range(MAX_POINTS)]


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested settings as dotted names."""
    rows: list[tuple[str, Any]] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            rows.extend(_flat(value, f"{prefix}{key}."))
        else:
            rows.append((f"{prefix}{key}", value))
    return rows
