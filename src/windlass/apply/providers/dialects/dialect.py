"""How one provider's API says a chat request and its answer. Nothing here sends anything.

A dialect is written once and serves calls that wait, calls of an event loop, and the tests that compare its requests
with those of the provider's own SDK. What an API cannot express is refused before anything is sent; a parameter that
disappears on its way is the fault users of such layers report most (litellm #35582).
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from windlass.core.errors import Unsupported
from windlass.core.sse import cut, data_of
from windlass.core.values import (
    AudioPart,
    ChatDelta,
    ChatRequest,
    ChatResponse,
    FilePart,
    ImagePart,
    Message,
    Part,
    TextPart,
    ToolCall,
)

OnUnsupported = Literal["error", "warn"]

PARAMETERS = frozenset(
    {
        "temperature", "top_p", "max_tokens", "stop", "seed", "tools", "tool_choice", "schema", "logprobs",
    }
)  # fmt: skip
"""What a `ChatRequest` may ask for that a model may not know."""

_CONTENT: Mapping[type[Part], str] = {ImagePart: "images", AudioPart: "audio", FilePart: "files"}
"""What a message may hold besides text."""


_SYSTEM = ("system", "developer")


@dataclass(frozen=True, slots=True)
class Call:
    """What is sent: a path below the endpoint's address, a JSON body, and headers beyond the endpoint's own."""

    path: str
    body: Mapping[str, Any] | None
    """None: a GET."""
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    """Sent as it is, in place of a body; its type is among the headers."""
    method: str | None = None
    """None: POST where there is something to send, else GET."""


class Frames(Protocol):
    """Cuts the bytes of a streamed answer into events."""

    media_type: str

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The JSON texts that are complete with this piece. Raises `core.sse.BadEvent`."""
        ...

    def end(self) -> Iterator[bytes]:
        """What is left when the stream has ended."""
        ...


class Reading(Protocol):
    """One streamed answer while it comes in."""

    def feed(self, event: Mapping[str, Any]) -> Sequence[ChatDelta]: ...

    def end(self) -> ChatResponse | None:
        """The whole answer, or None when the stream ended before it did."""
        ...


class Dialect(Protocol):
    """Of one model at one provider. Malformed answers may raise `LookupError`, `TypeError`, `ValueError` or
    `AttributeError`; whoever sends turns them into a `ProviderError` that names the endpoint."""

    model: str
    api: str
    """What error messages call it."""
    knows: frozenset[str]
    """Of `PARAMETERS`, and of `images`, `audio`, `files` and `names` (of who speaks): what it can say."""
    extra: frozenset[str]
    """Names that `ChatRequest.extra` may hold; they are passed on as they are."""

    def call(self, request: ChatRequest, *, stream: bool) -> Call: ...

    def answer(self, value: Mapping[str, Any]) -> ChatResponse:
        """The whole answer from the JSON object of a call that was not streamed; without its price."""
        ...

    def reading(self) -> Reading: ...

    def frames(self) -> Frames: ...


class ServerSentEvents:
    """The frames that nearly every provider uses; `[DONE]` is the end and nothing else."""

    media_type = "text/event-stream"

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        self._buffer += data
        for event in cut(self._buffer):
            text = data_of(event)
            if text and text != b"[DONE]":
                yield text

    def end(self) -> Iterator[bytes]:
        """Some servers leave out the blank line after their last event."""
        return self.feed(b"\n\n")


def arguments_of(call: ToolCall) -> dict[str, Any]:
    """The arguments of an earlier call, for APIs that take an object. What was written and is none goes as its text, so
    that a model may be told what was wrong with it."""
    try:
        value = json.loads(call.arguments or "{}")
    except (ValueError, RecursionError):
        value = None
    return value if isinstance(value, dict) else {"arguments": call.arguments}


def finished_calls(written: Mapping[int, str], *, cut_off: bool) -> dict[int, Any]:
    """The arguments of streamed calls, by their blocks. In an answer that was cut off, a call that is no JSON is none.
    Raises `ValueError` for one in any other answer."""
    values: dict[int, Any] = {}
    for index, text in written.items():
        try:
            values[index] = json.loads(text) if text else {}
        except ValueError:
            if not cut_off:
                raise
    return values


def system_apart(messages: Sequence[Message], api: str) -> tuple[list[str], Sequence[Message]]:
    """What the system says first, and the conversation. Raises `Unsupported` for a system that speaks later."""
    at = next((n for n, m in enumerate(messages) if m.role not in _SYSTEM), len(messages))
    if any(message.role in _SYSTEM for message in messages[at:]):
        raise Unsupported(f"{api} takes system messages at the beginning only.", "Move it to the front.")
    return [text_alone(message, api) for message in messages[:at]], messages[at:]


def text_alone(message: Message, api: str) -> str:
    """The text of a message that can hold nothing else there. Raises `Unsupported`."""
    if not isinstance(message.content, str) and any(not isinstance(part, TextPart) for part in message.content):
        raise Unsupported(f"{api} takes text only in messages of the {message.role}.", "Put the rest into the user's.")
    return message.text


def fitted(request: ChatRequest, dialect: Dialect, on_unsupported: OnUnsupported = "error") -> ChatRequest:
    """The request, if the dialect can say it. Raises `Unsupported` naming what it cannot.

    With "warn" parameters are left out with a warning instead. What the messages hold is never left out.
    """
    for message in request.messages:
        if message.name is not None and message.role != "tool" and "names" not in dialect.knows:
            raise Unsupported(
                f"{dialect.api} takes no name of who speaks ('{message.name}').", "Say it in the message itself."
            )
        for part in () if isinstance(message.content, str) else message.content:
            kind = _CONTENT.get(type(part))
            if kind is not None and kind not in dialect.knows:
                raise Unsupported(
                    f"{dialect.api} takes no {kind} in messages.", "Leave it out, or ask a model that reads it."
                )
    asked = {name for name in PARAMETERS if getattr(request, name) != _DEFAULTS[name]}
    missing = sorted(asked - dialect.knows)
    unknown = sorted(set(request.extra) - dialect.extra)
    if not missing and not unknown:
        return request
    name, *_ = names = [*missing, *unknown]
    if on_unsupported == "error":
        known = ", ".join(sorted(dialect.extra | (dialect.knows & PARAMETERS)))
        raise Unsupported(f"{dialect.api} has no parameter '{name}'.", f"It knows: {known}.")
    warnings.warn(f"{dialect.api} has no parameter {', '.join(names)}: left out.", stacklevel=4)
    kept = {key: value for key, value in request.extra.items() if key not in unknown}
    return replace(request, extra=kept, **{key: _DEFAULTS[key] for key in missing})


_DEFAULTS: Mapping[str, Any] = {
    name: getattr(ChatRequest(()), name) for name in PARAMETERS
}  # what `ChatRequest` says when nothing is asked
