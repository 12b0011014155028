"""Experiments: two variants on the same items, their intervals, the paired difference and the gate's verdict."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from threading import Lock

from starlette.responses import Response

from windlass.core.artifacts import Artifact
from windlass.core.errors import NotFound, WindlassError, WorkspaceCorrupt
from windlass.core.records import ArtifactRecord
from windlass.core.scale import scale
from windlass.core.workspace import Workspace
from windlass.evaluate.experiment import Comparison, Experiment
from windlass.evaluate.outcomes import METRICS, Outcome, columns
from windlass.studio import prompt_experiments
from windlass.studio.experiment_rows import Row
from windlass.studio.prompt_experiments import PromptView
from windlass.studio.web import Visit

EXTREMES = 12
"""Items shown with the largest gains, and as many with the largest losses."""
LISTED = 50
KINDS = ("experiment", prompt_experiments.KIND)
KEPT = 64
"""Experiments kept in memory after they were read; they never change."""


@dataclass(frozen=True, slots=True)
class Item:
    """One question and what the two variants scored on it by the primary metric."""

    id: str
    question: str
    incumbent: float
    candidate: float
    places: tuple[str, str]
    """Where the right document stood for each."""

    @property
    def gain(self) -> float:
        return self.candidate - self.incumbent


@dataclass(frozen=True, slots=True)
class View:
    """An experiment as its page shows it."""

    record: ArtifactRecord
    experiment: Experiment
    rows: Sequence[Row]
    """The gate's metrics first, the primary one at the head."""
    items: Sequence[Item]
    """By gain, the largest first."""

    @property
    def digest(self) -> str:
        return self.record.digest

    @property
    def ref(self) -> str:
        return self.record.ref

    @property
    def decision(self) -> str:
        return self.experiment.verdict.decision

    @property
    def primary(self) -> str:
        return self.experiment.policy.primary

    @property
    def judged(self) -> list[Row]:
        return [row for row in self.rows if row.decision]


_views: OrderedDict[str, View | PromptView] = OrderedDict()
_lock = Lock()


def newest(ws: Workspace, limit: int) -> list[ArtifactRecord]:
    """Experiments of all kinds."""
    found = [record for kind in KINDS for record in ws.store.artifacts(kind=kind, limit=limit)]
    return sorted(found, key=lambda record: -record.created)[:limit]


def read(ws: Workspace, ref: str) -> View | PromptView:
    """Raises `NotFound` for what is no experiment and `WorkspaceCorrupt` for one that cannot be understood."""
    artifact = ws.artifacts.get(ref)
    if artifact.kind not in KINDS:
        raise NotFound(f"{artifact.ref} is no experiment but a {artifact.kind}.", "The list shows the experiments.")
    with _lock:
        view = _views.get(artifact.digest)
    if view is None:
        try:
            view = _view(artifact) if artifact.kind == "experiment" else prompt_experiments.view(ws, artifact)
        except (KeyError, TypeError, ValueError, OSError) as error:
            raise WorkspaceCorrupt(
                f"{artifact.ref} cannot be read: {type(error).__name__} {error}.", "Run the comparison again."
            ) from error
        with _lock:
            _views[artifact.digest] = view
            while len(_views) > KEPT:
                _views.popitem(last=False)
    return view


def _view(artifact: Artifact) -> View:
    experiment = Experiment.from_json(json.loads((artifact.path / "experiment.json").read_text(encoding="utf-8")))
    decisions = {label: part.decision for label, part in experiment.verdict.checks}
    judged = [experiment.policy.primary, *experiment.policy.guards]
    rows = [_row(experiment, comparison, decisions) for comparison in experiment.comparisons]
    rows.sort(key=lambda row: judged.index(row.metric) if row.metric in judged else len(judged))
    return View(artifact.record, experiment, rows, _items(experiment))


def _row(experiment: Experiment, comparison: Comparison, decisions: Mapping[str, str]) -> Row:
    name, metric = comparison.metric, METRICS[comparison.metric]
    incumbent, candidate = experiment.incumbent.metrics[name], experiment.candidate.metrics[name]
    judged = name == experiment.policy.primary or name in experiment.policy.guards
    return Row(
        name,
        metric.label,
        metric.better == "lower",
        incumbent,
        candidate,
        comparison,
        decisions.get(metric.label, "INCONCLUSIVE") if judged else "",
        scale([incumbent.low, incumbent.high, candidate.low, candidate.high]),
        scale([comparison.difference.low, comparison.difference.high, 0.0]),
    )


def _items(experiment: Experiment) -> list[Item]:
    """Items on which both variants have the primary metric, by gain."""
    metric = METRICS[experiment.policy.primary]
    pairs = list(zip(experiment.items, *experiment.outcomes, strict=True))
    kept = [(item, a, b) for item, a, b in pairs if a.error is None and b.error is None]
    if not kept:
        return []
    items = [item for item, _, _ in kept]
    before, after = columns(items, [a for _, a, _ in kept]), columns(items, [b for _, _, b in kept])
    both = metric.applies(before) & metric.applies(after)
    values = zip(both.tolist(), metric.values(before).tolist(), metric.values(after).tolist(), strict=True)
    found = [
        Item(item.id, item.question, old, new, (_place(a), _place(b)))
        for (item, a, b), (has, old, new) in zip(kept, values, strict=True)
        if has
    ]
    return sorted(found, key=lambda item: -item.gain if metric.better == "higher" else item.gain)


def _place(outcome: Outcome) -> str:
    place = f"rank {outcome.rank}" if outcome.rank else "not found"
    return f"{place}, abstained" if outcome.abstained else place


def listing(visit: Visit) -> Response:
    found = newest(visit.ws, LISTED + 1)
    views: list[View | PromptView] = []
    broken: list[tuple[ArtifactRecord, WindlassError]] = []
    for record in found[:LISTED]:
        try:
            views.append(read(visit.ws, record.digest))
        except WorkspaceCorrupt as error:  # one unreadable experiment must not hide the others
            broken.append((record, error))
    return visit.page("experiments.html", "experiments", views=views, broken=broken, more=len(found) > LISTED)


def show(visit: Visit) -> Response:
    view = read(visit.ws, visit.path("ref"))
    if isinstance(view, PromptView):
        return prompt_experiments.show(visit, view)
    better = METRICS[view.experiment.policy.primary].better == "higher"
    wins = [i for i in view.items[:EXTREMES] if (i.gain > 0) == better and i.gain]
    losses = [i for i in view.items[: -EXTREMES - 1 : -1] if (i.gain < 0) == better and i.gain]
    store = visit.ws.store
    return visit.page(
        "experiment.html",
        "experiments",
        view=view,
        e=view.experiment,
        wins=wins,
        losses=losses,
        parents=[(role, digest, store.artifact(digest)) for role, digest in view.record.parents],
        releases=[r for r in store.releases() if r.experiment == view.digest],
    )
