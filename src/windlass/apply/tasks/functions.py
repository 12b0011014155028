"""A typed AI function: a Python function whose signature and docstring are its body.

@task(model="openai:gpt-5-mini")
def sentiment(review: str) -> Literal["good", "bad", "mixed"]:
    \"\"\"Say how the writer of this review felt.\"\"\"

sentiment("Lovely hinges, shame about the door.")        # -> "mixed"
sentiment.run("…").cost_usd                              # the same, with attempts, tokens and price
await sentiment.arun("…")                                # on an event loop
sentiment.using(model="ollama:qwen3")                    # another variant of the same task
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, ParamSpec, TypeVar, cast, get_args, overload

from windlass.apply.prompts.value import Prompt
from windlass.apply.providers.answers import Answers
from windlass.apply.providers.budget import Budget
from windlass.apply.tasks.absent import Absent
from windlass.apply.tasks.asking import Mode, Question, asking, checked, form
from windlass.apply.tasks.citing import context
from windlass.apply.tasks.means import supplied
from windlass.apply.tasks.outcome import Outcome
from windlass.apply.tasks.prompt import SCHEMA_NOTE, Example, content, messages
from windlass.apply.tasks.prompted import Source, named, opened, plain_examples, typed_examples
from windlass.apply.tasks.reading import Reader
from windlass.apply.tasks.running import Model, Steps, arun, run
from windlass.apply.tasks.schema import Shape
from windlass.apply.tasks.signature import Signature, signature_of
from windlass.apply.tasks.streaming import Streaming
from windlass.apply.tasks.strict import Strict
from windlass.apply.tasks.surroundings import Surroundings, here
from windlass.core.config import strict
from windlass.core.errors import InputError, WindlassError
from windlass.core.trace import Span
from windlass.core.values import ChatRequest

if TYPE_CHECKING:
    from windlass.apply.tasks.results import Mapped

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Settings:
    """How a task is carried out: one variant of it."""

    model: str | Model | None = None
    """`provider:name`, or a model itself. None: the `[model]` of windlass.toml."""
    prompt: str | Path | Prompt | None = None
    """In place of the docstring: a text; or a prompt with its own examples and settings, which is a value, a file, or
    one of the workspace (`name@version`, `name:label`). What is set after it, or beside it, it does not change."""
    examples: Sequence[Example] | Callable[[Mapping[str, Any]], Sequence[Example]] = ()
    """Shown before the question: always the same, or chosen for its inputs."""
    checks: Sequence[Callable[..., Any]] = ()
    """Each takes the value, and by name any inputs it wants; `ValueError` says what is wrong, and the model is asked
    again."""
    think: bool = False
    """Let the model write down its reasoning before the answer; the result does not hold it."""
    attempts: int = 3
    tokens: int | None = None
    """How many all attempts of one call may take together."""
    mode: Mode | None = None
    """How the form of the answer is asked for. None: the best that the model's provider has."""
    cache: bool | Answers = False
    """Keep answers, and pay for the same question once. True: in the workspace; or in a file of one's own."""
    budget: Budget | Sequence[Budget] = ()
    """What calls may take together; without a name it is that of the task."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Of `ChatRequest`: temperature, max_tokens, seed, timeout, extra, and so on."""

    def __post_init__(self) -> None:
        for name, value in (("attempts", self.attempts), ("tokens", self.tokens)):
            if type(value) is not int and not (name == "tokens" and value is None):
                raise InputError(f"A task's {name} are a whole number, not {value!r}.")
            if value is not None and value < 1:
                raise InputError(f"A task with {name}={value} could ask nothing.", "Give at least 1.")
        if self.mode is not None and self.mode not in get_args(Mode):
            raise InputError(f"A task has no mode {self.mode!r}.", f"Known: {', '.join(get_args(Mode))}.")


class Task(Generic[P, R]):
    """See the module. Safe to share between threads and tasks; `using` makes another one."""

    def __init__(
        self, function: Callable[P, R], settings: Settings | None = None, *, after: frozenset[str] = frozenset()
    ) -> None:
        """`after`: names of the settings that were made after the prompt's, or beside it."""
        self.function = function
        self.settings = settings or Settings()
        self._after = after
        self._settled = False
        """Whether the prompt in its settings is the words themselves, whatever they look like."""
        self._about: Mapping[str, Any] = {}
        self._kept: tuple[Source, Task[P, R]] | None = None
        self._supplied: tuple[Model, Surroundings, Model] | None = None
        self.signature: Signature = signature_of(function)
        self.__name__ = self.signature.name
        self.__doc__ = self.signature.instructions

    def __repr__(self) -> str:
        return f"<task {self.signature}>"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """The answer; awaitable if the function is `async`. Raises `NoAnswer`, `Refused`, and what the model raises."""
        if inspect.iscoroutinefunction(self.function):
            return cast(R, self._awaited(args, kwargs))
        return self.run(*args, **kwargs).value

    def run(self, *args: P.args, **kwargs: P.kwargs) -> Outcome[R]:
        """The answer with its attempts, tokens, cost and trace."""
        around = here()
        task = self.settled(around)
        with task._span(around, args, kwargs) as (span, inputs):
            model = task._model(around)
            outcome = run(asking(task._question(inputs, model)), model, around.recorder)
            return task._noted(span, outcome)

    async def arun(self, *args: P.args, **kwargs: P.kwargs) -> Outcome[R]:
        """As `run`. Cancelling the task cancels the call."""
        around = here()
        task = self.settled(around)
        with task._span(around, args, kwargs) as (span, inputs):
            model = task._model(around)
            outcome = await arun(asking(task._question(inputs, model)), model, around.recorder)
            return task._noted(span, outcome)

    def stream(self, *args: P.args, **kwargs: P.kwargs) -> Streaming[R]:
        """The answer while it is being written: iterate, by `for` or `async for`, then look at `outcome`."""
        around = here()
        task = self.settled(around)
        calling = task._span(around, args, kwargs)
        try:
            model = task._model(around)
            question = task._question(calling.inputs, model)
        except WindlassError as error:
            calling.span.begin().finish(error)
            raise
        strict = task._strict.strict if question.mode in ("schema", "tool") else None
        return Streaming(
            task._ending(calling.span, question), model, around.recorder, calling.span, question.mode, strict
        )

    def _ending(self, span: Span, question: Question[Any]) -> Steps[Outcome[Any]]:
        outcome = yield from asking(question)
        return self._noted(span, outcome)

    async def _awaited(self, args: Any, kwargs: Any) -> Any:
        return (await self.arun(*args, **kwargs)).value

    def map(
        self,
        items: Iterable[Any] | str | Path,
        *,
        journal: str | Path | None = None,
        at_once: int = 16,
        on_error: Literal["keep", "raise"] = "keep",
        retry_errors: bool = False,
        progress: bool = True,
        batch: bool = False,
    ) -> Mapped[R]:
        """The task for each of many items, so many at once.

        items: each is a mapping with the inputs by name, or the value of the first input; or the path of a file with
            one JSON value on each line.
        journal: the file that holds the results. With it, the same call after a crash goes on where the last one was
            and pays for no answer twice, save those of the items that were under way (at most `at_once`).
        on_error: "keep" makes an item's error its result; "raise" ends the map with it, and what was under way is kept.
            A provider that lets nobody in ends it either way.
        retry_errors: ask items again whose answers did not fit, or were refused, in an earlier run. Items to which
            there was no answer (the provider failed) are always asked again.
        batch: by the provider's batch API: within a day, and often at half the price.
        """
        from windlass.apply.tasks.mapping import mapped

        return mapped(
            self, items, at_once, journal=journal, on_error=on_error, retry_errors=retry_errors, progress=progress,
            batch=batch,
        )  # fmt: skip

    async def amap(
        self,
        items: Iterable[Any] | str | Path,
        *,
        journal: str | Path | None = None,
        at_once: int = 16,
        on_error: Literal["keep", "raise"] = "keep",
        retry_errors: bool = False,
        progress: bool = True,
        batch: bool = False,
    ) -> Mapped[R]:
        """As `map`, on the caller's event loop."""
        from windlass.apply.tasks.mapping import amapped

        return await amapped(
            self, items, at_once, journal=journal, on_error=on_error, retry_errors=retry_errors, progress=progress,
            batch=batch,
        )  # fmt: skip

    def using(self, **settings: Any) -> Task[P, R]:
        """The same task carried out otherwise. Names are those of `Settings`, or parameters of a request."""
        before = frozenset() if "prompt" in settings else self._after
        return Task(self.function, _changed(self.settings, settings), after=before | (settings.keys() - {"prompt"}))

    # what is asked --------------------------------------------------------------------------------------------------

    def settled(self, around: Surroundings | None = None) -> Task[P, R]:
        """This task with its prompt read, for as long as that stays: a label may have moved by the next call.

        Raises `InputError` for a prompt that cannot be read or does not fit the task, `NotFound` for one that is not
        there.
        """
        prompt = self.settings.prompt
        if self._settled or prompt is None or (isinstance(prompt, str) and not named(prompt)):
            return self
        around, kept = around or here(), self._kept
        if kept is not None and kept[0].stays_in(around):
            return kept[1]
        source = opened(prompt, around, self.__name__)
        if kept is None or kept[0].key != source.key:
            kept = source, self._with(source)
        self._kept = source, kept[1]
        return kept[1]

    def _with(self, source: Source) -> Task[P, R]:
        prompt = source.read()
        said = {name: value for name, value in prompt.settings.items() if name not in self._after}
        if prompt.examples is not None and "examples" not in self._after:
            said["examples"] = typed_examples(prompt.examples, self.signature, f"the prompt {source.name}")
        task = Task(self.function, _changed(self.settings, {**said, "prompt": prompt.instructions}, source.name))
        task._settled, task._about = True, source.about
        return task

    @property
    def prompt(self) -> Prompt:
        """The prompt of this task, to be stored or changed. Raises `InputError` where examples are chosen by code."""
        task = self.settled()
        settings = task.settings
        if callable(settings.examples):
            raise InputError(f"The examples of '{self.__name__}' are chosen by code, which no prompt holds.")
        own = {name: getattr(settings, name) for name in ("model", "think", "attempts", "tokens", "mode")}
        changed = {name: value for name, value in own.items() if value != getattr(Settings(), name)}
        if not isinstance(changed.get("model", ""), str):
            del changed["model"]  # an object of this process
        shown = plain_examples(settings.examples, task.signature)
        return Prompt(task.instructions, shown, {**settings.parameters, **changed})

    @property
    def instructions(self) -> str:
        task = self.settled()
        prompt = task.settings.prompt
        return prompt if isinstance(prompt, str) else task.signature.instructions

    @property
    def digest(self) -> str:
        """Of everything that decides what is asked, save the inputs: instructions, types and settings."""
        return self.settled()._digest

    @cached_property
    def _digest(self) -> str:
        settings = self.settings
        model = (
            settings.model if isinstance(settings.model, str | None) else [settings.model.name, settings.model.digest]
        )
        shown = settings.examples
        said = {
            "instructions": self.instructions,
            "inputs": {name: str(kind) for name, kind in self.signature.inputs.items()},
            "answer": "text" if self._shape is None else self._shape.schema,
            "examples": _said_by(shown) if callable(shown) else [[e.inputs, e.answer, e.reasoning] for e in shown],
            "settings": [model, settings.think, settings.attempts, settings.tokens, settings.mode],
            "parameters": {name: value for name, value in settings.parameters.items() if name not in ("draw", "unit")},
        }
        return hashlib.sha256(json.dumps(said, sort_keys=True, default=repr).encode()).hexdigest()

    @cached_property
    def _shape(self) -> Shape[Any] | None:
        """None: the answer is free text."""
        output = self.signature.output
        if output is str and not self.settings.think:
            return None
        return Shape(_thinking(output) if self.settings.think else output, where=f"'{self.__name__}'")

    @cached_property
    def _strict(self) -> Reader[Any]:
        assert self._shape is not None
        return Reader(self._shape, Strict(self._shape.schema, f"what '{self.__name__}' returns"))

    @cached_property
    def _plain(self) -> Reader[Any]:
        assert self._shape is not None
        return Reader(self._shape)

    def request(self, model: Model, /, **inputs: Any) -> ChatRequest:
        """What would be sent for these inputs, to be looked at."""
        return self.settled()._question(inputs, model).request

    def _question(self, inputs: Mapping[str, Any], model: Model) -> Question[Any]:
        settings, shape = self.settings, self._shape
        best: Mode = getattr(model, "structured", "schema")
        mode = "text" if shape is None else settings.mode or best
        reader = None if shape is None else self._strict if mode in ("schema", "tool") else self._plain
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
        assert self._shape is not None
        return self._shape.kind.model_construct(reasoning=example.reasoning, answer=example.answer)

    # who answers, and what is recorded ------------------------------------------------------------------------------

    def _model(self, around: Surroundings) -> Model:
        settings, wanted = self.settings, self.settings.model
        model = around.model(wanted) if wanted is None or isinstance(wanted, str) else wanted
        kept = self._supplied
        if kept is None or kept[0] is not model or kept[1] is not around:
            made = supplied(model, around, self.__name__, settings.cache, settings.budget)
            self._supplied = kept = model, around, made
        return kept[2]

    def _span(self, around: Surroundings, args: Any, kwargs: Any) -> _Calling:
        return _Calling(around, self.signature, {**self._about, "windlass.task.digest": self._digest}, args, kwargs)

    def _noted(self, span: Span, outcome: Outcome[Any]) -> Outcome[Any]:
        span.output = outcome.value if self._shape is None or self.settings.think else self._shape.plain(outcome.value)
        span["windlass.attempts"] = len(outcome.attempts)
        return Outcome(outcome.value, outcome.attempts, span.trace_id)


class _Calling:
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


@overload
def task(function: Callable[P, R]) -> Task[P, R]: ...
@overload
def task(**settings: Any) -> Callable[[Callable[P, R]], Task[P, R]]: ...
def task(function: Callable[P, R] | None = None, **settings: Any) -> Any:
    """Makes a task of a function. Keywords are those of `Settings`, or parameters of a request (`temperature=0`)."""
    if function is not None:
        return Task(function)
    made = _changed(Settings(), settings)
    return lambda function: Task(function, made, after=frozenset(settings.keys() - {"prompt"}))


def _changed(settings: Settings, changes: Mapping[str, Any], where: str = "@task") -> Settings:
    """Raises `InputError` for a name that is not known, `ConfigError` for a value of another type: "END" for a list of
    texts would be three of them, and a server may take what is wrong without a word."""
    own = {name: value for name, value in changes.items() if name in Settings.__dataclass_fields__}
    asked = {name: value for name, value in changes.items() if name not in own}
    known = ChatRequest.__dataclass_fields__.keys() - {"messages", "tools", "tool_choice", "schema"}
    unknown = sorted(asked.keys() - known)
    if unknown:
        raise InputError(
            f"A task has no setting '{unknown[0]}'.",
            f"Known: {', '.join([*Settings.__dataclass_fields__, *sorted(known)])}.",
        )
    parameters = {**settings.parameters, **own.pop("parameters", {}), **asked}
    if parameters != settings.parameters:
        strict(ChatRequest, {"messages": (), **parameters}, where=where)
    return replace(settings, parameters=parameters, **own)


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
