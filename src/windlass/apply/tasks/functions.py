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

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, ParamSpec, TypeVar, cast, overload

from windlass.apply.prompts.value import Prompt
from windlass.apply.tasks.asking import asking
from windlass.apply.tasks.outcome import Outcome
from windlass.apply.tasks.prompted import Source, named, opened, plain_examples, typed_examples
from windlass.apply.tasks.running import Model, Steps, arun, run
from windlass.apply.tasks.settings import Settings, changed
from windlass.apply.tasks.signature import Signature, signature_of
from windlass.apply.tasks.streaming import Streaming
from windlass.apply.tasks.surroundings import Surroundings, here
from windlass.apply.tasks.variant import Variant
from windlass.core.errors import InputError, WindlassError
from windlass.core.spans import Span
from windlass.core.values import ChatRequest

if TYPE_CHECKING:
    from windlass.apply.tasks.mapping.results import Mapped

P = ParamSpec("P")
R = TypeVar("R")


class Task(Generic[P, R]):
    """See the module. Safe to share between threads and tasks; `using` makes another one."""

    def __init__(
        self,
        function: Callable[P, R],
        settings: Settings | None = None,
        *,
        after: frozenset[str] = frozenset(),
        about: Mapping[str, Any] | None = None,
    ) -> None:
        """`after`: names of the settings that were made after the prompt's, or beside it. `about`: what the spans of
        its calls say of a prompt that was read; that in its settings is then the words, whatever they look like."""
        self.function = function
        self.settings = settings or Settings()
        self._after = after
        self._about = about
        self._kept: tuple[Source, Task[P, R]] | None = None
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
        variant = self.settled(around).variant
        with variant.calling(around, args, kwargs) as (span, inputs):
            model = variant.model(around)
            outcome = run(asking(variant.question(inputs, model)), model, around.recorder)
            return variant.noted(span, outcome)

    async def arun(self, *args: P.args, **kwargs: P.kwargs) -> Outcome[R]:
        """As `run`. Cancelling the task cancels the call."""
        around = here()
        variant = self.settled(around).variant
        with variant.calling(around, args, kwargs) as (span, inputs):
            model = variant.model(around)
            outcome = await arun(asking(variant.question(inputs, model)), model, around.recorder)
            return variant.noted(span, outcome)

    def stream(self, *args: P.args, **kwargs: P.kwargs) -> Streaming[R]:
        """The answer while it is being written: iterate, by `for` or `async for`, then look at `outcome`."""
        around = here()
        variant = self.settled(around).variant
        calling = variant.calling(around, args, kwargs)
        try:
            model = variant.model(around)
            question = variant.question(calling.inputs, model)
        except WindlassError as error:
            calling.span.begin().finish(error)
            raise
        reader = variant.reader(question.mode)
        steps = _noting(variant, calling.span, asking(question))
        return Streaming(
            steps, model, around.recorder, calling.span, question.mode, None if reader is None else reader.strict
        )

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
            A provider that lets nobody in, or has not answered when 20 failed, ends it either way.
        retry_errors: ask items again whose answers did not fit, or were refused, in an earlier run. Items to which
            there was no answer (the provider failed) are always asked again.
        batch: by the provider's batch API: within a day, and often at half the price.
        """
        from windlass.apply.tasks.mapping.mapping import mapped

        return mapped(
            self.settled().variant, items, at_once, journal=journal, on_error=on_error, retry_errors=retry_errors,
            progress=progress, batch=batch,
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
        from windlass.apply.tasks.mapping.mapping import amapped

        return await amapped(
            self.settled().variant, items, at_once, journal=journal, on_error=on_error, retry_errors=retry_errors,
            progress=progress, batch=batch,
        )  # fmt: skip

    def using(self, **settings: Any) -> Task[P, R]:
        """The same task carried out otherwise. Names are those of `Settings`, or parameters of a request."""
        before = frozenset() if "prompt" in settings else self._after
        return Task(self.function, changed(self.settings, settings), after=before | (settings.keys() - {"prompt"}))

    # what is asked --------------------------------------------------------------------------------------------------

    def settled(self, around: Surroundings | None = None) -> Task[P, R]:
        """This task with its prompt read, for as long as that stays: a label may have moved by the next call.

        Raises `InputError` for a prompt that cannot be read or does not fit the task, `NotFound` for one that is not
        there.
        """
        prompt = self.settings.prompt
        if self._about is not None or prompt is None or (isinstance(prompt, str) and not named(prompt)):
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
        settings = changed(self.settings, {**said, "prompt": prompt.instructions}, source.name)
        return Task(self.function, settings, about=source.about)

    @cached_property
    def variant(self) -> Variant[R]:
        """Of a task that is settled."""
        return Variant(self.signature, self.settings, self._about or {})

    @property
    def prompt(self) -> Prompt:
        """The prompt of this task, to be stored or changed. Raises `InputError` where examples are chosen by code."""
        task = self.settled()
        settings = task.settings
        if callable(settings.examples):
            raise InputError(f"The examples of '{self.__name__}' are chosen by code, which no prompt holds.")
        own = {name: getattr(settings, name) for name in ("model", "think", "attempts", "tokens", "mode")}
        said = {name: value for name, value in own.items() if value != getattr(Settings(), name)}
        if not isinstance(said.get("model", ""), str):
            del said["model"]  # an object of this process
        shown = plain_examples(settings.examples, task.signature)
        return Prompt(task.variant.instructions, shown, {**settings.parameters, **said})

    @property
    def instructions(self) -> str:
        return self.settled().variant.instructions

    @property
    def digest(self) -> str:
        """Of everything that decides what is asked, save the inputs: instructions, types and settings."""
        return self.settled().variant.digest

    def request(self, model: Model, /, **inputs: Any) -> ChatRequest:
        """What would be sent for these inputs, to be looked at."""
        return self.settled().variant.question(inputs, model).request


def _noting(variant: Variant[Any], span: Span, steps: Steps[Outcome[Any]]) -> Steps[Outcome[Any]]:
    return variant.noted(span, (yield from steps))


@overload
def task(function: Callable[P, R]) -> Task[P, R]: ...
@overload
def task(**settings: Any) -> Callable[[Callable[P, R]], Task[P, R]]: ...
def task(function: Callable[P, R] | None = None, **settings: Any) -> Any:
    """Makes a task of a function. Keywords are those of `Settings`, or parameters of a request (`temperature=0`)."""
    if function is not None:
        return Task(function)
    made = changed(Settings(), settings)
    return lambda function: Task(function, made, after=frozenset(settings.keys() - {"prompt"}))
