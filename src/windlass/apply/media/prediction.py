"""How a media host's API says what is to be made, and how far it is. Nothing here sends anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, Literal, Protocol

from windlass.apply.providers.dialects.chat_completions import data_url
from windlass.apply.providers.dialects.dialect import Call
from windlass.core.errors import InputError
from windlass.core.values import AudioPart, FilePart, ImagePart, Usage


@dataclass(frozen=True, slots=True)
class Prediction:
    """One order at a host."""

    id: str
    status: Literal["running", "done", "failed"]
    output: Any = None
    """Holds the addresses of what was made, or `data:` URLs."""
    problem: str = ""
    """Why it failed."""
    seconds: float | None = None
    """Of the host's machines."""
    usage: Usage = field(default_factory=Usage)


class MediaDialect(Protocol):
    """Of one model at one host. Malformed answers may raise `LookupError`, `TypeError`, `ValueError` or
    `AttributeError`."""

    model: str
    api: str
    """What error messages call it."""

    def order(self, prompt: str, inputs: Mapping[str, Any]) -> Call:
        """Raises `Unsupported`, `InputError`."""
        ...

    def read(self, value: Mapping[str, Any]) -> Prediction:
        """From the answer to an order, or to a look at it."""
        ...

    def look(self, id: str) -> Call: ...

    def result(self, id: str) -> Call | None:
        """Where what was made is told, if not with the look that says it is done."""
        ...

    def cancel(self, id: str) -> Call | None:
        """None: what has been ordered is made."""
        ...


def inputs_with(prompt: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """A model whose text has another name is given it among the inputs, and no prompt. Files go as addresses."""
    return {**({"prompt": prompt} if prompt else {}), **{name: _sent(name, value) for name, value in inputs.items()}}


def _sent(name: str, value: Any) -> Any:
    if isinstance(value, ImagePart | AudioPart | FilePart):
        url = None if isinstance(value, AudioPart) else value.url
        return url or data_url(value.media_type, value.data)
    if isinstance(value, list | tuple):
        return [_sent(name, one) for one in value]
    if isinstance(value, bytes | PurePath):
        raise InputError(
            f"The input '{name}' is {type(value).__name__}: of what kind its content is cannot be seen.",
            'Give ImagePart(data=…, media_type="image/png"), AudioPart or FilePart.',
        )
    return value
