"""The values that travel between models and applications: messages, requests, answers, usage, citations.

Plain frozen dataclasses, free of any storage or transport. The shapes follow the OpenAI chat API, which is
the wire format of every door windlass has; `ChatRequest.from_wire` and friends live with the doors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

Role = Literal["system", "developer", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "error"]


@dataclass(frozen=True, slots=True)
class TextPart:
    text: str


@dataclass(frozen=True, slots=True)
class ImagePart:
    """An image by URL or as bytes; exactly one of the two is set."""

    url: str | None = None
    data: bytes | None = None
    media_type: str = "image/png"

    def __post_init__(self) -> None:
        if (self.url is None) == (self.data is None):
            raise ValueError("ImagePart takes exactly one of url and data")


@dataclass(frozen=True, slots=True)
class AudioPart:
    """Sound, as the bytes of a file."""

    data: bytes
    media_type: str = "audio/wav"


@dataclass(frozen=True, slots=True)
class FilePart:
    """A document by URL or as bytes; exactly one of the two is set."""

    url: str | None = None
    data: bytes | None = None
    media_type: str = "application/pdf"
    name: str = "document.pdf"

    def __post_init__(self) -> None:
        if (self.url is None) == (self.data is None):
            raise ValueError("FilePart takes exactly one of url and data")


Part = TextPart | ImagePart | AudioPart | FilePart


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call the model asks for. `arguments` is the JSON text as the model wrote it, unparsed."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of a streamed call: the first brings id and name, the others go on with the arguments."""

    index: int
    """Which call of the answer, from 0 on."""
    arguments: str = ""
    id: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Message:
    role: Role
    content: str | Sequence[Part] = ""
    tool_calls: Sequence[ToolCall] = ()
    tool_call_id: str | None = None
    name: str | None = None
    reasoning: str = ""
    """What a reasoning model thought before it answered; not part of the answer."""
    sealed: tuple[str, Any] | None = None
    """An API's name, and what only it understands and wants back unchanged with the next request: its message with
    signed or encrypted reasoning. Other APIs are told text and calls alone."""

    @property
    def text(self) -> str:
        """The text of the message; parts that are not text are left out."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content if isinstance(part, TextPart))


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call in disjoint classes; their sum is what was processed. `None` means not reported.

    Providers report overlapping counts (cached tokens inside the input, reasoning inside the output).
    Adapters subtract once, here nothing overlaps, so usages add up and prices multiply.
    """

    input: int | None = None
    cache_read: int | None = None
    cache_write: int | None = None
    output: int | None = None
    reasoning: int | None = None
    input_audio: int | None = None
    output_audio: int | None = None
    input_image: int | None = None
    output_image: int | None = None

    def __add__(self, other: Usage) -> Usage:
        def plus(a: int | None, b: int | None) -> int | None:
            return b if a is None else a if b is None else a + b

        return Usage(*(plus(getattr(self, f.name), getattr(other, f.name)) for f in fields(Usage)))

    @property
    def total(self) -> int | None:
        """All tokens, or None when no class was reported."""
        return _known(*(getattr(self, f.name) for f in fields(self)))

    @property
    def prompt(self) -> int | None:
        """Tokens on the prompt's side (input of all kinds plus cache), as the OpenAI API counts them."""
        return _known(self.input, self.cache_read, self.cache_write, self.input_audio, self.input_image)

    @property
    def completion(self) -> int | None:
        """Tokens on the completion's side (output of all kinds plus reasoning), as the OpenAI API counts them."""
        return _known(self.output, self.reasoning, self.output_audio, self.output_image)


def _known(*counts: int | None) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


@dataclass(frozen=True, slots=True)
class Citation:
    """A verbatim quotation: `quote == document.text[start:end]`, offsets in characters of the document."""

    document: str
    """The document's id in its corpus."""
    title: str
    heading: str
    start: int
    end: int
    quote: str
    source: str = ""
    """Where the document came from: a path, or a `python:` name."""
    place: str = ""
    """Where in a document with pages, slides or sheets it begins: `page 12`."""
    url: str = ""
    """Where a person can open the document, if anywhere."""


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A function that the model may ask for."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """JSON schema of the arguments; empty: no arguments."""
    strict: bool = False
    """The arguments must obey the schema, by constraint rather than by good will."""


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token and the natural logarithm of its probability, before temperature and masks."""

    token: str
    """Its text; a token that holds part of a character shows U+FFFD, and `bytes` is exact."""
    logprob: float | None
    """None for the first token of a prompt, which follows nothing."""
    id: int | None = None
    bytes: bytes | None = None
    top: Sequence[TokenLogprob] = ()
    """The likeliest tokens at this place, likeliest first."""


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One request to a chat model. `None` means: the model's own default."""

    messages: Sequence[Message]
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    stop: Sequence[str] = ()
    seed: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Parameters beyond these, by their wire name. A model raises `Unsupported` for any it does not know."""
    tools: Sequence[ToolSpec] = ()
    tool_choice: str = "auto"
    """`auto`, `none`, `required`, or the name of the one tool to call."""
    schema: Mapping[str, Any] | None = None
    """JSON schema that the answer must obey."""
    logprobs: int | None = None
    """Report each token's log-probability, with so many alternatives (0 to 20). None: no report."""
    timeout: float | None = None
    """Seconds from the call to the whole answer. A model that cannot keep it is stopped by the one who asked."""
    background: bool = False
    """Nobody sits waiting for the answer: a model with a queue serves others first."""
    draw: int = 0
    """Which of several answers to one request this is to be. A cache keeps them apart; models do not look at it."""
    unit: str = ""
    """Whose request it is, one user or one session, by any name: while variants are tried on live traffic each stays
    with one of them. Models do not look at it."""

    def beyond_text(self) -> dict[str, Any]:
        """What is asked besides text and sampling, by its wire name: what a model must know or refuse."""
        asked: dict[str, Any] = dict(self.extra)
        if self.tools:
            asked["tools"] = self.tools
        if self.tool_choice != "auto":
            asked["tool_choice"] = self.tool_choice
        if self.schema is not None:
            asked["response_format"] = self.schema
        if self.logprobs is not None:
            asked["logprobs"] = self.logprobs
        return asked


@dataclass(frozen=True, slots=True)
class Kept:
    """That an answer was not made anew but kept from an earlier call, and what that call took."""

    usage: Usage
    cost_usd: float | None
    similarity: float | None = None
    """Of the question to the one that was answered, as a cosine; None: they are the same."""


@dataclass(frozen=True, slots=True)
class ChatResponse:
    id: str
    model: str
    message: Message
    finish_reason: FinishReason
    usage: Usage = field(default_factory=Usage)
    cost_usd: float | None = None
    citations: Sequence[Citation] = ()
    abstained: bool = False
    """The model declined because it has no grounds for an answer."""
    trace_id: str | None = None
    logprobs: Sequence[TokenLogprob] = ()
    """One for each token of the answer, where the request asked for them."""
    prompt_logprobs: Sequence[TokenLogprob] = ()
    """One for each token of the prompt, where the request asked for them (`prompt_logprobs`)."""
    refused: bool = False
    """The model, or its provider, declined; the message's text says why, where it says so."""
    kept: Kept | None = None
    """Set: the answer comes out of a cache. Then `usage` counts no tokens, and `cost_usd` is 0."""
    warnings: Sequence[str] = ()
    """What a reader should know about the answer: documents that contradict each other, or that give orders."""


@dataclass(frozen=True, slots=True)
class ChatDelta:
    """A piece of a streamed answer. The last delta carries the whole `response`, tool calls included.

    A call that is streamed and then not finished (the answer was cut off) is withdrawn: the response does not hold it.
    """

    text: str = ""
    response: ChatResponse | None = None
    reasoning: str = ""
    """A piece of `Message.reasoning`."""
    logprobs: Sequence[TokenLogprob] = ()
    """Of the tokens whose text this piece ends."""
    calls: Sequence[ToolCallDelta] = ()
    """Pieces of tool calls, as they are written; a model that does not stream them leaves them to the response."""
