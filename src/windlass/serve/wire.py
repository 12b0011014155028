"""The OpenAI API's JSON <-> windlass' values, strictly: a field is honoured, or refused by name, never ignored.

Three kinds of fields: those read here; those handed to the model in `ChatRequest.extra`, which honours or refuses
them; and those that change nothing about the answer (`user`, `metadata`, `store`, …), accepted as documented. `null`
means absent throughout, as in OpenAI's own service.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from windlass.core.errors import InputError
from windlass.core.values import ChatRequest, ChatResponse, ImagePart, Message, Part, TextPart, ToolCall, Usage

HARMLESS = frozenset(
    {"user", "metadata", "store", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "service_tier"}
)
"""Fields that concern OpenAI's bookkeeping, not the answer."""

NEUTRAL: Mapping[str, Sequence[Any]] = {
    "n": (1,), "best_of": (1,), "logprobs": (False,), "top_logprobs": (0,), "echo": (False,), "suffix": ("",),
    "modalities": (["text"],), "frequency_penalty": (0,), "presence_penalty": (0,), "logit_bias": ({},),
    "response_format": ({"type": "text"},), "tools": ([],), "tool_choice": ("none", "auto"), "functions": ([],),
    "function_call": ("none", "auto"),
}  # fmt: skip
"""Fields whose given value asks for nothing but the ordinary."""

FOR_THE_MODEL = frozenset(
    {"frequency_penalty", "presence_penalty", "logit_bias", "response_format", "tools", "tool_choice"}
    | {"parallel_tool_calls", "reasoning_effort", "verbosity", "top_k", "min_p", "repetition_penalty"}
)
"""Fields that some models honour and others refuse: handed over in `ChatRequest.extra`."""

REFUSED = frozenset(
    {"n", "best_of", "logprobs", "top_logprobs", "echo", "suffix", "modalities", "audio", "prediction", "functions"}
    | {"function_call", "web_search_options"}
)
"""Fields of the API that this server does not support with any value but a neutral one."""

ROLES = ("system", "developer", "user", "assistant", "tool")
MAX_STOPS = 4
MAX_TOKENS = 1 << 24


class BadField(InputError):
    """A request that cannot be honoured; `param` names the field, as OpenAI's errors do."""

    def __init__(self, param: str | None, message: str, hint: str = "", *, code: str | None = None) -> None:
        super().__init__(message, hint)
        self.param = param
        self.code = code


@dataclass(frozen=True, slots=True)
class Call:
    """A parsed request for text: which model, what to do, how to send it."""

    model: str
    request: ChatRequest
    stream: bool
    include_usage: bool


def parse_json(body: bytes) -> dict[str, Any]:
    """The JSON object in a request's body. NaN, repeated keys and half characters, which Python reads, are refused."""
    try:
        # Decoded here, because `json.loads` would guess at UTF-16 and let halves of characters pass.
        value = json.loads(body.decode(), parse_constant=_no_constant, object_pairs_hook=_unique)
        if b"\\u" in body:  # an escape can smuggle half a character in, which nothing after this could write out
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise BadField(None, "The body is nested too deeply.") from None
    except UnicodeEncodeError:
        raise BadField(None, "A text holds half a character (a lone surrogate).", "Check how it was cut.") from None
    except ValueError as error:  # also invalid UTF-8 and numbers of thousands of digits
        raise BadField(None, f"The body is not valid JSON: {error}.", "Send one JSON object, in UTF-8.") from None
    if not isinstance(value, dict):
        raise BadField(None, f"The body is {_kind(value)}, but must be a JSON object.")
    return value


def chat_call(fields: dict[str, Any], *, max_messages: int) -> Call:
    """POST /v1/chat/completions."""
    read = Fields(fields)
    messages = read.take("messages", _list)
    if not messages:
        raise BadField("messages", "'messages' must hold at least one message.")
    if len(messages) > max_messages:
        raise BadField("messages", f"'messages' holds {len(messages)} messages; this server takes {max_messages}.")
    newer, older = read.maybe("max_completion_tokens", _count), read.maybe("max_tokens", _count)
    if newer is not None and older is not None:
        raise BadField("max_tokens", "Both 'max_completion_tokens' and 'max_tokens' are given.", "Give one of them.")
    parsed = [_message(message, f"messages[{i}]") for i, message in enumerate(messages)]
    return _call(read, parsed, older if newer is None else newer, {})


def completion_call(fields: dict[str, Any]) -> Call:
    """POST /v1/completions: goes on with `prompt` as it stands."""
    read = Fields(fields)
    prompt = read.take("prompt", _prompt)
    return _call(read, [Message("user", prompt)], read.maybe("max_tokens", _count), {"raw_prompt": True})


def _call(read: Fields, messages: list[Message], max_tokens: int | None, extra: dict[str, Any]) -> Call:
    model = read.take("model", _string)
    temperature = read.maybe("temperature", _between(0, 2))
    top_p = read.maybe("top_p", _between(0, 1))
    if top_p == 0:
        raise BadField("top_p", "'top_p' is 0, but must be above 0.", "For the likeliest token set temperature to 0.")
    stop = read.maybe("stop", _stop) or ()
    seed = read.maybe("seed", _seed)
    stream = read.maybe("stream", _flag) or False
    options = read.maybe("stream_options", _object)
    if options is not None and not stream:
        raise BadField("stream_options", "'stream_options' is only allowed when 'stream' is true.")
    usage = Fields(options or {}, "stream_options.")
    include_usage = usage.maybe("include_usage", _flag) or False
    usage.maybe("include_obfuscation", _flag)  # padding against traffic analysis, which a local connection has not
    usage.finish()
    for name in HARMLESS:
        read.maybe(name, _anything)
    for name, neutral in NEUTRAL.items():
        if any(_same(read.left.get(name), value) for value in neutral):
            del read.left[name]
    for name in REFUSED & set(read.left):
        if read.left.pop(name) is not None:
            raise BadField(name, f"'{name}' is not supported by this server.", "Leave it out.", code="unsupported")
    for name in FOR_THE_MODEL & set(read.left):
        if (value := read.maybe(name, _anything)) is not None:
            extra[name] = value
    read.finish()
    return Call(model, ChatRequest(messages, temperature, top_p, max_tokens, stop, seed, extra), stream, include_usage)


@dataclass(frozen=True, slots=True)
class EmbeddingCall:
    model: str
    texts: Sequence[str]
    base64: bool
    dimensions: int | None


def embedding_call(fields: dict[str, Any], *, max_texts: int) -> EmbeddingCall:
    """POST /v1/embeddings."""
    read = Fields(fields)
    model = read.take("model", _string)
    texts = read.take("input", _texts)
    if len(texts) > max_texts:
        raise BadField("input", f"'input' holds {len(texts)} texts; this server takes {max_texts} at once.")
    form = read.maybe("encoding_format", _one_of("float", "base64")) or "float"
    dimensions = read.maybe("dimensions", _count)
    read.maybe("user", _anything)
    read.finish()
    return EmbeddingCall(model, texts, form == "base64", dimensions)


@dataclass(frozen=True, slots=True)
class FeedbackCall:
    trace: str
    value: float
    comment: str
    correct_document: str | None
    user: str


def feedback_call(fields: dict[str, Any]) -> FeedbackCall:
    """POST /v1/feedback, a door of windlass' own: what an end user thinks of an answer."""
    read = Fields(fields)
    call = FeedbackCall(
        trace=read.take("trace_id", _string),
        value=read.take("value", _between(0, 1)),
        comment=read.maybe("comment", _text) or "",
        correct_document=read.maybe("correct_document", _string),
        user=read.maybe("user", _string) or "user",
    )
    read.finish()
    return call


# the answer ----------------------------------------------------------------------------------------------------------


def usage_json(usage: Usage) -> dict[str, Any] | None:
    """OpenAI's overlapping counts out of our disjoint ones; None when the model reported none."""
    if usage.total is None:
        return None
    body: dict[str, Any] = {
        "prompt_tokens": usage.prompt or 0,
        "completion_tokens": usage.completion or 0,
        "total_tokens": usage.total,
    }
    if usage.cache_read is not None:
        body["prompt_tokens_details"] = {"cached_tokens": usage.cache_read}
    if usage.reasoning is not None:
        body["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning}
    return body


def extension_json(response: ChatResponse) -> dict[str, Any]:
    """What windlass says beyond OpenAI's fields, under the key `windlass`."""
    return {
        "trace_id": response.trace_id,
        "citations": [asdict(citation) for citation in response.citations],
        "abstained": response.abstained,
        "cost_usd": response.cost_usd,
    }


def message_json(message: Message) -> dict[str, Any]:
    body: dict[str, Any] = {"role": message.role, "content": message.text, "refusal": None}
    if message.tool_calls:
        body["content"] = message.text or None
        body["tool_calls"] = tool_calls_json(message.tool_calls)
    return body


def tool_calls_json(calls: Sequence[ToolCall], *, indexed: bool = False) -> list[dict[str, Any]]:
    return [
        ({"index": i} if indexed else {})
        | {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}}
        for i, c in enumerate(calls)
    ]


# reading one object ---------------------------------------------------------------------------------------------------


class Fields:
    """The fields of one JSON object, taken one by one; `finish` refuses what nobody took."""

    def __init__(self, values: dict[str, Any], prefix: str = "") -> None:
        self.left = dict(values)
        self._prefix = prefix
        self._known: list[str] = []

    def take(self, name: str, check: Callable[[str, Any], Any]) -> Any:
        """A field that must be there."""
        value = self.maybe(name, check)
        if value is None:
            raise BadField(f"{self._prefix}{name}", f"'{self._prefix}{name}' is missing.", code="missing")
        return value

    def maybe(self, name: str, check: Callable[[str, Any], Any]) -> Any:
        """A field that may be absent or null: then None."""
        self._known.append(name)
        value = self.left.pop(name, None)
        return None if value is None else check(f"{self._prefix}{name}", value)

    def finish(self) -> None:
        for name in self.left:
            near = difflib.get_close_matches(name, self._known, n=1)
            shown = f"{self._prefix}{name}"[:200]
            hint = f"Did you mean '{self._prefix}{near[0]}'?" if near else "Leave it out."
            raise BadField(shown, f"'{shown}' is not a field this server knows.", hint, code="unknown_field")


def _message(value: Any, at: str) -> Message:
    read = Fields(_object(at, value), f"{at}.")
    role = read.take("role", _one_of(*ROLES))
    content = read.maybe("content", _content)
    calls = read.maybe("tool_calls", _list) or []
    tool_calls = tuple(_tool_call(call, f"{at}.tool_calls[{i}]") for i, call in enumerate(calls))
    tool_call_id = read.maybe("tool_call_id", _string)
    name = read.maybe("name", _string)
    if content is None and not tool_calls:
        raise BadField(f"{at}.content", f"'{at}.content' is missing.", code="missing")
    if tool_calls and role != "assistant":
        raise BadField(f"{at}.tool_calls", f"'{at}.tool_calls' belongs to messages of the assistant only.")
    if (role == "tool") != (tool_call_id is not None):
        raise BadField(f"{at}.tool_call_id", f"'{at}.tool_call_id' belongs to messages of role 'tool', and to all.")
    for echoed in ("refusal", "annotations", "audio", "function_call", "windlass"):
        # An answer of ours sent back as history: these are empty there. `windlass` is our own extension.
        if read.left.get(echoed) in (None, []) or echoed == "windlass":
            read.left.pop(echoed, None)
    read.finish()
    return Message(role, "" if content is None else content, tool_calls, tool_call_id, name)


def _content(at: str, value: Any) -> str | tuple[Part, ...]:
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not value:
        raise BadField(at, f"'{at}' is {_kind(value)}, but must be a text or a list of parts.")
    return tuple(_part(part, f"{at}[{i}]") for i, part in enumerate(value))


def _part(value: Any, at: str) -> Part:
    read = Fields(_object(at, value), f"{at}.")
    part: Part
    match read.take("type", _one_of("text", "image_url")):
        case "text":
            part = TextPart(read.take("text", _text))
        case _:
            image = Fields(read.take("image_url", _object), f"{at}.image_url.")
            part = ImagePart(url=image.take("url", _string))
            if image.maybe("detail", _string) not in (None, "auto"):
                raise BadField(f"{at}.image_url.detail", f"'{at}.image_url.detail' is not supported.", "Leave it out.")
            image.finish()
    read.finish()
    return part


def _tool_call(value: Any, at: str) -> ToolCall:
    read = Fields(_object(at, value), f"{at}.")
    read.maybe("index", _anything)
    read.take("type", _one_of("function"))
    function = Fields(read.take("function", _object), f"{at}.function.")
    call = ToolCall(read.take("id", _string), function.take("name", _string), function.take("arguments", _text))
    function.finish()
    read.finish()
    return call


# checks: (where, value) -> value, or BadField -----------------------------------------------------------------------


def _anything(at: str, value: Any) -> Any:
    return value


def _text(at: str, value: Any) -> str:
    if not isinstance(value, str):
        raise BadField(at, f"'{at}' is {_kind(value)}, but must be a text.")
    return value


def _string(at: str, value: Any) -> str:
    if not _text(at, value):
        raise BadField(at, f"'{at}' is empty.")
    return str(value)


def _flag(at: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise BadField(at, f"'{at}' is {_kind(value)}, but must be true or false.")
    return value


def _integer(at: str, value: Any) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadField(at, f"'{at}' is {_kind(value)}, but must be a whole number.")
    return value


def _count(at: str, value: Any) -> int:
    number = _integer(at, value)
    if not 1 <= number <= MAX_TOKENS:
        raise BadField(at, f"'{at}' is {_short(number)}, but must be between 1 and {MAX_TOKENS}.")
    return number


def _seed(at: str, value: Any) -> int:
    number = _integer(at, value)
    if not -(1 << 63) <= number < 1 << 63:
        raise BadField(at, f"'{at}' does not fit into 64 bits.")
    return number


def _between(low: float, high: float) -> Callable[[str, Any], float]:
    def check(at: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise BadField(at, f"'{at}' is {_kind(value)}, but must be a number.")
        if not low <= value <= high or not math.isfinite(value):
            raise BadField(at, f"'{at}' is {_short(value)}, but must be between {low} and {high}.")
        return float(value)

    return check


def _one_of(*allowed: str) -> Callable[[str, Any], str]:
    def check(at: str, value: Any) -> str:
        if value not in allowed or not isinstance(value, str):
            raise BadField(at, f"'{at}' is {_short(value)}, but must be one of: {', '.join(allowed)}.")
        return value

    return check


def _list(at: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise BadField(at, f"'{at}' is {_kind(value)}, but must be a list.")
    return value


def _object(at: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadField(at, f"'{at}' is {_kind(value)}, but must be an object.")
    return value


def _prompt(at: str, value: Any) -> str:
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str):
        return value[0]
    if isinstance(value, list):
        raise BadField(at, f"'{at}' must be one text; several prompts or token numbers are not supported.")
    return _text(at, value)


def _texts(at: str, value: Any) -> list[str]:
    texts = [value] if isinstance(value, str) else _list(at, value)
    if not texts:
        raise BadField(at, f"'{at}' is empty.")
    return [_text(f"{at}[{i}]", text) for i, text in enumerate(texts)]


def _stop(at: str, value: Any) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else _list(at, value)
    if len(stops) > MAX_STOPS:
        raise BadField(at, f"'{at}' holds {len(stops)} texts, at most {MAX_STOPS} are allowed.")
    return tuple(_string(f"{at}[{i}]", stop) for i, stop in enumerate(stops))


def _same(given: Any, neutral: Any) -> bool:
    """Equal, where true is not 1: a flag in place of a number is a mistake that must not pass."""
    return isinstance(given, bool) == isinstance(neutral, bool) and given == neutral


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _short(value: Any) -> str:
    """A value as it may stand in an error message: huge ones are cut."""
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _no_constant(name: str) -> Any:
    raise BadField(None, f"The body holds {name}, which is not JSON.")


def _unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise BadField(name[:200], f"The field '{name[:200]}' is given twice.")
        found[name] = value
    return found
