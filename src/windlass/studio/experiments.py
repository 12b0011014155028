"""Experiments: two variants on the same items, their intervals, the paired difference and the gate's verdict."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any

from starlette.responses import Response

from windlass.apply.prompts import artifact as prompts
from windlass.core.artifacts import Artifact
from windlass.core.errors import InputError, NotFound, WindlassError, WorkspaceCorrupt
from windlass.core.records import ArtifactRecord
from windlass.core.scale import Scale, scale
from windlass.core.workspace import Workspace
from windlass.evaluate.experiments import regressions
from windlass.evaluate.experiments.experiment import Comparison, Experiment, compare
from windlass.evaluate.experiments.naming import direction
from windlass.evaluate.experiments.slices import Slice
from windlass.evaluate.experiments.stored import KIND, read_experiment
from windlass.evaluate.gate import superiority
from windlass.evaluate.policy import Policy
from windlass.loop.evaluating.evaluation import KIND as RESULTS
from windlass.loop.evaluating.evaluation import read_results
from windlass.loop.evaluating.experiments import invalid, named_results
from windlass.loop.prompting.optimising import SEARCH
from windlass.studio.checks import Check, checks
from windlass.studio.difference import Changed, changed, changes
from windlass.studio.turn_reports import report_of
from windlass.studio.web import Visit

EXTREMES = 12
"""Items shown with the largest gains, and as many with the largest losses."""
LISTED = 50
KEPT = 64
"""Experiments kept in memory after they were read; they never change."""


@dataclass(frozen=True, slots=True)
class Changing:
    """One item on which the variants differ, with what either gave."""

    item: str
    asked: Any
    wanted: Any
    incumbent: float
    candidate: float
    gain: float
    outputs: tuple[Any, Any]
    traces: tuple[str | None, str | None]
    diff: Changed | None
    """None: the outputs are the same."""


@dataclass(frozen=True, slots=True)
class Sliced:
    """The slices of one kind, on one scale."""

    by: str
    slices: Sequence[Slice]
    gains: Scale


@dataclass(frozen=True, slots=True)
class View:
    """An experiment as its page shows it."""

    record: ArtifactRecord
    experiment: Experiment
    checks: Sequence[Check]
    """What the gate looked at."""
    losses: Sequence[Changing]
    """The largest first."""
    gains: Sequence[Changing]
    regressed: int
    slices: Sequence[Sliced]
    search: Mapping[str, Any] | None
    """What a search for the candidate tried, and took; None where it was none."""

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
    def rows(self) -> Sequence[Comparison]:
        """The gate's metrics first, the primary one at the head."""
        return self.experiment.comparisons

    @property
    def primary(self) -> str:
        return self.experiment.policy.primary


_views: OrderedDict[str, View] = OrderedDict()
_lock = Lock()


def newest(ws: Workspace, limit: int) -> list[ArtifactRecord]:
    return ws.store.artifacts(kind=KIND, limit=limit)


def read(ws: Workspace, ref: str) -> View:
    """Raises `NotFound` for what is no experiment and `WorkspaceCorrupt` for one that cannot be understood."""
    artifact = ws.artifacts.get(ref)
    if artifact.kind != KIND:
        raise NotFound(f"{artifact.ref} is no experiment but a {artifact.kind}.", "The list shows the experiments.")
    with _lock:
        view = _views.get(artifact.digest)
    if view is None:
        try:
            view = _view(artifact)
        except (KeyError, TypeError, ValueError, OSError, InputError) as error:
            raise WorkspaceCorrupt(f"{artifact.ref} cannot be read: {error}", "Run the comparison again.") from error
        with _lock:
            _views[artifact.digest] = view
            while len(_views) > KEPT:
                _views.popitem(last=False)
    return view


def _view(artifact: Artifact) -> View:
    experiment = read_experiment(artifact)
    search = artifact.path / SEARCH
    return shown(
        artifact.record, experiment, json.loads(search.read_text(encoding="utf-8")) if search.is_file() else None
    )


def shown(record: ArtifactRecord, experiment: Experiment, search: Mapping[str, Any] | None = None) -> View:
    primary = any(one.metric == experiment.policy.primary for one in experiment.comparisons)
    by_gain = regressions.changes(experiment) if primary else []
    return View(
        record,
        experiment,
        checks(experiment),
        [_changing(one) for one in by_gain[:EXTREMES] if one.gain < 0],
        [_changing(one) for one in by_gain[: -EXTREMES - 1 : -1] if one.gain > 0],
        sum(one.gain < 0 for one in by_gain),
        _sliced(experiment.slices, experiment.policy),
        search,
    )


def _changing(change: regressions.Change) -> Changing:
    before, after = change.shown
    a, b = (regressions.as_text(one.output).split("\n") for one in (before, after))
    return Changing(
        change.item,
        before.input,
        before.expected,
        change.incumbent,
        change.candidate,
        change.gain,
        (before.output, after.output),
        (before.trace, after.trace),
        None if a == b else changed("output", a, b),
    )


def _sliced(slices: Sequence[Slice], policy: Policy) -> list[Sliced]:
    """Of each kind that the gate does not look at anyway."""
    rule = policy.slices
    looked = rule.by if rule is not None and rule.metric in (None, policy.primary) else ()
    kinds: dict[str, list[Slice]] = {}
    for one in slices:
        if one.by in looked:
            continue
        kinds.setdefault(one.by, []).append(one)
    return [
        Sliced(by, some, scale([0.0, *(end for one in some for end in (one.difference.low, one.difference.high))]))
        for by, some in kinds.items()
        if len(some) > 1
    ]


def listing(visit: Visit) -> Response:
    found = newest(visit.ws, LISTED + 1)
    views: list[View] = []
    broken: list[tuple[ArtifactRecord, WindlassError]] = []
    for record in found[:LISTED]:
        try:
            views.append(read(visit.ws, record.digest))
        except WorkspaceCorrupt as error:  # one unreadable experiment must not hide the others
            broken.append((record, error))
    results = visit.ws.store.artifacts(RESULTS, limit=LISTED)
    return visit.page(
        "experiments.html", "experiments", views=views, broken=broken, more=len(found) > LISTED, results=results
    )


def compared(visit: Visit) -> Response:
    """Any two stored results, compared for looking at: nothing is kept."""
    asked = [visit.ws.artifacts.get(ref) for ref in visit.request.query_params.getlist("results")]
    if len(asked) != 2:
        raise InputError(f"{len(asked)} results are chosen, but a comparison takes 2.", "Tick two in the list.")
    asked.sort(key=lambda one: one.record.created)
    before, after = named_results([read_results(one) for one in asked])
    first = next(iter(before.scorers), None) or before.metrics[0]
    experiment = compare(before, after, Policy(first, superiority(better=direction(first))))
    record = replace(asked[0].record, digest="", name=f"{after.variant} against {before.variant}", version=0)
    parents = [(role, one.digest, one.record) for role, one in zip(("incumbent", "candidate"), asked)]
    view = shown(record, experiment)
    return visit.page(
        "experiment.html",
        "experiments",
        view=view,
        e=experiment,
        prompts={},
        changes=[],
        parents=parents,
        releases=[],
        traced=_stored(visit.ws, view),
        invalid=None,
        turn=None,
    )


def show(visit: Visit) -> Response:
    view = read(visit.ws, visit.path("ref"))
    store = visit.ws.store
    prompted = _prompts(visit.ws, view.record)
    return visit.page(
        "experiment.html",
        "experiments",
        view=view,
        e=view.experiment,
        prompts=prompted,
        changes=changes(*(prompts.read(one) for one in prompted.values())) if len(prompted) == 2 else [],
        parents=[(role, digest, store.artifact(digest)) for role, digest in view.record.parents],
        releases=[r for r in store.releases() if r.experiment == view.digest],
        traced=_stored(visit.ws, view),
        invalid=invalid(visit.ws, view.digest),
        turn=report_of(visit.ws, view.digest),
    )


def _stored(ws: Workspace, view: View) -> set[str]:
    """Traces of the items shown that are in this workspace: results may come from another one."""
    named = {trace for one in (*view.losses, *view.gains) for trace in one.traces if trace is not None}
    return {trace for trace in named if ws.store.trace(trace)}


def _prompts(ws: Workspace, record: ArtifactRecord) -> dict[str, Artifact]:
    """Role -> the prompt of the variant that played it, where it has one that is still here."""
    found = {}
    for role in ("incumbent", "candidate"):
        variant = ws.artifacts.find(dict(record.parents).get(role, ""))
        of = [] if variant is None else [parent for part, parent in variant.record.parents if part == prompts.KIND]
        prompt = ws.artifacts.find(of[0]) if of else None
        if prompt is not None:
            found[role] = prompt
    return found
