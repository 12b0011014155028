"""One variant of a task, its prompt read: what is asked of whom, and what stands on the span of a call."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, Generic, TypeVar, get_args

from windlass.apply.tasks.asking import Mode, Question, checked, form
from windlass.apply.tasks.forms.absent import Absent
from windlass.apply.tasks.forms.citing import context
from windlass.apply.tasks.forms.reading import Reader
from windlass.apply.tasks.forms.schema import Shape
from windlass.apply.tasks.forms.strict import Strict
from windlass.apply.tasks.means import supplied
from windlass.apply.tasks.outcome import Outcome
from windlass.apply.tasks.prompt import SCHEMA_NOTE, Example, content, messages
from windlass.apply.tasks.running import Model
from windlass.apply.tasks.settings import Settings
from windlass.apply.tasks.signature import Signature
from windlass.apply.tasks.surroundings import Surroundings
from windlass.core.spans import Span
from windlass.core.values import ChatRequest

R = TypeVar("R")


class Variant(Generic[R]):
    """Safe to share between threads and tasks."""

    def __init__(self, signature: Signature, settings: Settings, about: Mapping[str, Any]) -> None:
        """`settings`: their prompt is the words themselves, or None. `about`: what spans say of where they are from."""
        self.signature = signature
        self.settings = settings
        self._about = about
        self._supplied: tuple[Model, Surroundings, Model] | None = None

    @property
    def name(self) -> str:
        return self.signature.name

    @property
    def instructions(self) -> str:
        prompt = self.settings.prompt
        return prompt if isinstance(prompt, str) else self.signature.instructions

    @cached_property
    def digest(self) -> str:
        """Of everything that decides what is asked, save the inputs: instructions, types and settings."""
        settings = self.settings
        model = (
            settings.model if isinstance(settings.model, str | None) else [settings.model.name, settings.model.digest]
        )
        shown = settings.examples
        said = {
            "instructions": self.instructions,
            "inputs": {name: str(kind) for name, kind in self.signature.inputs.items()},
            "answer": "text" if self.shape is None else self.shape.schema,
            "examples": _said_by(shown) if callable(shown) else [[e.inputs, e.answer, e.reasoning] for e in shown],
            "settings": [model, settings.think, settings.attempts, settings.tokens, settings.mode],
            "parameters": {name: value for name, value in settings.parameters.items() if name not in ("draw", "unit")},
        }
        return hashlib.sha256(json.dumps(said, sort_keys=True, default=repr).encode()).hexdigest()

    @cached_property
    def shape(self) -> Shape[Any] | None:
        """Of the answer; None: it is free text."""
        output = self.signature.output
        if output is str and not self.settings.think:
            return None
        return Shape(_thinking(output) if self.settings.think else output, where=f"'{self.name}'")

    def reader(self, mode: Mode) -> Reader[Any] | None:
        """Of answers that are asked for in that way; None: they are free text."""
        if self.shape is None:
            return None
        return self._strict if mode in ("schema", "tool") else self._plain

    @cached_property
    def _strict(self) -> Reader[Any]:
        assert self.shape is not None
        return Reader(self.shape, Strict(self.shape.schema, f"what '{self.name}' returns"))

    @cached_property
    def _plain(self) -> Reader[Any]:
        assert self.shape is not None
        return Reader(self.shape)

    def question(self, inputs: Mapping[str, Any], model: Model) -> Question[R]:
        """What `model` is asked for these inputs."""
        settings, shape = self.settings, self.shape
        best: Mode = getattr(model, "structured", "schema")
        mode = "text" if shape is None else settings.mode or best
        reader = self.reader(mode)
        instructions = self.instructions
        if reader is not None and mode == "prompt":
            instructions += f"\n\n{SCHEMA_NOTE}{json.dumps(reader.schema, ensure_ascii=False)}"
        types = self.signature.inputs
        shown = settings.examples(inputs) if callable(settings.examples) else settings.examples
        examples = [
            (content(e.inputs, types), str(e.answer) if reader is None else reader.written(self._answer(e)))
            for e in shown
        ]
        said = messages(instructions, examples, content(inputs, types))
        seen = context(shape, inputs, types)

        def read(text: str) -> Any:
            if reader is None:
                return text
            value = reader.value(text, seen)
            return value.answer if settings.think else value

        absent = Absent in (self.signature.output, *get_args(self.signature.output))
        return Question(
            ChatRequest(said, **form(mode, reader), **settings.parameters),
            mode,
            checked(read, settings.checks, inputs) if settings.checks else read,
            Absent if absent else None,
            settings.attempts,
            settings.tokens,
        )

    def _answer(self, example: Example) -> Any:
        """As the model would have to give it."""
        if not self.settings.think:
            return example.answer
        assert self.shape is not None
        return self.shape.kind.model_construct(reasoning=example.reasoning, answer=example.answer)

    # who answers, and what is recorded ------------------------------------------------------------------------------

    def model(self, around: Surroundings) -> Model:
        """Who is asked, within budgets, and once for the same question."""
        settings, wanted = self.settings, self.settings.model
        model = around.model(wanted) if wanted is None or isinstance(wanted, str) else wanted
        kept = self._supplied
        if kept is None or kept[0] is not model or kept[1] is not around:
            made = supplied(model, around, self.name, settings.cache, settings.budget)
            self._supplied = kept = model, around, made
        return kept[2]

    def calling(self, around: Surroundings, args: Any, kwargs: Any) -> Calling:
        """Raises `TypeError` as a call of the function would."""
        return Calling(around, self.signature, {**self._about, "windlass.task.digest": self.digest}, args, kwargs)

    def noted(self, span: Span, outcome: Outcome[R]) -> Outcome[R]:
        """The outcome, which now stands on the span of its call."""
        span.output = outcome.value if self.shape is None or self.settings.think else self.shape.plain(outcome.value)
        span["windlass.attempts"] = len(outcome.attempts)
        return Outcome(outcome.value, outcome.attempts, span.trace_id)


class Calling:
    """The span of one call, with its inputs."""

    def __init__(
        self, around: Surroundings, signature: Signature, about: Mapping[str, Any], args: Any, kwargs: Any
    ) -> None:
        self.inputs = signature.bound(args, kwargs)
        self.span = around.recorder.span(signature.name, "invoke_workflow", **about)
        self.span.input = self.inputs
        self.span["windlass.task"] = signature.name

    def __enter__(self) -> tuple[Span, dict[str, Any]]:
        return self.span.__enter__(), self.inputs

    def __exit__(self, *error: Any) -> None:
        self.span.__exit__(*error)


def _said_by(choose: Callable[..., Any]) -> str:
    """What stands in a digest for code that chooses examples: its own digest, or its text."""
    digest = getattr(choose, "digest", None)
    return (
        digest if isinstance(digest, str) else inspect.getsource(choose if inspect.isroutine(choose) else type(choose))
    )


def _thinking(output: Any) -> Any:
    from pydantic import Field, create_model

    thought = Field(description="Think here, step by step, before you answer.")
    return create_model("Thought", reasoning=(str, thought), answer=(output, ...))
