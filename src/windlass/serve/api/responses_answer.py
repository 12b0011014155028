"""The answer of /v1/responses as JSON: the response object and its output items."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from windlass.core.values import ChatResponse, TokenLogprob, ToolCall, Usage
from windlass.serve.api.fields import Json
from windlass.serve.api.messages import extension_json, logprob_json

_REPEATED = (
    "instructions", "max_output_tokens", "metadata", "prompt_cache_key", "safety_identifier", "top_logprobs", "user",
)  # fmt: skip


class Answer:
    """One response; the fields of the request that it repeats are those OpenAI's service repeats."""

    def __init__(self, fields: Json, format: Json, created: int) -> None:
        self.id = f"resp_{uuid.uuid4().hex}"
        self._base: Json = {
            "id": self.id,
            "object": "response",
            "created_at": created,
            "model": fields["model"],
            "error": None,
            "incomplete_details": None,
            "parallel_tool_calls": fields.get("parallel_tool_calls", True),
            "previous_response_id": None,
            "reasoning": {"effort": fields.get("reasoning", {}).get("effort"), "summary": None},
            "store": False,
            "temperature": fields.get("temperature"),
            "text": {"format": format},
            "tool_choice": fields.get("tool_choice", "auto"),
            "tools": [{"description": None, "strict": False, "parameters": {}} | t for t in fields.get("tools", ())],
            "top_p": fields.get("top_p"),
            "truncation": "disabled",
            **{name: fields.get(name) for name in _REPEATED},
        }

    def unfinished(self, status: str = "in_progress", error: Json | None = None) -> Json:
        return self._base | {"status": status, "output": [], "usage": None, "error": error}

    def whole(self, response: ChatResponse, output: Sequence[Json] | None = None) -> Json:
        """The response object. `output`: the items as they were streamed."""
        cut = response.finish_reason in ("length", "content_filter")
        reason = {"length": "max_output_tokens", "content_filter": "content_filter"}.get(response.finish_reason)
        if output is None:
            output = _items(response, "incomplete" if cut else "completed")
        return self._base | {
            "status": "incomplete" if cut else "completed",
            "incomplete_details": {"reason": reason} if cut else None,
            "output": list(output),
            "usage": usage_json(response.usage),
            "windlass": extension_json(response),
        }


def _items(response: ChatResponse, status: str) -> list[Json]:
    said = response.message
    output = [reasoning_item(new_id("rs"), said.reasoning)] if said.reasoning else []
    if said.text or not said.tool_calls:
        output.append(message_item(new_id("msg"), said.text, response.logprobs, status))
    return output + [call_item(new_id("fc"), call) for call in said.tool_calls]


def text_part(text: str, logprobs: Sequence[TokenLogprob] = ()) -> Json:
    scored = [logprob_json(one) for one in logprobs]
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": scored}


def message_item(id: str, text: str, logprobs: Sequence[TokenLogprob], status: str) -> Json:
    return {
        "type": "message",
        "id": id,
        "role": "assistant",
        "status": status,
        "content": [text_part(text, logprobs)],
    }


def reasoning_item(id: str, text: str) -> Json:
    return {
        "type": "reasoning",
        "id": id,
        "summary": [],
        "content": [{"type": "reasoning_text", "text": text}],
        "status": "completed",
    }


def call_item(id: str, call: ToolCall, status: str = "completed") -> Json:
    return {
        "type": "function_call",
        "id": id,
        "call_id": call.id,
        "name": call.name,
        "arguments": call.arguments,
        "status": status,
    }


def new_id(kind: str) -> str:
    return f"{kind}_{uuid.uuid4().hex}"


def usage_json(usage: Usage) -> Json | None:
    if usage.total is None:
        return None
    return {
        "input_tokens": usage.prompt or 0,
        "input_tokens_details": {"cached_tokens": usage.cache_read or 0},
        "output_tokens": usage.completion or 0,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning or 0},
        "total_tokens": usage.total,
    }
