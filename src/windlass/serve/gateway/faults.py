"""What providers say when they refuse, in whatever shape, brought into OpenAI's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def said(body: bytes) -> str:
    """The message in a provider's error, or the beginning of whatever it sent."""
    text = body[:4000].decode("utf-8", "replace")
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return " ".join(text.split())[:300] or "no message"
    return _message(value)[:500] or "no message"


def in_openai_shape(body: bytes) -> bool:
    """Whether OpenAI's clients find the message in it: `{"error": {"message": …}}`."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return False
    error = value.get("error") if isinstance(value, dict) else None
    return isinstance(error, dict) and isinstance(error.get("message"), str)


def _message(value: Any) -> str:
    if isinstance(value, list) and value:  # Gemini wraps its errors in a list
        value = value[0]
    if not isinstance(value, Mapping):
        return str(value)
    for name in ("error", "message", "detail"):  # OpenAI and Ollama; older vLLM and Mistral; FastAPI
        if found := value.get(name):
            return found if isinstance(found, str) else _message(found) if isinstance(found, Mapping) else str(found)
    return json.dumps(value)
