"""A judge run over items, calibrated against people's labels, or over two systems: everything stored, nothing twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from windlass.apply.tasks.surroundings import Surroundings
from windlass.core.artifacts import Artifact
from windlass.core.errors import InputError
from windlass.core.workspace import Workspace
from windlass.evaluate.experiments.results import Results
from windlass.evaluate.judges.calibration import Calibration, calibrate
from windlass.evaluate.judges.file import read_judge
from windlass.evaluate.judges.finding import Finding, differences_found, findings, same_items
from windlass.evaluate.judges.items import Item, Label
from windlass.evaluate.judges.judge import Judge
from windlass.evaluate.judges.judgement import Judgement
from windlass.evaluate.judges.metric import judged_items, with_judgements
from windlass.loop.evaluating.evaluation import read_results, store_results
from windlass.loop.judging.asking import ask
from windlass.loop.judging.storing import (
    calibration_of,
    find_judge,
    record_scores,
    store_calibration,
    store_judge,
    store_judgements,
)


@dataclass(frozen=True, slots=True)
class Judged:
    """What a run of a judge left."""

    findings: Sequence[Finding]
    judgements: Sequence[Judgement]
    stored: Artifact
    """The judgements with their items."""


def named(ws: Workspace, where: str, models: Sequence[str] = ()) -> Judge:
    """A judge by its file, or of the workspace; `models` in place of its own make it another judge."""
    judge = read_judge(Path(where)) if Path(where).suffix == ".md" else find_judge(ws, where)
    return replace(judge, models=tuple(models)) if models else judge


def run_judge(
    ws: Workspace, judge: Judge, items: Sequence[Item], *, around: Surroundings | None = None, at_once: int = 8
) -> Judged:
    """Judges the items, corrects their mean by the newest calibration of this judge, and records every judgement."""
    artifact = store_judge(ws, judge)
    judgements = ask(ws, judge, items, around=around, at_once=at_once)
    known = calibration_of(ws, artifact)
    found = findings(judge, judgements, known[1] if known else (), clusters_of(items))
    record_scores(ws, judge, items, judgements)
    stored = store_judgements(ws, artifact, known[0] if known else None, items, judgements, found)
    return Judged(found, judgements, stored)


def compare_by_judge(
    ws: Workspace,
    judge: Judge,
    before: Sequence[Item],
    after: Sequence[Item],
    *,
    around: Surroundings | None = None,
    at_once: int = 8,
) -> tuple[Judged, Judged, list[Finding]]:
    """Both systems judged, and the difference over their items. Raises `InputError` before anybody is asked where those
    are not the same, and for a judge of pairs."""
    if judge.pairwise:
        raise InputError(f"'{judge.name}' compares two outputs by itself.", "Give it items with both of them.")
    same_items([item.id for item in before], [item.id for item in after])
    first = run_judge(ws, judge, before, around=around, at_once=at_once)
    second = run_judge(ws, judge, after, around=around, at_once=at_once)
    known = calibration_of(ws, store_judge(ws, judge))
    found = differences_found(judge, first.judgements, second.judgements, known[1] if known else (), clusters_of(after))
    return first, second, found


def calibrate_judge(
    ws: Workspace,
    judge: Judge,
    items: Sequence[Item],
    labels: Sequence[Label],
    *,
    around: Surroundings | None = None,
    at_once: int = 8,
) -> tuple[list[Calibration], Artifact]:
    """Judges the labelled items, compares with the labels, and stores the calibration beside the judge."""
    artifact = store_judge(ws, judge)
    judgements = ask(ws, judge, items, around=around, at_once=at_once)
    found = calibrate(judge, items, judgements, labels)
    record_scores(ws, judge, items, judgements)
    return found, store_calibration(ws, artifact, found)


def judge_results(
    ws: Workspace, judge: Judge, results: Results, *, around: Surroundings | None = None, at_once: int = 8
) -> Results:
    """The results with the judge's scores as metrics, and with what is known of the judge."""
    items = judged_items(results, judge)
    artifact = store_judge(ws, judge)
    judgements = ask(ws, judge, items, around=around, at_once=at_once)
    record_scores(ws, judge, items, judgements)
    known = calibration_of(ws, artifact)
    return with_judgements(results, judge, judgements, known[1] if known else ())


def judge_stored(
    ws: Workspace, judge: Judge, stored: Artifact, *, around: Surroundings | None = None, at_once: int = 8
) -> tuple[Judged, Artifact]:
    """The outputs of an evaluation judged: what was found, and the results with the judge's scores as metrics, which
    `windlass compare` takes. Raises `InputError` for an artifact of another kind."""
    results = read_results(stored)
    judged = run_judge(ws, judge, judged_items(results, judge), around=around, at_once=at_once)
    artifact = store_judge(ws, judge)
    known = calibration_of(ws, artifact)
    made = with_judgements(results, judge, judged.judgements, known[1] if known else ())
    from_ = dict(stored.record.parents)
    data, variant = ws.artifacts.get(from_["dataset"]), from_.get("variant")
    parents = [("results", stored), ("judge", artifact), ("judgements", judged.stored)]
    name = str(stored.card["task"])
    return judged, store_results(
        ws, name, made, data, None if variant is None else ws.artifacts.get(variant), parents=parents
    )


def clusters_of(items: Sequence[Item]) -> dict[str, str] | None:
    """Item -> its cluster; None where no item names one."""
    known = {item.id: item.cluster for item in items if item.cluster is not None}
    return known or None
