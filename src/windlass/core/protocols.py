"""The small interfaces where implementations plug in. Each has one conformance suite in `tests/conformance`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from windlass.core.errors import WindlassError
from windlass.core.values import (
    AudioPart,
    ChatDelta,
    ChatRequest,
    ChatResponse,
    Citation,
    FilePart,
    ImagePart,
    Message,
    Usage,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from windlass.core.artifacts import Artifact
    from windlass.core.documents import Document, Entry
    from windlass.core.workspace import Workspace

EmbedKind = Literal["query", "passage"]


@runtime_checkable
class ChatModel(Protocol):
    """Anything that answers a chat request: a local model, a remote provider, a grounded assistant."""

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str | None:
        """Digest of the artifact behind the model, or None for a remote one."""
        ...

    def complete(self, request: ChatRequest) -> ChatResponse: ...

    def stream(self, request: ChatRequest) -> Iterator[ChatDelta]:
        """Deltas whose texts concatenate to the message of the response that the last delta carries."""
        ...


@runtime_checkable
class AsyncChatModel(Protocol):
    """A chat model that many tasks of one event loop may ask at once. Cancelling the task cancels the call."""

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str | None: ...

    async def acomplete(self, request: ChatRequest) -> ChatResponse: ...

    def astream(self, request: ChatRequest) -> AsyncIterator[ChatDelta]:
        """As `ChatModel.stream`."""
        ...


@runtime_checkable
class Cancellable(Protocol):
    """An iterator of `ChatModel.stream` that can be told to end while another thread waits for its next item."""

    def cancel(self) -> None:
        """Ends the work as soon as possible. Safe to call from any thread, more than once, and after the end."""
        ...

    def close(self) -> None:
        """Ends the work and waits for its end. To be called where the iterator is read."""
        ...


@runtime_checkable
class Polled(Cancellable, Protocol):
    """One that can also be read without waiting, so that a single thread may read many."""

    def listen(self, wake: Callable[[], None]) -> None:
        """From now on it is read by `poll`, and `wake` is called, from any thread, when there may be more to read. To
        be called before anything is read."""
        ...

    def poll(self) -> ChatDelta | None:
        """The next item, or None when there is none yet. The first call begins the work, which may take a while; the
        others do not wait. Raises `StopIteration` at the end."""
        ...


@runtime_checkable
class Tokenizing(Protocol):
    """A chat model whose tokens are known: a local one."""

    @property
    def context(self) -> int:
        """The window: tokens of prompt and answer together."""
        ...

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Tokens of a text; `special`: with those that the tokenizer puts around it."""
        ...

    def encode_chat(self, messages: Sequence[Message], *, add_generation_prompt: bool = True) -> list[int]:
        """Tokens of a conversation, through the chat template."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens, special ones included. Raises `InputError` for a number that is no token."""
        ...

    def token_facts(self) -> Mapping[str, Any]:
        """`bos_token`, `eos_token`, `pad_token` and `chat_template`, as texts or None."""
        ...


@dataclass(frozen=True, slots=True)
class Likelihood:
    """How likely a model finds a text, given what stands before it."""

    logprob: float
    """Natural logarithm of its probability: the sum over its tokens."""
    greedy: bool
    """Whether each of its tokens is the likeliest in its place, so that greedy decoding would write it."""
    tokens: int


Prompt = str | Sequence[Message]
"""What a model goes on from: a text as it stands, or a conversation through its chat template."""


@runtime_checkable
class LanguageModel(Protocol):
    """A model that tells how likely texts are, and goes on with them: all that a benchmark asks.

    What one request does wrong (it is too long, say) stands as the error in the place of its answer; what all would
    suffer from is raised.
    """

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str | None: ...

    def loglikelihood(self, pairs: Sequence[tuple[Prompt, str]]) -> list[Likelihood | WindlassError]:
        """For each (context, continuation). Behind an empty context the continuation begins a text."""
        ...

    def rolling(self, texts: Sequence[str]) -> list[Likelihood | WindlassError]:
        """Of whole texts from their first token on, also of those longer than the model reads at once."""
        ...

    def write(
        self,
        prompts: Sequence[Prompt],
        *,
        max_tokens: int,
        stop: Sequence[str] = (),
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[str | WindlassError]:
        """What it writes behind each prompt, up to the first of the stop strings. Temperature 0 is greedy."""
        ...


@runtime_checkable
class Adaptable(Protocol):
    """A chat model that takes adapters while it runs; each is then a model of its own."""

    @property
    def adapters(self) -> Mapping[str, ChatModel]:
        """Those that are loaded now, by name."""
        ...

    def load_adapter(self, name: str, folder: Path) -> ChatModel:
        """Raises `InputError` naming what is wrong with the folder or the name, `Unsupported` for another kind."""
        ...

    def unload_adapter(self, name: str) -> None:
        """Requests that were accepted with it finish with it. Raises `NotFound`."""
        ...


@runtime_checkable
class Measured(Protocol):
    """A model that counts: its engine's queue, batch and memory."""

    def stats(self) -> Mapping[str, float]:
        """Gauges by name, as the metrics page shows them."""
        ...


@dataclass(frozen=True, slots=True)
class Relevance:
    scores: Sequence[float]
    """One for each document, in order; higher is more relevant, comparable within one query only."""
    tokens: int
    truncated: int = 0
    """How many of the documents were, with the query, longer than the model reads and were cut."""


@runtime_checkable
class Reranker(Protocol):
    """Says how well documents answer a query."""

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str | None: ...

    def rank(self, query: str, documents: Sequence[str]) -> Relevance: ...


@dataclass(frozen=True, slots=True)
class Classes:
    probabilities: NDArray[np.float32]
    """Shape (texts, labels). Those of a text add up to 1 when its labels exclude each other."""
    tokens: int
    truncated: int = 0
    """How many of the texts were longer than the model reads and were cut."""
    numbers: bool = False
    """Whether they are no probabilities, but numbers in the units of what a regression learned, one for each label."""


@runtime_checkable
class Classifying(Protocol):
    """Sorts texts, or pairs of texts, into classes, or tells numbers from them."""

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str | None: ...

    @property
    def labels(self) -> Sequence[str]: ...

    def classify(self, texts: Sequence[str | tuple[str, str]]) -> Classes: ...


@dataclass(frozen=True, slots=True)
class Extract:
    """The part of a text that answers a question: `text == whole[start : start + len(text)]`."""

    text: str
    start: int
    """Its first character in the whole text."""
    margin: float
    """How much likelier than that the text has no answer, in logits; comparable between texts."""


@runtime_checkable
class Extracting(Protocol):
    """Finds the words in texts that answer a question."""

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str | None: ...

    def find(self, question: str, texts: Sequence[str]) -> Sequence[Extract | None]:
        """For each text its likeliest answer, or None where it has none."""
        ...


@dataclass(frozen=True, slots=True)
class Finding:
    """Something in a text that is to be looked at: `text[start:end]`."""

    start: int
    end: int
    kind: str
    """What it is, in words that can follow "this is"."""


Scan = Callable[[str], Sequence[Finding]]
"""Looks through a text that somebody else wrote; findings come in order and do not overlap."""


@dataclass(frozen=True, slots=True)
class Embeddings:
    vectors: NDArray[np.float32]
    """Shape (texts, dimension), rows of unit length."""
    tokens: int
    truncated: int = 0
    """How many of the texts were longer than the model reads and were cut."""


@runtime_checkable
class Embedder(Protocol):
    """Turns texts into unit vectors. `digest` changes whenever its outputs may."""

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str: ...

    @property
    def dimension(self) -> int: ...

    def embed(self, texts: Sequence[str], kind: EmbedKind = "passage") -> Embeddings: ...


@runtime_checkable
class LateEmbedder(Embedder, Protocol):
    """One that can tell its tokens apart: a text is read whole, and vectors of its parts are taken from that."""

    def token_starts(self, text: str) -> NDArray[np.int64]:
        """Where each token of a text starts, in characters; none is left out, however long the text is."""
        ...

    def embed_spans(self, text: str, spans: Sequence[tuple[int, int]], above: str = "") -> Embeddings:
        """The mean of the vectors of the tokens in each span of characters, scaled to unit length. A text longer than
        the model reads is read through windows that overlap. `above`: read at the head of each window, not pooled."""
        ...


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage that a search found. `score` is comparable only within one search."""

    passage: int
    """The passage's id in its index."""
    score: float
    citation: Citation
    """The whole passage as a quotation."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """What each retriever said: `bm25`, `dense`, and their ranks."""


@runtime_checkable
class Index(Protocol):
    """A searchable set of passages. A search returns `k` hits whenever `k` passages match."""

    @property
    def digest(self) -> str:
        """Of what is in it: an index with other passages or vectors has another."""
        ...

    def __len__(self) -> int:
        """Passages."""
        ...

    def search(
        self,
        query: str,
        k: int = 10,
        where: Mapping[str, Any] | None = None,
        *,
        access: Collection[str] = (),
        vector: NDArray[np.float32] | None = None,
    ) -> list[Hit]:
        """The best `k` of the passages that `where` and `access` let through, best first.

        `where`: keys of the documents' metadata (or `document`, `source`) to a value or a list of allowed values;
        `InputError` for a key that no document has. `access`: the labels that the asker holds; without them only
        public documents are searched. `vector`: the query's own, shape (dimension,), when it is known already or is
        to be another than the embedder's.
        """
        ...


@runtime_checkable
class BatchIndex(Index, Protocol):
    """An index that is faster with several queries at once: their vectors are made together, and searched together."""

    def search_many(
        self,
        queries: Sequence[str],
        k: int = 10,
        where: Mapping[str, Any] | None = None,
        *,
        access: Collection[str] = (),
        vectors: NDArray[np.float32] | None = None,
    ) -> list[list[Hit]]:
        """As `search` for each query. `vectors`: of the queries, shape (queries, dimension), as its `vector`."""
        ...


@runtime_checkable
class LiveIndex(Index, Protocol):
    """An index that is written to while it is searched. Safe to share between threads."""

    @property
    def embedder(self) -> Embedder:
        """Whose vectors it holds."""
        ...

    def held(self) -> Mapping[str, str]:
        """Id and `Entry.digest` of each document that it holds."""
        ...

    def put(self, entries: Iterable[Entry]) -> None:
        """Adds documents, in place of those of the same ids, all in one transaction: whatever happens meanwhile, each
        is in the index whole, as it was or as it is. An entry without passages is held, and never found. Raises
        `InputError` for vectors of another shape."""
        ...

    def delete(self, documents: Iterable[str]) -> int:
        """Removes documents with all of their passages, in one transaction; returns how many there were."""
        ...

    def passages_around(self, passage: int, before: int = 1, after: int = 1) -> list[Citation]:
        """A passage with those that stand before and after it in its document, in order. Raises `NotFound`."""
        ...

    def document_of(self, passage: int) -> Document:
        """The document that a passage was cut from, with its whole text, without its sections. Raises `NotFound`."""
        ...

    def vectors_of(self, passages: Sequence[int]) -> NDArray[np.float32]:
        """The vectors of passages, one row for each. Raises `NotFound`."""
        ...

    def snapshot(self, ws: Workspace, name: str) -> Artifact:
        """Freezes what it holds now as an artifact of the kind `index`. Raises `Unsupported` where it cannot."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class MediaFile:
    """An image, a sound, a video or another file that a model made, as it lies on the disk."""

    path: Path
    """Named by its digest: what is made twice is there once."""
    media_type: str
    digest: str
    """SHA-256 of its content."""
    size: int
    """Bytes."""

    def part(self) -> ImagePart | AudioPart | FilePart:
        """Its content for a message."""
        data, kind = self.path.read_bytes(), self.media_type.partition("/")[0]
        if kind == "image":
            return ImagePart(data=data, media_type=self.media_type)
        if kind == "audio":
            return AudioPart(data, self.media_type)
        return FilePart(data=data, media_type=self.media_type, name=self.path.name)


@dataclass(frozen=True, slots=True)
class Made:
    """What a model made of a prompt."""

    id: str
    """Of the order at its host."""
    model: str
    files: Sequence[MediaFile]
    usage: Usage = field(default_factory=Usage)
    seconds: float | None = None
    """That the host's machines worked, where it says so."""
    cost_usd: float | None = None


@runtime_checkable
class MediaModel(Protocol):
    """Makes images, sound or video."""

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str | None: ...

    def make(self, prompt: str, inputs: Mapping[str, Any] | None = None, *, timeout: float = 600.0) -> Made:
        """`inputs`: what else the model takes, by its own names. Whatever ends the waiting cancels the work."""
        ...

    async def amake(self, prompt: str, inputs: Mapping[str, Any] | None = None, *, timeout: float = 600.0) -> Made: ...
