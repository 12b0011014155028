"""Models that behave as a test needs them to, without torch."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence

import numpy as np

from windlass.core.errors import Unsupported
from windlass.core.protocols import Embeddings, EmbedKind
from windlass.core.trace import Recorder
from windlass.core.values import ChatDelta, ChatRequest, ChatResponse, Citation, Message, ToolCall, Usage


class Echo:
    """Says the last message's words again; knows the parameter `verbosity` beyond the usual ones."""

    name = "echo"
    digest: str | None = "e" * 64

    def __init__(self, recorder: Recorder | None = None) -> None:
        self.recorder = recorder or Recorder(None)
        self.requests: list[ChatRequest] = []

    def complete(self, request: ChatRequest) -> ChatResponse:
        return [delta.response for delta in self.stream(request)][-1]  # type: ignore[return-value]

    def stream(self, request: ChatRequest) -> Iterator[ChatDelta]:
        for name in set(request.extra) - {"verbosity", "raw_prompt"}:
            raise Unsupported(f"The parameter '{name}' is not supported by 'echo'.", "Leave it out.")
        self.requests.append(request)
        with self.recorder.span("chat", "chat") as span:
            words = request.messages[-1].text.split(" ")
            for i, word in enumerate(words):
                yield ChatDelta(word if i == len(words) - 1 else f"{word} ")
            text = request.messages[-1].text
            cited = (Citation("d1", "Title", "Heading", 3, 8, "quote", "a.md"),) if "cite" in text else ()
            calls = (ToolCall("c1", "look", "{}"),) if "tool" in text else ()
            yield ChatDelta(
                response=ChatResponse(
                    f"chatcmpl-{span.span_id}",
                    self.name,
                    Message("assistant", text, calls),
                    "tool_calls" if calls else "stop",
                    Usage(input=3, cache_read=2, output=len(words)),
                    citations=cited,
                    abstained="abstain" in text,
                    trace_id=span.trace_id,
                )
            )


class Slow:
    """Writes `pieces` pieces, `pause` seconds apart, and notes when it was stopped."""

    name = "slow"
    digest = None

    def __init__(self, pieces: int = 1000, pause: float = 0.02) -> None:
        self.pieces, self.pause = pieces, pause
        self.written = 0
        self.closed = threading.Event()
        self.started = threading.Event()

    def complete(self, request: ChatRequest) -> ChatResponse:
        return [delta.response for delta in self.stream(request)][-1]  # type: ignore[return-value]

    def stream(self, request: ChatRequest) -> Iterator[ChatDelta]:
        self.started.set()
        try:
            for _ in range(self.pieces):
                time.sleep(self.pause)
                self.written += 1
                yield ChatDelta("x")
            message = Message("assistant", "x" * self.pieces)
            yield ChatDelta(response=ChatResponse("chatcmpl-slow", self.name, message, "stop"))
        finally:
            self.closed.set()


class Failing:
    """Raises `error` after `after` pieces."""

    name = "failing"
    digest = None

    def __init__(self, error: Exception, after: int = 0) -> None:
        self.error, self.after = error, after

    def complete(self, request: ChatRequest) -> ChatResponse:
        raise self.error

    def stream(self, request: ChatRequest) -> Iterator[ChatDelta]:
        for _ in range(self.after):
            yield ChatDelta("x")
        raise self.error


class Letters:
    """An embedder that counts the letters a, b, c and anything else."""

    name = "letters"
    digest = "d" * 64
    dimension = 4

    def embed(self, texts: Sequence[str], kind: EmbedKind = "passage") -> Embeddings:
        rows = np.array([[t.count("a"), t.count("b"), t.count("c"), 1] for t in texts], dtype=np.float32)
        return Embeddings(rows / np.linalg.norm(rows, axis=1, keepdims=True), sum(map(len, texts)), 0)
