"""Experiments in a workspace: made of results, kept, found again, and declared invalid with a reason."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import replace

from windlass.core.artifacts import Artifact
from windlass.core.errors import InputError
from windlass.core.records import ScoreRecord
from windlass.core.workspace import Workspace
from windlass.evaluate.experiments.experiment import Experiment
from windlass.evaluate.experiments.results import Results
from windlass.evaluate.experiments.stored import KIND, write_experiment

INVALID = "invalid"


def store_experiment(
    ws: Workspace, name: str, experiment: Experiment, parents: Sequence[tuple[str, Artifact | str]] = ()
) -> Artifact:
    """Keeps an experiment. What it compared, and on what, are its parents as far as they are artifacts here."""
    found = list(parents)
    known = {role for role, _ in found}
    e = experiment
    for role, digest in (
        ("dataset", e.dataset), ("incumbent", e.incumbent.digest), ("candidate", e.candidate.digest)
    ):  # fmt: skip
        if role not in known and digest is not None and ws.store.artifact(digest) is not None:
            found.append((role, digest))
    with ws.artifacts.build(KIND, f"{name}-comparison") as draft:
        write_experiment(draft.path, e)
        for role, parent in found:
            draft.add_parent(role, parent)
        primary = [one for one in e.comparisons if one.metric == e.policy.primary]
        draft.card = {
            "verdict": e.verdict.decision,
            "reason": e.verdict.reason,
            "metric": e.policy.primary,
            "difference": primary[0].difference.to_json() if primary else None,
            "items": list(dict.fromkeys(one.item for one in e.incumbent.items)),
        }
    return draft.done


def invalidate(ws: Workspace, experiment: Artifact, reason: str, author: str) -> ScoreRecord:
    """Declares an experiment invalid: it backs no promotion any more. It stays as it is, and so does what was promoted
    on it before. Raises `InputError` for what is no experiment and for no reason."""
    if experiment.kind != KIND:
        raise InputError(f"{experiment.ref} is of kind '{experiment.kind}', not an experiment.")
    if not reason.strip():
        raise InputError("An experiment is not declared invalid without a reason.", "Say what is wrong with it.")
    score = ScoreRecord(uuid.uuid4().hex, experiment.digest, INVALID, 1.0, "human", author, time.time(), reason.strip())
    ws.store.add_score(score)
    return score


def invalid(ws: Workspace, digest: str) -> ScoreRecord | None:
    """Why an experiment is invalid; None where nobody said that it is."""
    said = ws.store.scores(subject=digest, name=INVALID, limit=1)
    return said[0] if said else None


def valid(ws: Workspace, experiment: Artifact) -> None:
    """Raises `InputError` for an experiment that was declared invalid."""
    said = invalid(ws, experiment.digest)
    if said is not None:
        raise InputError(
            f"{experiment.ref} was declared invalid by {said.author}: {said.comment}", "Compare the two again."
        )


def named_results(found: Sequence[Results]) -> list[Results]:
    """The same, with names by which they can be told apart: results of one variant are called #1, #2."""
    names = [one.variant for one in found]
    return [
        one if names.count(one.variant) == 1 else replace(one, variant=f"{one.variant} #{at}")
        for at, one in enumerate(found, 1)
    ]
