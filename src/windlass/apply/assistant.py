"""The assistant: finds passages, decides whether they hold the answer, and quotes them, or says that they do not.

With a language model the answer is the model's, from the passages or from all documents, but every sentence must quote
a passage and every quotation is checked verbatim; what is not supported is dropped, and if nothing is left the answer
is withheld. Without one the answer is the quotations themselves, or with an extractive reader the very words that
answer. Nothing unchecked leaves: a streamed answer is streamed after its check.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from windlass.apply.prompts import prompt
from windlass.apply.providers.fitting import window_of
from windlass.apply.rag.abstention import AbstentionRule, features_of
from windlass.apply.rag.answer import QuoteSettings, quote
from windlass.apply.rag.fusion import SearchSettings
from windlass.apply.rag.grounded import PROMPT, grounded_answer, grounded_request
from windlass.apply.rag.reading import read_out
from windlass.apply.rag.search import HybridIndex
from windlass.apply.rag.whole import route
from windlass.apply.tasks.running import note, plain
from windlass.core import semconv
from windlass.core.errors import InputError, Unsupported
from windlass.core.protocols import ChatModel, Extracting, Hit
from windlass.core.trace import Recorder, Span, current_span
from windlass.core.values import ChatDelta, ChatRequest, ChatResponse, Citation, Message, Usage
from windlass.core.windows import Window

NOT_FOUND = "The documents do not hold an answer to this question."
_SEARCHED = 10
"""Passages ranked for every question, so that the abstention rule always sees the same evidence."""

_DENSEST = 8
"""Characters that a token hardly ever exceeds on average: longer documents are not read to be counted."""


@dataclass(frozen=True, slots=True)
class AssistantSettings:
    """Everything a variant of the assistant can change besides its index and model."""

    k: int = 6
    """Passages given to the language model, or looked at for quotations."""
    search: SearchSettings = field(default_factory=SearchSettings)
    abstention: AbstentionRule = field(default_factory=AbstentionRule)
    quotes: QuoteSettings = field(default_factory=QuoteSettings)
    whole: int = 0
    """Above 0: the language model gets all documents in place of passages where they fit its window and cost less,
    if so many questions are asked while they are in its provider's cache (`rag.whole`). 0: never."""

    def __post_init__(self) -> None:
        if self.k < 1 or self.whole < 0:
            raise InputError("An assistant needs k of at least 1, and whole of at least 0.")


class Assistant:
    """Implements `ChatModel`. The question is the last user message; earlier ones are kept on the trace only.

    Extra parameters of a request: `k` (passages) and `where` (a filter on document metadata); others are refused.
    `digest` is that of the variant, when it is made from one.
    """

    def __init__(
        self,
        index: HybridIndex,
        settings: AssistantSettings | None = None,
        recorder: Recorder | None = None,
        model: ChatModel | None = None,
        *,
        reader: Extracting | None = None,
        name: str = "assistant",
        digest: str | None = None,
        windows: Mapping[str, Window] | None = None,
    ) -> None:
        """Answers are written by `model`, or read out of the passages by `reader`; with neither, sentences are
        quoted. `windows`: of models that the table does not know."""
        if model is not None and reader is not None:
            raise InputError("An assistant has a language model or a reader, not both.", "Leave one of them out.")
        self.settings = settings or AssistantSettings()
        self.index = index if index.settings == self.settings.search else index.with_settings(self.settings.search)
        self.model = model
        self.reader = reader
        self._recorder = recorder or Recorder(None)
        self._name = name
        self._digest = digest
        self._windows = windows

    @property
    def name(self) -> str:
        return self._name

    @property
    def digest(self) -> str | None:
        return self._digest

    def complete(self, request: ChatRequest) -> ChatResponse:
        question, k, where = self._understood(request)
        with self._recorder.span("assistant", "invoke_workflow") as span:
            span.input = [plain(message) for message in request.messages]
            span[semconv.WORKFLOW] = self.name
            identifier = f"chatcmpl-{secrets.token_hex(12)}"
            span[semconv.RESPONSE_ID] = identifier
            self._name_parts(span)
            found = self._search(question, k, where)
            probability = found.probability
            span["windlass.abstention.probability"] = round(probability, 4)
            span["windlass.abstention.threshold"] = self.settings.abstention.threshold
            if self.model is not None and (everything := self._whole(self.model, question, found, where, request)):
                said = self._written(self.model, question, everything, request)
            elif not found.hits or probability < self.settings.abstention.threshold:
                said = _Said(NOT_FOUND, (), True, found.usage, None, "the passages found do not fit the question")
            elif self.model is not None:
                said = self._written(self.model, question, found.passages, request)
            elif self.reader is not None:
                said = self._read(self.reader, question, found)
            else:
                said = self._quoted(question, found)
            span[semconv.ABSTAINED] = said.abstained
            if said.reason:
                span["windlass.abstention.reason"] = said.reason
            span.output = {"answer": said.text, "citations": [asdict(c) for c in said.citations]}
            return ChatResponse(
                identifier,
                self.name,
                Message("assistant", said.text),
                "stop",
                said.usage,
                said.cost,
                said.citations,
                said.abstained,
                span.trace_id,
            )

    def stream(self, request: ChatRequest) -> Iterator[ChatDelta]:
        """The answer piece by piece, once it has been checked."""
        response = self.complete(request)
        words = response.message.text.split(" ")
        for at in range(0, len(words), 8):
            more = at + 8 < len(words)
            yield ChatDelta(" ".join(words[at : at + 8]) + (" " if more else ""))
        yield ChatDelta(response=response)

    # steps ----------------------------------------------------------------------------------------------------------

    def _understood(self, request: ChatRequest) -> tuple[str, int, Mapping[str, Any] | None]:
        extra = request.beyond_text()
        k, where = extra.pop("k", self.settings.k), extra.pop("where", None)
        if extra:
            raise Unsupported(f"The assistant has no parameter '{min(extra)}'.", "It knows `k` and `where`.")
        if request.stop:
            raise Unsupported(
                "The assistant cannot stop at given words: its quotations would be cut.", "Leave out `stop`."
            )
        if self.model is None and (request.max_tokens is not None or request.temperature):
            given = "max_tokens" if request.max_tokens is not None else "temperature"
            raise Unsupported(
                f"This assistant quotes and has no language model: it cannot honour `{given}`.",
                f"Leave out `{given}`, or name a model in windlass.toml.",
            )
        if not isinstance(k, int) or isinstance(k, bool) or not 1 <= k <= 100:
            raise InputError(f"k is {k!r}, but must be a whole number from 1 to 100.")
        if where is not None and not isinstance(where, Mapping):
            raise InputError(f"where is {where!r}, but must be a table of metadata keys and values.")
        question = next((m.text.strip() for m in reversed(request.messages) if m.role == "user"), "")
        if not question:
            raise InputError("There is no question: the last user message is missing or empty.")
        return question, k, where

    def _name_parts(self, span: Span) -> None:
        meta = self.index.meta
        span[semconv.INDEX_DIGEST] = self.index.digest
        span[semconv.EMBEDDER_DIGEST] = meta.embedder
        if meta.adapter is not None:
            span[semconv.ADAPTER_DIGEST] = meta.adapter
        if self._digest is not None:
            span[semconv.VARIANT_DIGEST] = self._digest
        if self.model is not None:
            span[semconv.REQUEST_MODEL] = self.model.name
            if self.model.digest is not None:
                span[semconv.MODEL_DIGEST] = self.model.digest

    def _search(self, question: str, k: int, where: Mapping[str, Any] | None) -> _Found:
        index = self.index
        with self._recorder.span("embed", "embeddings") as span:
            span.input = question
            span[semconv.REQUEST_MODEL] = index.meta.embedder_name
            span[semconv.EMBEDDER_DIGEST] = index.meta.embedder
            embedded = index.embed([question])
            span[semconv.INPUT_TOKENS] = embedded.tokens
            span[semconv.EMBEDDING_DIMENSION] = index.meta.dimension
            if embedded.truncated:
                span["windlass.truncated"] = True
        with self._recorder.span("retrieve", "retrieval") as span:
            span.input = question
            span[semconv.RETRIEVAL_TOP_K] = k
            span[semconv.INDEX_DIGEST] = index.digest
            ranked = next(index.rank_many([question], max(k, _SEARCHED), where, vectors=embedded.vectors))
            hits = index.hits(ranked)[:k]
            terms = index.lexical.tokenizer.terms([question])[0]
            features = features_of(index, terms, ranked)
            span.output = [
                {"document": h.citation.document, "start": h.citation.start, "end": h.citation.end, "score": h.score}
                for h in hits
            ]
        probability = float(self.settings.abstention.probabilities(features[None])[0])
        return _Found(hits, embedded.vectors[0], probability, Usage(input=embedded.tokens, output=0))

    def _quoted(self, question: str, found: _Found) -> _Said:
        with self._recorder.span("quote", "embeddings") as span:
            span.input = question
            span[semconv.REQUEST_MODEL] = self.index.meta.embedder_name
            citations, tokens = quote(self.index, question, found.hits, self.settings.quotes, found.vector)
            span[semconv.INPUT_TOKENS] = tokens
            span.output = [asdict(citation) for citation in citations]
        quotations = "\n\n".join(f"“{c.quote}” [{n}]" for n, c in enumerate(citations, start=1))
        text = f"{quotations}\n\n{sources(citations)}"
        return _Said(text, citations, False, found.usage + Usage(input=tokens), None)

    def _read(self, reader: Extracting, question: str, found: _Found) -> _Said:
        with self._recorder.span("read", "chat") as span:
            span.input = question
            span[semconv.REQUEST_MODEL] = reader.name
            if reader.digest is not None:
                span[semconv.MODEL_DIGEST] = reader.digest
            readings = read_out(reader, question, found.hits)[: self.settings.quotes.quotes]
            span.output = [asdict(reading) for reading in readings]
        if not readings:
            return _Said(NOT_FOUND, (), True, found.usage, None, "the reader found no answer in the passages")
        citations = [reading.answer for reading in readings]
        quotations = "\n".join(f"“{c.quote}” [{n}]" for n, c in enumerate(citations, start=1))
        return _Said(f"{quotations}\n\n{sources(citations)}", citations, False, found.usage, None)

    def _whole(
        self, model: ChatModel, question: str, found: _Found, where: Mapping[str, Any] | None, request: ChatRequest
    ) -> Sequence[Citation]:
        """All passages, where they are to be read in place of those found; what they may hold, no search decides."""
        window = window_of(model, self._windows)
        if not self.settings.whole or window is None or self.index.characters > _DENSEST * window.context:
            return ()
        everything = self.index.passages(where)
        chosen = route(
            model,
            lambda asked, passages: grounded_request(asked, passages, request),
            question,
            everything,
            found.passages,
            windows=self._windows,
            questions=self.settings.whole,
        )
        if (span := current_span()) is not None:
            span["windlass.route"] = f"{'whole' if chosen.whole else 'passages'}: {chosen.reason}"
        return everything if chosen.whole else ()

    def _written(self, model: ChatModel, question: str, passages: Sequence[Citation], request: ChatRequest) -> _Said:
        asked = grounded_request(question, passages, request)
        with self._recorder.span("generate", "chat") as span:
            span.input = [plain(message) for message in asked.messages]
            span[semconv.REQUEST_MODEL] = model.name
            span[semconv.PROMPT_NAME] = PROMPT
            span["windlass.prompt.digest"] = prompt(PROMPT)[1]
            span[semconv.COST_USD] = None  # until the model says what it cost, it is unknown
            reply = model.complete(asked)
            note(span, reply)
            answer = grounded_answer(reply.message.text, passages)
            quotes = [quote for sentence in answer.sentences for quote in sentence.quotes]
            for verdict in ("supported", "misattributed", "absent"):
                span[f"windlass.citations.{verdict}"] = sum(quote.verdict == verdict for quote in quotes)
            span["windlass.sentences.dropped"] = answer.dropped
        # the search's own tokens are on its span: usage is what the language model is paid for
        if answer.declined:
            return _Said(NOT_FOUND, (), True, reply.usage, reply.cost_usd, "the model found no answer in the passages")
        if not answer.citations:
            reason = "withheld: no sentence of the model's answer was supported by a quotation"
            return _Said(NOT_FOUND, (), True, reply.usage, reply.cost_usd, reason)
        text = f"{answer.text}\n\n{sources(answer.citations)}"
        return _Said(text, answer.citations, False, reply.usage, reply.cost_usd)


@dataclass(frozen=True, slots=True)
class _Found:
    hits: Sequence[Hit]
    vector: Any
    probability: float
    usage: Usage

    @property
    def passages(self) -> Sequence[Citation]:
        return [hit.citation for hit in self.hits]


@dataclass(frozen=True, slots=True)
class _Said:
    text: str
    citations: Sequence[Citation]
    abstained: bool
    usage: Usage
    cost: float | None
    reason: str = ""


def sources(citations: Sequence[Citation]) -> str:
    """The list of sources below an answer, one line for each number."""
    lines = []
    for number, c in enumerate(citations, start=1):
        place = " > ".join(dict.fromkeys(part for part in (c.title, c.heading) if part))
        where = f"{c.source or c.document}, characters {c.start}-{c.end}"
        lines.append(f"[{number}] {place} ({where})" if place else f"[{number}] {where}")
    return "Sources:\n" + "\n".join(lines)
