"""What the endpoints that write text share: the fields of sampling, and several answers to one request.

`n` answers are `n` single requests, which a prefix cache makes cheap; each draws from a seed of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from windlass.core.values import ChatRequest, ChatResponse, Usage
from windlass.serve.api.fields import (
    Check,
    Json,
    Table,
    anything,
    array,
    flag,
    integer,
    kind,
    mapping,
    number,
    only,
    record,
    short,
    text,
    text_or,
)
from windlass.serve.errors import BadField

MAX_TOKENS = 1 << 24
MAX_CHOICES = 16
MAX_LOGPROBS = 20
MAX_STOPS = 16
MAX_BIASES = 1024
VOCABULARY = 1 << 24
_ANY_SEED = integer(-(1 << 63), (1 << 63) - 1)


@dataclass(frozen=True, slots=True)
class Call:
    """A parsed request for text: which model, one request for each answer, and how to send them."""

    model: str
    requests: Sequence[ChatRequest]
    stream: bool = False
    include_usage: bool = False


_PUSH = number(-100, 100)


def _logit_bias(at: str, value: Any) -> dict[int, float]:
    if not isinstance(value, dict):
        raise BadField(at, f"'{at}' is {kind(value)}, but must be an object.")
    if len(value) > MAX_BIASES:
        raise BadField(at, f"'{at}' holds {len(value)}; this server takes {MAX_BIASES}.")
    bias = {}
    for token, push in value.items():
        if not (token.isascii() and token.isdigit()) or int(token[:9]) >= VOCABULARY or len(token) > 8:
            raise BadField(at, f"'{at}' names the token {short(token)}, but tokens are whole numbers.")
        bias[int(token)] = _PUSH(f"{at}.{token}", push)
    return bias


LOGIT_BIAS = Check(
    {
        "type": "object",
        "propertyNames": {"pattern": "^[0-9]{1,7}$"},
        "additionalProperties": _PUSH.schema,
        "maxProperties": MAX_BIASES,
    },
    _logit_bias,
)

FOR_THE_MODEL: Table = {
    "frequency_penalty": number(-2, 2),
    "presence_penalty": number(-2, 2),
    "repetition_penalty": number(0.01, 10),  # nearer to 0 a logit divided by it overflows
    "logit_bias": LOGIT_BIAS,
    "top_k": integer(-1, VOCABULARY),
    "min_p": number(0, 1),
    "typical_p": number(0, 1, above=True),
    "min_tokens": integer(0, MAX_TOKENS),
    "ignore_eos": flag,
    "stop_token_ids": array(integer(0, VOCABULARY), most=64),
    "beam_width": integer(1, 64),
    "length_penalty": number(-10, 10),
    "include_stop_str_in_output": flag,
    "regex": text(empty=False),
    "choice": array(text(empty=False), least=1, most=1000),
    "grammar": text(empty=False),
    "priority": integer(-100, 100),
}
"""Parameters of vLLM's kind that some models honour and others refuse: handed over in `ChatRequest.extra`."""

NEUTRAL: Json = {
    "frequency_penalty": 0, "presence_penalty": 0, "repetition_penalty": 1, "logit_bias": {}, "top_k": (-1, 0),
    "min_p": 0, "typical_p": 1, "min_tokens": 0, "ignore_eos": False, "stop_token_ids": [], "beam_width": 1,
    "length_penalty": 1, "include_stop_str_in_output": False, "priority": 0, "parallel_tool_calls": True,
}  # fmt: skip
"""Values that ask for nothing: a model need not know the parameter."""

HARMLESS = (
    "user", "metadata", "store", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "service_tier",
)  # fmt: skip
"""Fields that concern OpenAI's bookkeeping, not the answer; some tell whose request it is (`_unit`)."""

TEXT: Table = {
    "temperature": number(0, 2),
    "top_p": number(0, 1, above=True, hint="For the likeliest token set temperature to 0."),
    "max_tokens": integer(1, MAX_TOKENS),
    "stop": text_or(array(text(empty=False), most=MAX_STOPS), empty=False),
    "seed": _ANY_SEED,
    "stream": flag,
    # padding against traffic analysis, which a local connection has not
    "stream_options": record({"include_usage": flag, "include_obfuscation": flag}),
    **FOR_THE_MODEL,
    **dict.fromkeys(HARMLESS, anything),
}
"""The fields of every endpoint that writes text."""

CHAT_EXTRAS: Table = {
    "parallel_tool_calls": flag,
    "reasoning_effort": text(empty=False),
    "reasoning_budget": integer(0, MAX_TOKENS),
    "verbosity": text(empty=False),
    "access": array(text(empty=False), most=1000),
    "chat_template_kwargs": mapping,
    "modalities": only(["text"]),
    "audio": only(),
    "prediction": only(),
    "web_search_options": only(),
}


def text_request(fields: Json, **given: Any) -> ChatRequest:
    """The request that the shared fields describe; `given` are its other arguments, `extra` among them."""
    if "stream_options" in fields and not fields.get("stream"):
        raise BadField("stream_options", "'stream_options' is only allowed when 'stream' is true.")
    asked = {
        name: fields[name]
        for name in (*FOR_THE_MODEL, *CHAT_EXTRAS)
        if name in fields and name not in ("modalities", "audio", "prediction", "web_search_options")
    }
    extra = {name: value for name, value in asked.items() if not _neutral(name, value)} | given.pop("extra", {})
    stop = fields.get("stop", ())
    return ChatRequest(
        temperature=fields.get("temperature"),
        top_p=fields.get("top_p"),
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
        seed=fields.get("seed"),
        extra=extra,
        unit=_unit(fields),
        **given,
    )


def _unit(fields: Json) -> str:
    """Whose request it is, by the fields that OpenAI has for that: a session before a user."""
    metadata = fields.get("metadata")
    sessions = [metadata.get(name) for name in ("session_id", "user_id")] if isinstance(metadata, dict) else []
    named = (*sessions, fields.get("safety_identifier"), fields.get("user"))
    return next((one[:200] for one in named if isinstance(one, str) and one), "")


def _neutral(name: str, value: Any) -> bool:
    if name not in NEUTRAL:
        return False
    neutral = NEUTRAL[name]
    return value in neutral if isinstance(neutral, tuple) else bool(value == neutral)


def times(request: ChatRequest, n: int) -> list[ChatRequest]:
    """The same request `n` times; the first keeps its seed, the others draw theirs from it. Raises `BadField` for a
    beam search, which would find the same answer each time."""
    if n > 1 and request.extra.get("beam_width", 1) > 1:
        raise BadField(
            "beam_width", f"'beam_width' looks for the one best answer, but {n} are asked for ('n' or 'best_of').",
            "Leave out one of the two.",
        )  # fmt: skip
    if request.seed is None or n == 1:
        return [request] * n
    return [request, *(replace(request, seed=_derived(request.seed, i)) for i in range(1, n))]


def _derived(seed: int, index: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}:{index}".encode()).digest()[:4], "little")


def total_usage(prompts: Iterable[Sequence[ChatResponse]]) -> Usage:
    """The usage of all answers; a prompt that several answers share counts once, as in OpenAI's service."""
    total = Usage()
    for answers in prompts:
        for i, answer in enumerate(answers):
            used = answer.usage
            total += used if i == 0 else Usage(output=used.output, reasoning=used.reasoning)
    return total
