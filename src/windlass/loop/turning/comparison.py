"""The comparison of a candidate with what is live, on an exam's test questions.

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
"""

from __future__ import annotations

from dataclasses import replace

from windlass.core.artifacts import Artifact
from windlass.core.errors import InputError
from windlass.core.protocols import Embedder
from windlass.core.trace import Recorder
from windlass.core.workspace import Workspace
from windlass.evaluate.exam.items import load_items
from windlass.evaluate.exam.results import POLICY, results
from windlass.evaluate.experiments.experiment import compare
from windlass.evaluate.experiments.stored import write_experiment
from windlass.evaluate.policy import Policy
from windlass.loop.assistants.assemble import load_assistant
from windlass.loop.assistants.measure import measure
from windlass.loop.harvesting.harvest import question_key

TOTAL_ERROR = 0.05
"""Chance, at most, that all turns on one exam together ever promote a candidate that is no better."""


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


def exam_of(ws: Workspace, index: Artifact) -> Artifact:
    """The exam that an index was built with. Raises `InputError` where it was built without."""
    for role, digest in index.record.parents:
        if role == "exam":
            return ws.artifacts.get(digest)
    raise InputError(
        f"{index.ref} was built without an exam, so nothing can be compared on unseen questions.",
        "Derive an exam from the corpus and build the index with it, as `windlass demo` does.",
    )


def made(ws: Workspace, kind: str, key: str) -> Artifact | None:
    """What an earlier, interrupted or repeated turn with this key has made already."""
    for record in ws.store.artifacts(kind, limit=100_000):
        if record.card.get("turn") == key:
            return ws.artifacts.get(record.digest)
    return None


def _test_questions(exam: Artifact) -> frozenset[str]:
    return frozenset(question_key(item.question) for item in load_items(exam, "test"))
