"""The comparison of a candidate with what is live, on an exam's test questions.

**What the verdict is worth.** The comparison is paired, on the exam's test questions, which neither harvest, training
nor fitting has seen (`check_leak` and the split argument see to it). The gate decides on the interval, so one turn
promotes a candidate that is no better with probability at most its error rate.

Several turns on one exam share what may go wrong, see `evaluate.repeated`.
"""

from __future__ import annotations

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
from windlass.evaluate.repeated import at_rate, error_rate
from windlass.loop.assistants.assemble import load_assistant
from windlass.loop.assistants.measure import measure
from windlass.loop.harvesting.harvest import question_key


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
