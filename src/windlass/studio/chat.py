"""Talking with a model: the answer arrives as it is written, and a stop button stops the model, not only the page.

The conversation lives in the page. A post carries all of it and gets lines of JSON back: `{"text": piece}` and at the
end one with `"end": true` and the facts of the answer, or `{"error", "hint"}`. When the page goes away or aborts the
post, the model's stream is closed.
"""

from __future__ import annotations

import json
import time

from starlette.responses import Response

from windlass.core.errors import InputError
from windlass.core.values import ChatRequest, ChatResponse, Message
from windlass.studio.ask import choices, choose
from windlass.studio.web import Visit
from windlass.studio.writing import written


def show(visit: Visit) -> Response:
    return visit.page("chat.html", "chat", **choices(visit))


def answer(visit: Visit) -> Response:
    _, model = choose(visit.studio, visit.form.get("model", ""))
    request = ChatRequest(
        _messages(visit.form.get("messages", ""), visit.form.get("system", "").strip()),
        temperature=_number(visit, "temperature", 0, 2),
        max_tokens=None if (most := _number(visit, "max_tokens", 1, 1_000_000)) is None else int(most),
    )
    started = time.monotonic()

    def facts(response: ChatResponse) -> dict[str, object]:
        return {
            "finish": response.finish_reason,
            "tokens": response.usage.completion,
            "trace": response.trace_id,
            "seconds": round(time.monotonic() - started, 2),
        }

    return written(visit.studio, model, request, facts)


def _messages(text: str, system: str) -> list[Message]:
    """The conversation: user and assistant by turns, the user last."""
    try:
        found = json.loads(text)
        said = [(str(item["role"]), str(item["content"])) for item in found]
    except (ValueError, TypeError, KeyError) as error:
        raise InputError("The conversation is not readable.", "Reload the page and begin anew.") from error
    wanted = ["user" if number % 2 == 0 else "assistant" for number in range(len(said))]
    if not said or len(said) % 2 == 0 or [role for role, _ in said] != wanted:
        raise InputError("The conversation does not end with a question.", "Type one and press Enter.")
    if not said[-1][1].strip():
        raise InputError("The question is empty.", "Type one and press Enter.")
    messages = [Message("user" if role == "user" else "assistant", content) for role, content in said]
    return [Message("system", system), *messages] if system else messages


def _number(visit: Visit, name: str, low: float, high: float) -> float | None:
    text = visit.form.get(name, "").strip()
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise InputError(f"{name} is '{text[:40]}', but must be a number from {low:g} to {high:g}.")
    return value
