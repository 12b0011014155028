"""Where a task's prompt comes from, and its examples between plain JSON and the task's own types."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from windlass.apply.prompts import artifact as artifacts
from windlass.apply.prompts.example import Example
from windlass.apply.prompts.file import read_prompt
from windlass.apply.prompts.value import Prompt
from windlass.apply.tasks.forms.citing import context
from windlass.apply.tasks.forms.schema import Shape, Unfit
from windlass.apply.tasks.signature import Signature
from windlass.apply.tasks.surroundings import Surroundings
from windlass.core import semconv
from windlass.core.errors import InputError, NotFound
from windlass.core.values import AudioPart, FilePart, ImagePart

if TYPE_CHECKING:
    from windlass.core.workspace import Workspace

named = artifacts.is_reference


@dataclass(frozen=True, slots=True)
class Source:
    """A prompt that was found."""

    key: str
    """Another one as soon as it is another prompt."""
    name: str
    read: Callable[[], Prompt]
    about: Mapping[str, Any]
    """What the spans of its calls say."""
    place: Workspace | None = None
    """Where it was found; None: it is the same everywhere."""
    moves: bool = False
    """Whether the next call may find another prompt there."""

    def stays_in(self, around: Surroundings) -> bool:
        return not self.moves and (self.place is None or self.place is around.workspace)


def opened(prompt: str | Path | Prompt, around: Surroundings, task: str) -> Source:
    """Raises `NotFound`, and `InputError` for a file that is no prompt."""
    if isinstance(prompt, Prompt):
        return _value(prompt, f"of '{task}'")
    if isinstance(prompt, Path):
        return _value(read_prompt(prompt), str(prompt))
    if around.workspace is None:
        raise NotFound(
            f"'{task}' wants the prompt {prompt}, and there is no workspace here.",
            "`windlass init` makes one; `windlass prompt add FILE` puts a prompt into it.",
        )
    found = artifacts.find(around.workspace, prompt)
    about = {
        semconv.PROMPT_NAME: found.record.name,
        semconv.PROMPT_VERSION: str(found.record.version),
        semconv.PROMPT_DIGEST: found.digest,
    }
    read = partial(artifacts.read, found)
    return Source(f"{found.ref} {found.digest}", found.ref, read, about, around.workspace, artifacts.moves(prompt))


def _value(prompt: Prompt, name: str) -> Source:
    digest = artifacts.digest(prompt)
    return Source(digest, name, lambda: prompt, {semconv.PROMPT_DIGEST: digest})


def typed_examples(examples: Sequence[Example], signature: Signature, whose: str) -> list[Example]:
    """Examples, of `the prompt tone@2` for example, as the task's own types have them. Raises `InputError` for what
    does not fit."""
    shapes = _shapes(signature) if examples else {}
    found = []
    for number, example in enumerate(examples, 1):
        where = f"Example {number} of {whose}"
        try:
            inputs = signature.bound((), example.inputs)
        except TypeError as error:
            raise InputError(f"{where}: {error}.", "Give all inputs of the task, and no others.") from error
        try:
            inputs |= {key: shapes[key].value(value) for key, value in example.inputs.items()}
            answer = shapes[_ANSWER].value(example.answer, context(shapes[_ANSWER], inputs, signature.inputs))
        except Unfit as unfit:
            raise InputError(f"{where}: {unfit}.", "Mend it: examples are of the task's own types.") from unfit
        found.append(Example(inputs, answer, example.reasoning))
    return found


def plain_examples(examples: Sequence[Example], signature: Signature) -> list[Example]:
    """The other way. Raises `InputError` for images, sounds and files, which no prompt holds."""
    shapes = _shapes(signature) if examples else {}
    found = []
    for example in examples:
        if any(isinstance(value, ImagePart | AudioPart | FilePart) for value in example.inputs.values()):
            raise InputError(f"An example of '{signature.name}' holds more than text.", "Leave it to the task's code.")
        inputs = {key: shapes[key].plain(value) for key, value in example.inputs.items()}
        found.append(Example(inputs, shapes[_ANSWER].plain(example.answer, as_written=True), example.reasoning))
    return found


_ANSWER = ""
"""No parameter can have this name."""


def _shapes(signature: Signature) -> dict[str, Shape[Any]]:
    kinds = {**signature.inputs, _ANSWER: signature.output}
    return {name: Shape(kind, where=f"'{signature.name}'") for name, kind in kinds.items()}
