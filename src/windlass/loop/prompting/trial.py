"""How a prompt does on items: one score for each, and what there is to learn from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from windlass.apply.prompts.value import Prompt
from windlass.apply.tasks.forms.schema import Shape
from windlass.apply.tasks.functions import Task
from windlass.apply.tasks.prompt import Example
from windlass.apply.tasks.prompted import typed_examples
from windlass.core.errors import InputError
from windlass.core.protocols import ChatModel
from windlass.loop.evaluating.answering import ask, at_once
from windlass.loop.evaluating.items import Item
from windlass.loop.evaluating.scorers import Metric, scorer
from windlass.loop.evaluating.tracing import traced


@dataclass(frozen=True, slots=True)
class Result:
    """What a variant did with an item."""

    item: Item
    score: float | None
    """None: the provider failed, which says nothing of the prompt. To give no answer that fits is a score of 0, and so
    is a prompt that does not fit the model."""
    answer: Any = None
    """As plain JSON."""
    reasoning: str = ""
    problem: str = ""
    feedback: str = ""
    """What the metric said of it."""
    cost_usd: float | None = None
    """None: nobody knows."""
    latency_ms: float | None = None
    """None: it was not waited for, or it failed."""
    trace: str | None = None

    @property
    def example(self) -> Example:
        """The run as a demonstration: what went in, how it was thought through, and what came out."""
        return Example(self.item.inputs, self.answer, self.reasoning)


class Trial:
    """A task with the items that it is tried on, `many` of them at once. Raises `InputError` naming an item that does
    not fit the task."""

    def __init__(self, task: Task[..., Any], items: Sequence[Item], metric: Metric, *, at_once: int = 1) -> None:
        if at_once < 1:
            raise InputError(f"{at_once} items at once are none.", "Give at least 1.")
        wanted = [Example(item.inputs, item.answer) for item in items]
        typed = typed_examples(wanted, task.signature, f"the items of '{task.__name__}'")
        self.task = task
        self.scorer = scorer(metric)
        self._typed = {item.key: example for item, example in zip(items, typed)}
        self._many = at_once
        self._shape: Shape[Any] = Shape(task.signature.output)

    def run(self, prompt: Prompt, model: ChatModel, items: Sequence[Item], evaluation: str = "") -> list[Result]:
        """Results in the order of the items. Raises what the budget raises, once what was under way has ended, and
        `ProviderError` for a provider that lets nobody in.

        evaluation: what the items' traces say that they belong to.
        """
        variant = self.task.using(prompt=prompt).using(model=model).settled()
        return at_once(self._many, partial(self._one, variant, evaluation), items)

    def thinks(self, prompt: Prompt) -> bool:
        """Whether answers are reasoned for."""
        return self.task.using(prompt=prompt).settled().settings.think

    def _one(self, variant: Task[..., Any], evaluation: str, item: Item) -> Result:
        typed = self._typed[item.key]
        with traced(item, 0, name=self.task.__name__, evaluation=evaluation) as (span, trace):
            said = ask(variant, typed)
            span.error = said.failed or said.problem or None
            answer = span.output = None if span.error else self._shape.plain(said.value)
        if said.failed or said.problem:
            return Result(item, None if said.failed else 0.0, problem=said.failed or said.problem, trace=trace)
        score, feedback = self.scorer(typed.answer, said.value, typed.inputs)
        return Result(
            item,
            float(score),
            answer,
            said.reasoning,
            feedback=feedback,
            cost_usd=said.cost_usd,
            latency_ms=said.latency_ms,
            trace=trace,
        )
