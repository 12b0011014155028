"""What stands around an answer: who gave it and what it used. The same for every endpoint of a kind.

`Envelope` is that of the endpoints that write text, whole or in the chunks of a stream; `list_answer` that of those
that only read.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Any

from windlass.core.values import ChatResponse
from windlass.serve.api.fields import Json
from windlass.serve.api.generate import Call, total_usage
from windlass.serve.api.messages import extension_json, usage_json
from windlass.serve.api.operation import COUNT, TEXT_, obj
from windlass.serve.api.sse import encode

Prompts = Sequence[Sequence[ChatResponse]]
"""The answers to each prompt of a call."""


class Envelope:
    """Of one call: its choices as a whole answer, or as the chunks of a stream."""

    def __init__(self, call: Call, kind: str, chunk: str, *, prefix: str) -> None:
        """`kind` and `chunk` are what a whole answer and a chunk call themselves; `prefix` begins the answer's id."""
        self._call, self._kind = call, kind
        self._created = int(time.time())
        self._id = f"{prefix}-{uuid.uuid4().hex}"
        # The same in all chunks, of which there is one for each token: encoded once.
        self._head = f'data: {encode(self._frame(chunk))[:-1]},"choices":['
        self._usage = ',"usage":null' if call.include_usage else ""

    def whole(self, choices: Sequence[Json], prompts: Prompts, id: str | None = None) -> Json:
        """The answer with these choices. `id`: what the model itself calls it, which its trace knows."""
        frame = self._frame(self._kind) | ({"id": id} if id else {})
        usage, about = usage_json(total_usage(prompts)), extension_json(prompts[0][0])
        return {**frame, "choices": list(choices), "usage": usage, "windlass": about}

    def chunk(self, choice: Json, windlass: Json | None = None) -> bytes:
        about = f',"windlass":{encode(windlass)}' if windlass is not None else ""
        return f"{self._head}{encode(choice)}]{self._usage}{about}}}\n\n".encode()

    def usage(self, prompts: Prompts) -> bytes:
        """The chunk without choices that says what all of them used; nothing where nobody asked for it."""
        if not self._call.include_usage:
            return b""
        return f'{self._head}],"usage":{encode(usage_json(total_usage(prompts)))}}}\n\n'.encode()

    def _frame(self, kind: str) -> Json:
        return {"id": self._id, "object": kind, "created": self._created, "model": self._call.model}


def envelope_schema(kind: str, choice: Json) -> Json:
    """JSON schema of `Envelope.whole`; `choice` are the properties of a choice besides those that all have."""
    every: Json = {"index": COUNT, "logprobs": {"type": ["object", "null"]}, "finish_reason": {"enum": FINISH}}
    counts = obj({"prompt_tokens": COUNT, "completion_tokens": COUNT, "total_tokens": COUNT})
    return obj(
        {
            "id": TEXT_,
            "object": {"const": kind},
            "created": COUNT,
            "model": TEXT_,
            "choices": {"type": "array", "minItems": 1, "items": obj(every | choice)},
            "usage": {"anyOf": [{"type": "null"}, counts]},
            "windlass": {"type": "object"},
        }
    )


FINISH = ["stop", "length", "tool_calls", "content_filter", "error"]


# endpoints that only read --------------------------------------------------------------------------------------------


def list_answer(model: str, data: Sequence[Json], *, tokens: int, **about: Any) -> Json:
    """One entry for each text that was read; `about` is what windlass says beyond the fields of others."""
    return {"object": "list", "data": list(data), "model": model, "usage": read_usage(tokens), "windlass": about}


def list_schema(entry: Json, about: Json) -> Json:
    """JSON schema of `list_answer`."""
    return obj(
        {
            "object": {"const": "list"},
            "data": {"type": "array", "items": entry},
            "model": TEXT_,
            "usage": READ_USAGE,
            "windlass": obj(about),
        }
    )


def read_usage(tokens: int) -> Json:
    return {"prompt_tokens": tokens, "total_tokens": tokens}


READ_USAGE = obj({"prompt_tokens": COUNT, "total_tokens": COUNT})
