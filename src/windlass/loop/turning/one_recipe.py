"""A turn of an assistant with one recipe and no race: harvest, train, compare, promote or say why not.

The demo takes it, as one comparison tells more to whoever watches than a race of many.

**Crashes.** Every stage ends in an artifact or a row that is there whole or not at all, and finds its own earlier
result by its `turn` key: run again, a killed turn goes on where it was and never tests twice.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from windlass.core.artifacts import Artifact
from windlass.core.files import exclusive, sha256_json
from windlass.core.protocols import Embedder
from windlass.core.records import ReleaseRecord
from windlass.core.workspace import Workspace
from windlass.evaluate.exam.items import load_items
from windlass.evaluate.experiments.reports import rendered
from windlass.evaluate.experiments.stored import read_experiment
from windlass.evaluate.gate import Decision
from windlass.evaluate.repeated import TOTAL_ERROR
from windlass.loop.assistants.assemble import cached, load_embedder
from windlass.loop.harvesting.harvest import harvest
from windlass.loop.releasing.releases import history, live, live_variant, promote
from windlass.loop.turning.candidate import Recipe, Tell, make_candidate, plain_index
from windlass.loop.turning.comparison import compared, exam_of, made


@dataclass(frozen=True, slots=True)
class TurnReport:
    task: str
    decision: Decision
    reason: str
    number: int
    """Which turn on this exam's test questions it was, from 1."""
    error_rate: float
    """Of this turn alone, one-sided."""
    incumbent: Artifact
    candidate: Artifact
    dataset: Artifact
    experiment: Artifact
    release: ReleaseRecord | None
    """The promotion; None when it was refused."""
    resumed: bool
    """The comparison had been made before: by a turn that was interrupted, or on the same feedback."""

    @property
    def promoted(self) -> bool:
        return self.release is not None


def turn(
    ws: Workspace,
    task: str = "assistant",
    *,
    recipe: Recipe | None = None,
    embedder: Embedder | None = None,
    total_error: float = TOTAL_ERROR,
    tell: Tell = lambda _: None,
) -> TurnReport:
    """Harvests, trains, compares, and promotes or refuses. `tell` gets one line per stage.

    Run again on the same feedback it repeats its verdict without testing again, and does not promote again what was
    rolled back since. Raises `NotFound` when nothing is released, `InputError` when there is no exam or nothing to
    learn from, `WorkspaceBusy` when another turn runs.
    """
    recipe = recipe or Recipe()
    with exclusive(ws.root / f"turn-{task}.lock", f"a turn of '{task}'"):
        incumbent = live_variant(ws, task)
        base = plain_index(ws, incumbent)
        exam, corpus = exam_of(ws, base), ws.artifacts.get(base.parent("corpus"))
        dataset = harvest(ws, corpus, exam, task=task)
        skipped = sum(dataset.card["skipped"].values())
        tell(f"harvested {dataset.card['items']:,} questions from scored traces, {skipped:,} scores left out")
        made_live = live(ws, task)
        if made_live and made_live.experiment and made_live.action == "promote":
            experiment = ws.artifacts.get(made_live.experiment)
            if experiment.card.get("lesson") == _lesson(dataset, exam, recipe):  # killed between promotion and report
                return _report(ws, task, experiment, dataset, made_live, resumed=True, tell=tell)
        key = sha256_json([incumbent.digest, _lesson(dataset, exam, recipe)])
        finished = made(ws, "experiment", key)
        if finished is None:
            embedder = cached(ws, embedder or load_embedder(base))
            candidate = made(ws, "variant", key)
            if candidate is None:
                candidate = make_candidate(ws, incumbent, dataset, exam, embedder, recipe, key=key, tell=tell)
            lesson = {"turn": key, "lesson": _lesson(dataset, exam, recipe), "recipe": recipe.kind}
            tell(f"compare on {_count(exam):,} test questions that neither harvest nor training has seen")
            experiment = compared(ws, incumbent, candidate, dataset, exam, embedder, total_error, lesson)
        else:
            experiment = finished
        row = _decide(ws, task, experiment)
        return _report(ws, task, experiment, dataset, row, resumed=finished is not None, tell=tell)


def render_turn(report: TurnReport) -> str:
    """The report as text: both systems' figures, the verdict, and what was done about it."""
    if report.promoted:
        done = f"PROMOTED: '{report.task}' now serves {report.candidate.ref} ({report.candidate.digest[:12]})."
    else:
        done = f"REFUSED: '{report.task}' goes on serving {report.incumbent.ref} ({report.incumbent.digest[:12]})."
    again = " (measured by an earlier turn on the same feedback)" if report.resumed else ""
    rate = f"Turn {report.number} on these test questions, error rate {report.error_rate:g} of this turn{again}."
    shown = rendered(read_experiment(report.experiment))
    why = "" if report.reason in shown else f"\n{report.reason}"
    return f"{shown}\n\n{rate}\n{done}{why}"


def _lesson(dataset: Artifact, exam: Artifact, recipe: Recipe) -> str:
    """What a candidate is made from, whatever it is compared with."""
    return sha256_json([dataset.digest, exam.digest, asdict(recipe)])


def _decide(ws: Workspace, task: str, experiment: Artifact) -> ReleaseRecord | None:
    """Promotes on GO; not what was promoted on this evidence before and rolled back since."""
    if experiment.card["verdict"] != "GO" or any(r.experiment == experiment.digest for r in history(ws, task)):
        return None
    candidate = ws.artifacts.get(experiment.parent("candidate"))
    return promote(ws, task, candidate, experiment, experiment.card["reason"])


def _report(
    ws: Workspace,
    task: str,
    experiment: Artifact,
    dataset: Artifact,
    row: ReleaseRecord | None,
    *,
    resumed: bool,
    tell: Tell,
) -> TurnReport:
    decision, reason = experiment.card["verdict"], experiment.card["reason"]
    if decision == "GO" and row is None:
        reason = f"It was promoted on this evidence before and rolled back since; new feedback is needed. {reason}"
    tell(f"{decision}: {'promoted' if row else 'refused'}")
    return TurnReport(
        task,
        decision,
        reason,
        experiment.card["number"],
        experiment.card["error_rate"],
        ws.artifacts.get(experiment.parent("incumbent")),
        ws.artifacts.get(experiment.parent("candidate")),
        dataset,
        experiment,
        row,
        resumed,
    )


def _count(exam: Artifact) -> int:
    return len(load_items(exam, "test"))
