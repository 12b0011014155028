"""Evaluates what is served, or any variant, on the exam its index was built with; compares two of them.

Looking at test questions again and again to choose between variants wears them out; `turn` keeps count of its own
comparisons. For tinkering there is the `dev` split.
"""

from __future__ import annotations

from windlass.core.artifacts import Artifact
from windlass.core.errors import InputError
from windlass.core.protocols import Embedder
from windlass.core.trace import Recorder
from windlass.core.workspace import Workspace
from windlass.evaluate.exam.items import ExamItem, Split, load_items
from windlass.evaluate.exam.outcomes import Outcome
from windlass.evaluate.exam.results import POLICY, SystemReport, report, results
from windlass.evaluate.experiments.experiment import Experiment, compare
from windlass.evaluate.experiments.results import Results
from windlass.evaluate.policy import Policy
from windlass.loop.assistants.assemble import TASK, cached, load_assistant, load_embedder
from windlass.loop.assistants.measure import measure
from windlass.loop.assistants.variant import parts
from windlass.loop.releasing.releases import live_variant

LIVE = "live"


def find_variant(ws: Workspace, ref: str, task: str = TASK) -> Artifact:
    """The variant of that name or digest; `live` is what the task serves."""
    variant = live_variant(ws, task) if ref == LIVE else ws.artifacts.get(ref)
    if variant.kind != "variant":
        raise InputError(
            f"{variant.ref} is of kind '{variant.kind}', not a variant.",
            "`windlass artifacts --kind variant` lists them.",
        )
    return variant


def evaluate_variant(
    ws: Workspace, ref: str, *, split: Split = "test", task: str = TASK, embedder: Embedder | None = None
) -> SystemReport:
    """Every metric of one variant with its interval."""
    variant = find_variant(ws, ref, task)
    items = load_items(exam_of(ws, variant), split)
    outcomes = _measured(ws, variant, items, embedder)
    return report(items, outcomes, name=variant.ref, digest=variant.digest)


def compare_variants(
    ws: Workspace,
    ref: str,
    against: str = LIVE,
    *,
    split: Split = "test",
    policy: Policy = POLICY,
    task: str = TASK,
    embedder: Embedder | None = None,
) -> Experiment:
    """The variant as candidate against `against` as incumbent, on the same questions. Nothing is promoted."""
    candidate, incumbent = find_variant(ws, ref, task), find_variant(ws, against, task)
    exam, other = exam_of(ws, candidate), exam_of(ws, incumbent)
    if exam.digest != other.digest:
        raise InputError(
            f"{candidate.ref} was indexed for {exam.ref}, {incumbent.ref} for {other.ref}: they hide other sentences.",
            "Compare variants whose indexes were built with the same exam.",
        )
    items = load_items(exam, split)

    def asked(variant: Artifact) -> Results:
        outcomes = _measured(ws, variant, items, embedder)
        return results(items, outcomes, variant=variant.ref, dataset=exam.digest, digest=variant.digest)

    return compare(asked(incumbent), asked(candidate), policy)


def exam_of(ws: Workspace, variant: Artifact) -> Artifact:
    """The exam that the variant's index was built with. Raises `InputError` where it was built without."""
    index, _ = parts(ws, variant)
    for role, digest in index.record.parents:
        if role == "exam":
            return ws.artifacts.get(digest)
    raise InputError(
        f"{index.ref} was built without an exam, so its own sentences would be found by the questions made of them.",
        "Derive one with `windlass exam CORPUS` and build the index with --exam.",
    )


def _measured(ws: Workspace, variant: Artifact, items: list[ExamItem], embedder: Embedder | None) -> list[Outcome]:
    index, _ = parts(ws, variant)
    # An exam is no traffic: its calls are not recorded.
    assistant = load_assistant(
        ws, variant, embedder=cached(ws, embedder or load_embedder(index)), recorder=Recorder(None)
    )
    return measure(assistant, items)
