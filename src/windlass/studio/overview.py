"""The first page: what is live, what was measured last, what happened lately."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

from starlette.responses import Response

from windlass.core.records import TraceSummary
from windlass.loop.living import held
from windlass.studio import experiments
from windlass.studio.releases import live_releases
from windlass.studio.web import Visit

RECENT = 50
"""Traces that the figures on this page are over."""


def show(visit: Visit) -> Response:
    store = visit.ws.store
    traces = store.traces(limit=RECENT)
    found = experiments.newest(visit.ws, 1)
    return visit.page(
        "overview.html",
        "overview",
        home=visit.ws.home,
        models=list(visit.studio.models),
        live=live_releases(visit.ws),
        indexes=held(visit.ws),
        traces=traces[:8],
        lately=_lately(traces),
        runs=visit.ws.runs.list(limit=6),
        now=time.time(),
        experiment=experiments.read(visit.ws, found[0].digest) if found else None,
    )


def _lately(traces: Sequence[TraceSummary]) -> dict[str, float | None]:
    """Figures over the newest traces; None where nothing is known."""
    feedback = [t.scores["feedback"] for t in traces if "feedback" in t.scores]
    costs = [t.cost_usd for t in traces if t.cost_usd is not None]
    return {
        "count": len(traces),
        "errors": sum(t.errors > 0 for t in traces),
        "median_ms": statistics.median(t.root.duration_ms for t in traces) if traces else None,
        "rated": len(feedback),
        "up": sum(value >= 0.5 for value in feedback),
        "cost": sum(costs) if costs else None,
        "priced": len(costs),
    }
