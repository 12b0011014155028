"""One turn of the windlass: harvest, train a candidate, compare it with what is live, and promote it or say why not.

**What the verdict is worth.** The comparison is paired, on the exam's test questions, which neither harvest, training
nor fitting has seen (`check_leak` and the split argument see to it). The gate decides on the interval, so one turn
promotes a candidate that is no better with probability at most its error rate.

**Several turns on one exam.** Each verdict tells the next turn something about the test questions: at most one bit,
since nothing but promotion or refusal flows back. Before turn k there are at most 2^(k-1) different histories, hence at
most as many different candidates that turn k could test; with an error rate of `total / 2^(2k-1)` for turn k, the union
bound over all of them is `total / 2^k`, and over all turns together `total` (the argument of Blum and Hardt 2015,
https://arxiv.org/abs/1502.04585). So the chance that any number of turns on the same questions *ever* promotes a
candidate that is no better stays below `total`; the price is that later turns need clearer evidence, until a new exam
with fresh questions starts anew. Scores that a person read and acted upon are beyond any such promise.

**Crashes.** Every stage ends in an artifact or a row that is there whole or not at all, and finds its own earlier
result by its `turn` key: run again, a killed turn goes on where it was and never tests twice.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from windlass.core.artifacts import Artifact
from windlass.core.errors import InputError
from windlass.core.files import exclusive, sha256_json
from windlass.core.protocols import Embedder
from windlass.core.records import ReleaseRecord
from windlass.core.trace import Recorder
from windlass.core.workspace import Workspace
from windlass.evaluate.exams import POLICY, results
from windlass.evaluate.experiments.experiment import compare
from windlass.evaluate.experiments.reports import rendered
from windlass.evaluate.experiments.stored import read_experiment, write_experiment
from windlass.evaluate.gate import Decision
from windlass.evaluate.policy import Policy
from windlass.evaluate.questions import load_items
from windlass.loop.assemble import cached, load_assistant, load_embedder
from windlass.loop.candidate import Recipe, Tell, make_candidate, plain_index
from windlass.loop.harvest import harvest, question_key
from windlass.loop.measure import measure
from windlass.loop.release import history, live, live_variant, promote

TOTAL_ERROR = 0.05
"""Chance, at most, that all turns on one exam together ever promote a candidate that is no better."""


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


def error_rate(number: int, total: float = TOTAL_ERROR) -> float:
    """The one-sided error rate of turn `number` (from 1) on the same questions; see the module's text."""
    return total * 0.5 ** (2 * number - 1)


def turns_before(ws: Workspace, exam: Artifact) -> int:
    """How many comparisons have used any of this exam's test questions."""
    questions = _test_questions(exam)
    shares = {exam.digest: True}
    count = 0
    for record in ws.store.artifacts("experiment", limit=100_000):
        used = next((digest for role, digest in record.parents if role == "exam"), None)
        if used is None:
            continue
        if used not in shares:
            other = ws.artifacts.find(used)
            shares[used] = other is None or not questions.isdisjoint(_test_questions(other))
        count += shares[used]
    return count


# stages -------------------------------------------------------------------------------------------------------------


def exam_of(ws: Workspace, index: Artifact) -> Artifact:
    """The exam that an index was built with. Raises `InputError` where it was built without."""
    for role, digest in index.record.parents:
        if role == "exam":
            return ws.artifacts.get(digest)
    raise InputError(
        f"{index.ref} was built without an exam, so nothing can be compared on unseen questions.",
        "Derive an exam from the corpus and build the index with it, as `windlass demo` does.",
    )


def _lesson(dataset: Artifact, exam: Artifact, recipe: Recipe) -> str:
    """What a candidate is made from, whatever it is compared with."""
    return sha256_json([dataset.digest, exam.digest, asdict(recipe)])


def made(ws: Workspace, kind: str, key: str) -> Artifact | None:
    """What an earlier, interrupted or repeated turn with this key has made already."""
    for record in ws.store.artifacts(kind, limit=100_000):
        if record.card.get("turn") == key:
            return ws.artifacts.get(record.digest)
    return None


def compared(
    ws: Workspace,
    incumbent: Artifact,
    candidate: Artifact,
    dataset: Artifact,
    exam: Artifact,
    embedder: Embedder,
    total_error: float,
    lesson: dict[str, str],
    policy: Policy = POLICY,
) -> Artifact:
    """The stored comparison on the exam's test questions, under the error rate of its number, whatever rate the rules
    of `policy` name. `lesson` goes on its card."""
    items = load_items(exam, "test")
    number = turns_before(ws, exam) + 1
    rate = error_rate(number, total_error)
    silent = Recorder(None)  # an exam is no traffic
    before, after = (
        results(
            items,
            measure(load_assistant(ws, variant, embedder=embedder, recorder=silent), items),
            variant=variant.ref,
            dataset=exam.digest,
            digest=variant.digest,
        )
        for variant in (incumbent, candidate)
    )
    policy = at_rate(policy, rate)
    outcome = compare(before, after, policy)
    with ws.artifacts.build("experiment", f"{incumbent.record.name}-turn") as draft:
        write_experiment(draft.path, outcome)
        for role, parent in (("exam", exam), ("dataset", dataset), ("incumbent", incumbent), ("candidate", candidate)):
            draft.add_parent(role, parent)
        main = outcome.comparison(policy.primary).difference
        draft.card = {
            **lesson,
            "verdict": outcome.verdict.decision,
            "reason": outcome.verdict.reason,
            "number": number,
            "error_rate": rate,
            "total_error": total_error,
            "metric": policy.primary,
            "difference": main.to_json(),
        }
    return draft.done


def at_rate(policy: Policy, rate: float) -> Policy:
    """The same policy, each of whose rules and limits lets what is no better through at most this often."""
    guards = {name: replace(rule, error_rate=rate) for name, rule in policy.guards.items()}
    limits = tuple(replace(limit, error_rate=rate) for limit in policy.limits)
    return replace(policy, rule=replace(policy.rule, error_rate=rate), guards=guards, limits=limits)


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


def _test_questions(exam: Artifact) -> frozenset[str]:
    return frozenset(question_key(item.question) for item in load_items(exam, "test"))
