"""Server-sent events on their way through: looked into, and passed on as the bytes they were.

Looking in serves three ends: usage and finish reason for the trace, an error or half a stream told from a whole one,
and a usage event that only the gateway asked for taken out again.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from windlass.core.sse import BadEvent
from windlass.core.usage import usage_of
from windlass.core.values import Usage


class Watcher(ABC):
    """Follows one stream event by event."""

    def __init__(self) -> None:
        self.usage = Usage()
        self.model = ""
        self.id = ""
        self.finish: str | None = None
        self.texts: list[str] = []
        """The answer's text, piece by piece; kept only when `keep` is set."""
        self.keep = False
        self.spoke = False
        """Whether a token has been seen, or that there is none: a role alone, or a response without content, only
        announces one."""
        self.complete = False
        """Whether the end has been seen, so that nothing is missing."""

    def see(self, data: bytes) -> bool:
        """Looks into one event. True: only its usage is new, and the gateway alone may have asked for that.

        Raises `BadEvent` for what is not JSON, or reports an error.
        """
        if data == b"[DONE]":
            self.complete = self.spoke = True
            return False
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            raise BadEvent(f"an event is not JSON: {data[:80].decode('utf-8', 'replace')!r}") from None
        if not isinstance(value, dict):
            raise BadEvent("an event is not a JSON object")
        if value.get("error"):
            raise BadEvent(f"it reported: {_said(value['error'])}")
        return self._see(value)

    @abstractmethod
    def _see(self, value: dict[str, Any]) -> bool: ...


class ChoicesWatcher(Watcher):
    """The streams of chat and completions: choices, perhaps usage, then `[DONE]`."""

    def _see(self, value: dict[str, Any]) -> bool:
        if not self.id:
            self.id, self.model = str(value.get("id") or ""), str(value.get("model") or "")
        choices = value.get("choices")
        if choices and isinstance(choices, list):
            for choice in choices:
                if isinstance(choice, dict):
                    self.finish = choice.get("finish_reason") or self.finish
                    self.spoke = self.spoke or self.finish is not None or _speaks(choice)
                    if self.keep:
                        self.texts.append(_text(choice))
        if reported := value.get("usage"):
            self.usage = usage_of(reported)
            return not choices
        return False


class ResponsesWatcher(Watcher):
    """The streams of `/v1/responses`: typed events, the last of which holds the whole response."""

    def _see(self, value: dict[str, Any]) -> bool:
        response, kind = value.get("response"), str(value.get("type"))
        if kind == "error":
            raise BadEvent(f"it reported: {_said(value)}")
        if kind == "response.failed" and not self.spoke:  # later it is a part of the answer, and passed on
            about = response.get("error") if isinstance(response, Mapping) else None
            raise BadEvent(f"it reported: {_said(about or value)}")
        self.spoke = self.spoke or kind not in _ANNOUNCING
        if self.keep and kind == "response.output_text.delta":
            self.texts.append(str(value.get("delta")))
        if isinstance(response, Mapping):
            self.id, self.model = str(response.get("id") or ""), str(response.get("model") or "")
        if kind in ("response.completed", "response.incomplete", "response.failed"):
            self.complete = True
            self.finish = kind.partition(".")[2]
            if isinstance(response, Mapping):
                self.usage = usage_of(response.get("usage"))
        return False


_ANNOUNCING = frozenset(
    f"response.{kind}" for kind in ("created", "queued", "in_progress", "output_item.added", "content_part.added")
)


def _speaks(choice: Mapping[str, Any]) -> bool:
    """Whether a chunk holds more than the role: text, a piece of a tool call, reasoning, whatever else is said."""
    delta = choice.get("delta")
    if not isinstance(delta, Mapping):
        return bool(choice.get("text") or choice.get("logprobs"))
    return any(value for name, value in delta.items() if name != "role")


def _text(choice: Mapping[str, Any]) -> str:
    """What a chunk adds to the answer: text, or pieces of tool calls as JSON."""
    delta = choice.get("delta")
    if not isinstance(delta, Mapping):
        return str(choice.get("text") or "")
    calls = delta.get("tool_calls")
    return str(delta.get("content") or "") + (json.dumps(calls) if calls else "")


def _said(error: Any) -> str:
    message = error.get("message", error) if isinstance(error, Mapping) else error
    return str(message)[:500]
