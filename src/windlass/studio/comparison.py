"""Several runs on one page: what differs, how they ended, their curves over each other, the cost of an equal loss."""

from __future__ import annotations

from starlette.responses import JSONResponse, Response

from windlass.core.errors import InputError
from windlass.loop.training.runs import (
    HELD_OUT,
    LOSS,
    TOKENS,
    Tracked,
    differences,
    equal_loss,
    labels,
    reached,
    tracked,
)
from windlass.studio.runs import curve
from windlass.studio.web import Visit

MOST = 6
"""Runs at a time: as many as there are colours that can be told apart."""


def show(visit: Visit) -> Response:
    runs = _runs(visit)
    loss = equal_loss(runs)
    names = dict.fromkeys(name for run in runs for name in run.series)
    return visit.page(
        "comparison.html",
        "runs",
        runs=[run.record for run in runs],
        labels=labels(runs),
        differing=differences(runs),
        ends={name: [run.last(name) for run in runs] for name in names},
        curves=_curves(runs),
        loss=loss,
        costs=[] if loss is None else [reached(run, loss) for run in runs],
    )


def metrics(visit: Visit) -> Response:
    """The curves as JSON, for the charts."""
    runs = _runs(visit)
    running = any(run.record.status == "running" for run in runs)
    return JSONResponse(
        {"status": "running" if running else "done", "curves": _curves(runs)}, headers={"Cache-Control": "no-store"}
    )


def _runs(visit: Visit) -> list[Tracked]:
    asked = list(dict.fromkeys(visit.request.query_params.getlist("run")))
    if not 2 <= len(asked) <= MOST:
        raise InputError(
            f"{len(asked)} runs are chosen, but a comparison takes 2 to {MOST}.", "Tick them in the list of runs."
        )
    return [tracked(visit.ws, identifier) for identifier in asked]


def _curves(runs: list[Tracked]) -> list[dict[str, object]]:
    """A frame for each metric that at least two of the runs have a curve of; losses first."""
    names = dict.fromkeys(name for run in runs for name in run.series if name != TOKENS)
    drawn = []
    for name in sorted(names, key=lambda name: (name != LOSS, name != HELD_OUT, name)):
        series = {
            label: run.series[name] for label, run in zip(labels(runs), runs) if len(run.series.get(name, ())) > 1
        }
        if len(series) > 1:
            drawn.append(curve(name, series, {}))
    return drawn
