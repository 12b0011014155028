"""The messages of a task: what to do, how it was done before, and now this.

What stays the same from call to call stands first and is the same to the byte, so that providers can keep it in their
caches; what changes comes last.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from windlass.apply.prompts.example import Example
from windlass.apply.tasks.forms.schema import Shape, Unfit
from windlass.core.errors import InputError
from windlass.core.values import AudioPart, FilePart, ImagePart, Message, Part, TextPart

__all__ = ["SCHEMA_NOTE", "Example", "content", "messages"]

_MEDIA = (ImagePart, AudioPart, FilePart)
SCHEMA_NOTE = "Answer with one JSON value that obeys this schema, and nothing else:\n"


def messages(instructions: str, examples: Sequence[tuple[str | Sequence[Part], str]], last: Any) -> list[Message]:
    """`examples`: what was said, and what was answered."""
    said = [Message("system", instructions)]
    for question, answer in examples:
        said += [Message("user", question), Message("assistant", answer)]
    return [*said, Message("user", last)]


def content(inputs: Mapping[str, Any], types: Mapping[str, Any]) -> str | tuple[Part, ...]:
    """The inputs of a call as the content of a message, in the order of `types`, however they were given. One text
    stands as it is; several stand between tags. Raises `InputError` naming the input that is not of its type."""
    inputs = {name: inputs[name] for name in dict.fromkeys((*types, *inputs)) if name in inputs}
    texts = {name: value for name, value in inputs.items() if not isinstance(value, _MEDIA)}
    media = [value for value in inputs.values() if isinstance(value, _MEDIA)]
    if len(texts) == 1 and isinstance(only := next(iter(texts.values())), str):
        text = only
    else:
        text = "\n".join(f"<{name}>\n{_text(name, value, types)}\n</{name}>" for name, value in texts.items())
    if not media:
        return text
    return (*media, TextPart(text)) if text else tuple(media)


def _text(name: str, value: Any, types: Mapping[str, Any]) -> str:
    if isinstance(value, str):
        return value
    kind = types.get(name, Any)
    shape = Shape[Any](kind if kind is not Any else type(value), where=f"the input '{name}'")
    try:
        plain = None if value is None else shape.given(value)
    except Unfit as unfit:
        raise InputError(
            f"The input '{name}' is not of its type: {unfit.of_one}.", "Give what the task's function takes."
        ) from unfit
    return json.dumps(plain, ensure_ascii=False, indent=1)
