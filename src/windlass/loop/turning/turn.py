"""A turn of an assistant, or of a typed task: what to learn from, and then `turn_all`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from windlass.apply.tasks.functions import Task
from windlass.apply.tasks.surroundings import Surroundings
from windlass.core.artifacts import Artifact, check_name
from windlass.core.errors import InputError
from windlass.core.files import exclusive, sha256_json
from windlass.core.protocols import ChatModel, Embedder
from windlass.core.workspace import Workspace
from windlass.evaluate.exam.results import POLICY as ASSISTANTS
from windlass.evaluate.policy import Policy
from windlass.loop.assistants.assemble import load_embedder
from windlass.loop.evaluating.items import Item
from windlass.loop.evaluating.scorers import Metric, equal
from windlass.loop.harvesting.harvest import harvest
from windlass.loop.journal import Journal
from windlass.loop.metering import Meter, Metered, identity
from windlass.loop.prompting.searching import Search
from windlass.loop.releasing.releases import live_variant
from windlass.loop.turning.candidate import Recipe, plain_index
from windlass.loop.turning.comparison import exam_of
from windlass.loop.turning.curate import curate_questions
from windlass.loop.turning.flow import Turned, turn_all
from windlass.loop.turning.ground import Ground, Tell
from windlass.loop.turning.heard import Heard, listen
from windlass.loop.turning.retrieval import Retrieval
from windlass.loop.turning.spending import Limits
from windlass.loop.turning.students import Teaching
from windlass.loop.turning.synthetic import by_model, synthetic_questions
from windlass.loop.turning.typed import POLICY, Typed


@dataclass(frozen=True, slots=True)
class Plan:
    """How far a turn goes, whatever the task."""

    limits: Limits = field(default_factory=Limits)
    finalists: int = 1
    """Candidates that are compared on test questions, one after the other, until one is better."""
    only: Sequence[str] = ()
    """Names of the candidates that are made; empty: all."""
    canary: float | None = None
    """The share of users that get what passed, until they show that it does no harm; None: it goes live at once."""

    def __post_init__(self) -> None:
        if self.finalists < 1:
            raise InputError(f"{self.finalists} finalists are none.", "Give at least 1.")
        if self.canary is not None and not 0 < self.canary < 1:
            raise InputError(
                f"A canary gets a share between 0 and 1 of the users, not {self.canary:g}.", "Give 0.1, say."
            )


def turn_assistant(
    ws: Workspace,
    task: str = "assistant",
    plan: Plan | None = None,
    *,
    recipe: Recipe | None = None,
    policy: Policy | None = None,
    synthetic: bool | ChatModel = False,
    most: int = 2000,
    embedder: Embedder | None = None,
    tell: Tell = lambda _: None,
) -> Turned:
    """Tries all that can make an assistant better on what its users said, and promotes at most one change.

    synthetic: learn from at most `most` made-up questions in place of feedback, made by rules, or by that model as far
    as the dollars or tokens of the limits go.
    embedder: of the live index; None: found by its digest. Raises `NotFound` when nothing is released, `InputError`
    when there is no exam or nothing to learn from, `WorkspaceBusy` when another turn runs.
    """
    plan = plan or Plan()
    with exclusive(ws.root / f"turn-{task}.lock", f"a turn of '{task}'"):
        live = live_variant(ws, task)
        base = plain_index(ws, live)
        exam = exam_of(ws, base)
        embedder = embedder or load_embedder(base)
        if synthetic:
            dataset = _made_up(ws, base, exam, embedder, synthetic, most, plan.limits)
        else:
            harvested = harvest(ws, ws.artifacts.get(base.parent("corpus")), exam, task=task)
            dataset = curate_questions(ws, harvested, exam)
        tell(_told(dataset))
        ground = Retrieval(
            ws, dataset, task=task, embedder=embedder, recipe=recipe, policy=policy or ASSISTANTS, tell=tell
        )
        return _turned(ws, ground, plan, tell)


def _made_up(
    ws: Workspace, index: Artifact, exam: Artifact, embedder: Embedder, by: bool | ChatModel, most: int, limits: Limits
) -> Artifact:
    """By a model they are paid for once: what it wrote before a kill is in a journal."""
    if isinstance(by, bool):
        return synthetic_questions(ws, index, exam, embedder, most=most)
    if limits.budget is None:
        raise InputError(
            f"{by.name} would be asked for up to {most:,} questions.", "Say what it may spend: --dollars or --tokens."
        )
    key = sha256_json([index.digest, exam.digest, identity(by), most])
    journal = Journal(ws.root / "turning" / f"synthetic-{key[:16]}.jsonl")
    try:
        ask = by_model(Metered(by, Meter(limits.budget), journal))
        return synthetic_questions(ws, index, exam, embedder, ask=ask, by=by.name, most=most)
    finally:
        journal.close()


def turn_task(
    ws: Workspace,
    task: Task[..., Any],
    plan: Plan | None = None,
    *,
    items: Sequence[Item] | None = None,
    metric: Metric = equal,
    policy: Policy = POLICY,
    settings: Search | None = None,
    teaching: Teaching | None = None,
    reflector: str | ChatModel | None = None,
    at_once: int = 1,
    around: Surroundings | None = None,
    tell: Tell = lambda _: None,
) -> Turned:
    """Tries all that can carry a typed task out better, or as well for less, and promotes at most one variant.

    items: with known answers; None: what users said of the task's traces. The other parameters are those of `Typed`.
    Raises `InputError` for items that do not fit or are too few, `OverBudget` when the limits do not cover the
    comparison, `WorkspaceBusy` when another turn runs.
    """
    plan = plan or Plan()
    check_name(task.__name__)
    with exclusive(ws.root / f"turn-{task.__name__}.lock", f"a turn of '{task.__name__}'"):
        heard = listen(ws, task) if items is None else Heard(items, (), {}, {})
        if len(heard.items) < 2:
            raise InputError(f"{len(heard.items)} item is too few to learn from and to compare on.", "Collect more.")
        ground = Typed(
            ws, task, heard, limits=plan.limits, metric=metric, policy=policy, settings=settings, teaching=teaching,
            reflector=reflector, at_once=at_once, around=around, tell=tell,
        )  # fmt: skip
        turned = None
        try:
            tell(_told(ground.dataset))
            if task.settings.prompt != f"{task.__name__}:live":
                tell(f"its calls do not follow its releases yet: write @task(prompt='{task.__name__}:live')")
            turned = _turned(ws, ground, plan, tell)
            return turned
        finally:
            ground.close(ended=turned is not None)


def _turned(ws: Workspace, ground: Ground, plan: Plan, tell: Tell) -> Turned:
    return turn_all(
        ws, ground, limits=plan.limits, finalists=plan.finalists, only=plan.only, canary=plan.canary, tell=tell
    )


def _told(dataset: Artifact) -> str:
    card = dataset.card
    left = sum((card.get("left_out") or {}).values()) + sum((card.get("skipped") or {}).values())
    kind = "made-up questions" if card.get("synthetic") else "items from what users said"
    hidden = sum((card.get("masked") or {}).values())
    return f"{dataset.ref}: {card['items']:,} {kind}, {left:,} left out, {hidden:,} pieces of personal data masked"
