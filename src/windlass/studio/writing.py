"""What a model writes, as lines of JSON that leave while it writes; when nobody reads any more, it stops.

Lines of `{"text": piece}`, and a last one with `"end": true`: what the page makes of the whole answer, or
`{"error", "hint"}`.
"""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from queue import SimpleQueue

from anyio import to_thread
from starlette.responses import StreamingResponse

from windlass.core.errors import WindlassError
from windlass.core.protocols import ChatModel
from windlass.core.values import ChatDelta, ChatRequest, ChatResponse
from windlass.studio.web import Refused, Studio

Ending = Callable[[ChatResponse], Mapping[str, object]]


def take_place(studio: Studio) -> None:
    """Whoever lets a model answer takes one of the studio's places, and gives it back by `studio.asking.release()`.
    Raises `Refused` when all are taken."""
    if not studio.asking.acquire(blocking=False):
        raise Refused("Too many answers are being written just now.", "Ask again in a moment.", status=429)


def written(studio: Studio, model: ChatModel, request: ChatRequest, ending: Ending) -> StreamingResponse:
    """The model's answer while it is written; `ending` tells the last line's fields. Raises `Refused` as `take_place`.

    The model runs in one thread from start to end, because its trace spans belong to a context. Its place is free when
    it ends, which is soon after the reader has gone.
    """
    take_place(studio)
    lines: SimpleQueue[Mapping[str, object]] = SimpleQueue()
    gone = threading.Event()
    work = threading.Thread(
        target=_write, args=(studio, model, request, ending, lines, gone), name="windlass-writing", daemon=True
    )
    work.start()
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_read(lines, gone), media_type="application/x-ndjson", headers=headers)


def _write(
    studio: Studio,
    model: ChatModel,
    request: ChatRequest,
    ending: Ending,
    lines: SimpleQueue[Mapping[str, object]],
    gone: threading.Event,
) -> None:
    stream: Iterator[ChatDelta] = iter(())
    last: Mapping[str, object] = {"error": f"{model.name} stopped without an answer.", "hint": "Ask again."}
    try:
        stream = model.stream(request)
        for delta in stream:
            if gone.is_set():
                return
            if delta.text:
                lines.put({"text": delta.text})
            if delta.response is not None:
                last = ending(delta.response)
    except WindlassError as error:
        last = {"error": error.message, "hint": error.hint}
    except Exception as error:
        last = {"error": f"Unexpected {type(error).__name__}: {error}", "hint": ""}
        raise
    finally:
        if close := getattr(stream, "close", None):
            close()
        studio.asking.release()
        lines.put({**last, "end": True})


async def _read(lines: SimpleQueue[Mapping[str, object]], gone: threading.Event) -> AsyncIterator[str]:
    """An async generator, since a plain one would be told late, or never, that its reader has gone."""
    try:
        while True:
            line = await to_thread.run_sync(lines.get, abandon_on_cancel=True)
            yield json.dumps(line, ensure_ascii=False) + "\n"
            if "end" in line:
                return
    finally:
        gone.set()
