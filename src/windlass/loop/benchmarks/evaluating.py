"""A model on a benchmark: asked, resumable, and kept as an artifact with the digests of all that it hangs on."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from windlass.core.artifacts import Artifact
from windlass.core.errors import InputError
from windlass.core.files import sha256_json, write_json
from windlass.core.version import __version__
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


Told = Callable[[int, int], None]
"""Is told how many requests are done, and of how many."""


@contextlib.contextmanager
def unwatched(exam: Exam) -> Iterator[Told]:
    yield lambda done, of: None


def evaluate_model(
    ws: Workspace | None,
    model: Opened,
    exams: Sequence[Exam],
    *,
    sampling: Sampling | None = None,
    watch: Callable[[Exam], AbstractContextManager[Told]] = unwatched,
    again: bool = False,
) -> Iterator[Evaluated]:
    """Asks one benchmark after another what was not asked before, and keeps the results, in the workspace if there is
    one. Raises what `run` does. Called again, it goes on from there, also where all but the last are done; `again`:
    from the start.

    Replies are kept until all benchmarks are done, and those of one with items that failed for longer: then only these
    are asked again.
    """
    identity = model.identity()
    with contextlib.ExitStack() as opened:
        done: list[Journal] = []
        for exam in exams:
            kept = None if ws is None else opened.enter_context(_journal(ws, identity, exam))
            if kept is not None and again:
                kept.clear()
            with watch(exam) as say:
                results = run(exam, model, sampling=sampling, journal=kept, say=say, identity=identity)
            measures = exam.benchmark.measures(results.items)
            artifact = None if ws is None else _stored(ws, exam, results, measures)
            found = Evaluated(exam, results, measures, artifact)
            if kept is not None and not found.failed:
                done.append(kept)
            yield found
        for one in done:
            one.remove()


def _journal(ws: Workspace, identity: Mapping[str, Any], exam: Exam) -> Journal:
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
