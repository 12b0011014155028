"""Judges, calibrations and judgements as artifacts, with what they were made from; and every judgement as a score.

judge --- calibration
   \\         |
    judgements (of these items, with the findings that were reported)
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from windlass.core.artifacts import Artifact, check_name
from windlass.core.errors import InputError
from windlass.core.files import sha256_json, write_json
from windlass.core.records import ScoreRecord
from windlass.core.workspace import Workspace
from windlass.evaluate.judges import calibration as calibrations
from windlass.evaluate.judges import file as judges
from windlass.evaluate.judges.calibration import Calibration
from windlass.evaluate.judges.finding import Finding
from windlass.evaluate.judges.items import Item
from windlass.evaluate.judges.judge import Judge
from windlass.evaluate.judges.judgement import Judgement
from windlass.loop.judging.asking import CLASSIFIER
from windlass.loop.scores import add_once

JUDGEMENTS, ROWS, FINDINGS = "judgements", "judgements.jsonl", "findings.json"


def store_judge(ws: Workspace, judge: Judge) -> Artifact:
    """The judge as an artifact; the same judge again is the version that it is already. Raises `InputError` for a name
    that other artifacts bear, since versions count by name."""
    check_name(judge.name, "name of a judge, and so the name")
    for record in ws.store.artifacts(name=judge.name, limit=1):
        if record.kind != judges.KIND:
            raise InputError(
                f"'{judge.name}' is the name of a {record.kind} ({record.ref}).", "Give the judge's file another name."
            )
    with ws.artifacts.build(judges.KIND, judge.name) as draft:
        (draft.path / judges.FILE).write_text(judges.stored(judge), encoding="utf-8")
        for model in judge.models:
            made = ws.artifacts.find(model.removeprefix(CLASSIFIER)) if model.startswith(CLASSIFIER) else None
            if made is not None:
                draft.add_parent("classifier", made)
        draft.card = {"kind": judge.kind, "models": list(judge.models), "digest": judge.digest}
    return draft.done


def find_judge(ws: Workspace, ref: str) -> Judge:
    """Raises `NotFound`, and `InputError` for an artifact that is no judge."""
    artifact = ws.artifacts.get(ref)
    if artifact.kind != judges.KIND:
        raise InputError(f"{artifact.ref} is a {artifact.kind}, not a judge.", "Name a judge, or a judge's file.")
    return judges.read_stored(artifact.path / judges.FILE)


def store_calibration(ws: Workspace, judge: Artifact, found: Sequence[Calibration]) -> Artifact:
    with ws.artifacts.build(calibrations.KIND, f"{judge.record.name}-calibration") as draft:
        write_json(draft.path / calibrations.FILE, [one.to_json() for one in found])
        draft.add_parent(judges.KIND, judge)
        draft.card = {
            one.judge.score_name(one.criterion.name): {
                "items": len(one.rows),
                "people": len(one.authors),
                "agreement": one.agreement.to_json(),
                "kappa": None if one.kappa is None else one.kappa.to_json(),
            }
            for one in found
        }
    return draft.done


def calibration_of(ws: Workspace, judge: Artifact) -> tuple[Artifact, list[Calibration]] | None:
    """The newest calibration of this very judge; None for one that was never calibrated."""
    made = [record for role, record in ws.store.children(judge.digest) if record.kind == calibrations.KIND]
    if not made:
        return None
    artifact = ws.artifacts.get(max(made, key=lambda record: record.created).digest)
    rows = json.loads((artifact.path / calibrations.FILE).read_text(encoding="utf-8"))
    value = judges.read_stored(judge.path / judges.FILE)
    return artifact, [Calibration.from_json(value, row) for row in rows]


def store_judgements(
    ws: Workspace,
    judge: Artifact,
    calibration: Artifact | None,
    items: Sequence[Item],
    judgements: Sequence[Judgement],
    found: Sequence[Finding],
) -> Artifact:
    with ws.artifacts.build(JUDGEMENTS, f"{judge.record.name}-{JUDGEMENTS}") as draft:
        with (draft.path / ROWS).open("w", encoding="utf-8") as file:
            for item, judgement in zip(items, judgements, strict=True):
                row = {**asdict(item), "judgement": judgement.to_json()}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        write_json(draft.path / FINDINGS, [one.to_json() for one in found])
        draft.add_parent(judges.KIND, judge)
        if calibration is not None:
            draft.add_parent(calibrations.KIND, calibration)
        draft.card = {"items": len(items), "failed": sum(one.error is not None for one in judgements)}
    return draft.done


def read_judgements(artifact: Artifact) -> Iterator[tuple[Item, Judgement]]:
    """Raises `InputError` for an artifact that holds none."""
    if artifact.kind != JUDGEMENTS:
        raise InputError(f"{artifact.ref} is of the kind {artifact.kind}.", "`windlass judge run` stores judgements.")
    with (artifact.path / ROWS).open(encoding="utf-8") as file:
        for line in file:
            row: dict[str, Any] = json.loads(line)
            judgement = Judgement.from_json(row.pop("judgement"))
            yield Item(**row), judgement


def record_scores(ws: Workspace, judge: Judge, items: Sequence[Item], judgements: Sequence[Judgement]) -> int:
    """A score for each criterion of each item, on the item's trace where it comes from one; returns how many are new.

    The same judgement of the same item is one score, however often it is made; of two traces it is two.
    """
    new = 0
    for item, judgement in zip(items, judgements, strict=True):
        subject = item.trace or item.id
        for criterion in judge.criteria:
            name = judge.score_name(criterion.name)
            value = None if judgement.error is not None else judgement.values[criterion.name]
            said = [judge.digest, name, subject, item.id, item.inputs, value, judgement.error]
            score = ScoreRecord(
                id=sha256_json(said)[:32],
                subject=subject,
                name=name,
                value=value,
                source="judge",
                author=", ".join(judge.models),
                at=time.time(),
                comment=judgement.reason(criterion.name) if judgement.error is None else "",
                error=judgement.error,
                metadata=_about(judge, judgement),
            )
            new += add_once(ws, score)
    return new


def _about(judge: Judge, judgement: Judgement) -> dict[str, Any]:
    about: dict[str, Any] = {"judge": judge.digest, "cost_usd": judgement.cost_usd}
    if traces := [trace for opinion in judgement.opinions for trace in opinion.traces]:
        about["traces"] = traces
    if judgement.consistent is not None:
        about["consistent"] = judgement.consistent
    return about
