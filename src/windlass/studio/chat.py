"""Talking with a model: the answer arrives as it is written, and a stop button stops the model, not only the page.

The conversation lives in the page. A post carries all of it and gets lines of JSON back: `{"text": piece}` and at the
end one with `"end": true` and the facts of the answer, or `{"error", "hint"}`. When the page goes away or aborts the
post, the model's stream is closed.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from queue import SimpleQueue

from anyio import to_thread
from starlette.responses import Response, StreamingResponse

from windlass.core.errors import InputError, WindlassError
from windlass.core.protocols import ChatModel
from windlass.core.values import ChatDelta, ChatRequest, Message
from windlass.studio.ask import choices, choose
from windlass.studio.web import Refused, Studio, Visit


def show(visit: Visit) -> Response:
    return visit.page("chat.html", "chat", **choices(visit))


def answer(visit: Visit) -> Response:
    _, model = choose(visit.studio, visit.form.get("model", ""))
    request = ChatRequest(
        _messages(visit.form.get("messages", ""), visit.form.get("system", "").strip()),
        temperature=_number(visit, "temperature", 0, 2),
        max_tokens=None if (most := _number(visit, "max_tokens", 1, 1_000_000)) is None else int(most),
    )
    if not visit.studio.asking.acquire(blocking=False):
        raise Refused("Too many answers are being written just now.", "Ask again in a moment.", status=429)
    return StreamingResponse(
        _stream(visit.studio, model, request),
        media_type="application/x-ndjson",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


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


def _stream(studio: Studio, model: ChatModel, request: ChatRequest) -> AsyncIterator[str]:
    """The model runs in one thread from start to end, because its trace spans belong to a context. It frees its place
    when it ends, which is soon after the reader has gone."""
    queue: SimpleQueue[dict[str, object]] = SimpleQueue()
    gone = threading.Event()

    def work() -> None:
        started = time.monotonic()
        stream: Iterator[ChatDelta] = iter(())
        try:
            stream = model.stream(request)
            for delta in stream:
                if gone.is_set():
                    return
                if delta.text:
                    queue.put({"text": delta.text})
                if (response := delta.response) is not None:
                    queue.put(
                        {
                            "end": True,
                            "finish": response.finish_reason,
                            "tokens": response.usage.completion,
                            "trace": response.trace_id,
                            "seconds": round(time.monotonic() - started, 2),
                        }
                    )
                    return
            queue.put({"error": f"{model.name} stopped without an answer.", "hint": "Ask again.", "end": True})
        except WindlassError as error:
            queue.put({"error": error.message, "hint": error.hint, "end": True})
        except Exception as error:
            queue.put({"error": f"Unexpected {type(error).__name__}: {error}", "hint": "", "end": True})
            raise
        finally:
            if close := getattr(stream, "close", None):
                close()
            studio.asking.release()
            queue.put({"end": True})  # frees a thread that still waits for a reader who has gone

    async def read() -> AsyncIterator[str]:
        try:
            while True:
                # An async generator, since a plain one would be told late, or never, that its reader has gone.
                item = await to_thread.run_sync(queue.get, abandon_on_cancel=True)
                yield json.dumps(item, ensure_ascii=False) + "\n"
                if "end" in item:
                    return
        finally:
            gone.set()

    threading.Thread(target=work, name="windlass-chat", daemon=True).start()
    return read()
