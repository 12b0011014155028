"""A task to try a prompt with, where the task's own code is not at hand.

The studio knows a prompt, not the Python function that it was written for. Its inputs are known by name from the
prompt's examples, or from what is typed; the type of the answer is text, or made from the answers of the examples.
"""

from __future__ import annotations

import inspect
import keyword
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NotRequired, Union

from windlass.apply.prompts.value import Prompt
from windlass.apply.tasks.functions import Task
from windlass.core.errors import InputError

FORMS = {"text": "text", "choice": "one of the examples' answers", "like": "of the form of the examples' answers"}
"""What an answer can be asked to be."""
MOST_CHOICES = 20


def forms(prompt: Prompt) -> list[str]:
    """Those of `FORMS` that this prompt allows, the most fitting first."""
    answers = [example.answer for example in prompt.examples or ()]
    if not answers:
        return ["text"]
    if all(isinstance(answer, str) for answer in answers):
        few = len(set(answers)) <= min(MOST_CHOICES, max(1, len(answers) // 2))
        return ["text", "choice"] if few or len(answers) <= MOST_CHOICES else ["text"]
    return ["like", "text"]


def stand_in(name: str, prompt: Prompt, inputs: Sequence[str], form: str) -> Task[..., Any]:
    """A task of that name with these inputs. Raises `InputError` for inputs that no task can have."""
    answers = [example.answer for example in prompt.examples or ()]
    if form not in forms(prompt):
        raise InputError(f"This prompt cannot be asked for '{form[:40]}'.", f"Choose: {', '.join(forms(prompt))}.")
    output: Any = str
    if form == "choice":
        output = Literal[tuple(dict.fromkeys(answers))]
    elif form == "like":
        output = kind_of(answers)
    for one in inputs:
        if not one.isidentifier() or keyword.iskeyword(one):
            raise InputError(f"'{one[:80]}' cannot be the name of an input.", "Use letters, digits and '_'.")

    def played(**given: Any) -> Any:
        """What a task's function does is written in its docstring, which is set below."""

    named = [inspect.Parameter(one, inspect.Parameter.KEYWORD_ONLY, annotation=Any) for one in inputs]
    played.__name__ = name
    played.__doc__ = prompt.instructions
    played.__annotations__ = {**dict.fromkeys(inputs, Any), "return": output}
    played.__signature__ = inspect.Signature(named, return_annotation=output)  # type: ignore[attr-defined]
    return Task(played)


def kind_of(values: Sequence[Any]) -> Any:
    """A type that holds all these values of plain JSON, as narrow as they tell."""
    kinds = [_kind(values, sort) for sort in _SORTS if any(_sort(value) is sort for value in values)]
    if int in kinds and float in kinds:
        kinds.remove(int)
    return Union[tuple(kinds)]  # noqa: UP007 - of kinds that only these values know


_SORTS: tuple[type, ...] = (bool, int, float, str, list, dict, type(None))


def _sort(value: Any) -> type:
    return next(sort for sort in _SORTS if isinstance(value, sort))


def _kind(values: Sequence[Any], sort: type) -> Any:
    own = [value for value in values if _sort(value) is sort]
    if sort is list:
        inner = [item for value in own for item in value]
        return list[kind_of(inner)] if inner else list[str]  # type: ignore[misc]
    return _record(own) if sort is dict else sort


def _record(values: Sequence[Mapping[str, Any]]) -> Any:
    """An object with the keys that these have; those that some lack need not be there."""
    from typing_extensions import TypedDict  # that of `typing` is not enough for pydantic before Python 3.12

    kinds: dict[str, Any] = {}
    for key in dict.fromkeys(key for value in values for key in value):
        kind = kind_of([value[key] for value in values if key in value])
        kinds[key] = kind if all(key in value for value in values) else NotRequired[kind]
    return TypedDict("Answer", kinds)  # type: ignore[operator]
