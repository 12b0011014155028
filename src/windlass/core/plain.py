"""Chat values as JSON and back exactly, and what makes two requests the same.

`packed` writes every value of `core.values`: a dataclass by its name and what differs from its defaults, so that a
field that is added later reads old texts. Bytes, tuples and mappings with odd keys carry a mark; all else is JSON.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from windlass.core import values
from windlass.core.errors import InputError
from windlass.core.values import AudioPart, ChatRequest, ChatResponse, FilePart, ImagePart, Message

_MARK = "$"
_BREAKS = (TypeError, ValueError, KeyError, AttributeError, RecursionError)
"""What reading a text raises that `packed` did not write."""
_UNSAID = frozenset({"messages", "timeout", "background", "draw", "unit"})
"""Fields of a request that do not decide what is asked, or are told in a way of their own."""


def packed(response: ChatResponse) -> str:
    """One line of ASCII."""
    return json.dumps(_plain(response), separators=(",", ":"))


def unpacked(text: str) -> ChatResponse:
    """What `packed` wrote: equal, and shared with nobody. Raises `InputError`."""
    try:
        value = _value(json.loads(text))
    except _BREAKS as error:
        raise InputError(f"This is no packed answer: {error!r}.") from error
    if not isinstance(value, ChatResponse):
        raise InputError(f"This is no packed answer, but a {type(value).__name__}.")
    return value


def asked(request: ChatRequest) -> dict[str, Any]:
    """All that decides the answer to a request, save who answers and which draw it is: media by their digests.

    The order of keys is kept, as the order of a schema's properties is the order in which a model writes them.
    """
    said = {
        field.name: _plain(value)
        for field in dataclasses.fields(request)
        if field.name not in _UNSAID and (value := getattr(request, field.name)) != _default(field)
    }
    return {"messages": [_message(message) for message in request.messages], **said}


def digest_of(value: Any) -> str:
    """SHA-256 of a value's JSON text, the order of keys included. Raises `InputError` for what is not JSON."""
    try:
        text = json.dumps(value, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"A request is not plain JSON: {error}.", "Look at its extra, schema and tools.") from error
    return hashlib.sha256(text.encode()).hexdigest()


def _message(message: Message) -> Any:
    if not isinstance(message.content, str):
        message = dataclasses.replace(message, content=[_digested(part) for part in message.content])
    return _plain(message)


def _digested(part: Any) -> Any:
    if not isinstance(part, ImagePart | AudioPart | FilePart) or part.data is None:
        return part
    return dataclasses.replace(part, data=hashlib.sha256(part.data).digest())


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | int | float):  # the usual ones first; a truth value is an int
        return value
    if isinstance(value, bytes):
        return {_MARK: "bytes", "base64": base64.b64encode(value).decode()}
    if isinstance(value, tuple):
        return {_MARK: "tuple", "items": [_plain(item) for item in value]}
    if isinstance(value, Mapping):
        if _MARK in value or not all(isinstance(key, str) for key in value):
            return {_MARK: "dict", "items": [[_plain(key), _plain(item)] for key, item in value.items()]}
        return {key: _plain(item) for key, item in value.items()}
    if dataclasses.is_dataclass(value) and type(value).__name__ in _classes():
        said: dict[str, Any] = {_MARK: type(value).__name__}
        for field in dataclasses.fields(value):
            if (item := getattr(value, field.name)) != _default(field) or type(item) is not type(_default(field)):
                said[field.name] = _plain(item)
        return said
    if isinstance(value, Sequence):
        return [_plain(item) for item in value]
    raise InputError(f"A chat value holds a {type(value).__name__}, which cannot be written as JSON.")


def _value(plain: Any) -> Any:
    if isinstance(plain, list):
        return [_value(item) for item in plain]
    if not isinstance(plain, dict):
        return plain
    kind = plain.get(_MARK)
    if kind is None:
        return {key: _value(item) for key, item in plain.items()}
    if kind == "bytes":
        return base64.b64decode(plain["base64"])
    if kind == "tuple":
        return tuple(_value(item) for item in plain["items"])
    if kind == "dict":
        return {_value(key): _value(item) for key, item in plain["items"]}
    return _classes()[kind](**{name: _value(item) for name, item in plain.items() if name != _MARK})


@functools.cache
def _classes() -> Mapping[str, Any]:
    return {name: item for name, item in vars(values).items() if dataclasses.is_dataclass(item)}


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
