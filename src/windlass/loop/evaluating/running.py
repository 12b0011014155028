"""A variant of a task over items: asked as often as is wanted, and scored.

Every answer stands in the journal before it counts, and what became of a finished item too, with what it took; so a run
that was stopped goes on where it was, and its times and costs are those of the first time. Scores are computed anew
from what was answered: a metric that was mended costs nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from windlass.apply.tasks.forms.citing import context
from windlass.apply.tasks.forms.schema import Shape, Unfit
from windlass.apply.tasks.functions import Task
from windlass.apply.tasks.mapping.silence import Silence
from windlass.apply.tasks.prompt import Example
from windlass.apply.tasks.prompted import typed_examples
from windlass.core.errors import InputError
from windlass.core.protocols import ChatModel
from windlass.core.version import __version__
from windlass.evaluate.experiments.results import OUTPUT, ItemResult, Results, split_values
from windlass.loop.evaluating.answering import Answered, ask, at_once
from windlass.loop.evaluating.items import Item, different, lines
from windlass.loop.evaluating.scorers import Scorer
from windlass.loop.evaluating.tracing import traced
from windlass.loop.journal import Journal

ANSWERED = "answered"
"""A metric that every run has: 1 where the variant gave an answer that fits."""
NO_ANSWER = "no answer"


@dataclass(frozen=True, slots=True)
class Asking:
    """How items are asked."""

    repeats: int = 1
    seed: int | None = None
    """Repeat r is asked with `seed + r`; None: with whatever the variant says."""
    at_once: int = 4

    def __post_init__(self) -> None:
        for name in ("repeats", "at_once"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)} asks nothing.", "Give at least 1.")


@dataclass(slots=True)
class Kept:
    """What earlier runs got: finished items by `place`."""

    rows: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    journal: Journal | None = None

    def find(self, place: str) -> Mapping[str, Any] | None:
        return self.rows.get(place) or (self.journal.fact(place) if self.journal else None)

    def keep(self, place: str, row: Mapping[str, Any]) -> None:
        if self.journal is not None:
            self.journal.settled(place, lambda: row)


def dataset_digest(items: Sequence[Item]) -> str:
    """Of the items where they are no artifact."""
    return hashlib.sha256(lines(items).encode()).hexdigest()


def run_items(
    task: Task[..., Any],
    items: Sequence[Item],
    scorers: Sequence[Scorer],
    *,
    variant: str,
    dataset: str,
    digest: str | None = None,
    asking: Asking | None = None,
    model: ChatModel | None = None,
    kept: Kept | None = None,
    made_with: Mapping[str, Any] | None = None,
    evaluation: str | None = None,
    source: str | None = None,
    done: Callable[[int], object] = lambda _: None,
) -> Results:
    """Asks and scores. `done` gets the count so far.

    model: who answers instead of the task's own. evaluation: what the items' traces say that they belong to; None: to
    the variant on this dataset. source: where the items are from, for messages.

    An answer that does not fit scores 0; a provider that failed is an error of the item, and so is a metric that raises
    or gives no finite number. Raises `InputError` for items that do not fit the task, before anything is asked, and
    what a budget raises, once what was under way is kept.
    """
    different(items)
    asking, kept = asking or Asking(), kept or Kept()
    examples = [Example(item.inputs, item.answer) for item in items]
    typed = typed_examples(examples, task.signature, source or f"the items of '{task.__name__}'")
    run = _Run(task, scorers, kept, Shape(task.signature.output), evaluation or evaluation_of(variant, dataset))
    variants = [_repeat(task if model is None else task.using(model=model), r, asking) for r in range(asking.repeats)]
    waiting = [(item, example, r) for r in range(asking.repeats) for item, example in zip(items, typed)]
    finished: list[None] = []

    def one(place: tuple[Item, Example, int]) -> ItemResult:
        item, example, repeat = place
        made = run.scored(item, example, repeat, run.answered(variants[repeat], item, example, repeat))
        finished.append(None)
        done(len(finished))
        return made

    rows = at_once(asking.at_once, one, waiting)
    said = {**asdict(asking), "task": task.digest, "windlass": __version__, **(made_with or {})}
    return Results(variant, digest, dataset, tuple(rows), {s.name: s.digest for s in scorers}, made_with=said)


def evaluation_of(variant: str, dataset: str) -> str:
    """What traces say that they belong to, where the evaluation has no key of its own."""
    return f"{variant} on {dataset[:12]}"


def _repeat(task: Task[..., Any], repeat: int, asking: Asking) -> Task[..., Any]:
    seeded = {} if asking.seed is None else {"seed": asking.seed + repeat}
    return task.using(draw=repeat, **seeded).settled()


@dataclass(frozen=True, slots=True)
class _Run:
    task: Task[..., Any]
    scorers: Sequence[Scorer]
    kept: Kept
    shape: Shape[Any]
    evaluation: str
    silence: Silence = field(default_factory=Silence)

    def answered(self, variant: Task[..., Any], item: Item, example: Example, repeat: int) -> Answered:
        place = f"{item.key}/{repeat}"
        row = self.kept.find(place)
        if row is not None and (found := self._read(row, example)) is not None:
            return found
        with traced(item, repeat, name=self.task.__name__, evaluation=self.evaluation) as (span, trace):
            said = replace(ask(variant, example, silence=self.silence), trace=trace)
            plain = None if said.problem or said.failed else self.shape.plain(said.value, as_written=True)
            span.output, span.error = plain, said.problem or said.failed or None
        if not said.failed:
            self.kept.keep(place, {**asdict(replace(said, value=None)), "value": plain})
        return said

    def _read(self, row: Mapping[str, Any], example: Example) -> Answered | None:
        """None for an answer that is none of the task's type any more."""
        if row["problem"]:
            return Answered(**row)
        try:
            value = self.shape.value(row["value"], context(self.shape, example.inputs, self.task.signature.inputs))
        except Unfit:
            return None
        return Answered(**{**row, "value": value})

    def scored(self, item: Item, example: Example, repeat: int, said: Answered) -> ItemResult:
        values: dict[str, float] = {}
        errors: dict[str, str] = {}
        if said.failed:
            errors[OUTPUT] = said.failed
        else:
            took = {"latency_ms": said.latency_ms, "cost_usd": said.cost_usd, "tokens": said.tokens}
            values, errors = split_values({ANSWERED: not said.problem, **took})
            for scorer in self.scorers:
                found, wrong = score(scorer, example, said)
                values |= found
                errors |= wrong
        output = (
            {NO_ANSWER: said.problem}
            if said.problem
            else None
            if said.failed
            else self.shape.plain(said.value, as_written=True)
        )
        return ItemResult(
            item.key, item.group, repeat, values, errors, output, item.slices, said.trace, item.inputs, item.answer
        )


def score(scorer: Scorer, example: Example, said: Answered) -> tuple[dict[str, float], dict[str, str]]:
    if said.problem:
        return {scorer.name: 0.0}, {}
    try:
        value, _ = scorer(example.answer, said.value, example.inputs)
    except Exception as error:  # noqa: BLE001 - whatever a metric raises is counted, and the verdict says what follows
        return {}, {scorer.name: f"raised {type(error).__name__}: {error}"}
    return split_values({scorer.name: value})


def kept_rows(results: Results) -> dict[str, Mapping[str, Any]]:
    """What a finished run got, to be scored again. Items on which the provider failed are asked again."""
    rows: dict[str, Mapping[str, Any]] = {}
    for one in results.items:
        if one.failed:
            continue
        problem = "" if one.values[ANSWERED] else str(one.output[NO_ANSWER])
        tokens = one.values.get("tokens")
        rows[f"{one.item}/{one.repeat}"] = {
            "value": None if problem else one.output,
            "reasoning": "",
            "problem": problem,
            "failed": "",
            "latency_ms": one.values.get("latency_ms"),
            "cost_usd": one.values.get("cost_usd"),
            "tokens": None if tokens is None else int(tokens),
            "trace": one.trace,
        }
    return rows
