"""What a trace tells: its spans by any of its names, and of a span what was asked, answered and cited."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from windlass.core import semconv
from windlass.core.records import SpanRecord
from windlass.core.workspace import Workspace


def find_spans(ws: Workspace, identifier: str) -> list[SpanRecord]:
    """The spans of a trace by its id or a unique prefix of 6 digits or more, or by the id of a response in it."""
    text = identifier.lower()
    if len(text) >= 6 and all(c in "0123456789abcdef" for c in text):
        return ws.store.trace(text)
    if not identifier.startswith("chatcmpl-"):
        return []
    offset, page = 0, 500
    while summaries := ws.store.traces(evaluations=None, limit=page, offset=offset):
        for summary in summaries:
            spans = ws.store.trace(summary.root.trace_id)
            if any(span.attributes.get(semconv.RESPONSE_ID) == identifier for span in spans):
                return spans
        offset += page
    return []


def asked(span: SpanRecord) -> str:
    """The text of the last user message of a span's input; '' when there is none."""
    messages = span.input if isinstance(span.input, list) else []
    for message in reversed(messages):
        if isinstance(message, Mapping) and message.get("role") == "user":
            content = message.get("content", "")
            if isinstance(content, str):
                return content
            return "".join(part.get("text", "") for part in content if isinstance(part, Mapping))
    return ""


def answered(span: SpanRecord) -> str:
    """The text that a span put out; '' when there is none."""
    output = span.output
    if isinstance(output, str):
        return output
    return str(output.get("content") or output.get("answer") or "") if isinstance(output, Mapping) else ""


def citations_of(span: SpanRecord) -> list[dict[str, Any]]:
    held = span.output.get("citations", ()) if isinstance(span.output, Mapping) else ()
    return [dict(c) for c in held if isinstance(c, Mapping) and {"document", "start", "end"} <= set(c)]
