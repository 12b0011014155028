"""Asks the models of a judge, and makes one judgement an item of what they say.

A language model is asked by a typed task: its verdict is structured, its calls are traced and priced, the same question
is paid for once in a workspace. A classifier (`classifier:NAME`) is a model that a tune made of people's labels; it
gives levels in the same form, with their probability for a reason.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, Literal

from windlass.apply.tasks.functions import Task
from windlass.apply.tasks.surroundings import Surroundings, surrounded
from windlass.core.errors import InputError
from windlass.core.protocols import Classifying
from windlass.core.semconv import EVALUATION
from windlass.core.spans import marked
from windlass.core.workspace import Workspace
from windlass.evaluate.judges.items import Item
from windlass.evaluate.judges.judge import FIRST, SECOND, SIDES, TIE, Judge
from windlass.evaluate.judges.judgement import Judgement, Opinion, both_ways, settled
from windlass.evaluate.judges.wording import instructions
from windlass.loop.encoders import encoder_place
from windlass.loop.tasks import surroundings

CLASSIFIER = "classifier:"
_BATCH = 256
"""Items that a classifier is given at a time."""


def ask(
    ws: Workspace | None,
    judge: Judge,
    items: Sequence[Item],
    *,
    around: Surroundings | None = None,
    at_once: int = 8,
    progress: bool = True,
) -> list[Judgement]:
    """One judgement an item, in their order. An item that a model fails on has its error for a judgement.

    around: what finds models by name; by default the workspace's own. Raises `InputError` for a judge without models,
    and what a model raises that lets nobody in.
    """
    if not judge.models:
        raise InputError(
            f"'{judge.name}' names no model: it is a rubric for people.",
            'Write models = ["provider:name"] into it, or give --model.',
        )
    around = around or surroundings(ws)
    by_model = [
        _classified(ws, judge, model, items)
        if model.startswith(CLASSIFIER)
        else _asked(ws, judge, model, items, around, at_once, progress)
        for model in judge.models
    ]
    return [settled(judge, item, opinions) for item, *opinions in zip(items, *by_model, strict=True)]


def task_of(judge: Judge, model: str | None = None) -> Task[..., Any]:
    """What a language model is asked, as a task."""

    def verdict(**given: str) -> Any:
        """What it does is written in its docstring, which is set below."""

    named = [inspect.Parameter(one, inspect.Parameter.KEYWORD_ONLY, annotation=str) for one in judge.fields]
    verdict.__name__, verdict.__doc__ = judge.name, instructions(judge)
    verdict.__annotations__ = {**dict.fromkeys(judge.fields, str), "return": _form(judge)}
    verdict.__signature__ = inspect.Signature(named)  # type: ignore[attr-defined]
    task: Task[..., Any] = Task(verdict)
    return task.using(model=model, **judge.settings)


def _form(judge: Judge) -> Any:
    """The type of a verdict: reason and level, of each criterion where there are several."""
    from pydantic import Field, create_model

    parts: dict[str, Any] = {}
    for criterion in judge.criteria:
        levels: Any = Literal[tuple(level.name for level in criterion.levels)]
        reason = Field(description="Why, in one or two sentences.")
        parts[criterion.name] = create_model(f"Verdict_{criterion.name}", reason=(str, reason), level=(levels, ...))
    if len(parts) == 1:
        return next(iter(parts.values()))
    named: dict[str, Any] = {name: (part, ...) for name, part in parts.items()}
    return create_model("Verdicts", **named)


def _asked(
    ws: Workspace | None,
    judge: Judge,
    model: str,
    items: Sequence[Item],
    around: Surroundings,
    at_once: int,
    progress: bool,
) -> list[Opinion]:
    task = task_of(judge, model).using(cache=ws is not None)
    rows = [item.inputs for item in items]
    if judge.pairwise:
        rows += [_turned(judge, item) for item in items]
    # What a judge is asked is no traffic either.
    with surrounded(around), marked({EVALUATION: f"judge {judge.name}"}):
        said = [
            Opinion(model, error=result.error, cost_usd=result.cost_usd, traces=_traces(result.trace_id))
            if result.value is None
            else _opinion(judge, model, result.value, result.cost_usd, result.trace_id)
            for result in task.map(rows, at_once=at_once, progress=progress)
        ]
    if not judge.pairwise:
        return said
    half = len(items)
    return [both_ways(judge.criteria[0].name, there, back) for there, back in zip(said[:half], said[half:])]


def _turned(judge: Judge, item: Item) -> dict[str, str]:
    first, second = (f"{judge.judged}{side}" for side in SIDES)
    return {**item.inputs, first: item.inputs[second], second: item.inputs[first]}


def _opinion(judge: Judge, model: str, value: Any, cost: float | None, trace: str | None) -> Opinion:
    parts = {one.name: value if len(judge.criteria) == 1 else getattr(value, one.name) for one in judge.criteria}
    levels = {name: part.level for name, part in parts.items()}
    return Opinion(model, levels, {name: part.reason for name, part in parts.items()}, None, None, cost, _traces(trace))


def _traces(trace: str | None) -> tuple[str, ...]:
    return () if trace is None else (trace,)


# classifiers --------------------------------------------------------------------------------------------------------


def _classified(ws: Workspace | None, judge: Judge, model: str, items: Sequence[Item]) -> list[Opinion]:
    from windlass.serve.encoders.cross_encoder import TextClassifier

    name = model.removeprefix(CLASSIFIER)
    with encoder_place(ws, name) as (place, _):
        if not (place / "config.json").is_file():
            raise InputError(
                f"'{name}' is no model of this workspace, and no model's folder.", "`windlass tune classify` makes one."
            )
        classifier = TextClassifier.from_folder(place)
    return classified(judge, model, classifier, items)


def classified(judge: Judge, model: str, classifier: Classifying, items: Sequence[Item]) -> list[Opinion]:
    """What a classifier says, as opinions. Its labels must be the levels of the judge's one criterion; of a pair, it
    judges either output by itself, and the one that is likelier to be `judge.better` is preferred."""
    if len(judge.criteria) != 1:
        raise InputError(f"'{judge.name}' has {len(judge.criteria)} criteria; a classifier answers one.")
    levels = [level.name for level in judge.criteria[0].levels]
    wanted = [judge.better] if judge.pairwise else levels
    labels = list(classifier.labels)
    if judge.better not in labels if judge.pairwise else set(labels) != set(levels):
        raise InputError(
            f"{model} tells {', '.join(labels)} apart, and '{judge.name}' needs {', '.join(wanted) or 'better = …'}.",
            "The labels that it was tuned on are the names of the levels; of a pair, `better` is one of them.",
        )
    said: list[Opinion] = []
    for start in range(0, len(items), _BATCH):
        part = items[start : start + _BATCH]
        said += (
            _preferred(judge, model, classifier, part) if judge.pairwise else _leveled(judge, model, classifier, part)
        )
    return said


def _leveled(judge: Judge, model: str, classifier: Classifying, items: Sequence[Item]) -> list[Opinion]:
    shares = classifier.classify([_text(judge, item, judge.judged) for item in items]).probabilities
    labels, criterion = list(classifier.labels), judge.criteria[0].name
    best = shares.argmax(axis=1)
    return [
        Opinion(model, {criterion: labels[at]}, {criterion: f"probability {row[at]:.3f}"}, cost_usd=0.0)
        for row, at in zip(shares, best)
    ]


def _preferred(judge: Judge, model: str, classifier: Classifying, items: Sequence[Item]) -> list[Opinion]:
    better, criterion = list(classifier.labels).index(judge.better), judge.criteria[0].name
    first, second = (
        classifier.classify([_text(judge, item, f"{judge.judged}{side}") for item in items]).probabilities[:, better]
        for side in SIDES
    )
    found = []
    for a, b in zip(first, second):
        level = TIE if a == b else FIRST if a > b else SECOND
        reason = f"{judge.better}: {a:.3f} of the first, {b:.3f} of the second"
        # Each is judged by itself, so that their order cannot matter.
        found.append(Opinion(model, {criterion: level}, {criterion: reason}, None, True, 0.0))
    return found


def _text(judge: Judge, item: Item, judged: str) -> str | tuple[str, str]:
    """The output alone, or beside all else that the judge reads."""
    others = [item.inputs[name] for name in judge.context]
    return ("\n".join(others), item.inputs[judged]) if others else item.inputs[judged]
