"""A model on a benchmark: asked, resumable, and kept as an artifact with the digests of all that it hangs on."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from windlass import __version__
from windlass.core.artifacts import Artifact
from windlass.core.errors import InputError
from windlass.core.files import sha256_json, write_json
from windlass.core.workspace import Workspace
from windlass.evaluate.experiments.results import OUTPUT, Results
from windlass.evaluate.harness.benchmark import Measure
from windlass.evaluate.harness.items import Exam
from windlass.evaluate.harness.journal import Journal
from windlass.evaluate.harness.running import Sampling, run
from windlass.loop.benchmarks.models import Opened
from windlass.loop.benchmarks.tables import markdown

KIND, FILE = "results", "results.json"
FOLDER = "benchmarks"
"""Of the journals, in the workspace."""
VARIABLE = "WINDLASS_DATA"


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What a model did on one benchmark."""

    exam: Exam
    results: Results
    measures: list[Measure]
    artifact: Artifact | None
    """None: there is no workspace to keep it in."""

    @property
    def failed(self) -> int:
        """Items without an answer; they are in no figure."""
        return sum(OUTPUT in one.errors for one in self.results.items)

    def to_json(self) -> dict[str, Any]:
        return {
            "benchmark": self.exam.name,
            "model": self.results.variant,
            "digest": self.results.digest,
            "dataset": self.results.dataset,
            "artifact": None if self.artifact is None else self.artifact.digest,
            "items": len(self.results.items),
            "failed": self.failed,
            "held_out": self.exam.held_out,
            "measures": {
                one.metric: {**one.interval.to_json(), "better": one.better, "chance": one.chance}
                for one in self.measures
            },
            "made_with": dict(self.results.made_with),
        }  # fmt: skip


def data_folder(given: Path | None) -> Path:
    """The user's copy of the data: as given, or `WINDLASS_DATA`. Raises `InputError` when there is none."""
    said = given or (Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)
    if said is None:
        raise InputError(
            "Nobody said where the data of the benchmarks are.", f"Name the folder with --data, or in {VARIABLE}."
        )
    if not said.is_dir():
        raise InputError(f"There is no folder {said}.", f"Name that of the data with --data, or in {VARIABLE}.")
    return said


def evaluate_model(
    ws: Workspace | None,
    model: Opened,
    exam: Exam,
    *,
    sampling: Sampling | None = None,
    say: Callable[[int, int], None] = lambda done, of: None,
) -> Evaluated:
    """Asks what was not asked before, and keeps the results, in the workspace if there is one. Raises what `run` does;
    called again it goes on from there."""
    identity = model.identity()
    with _journal(ws, identity, exam) as kept:
        results = run(exam, model, sampling=sampling, journal=kept, say=say, identity=identity)
        measures = exam.benchmark.measures(results.items)
        artifact = None if ws is None else _stored(ws, exam, results, measures)
        if kept is not None:
            kept.remove()
    return Evaluated(exam, results, measures, artifact)


def _journal(ws: Workspace | None, identity: Mapping[str, Any], exam: Exam) -> AbstractContextManager[Journal | None]:
    if ws is None:
        return nullcontext()
    asked = {"model": identity, "dataset": exam.dataset, **exam.made_with(), "version": __version__}
    return Journal(ws.root / FOLDER / f"{sha256_json(asked)[:32]}.jsonl")


def _stored(ws: Workspace, exam: Exam, results: Results, measures: list[Measure]) -> Artifact:
    name = re.sub(r"[^A-Za-z0-9._-]", "-", f"{results.variant}-{exam.name}").lstrip("._-")[:100]
    with ws.artifacts.build(KIND, name) as draft:
        write_json(draft.path / FILE, results.to_json())
        (draft.path / "README.md").write_text(markdown(exam, results, measures), encoding="utf-8")
        if results.digest is not None and ws.artifacts.find(results.digest) is not None:
            draft.add_parent("model", results.digest)
        draft.card.update(
            {
                "benchmark": exam.name,
                "model": results.variant,
                "dataset": results.dataset,
                "items": len(results.items),
                "failed": sum(OUTPUT in one.errors for one in results.items),
                "measures": {one.metric: one.interval.to_json() for one in measures},
                "made_with": dict(results.made_with),
            }
        )
    return draft.done
