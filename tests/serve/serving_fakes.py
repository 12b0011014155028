"""Models that behave as a test needs them to, without torch."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence

import numpy as np

from windlass.core.errors import InputError, Unsupported
from windlass.core.protocols import Classes, Embeddings, EmbedKind, Relevance
from windlass.core.trace import Recorder
from windlass.core.values import ChatDelta, ChatRequest, ChatResponse, Citation, Message, TokenLogprob, ToolCall, Usage


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
        for name in set(request.beyond_text()) - {"verbosity", "raw_prompt"}:
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


class Speller:
    """A token is a character. It honours everything: writes a letter drawn from the seed, eight times, thinks before if
    asked to, calls the first tool if it may, obeys a schema with {"a": 1}, and scores every token with -0.5."""

    name = "speller"
    digest = "5" * 64
    context = 100

    def __init__(self) -> None:
        self.requests: list[ChatRequest] = []

    def complete(self, request: ChatRequest) -> ChatResponse:
        return [delta.response for delta in self.stream(request)][-1]  # type: ignore[return-value]

    def stream(self, request: ChatRequest) -> Iterator[ChatDelta]:
        self.requests.append(request)
        ids = request.extra.get("prompt_token_ids")
        prompt = request.messages[-1].text if ids is None else self.decode(ids)
        text = chr(97 + (request.seed or 0) % 26) * min(request.max_tokens or 8, 8)
        thought = "Hm." if "reasoning_effort" in request.extra else ""
        calls: tuple[ToolCall, ...] = ()
        if request.tools and request.tool_choice != "none":
            text, calls = "", (ToolCall("c1", request.tools[0].name, '{"a": 1}'),)
        elif request.schema is not None:
            text = '{"a": 1}'
        scored = [self._scored(c, request.logprobs, i, request.seed) for i, c in enumerate(text)]
        if thought:
            yield ChatDelta(reasoning=thought)
        for character, score in zip(text, scored, strict=True):
            yield ChatDelta(character, logprobs=(score,) if request.logprobs is not None else ())
        before = request.extra.get("prompt_logprobs")
        yield ChatDelta(
            response=ChatResponse(
                "", self.name, Message("assistant", text, calls, reasoning=thought),
                "tool_calls" if calls else "stop", Usage(input=len(prompt), output=max(1, len(text))),
                cost_usd=0.25,
                logprobs=tuple(scored) if request.logprobs is not None else (),
                prompt_logprobs=() if before is None else tuple(
                    self._scored(c, before, i - 1, 0) for i, c in enumerate(prompt)
                ),
            )
        )  # fmt: skip

    @staticmethod
    def _scored(character: str, top: int | None, index: int, seed: int | None) -> TokenLogprob:
        if index < 0:
            return TokenLogprob(character, None)
        others = tuple(TokenLogprob("z", -2.0 - i) for i in range(top or 0))
        return TokenLogprob(character, -0.5 - ((seed or 0) % 7), bytes=character.encode(), top=others)

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        return [*([2] if special else []), *map(ord, text)]

    def encode_chat(self, messages: Sequence[Message], *, add_generation_prompt: bool = True) -> list[int]:
        return [ord(c) for m in messages for c in m.text] + [3] * add_generation_prompt

    def decode(self, tokens: Sequence[int]) -> str:
        if wrong := [t for t in tokens if t >= 0x110000]:
            raise InputError(f"{wrong[0]} is no token.")
        return "".join(map(chr, tokens))

    def token_facts(self) -> dict[str, str | None]:
        return {"bos_token": "\x02", "eos_token": "\x03", "pad_token": None, "chat_template": None}

    def stats(self) -> dict[str, float]:
        return {"waiting": 3.0}


class Overlap:
    """A reranker that counts common letters."""

    name = "overlap"
    digest = "0" * 64

    def rank(self, query: str, documents: Sequence[str]) -> Relevance:
        return Relevance([float(len(set(query) & set(d))) for d in documents], len(query) + sum(map(len, documents)))


class Vowels:
    """A classifier that says whether a text, or both texts of a pair, have vowels."""

    name = "vowels"
    digest = "1" * 64
    labels = ("with", "without")

    def classify(self, texts: Sequence[str | tuple[str, str]]) -> Classes:
        whole = ["".join(text) for text in texts]
        shares = [float(any(letter in "aeiou" for letter in text)) for text in whole]
        return Classes(np.array([[share, 1 - share] for share in shares], np.float32), sum(map(len, whole)))
