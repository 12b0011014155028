"""How a task is carried out: what a person may say of it, checked once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from windlass.apply.prompts.value import Prompt
from windlass.apply.tasks.asking import Mode
from windlass.apply.tasks.prompt import Example
from windlass.apply.tasks.running import Model
from windlass.apply.wrappers.answers import Answers
from windlass.apply.wrappers.budget import Budget
from windlass.core.config import strict
from windlass.core.errors import InputError
from windlass.core.values import ChatRequest


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


def changed(settings: Settings, changes: Mapping[str, Any], where: str = "@task") -> Settings:
    """`settings` with others: names are those of `Settings`, or parameters of a request.

    Raises `InputError` for a name that is not known, `ConfigError` for a value of another type: "END" for a list of
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
