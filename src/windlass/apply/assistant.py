"""The assistant: finds passages, decides whether they hold the answer, and quotes them, or says that they do not.

With a language model the answer is the model's, from the passages or from all documents, but every sentence must quote
a passage and every quotation is checked verbatim; what is not supported is dropped, and if nothing is left the answer
is withheld. Without one the answer is the quotations themselves, or with an extractive reader the very words that
answer. Nothing unchecked leaves: a streamed answer leaves sentence by sentence, each after its check.

What documents say is data. Sentences that read like orders to a model are left out and named, passages that contradict
each other are named, and of the conversation only the latest turns are remembered, to understand the question by.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from windlass.apply.providers.counted import Counted
from windlass.apply.providers.fitting import window_of
from windlass.apply.rag.answers.abstention import AbstentionRule, features_of
from windlass.apply.rag.answers.answering import Found, Said, Saying, nothing, quoted, read, readings_of, written
from windlass.apply.rag.answers.disagreement import Contradictions, Disagreeing, Disagreement, by_model, disagreements
from windlass.apply.rag.answers.grounded import grounded_request
from windlass.apply.rag.answers.memory import points_back, recalled, standing_alone
from windlass.apply.rag.answers.places import placed
from windlass.apply.rag.answers.quoting import QuoteSettings
from windlass.apply.rag.answers.reading import Reading, ReadingRule
from windlass.apply.rag.answers.showing import contradiction, sources, with_others
from windlass.apply.rag.answers.untrusted import Injections, Spotlight, Suspect, suspects, warned
from windlass.apply.rag.answers.whole import route
from windlass.apply.rag.indexes.fusion import SearchSettings
from windlass.apply.rag.indexes.searchable import Searchable, one_version
from windlass.apply.rag.retrieving import Helpers, RetrieveSettings, Rewritten, composed
from windlass.apply.rag.retrieving.decay import dated
from windlass.apply.rag.retrieving.mmr import stored
from windlass.apply.tasks.running import plain
from windlass.core import semconv
from windlass.core.errors import ConfigError, InputError, Unsupported, WindlassError
from windlass.core.protocols import ChatModel, Extracting, Index, Reranker, Scan
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
    """Passages given to the language model or the reader, or looked at for quotations."""
    search: SearchSettings = field(default_factory=SearchSettings)
    retrieve: RetrieveSettings = field(default_factory=RetrieveSettings)
    """Further steps around the search. What the abstention rule decides by is the plain search all the same."""
    abstention: AbstentionRule = field(default_factory=AbstentionRule)
    reading: ReadingRule = field(default_factory=ReadingRule)
    """With a reader this rule decides, which knows what the search found and what the reader made of it."""
    quotes: QuoteSettings = field(default_factory=QuoteSettings)
    whole: int = 0
    """Above 0: the language model gets all documents in place of passages where they fit its window and cost less,
    if so many questions are asked while they are in its provider's cache (`rag.answers.whole`). 0: never."""
    memory: int = 4
    """Turns of the conversation that are remembered to understand the next question by. 0: none."""
    spotlight: Spotlight = "delimit"
    """How passages are shown to a language model: between marks, with a mark between all words, or encoded."""
    injections: Injections = "withhold"
    """Sentences of documents that read like orders to a model: left out, only named in a warning, or not looked for."""
    contradictions: Contradictions = "rule"
    """Passages that contradict what is cited are named below the answer, as a rule finds them or a language model does
    (`rag.answers.disagreement`); or they are not looked for."""

    def __post_init__(self) -> None:
        if self.k < 1 or self.whole < 0 or self.memory < 0:
            raise InputError("An assistant needs k of at least 1, and whole and memory of at least 0.")


class Assistant:
    """Implements `ChatModel`. The question is the last user message; a few earlier turns help to understand it.

    Extra parameters of a request: `k` (passages), `where` (a filter on document metadata) and `access` (the labels of
    who asks, which the server fills in: whatever a client says of itself must not get here); others are refused.
    `digest` is that of the variant, when it is made from one.
    """

    takes_access = True

    def __init__(
        self,
        index: Searchable,
        settings: AssistantSettings | None = None,
        recorder: Recorder | None = None,
        model: ChatModel | None = None,
        *,
        reader: Extracting | None = None,
        helper: ChatModel | None = None,
        reranker: Reranker | None = None,
        name: str = "assistant",
        digest: str | None = None,
        windows: Mapping[str, Window] | None = None,
        scan: Scan | None = None,
        disagreeing: Disagreeing | None = None,
        access: Collection[str] = (),
    ) -> None:
        """Answers are written by `model`, or read out of the passages by `reader`; with neither, sentences are quoted.

        `helper`: asked by steps of the search, left out `model` is. `reranker`: the one that the settings name. Raises
        `ConfigError` for a step that lacks what it needs.

        `windows`: of models that the table does not know. `scan`: finds orders to a model in what documents say, such
        as `guard.injection.scan`; without it none are found. `disagreeing`: finds sentences that contradict each other
        (`rag.answers.disagreement`); None means a rule. `access`: the labels of those who ask; without any, only public
        documents are seen. A request may bring others.
        """
        if model is not None and reader is not None:
            raise InputError("An assistant has a language model or a reader, not both.", "Leave one of them out.")
        self.settings = settings or AssistantSettings()
        self.index = index if index.settings == self.settings.search else index.with_settings(self.settings.search)
        self.model = model
        self.reader = reader
        self.helper = helper or model
        self.reranker = reranker
        self._recorder = recorder or Recorder(None)
        self._name = name
        self._digest = digest
        self._windows = windows
        self._scan = scan
        self._disagreeing = disagreeing
        self._access = frozenset(access)
        if self.settings.contradictions == "model" and self.helper is None:
            raise ConfigError("`contradictions` asks a language model, and there is none.", 'Set it to "rule".')
        with one_version(self.index) as opened:  # a step that lacks something is refused before anybody asks
            composed(opened, self.settings.retrieve, self._helpers(opened, self.helper))

    @property
    def name(self) -> str:
        return self._name

    @property
    def digest(self) -> str | None:
        return self._digest

    def complete(self, request: ChatRequest) -> ChatResponse:
        response = None
        for delta in self._deltas(request, streamed=False):
            response = delta.response
        assert response is not None
        return response

    def stream(self, request: ChatRequest) -> Iterator[ChatDelta]:
        """The answer piece by piece, each once it has been checked; sources and warnings at the end."""
        return self._deltas(request, streamed=True)

    def _deltas(self, request: ChatRequest, *, streamed: bool) -> Generator[ChatDelta, None, None]:
        asked = self._understood(request)
        identifier = f"chatcmpl-{secrets.token_hex(12)}"
        span = self._recorder.span("assistant", "invoke_workflow").begin()
        answering = self._answer(asked, request, span, streamed)
        pieces = []
        try:
            span.input = [plain(message) for message in request.messages]
            span[semconv.WORKFLOW] = self.name
            span[semconv.RESPONSE_ID] = identifier
            self._name_parts(span)
            while True:
                with span.active():
                    try:
                        piece = next(answering)
                    except StopIteration as ended:
                        said, warnings = ended.value
                        break
                pieces.append(piece)
                yield ChatDelta(piece)
            text = "".join(pieces)
            span[semconv.ABSTAINED] = said.abstained
            if said.reason:
                span["windlass.abstention.reason"] = said.reason
            span.output = {"answer": text, "citations": [asdict(c) for c in said.citations]}
        except BaseException as error:
            span.finish(error)
            raise
        finally:
            answering.close()
        span.finish()
        yield ChatDelta(
            response=ChatResponse(
                identifier,
                self.name,
                Message("assistant", text),
                "stop",
                said.usage,
                said.cost,
                tuple(said.citations),
                said.abstained,
                span.trace_id,
                warnings=tuple(warnings),
            )
        )

    def _answer(
        self, asked: _Asked, request: ChatRequest, span: Span, streamed: bool
    ) -> Generator[str, None, tuple[Said, list[str]]]:
        """The main path: understood, found, decided, said, and what a reader should know besides."""
        helper = None if self.helper is None else Counted(self.helper)
        writer = None if self.model is None else Counted(self.model)
        question = self._alone(asked, span, helper)
        with one_version(self.index) as index:
            found = self._found(index, question, asked.k, asked.where, asked.access, helper)
            everything = self._whole(index, found, asked, request) if self.model is not None else ()
            passages = everything or found.passages
            suspected = self._suspected(passages, span)
            barred = suspected if self.settings.injections == "withhold" else ()
            metadata = _metadata(index, passages)
            saying = self._saying(index, found, everything, barred, request, span, writer, streamed)
        said = yield from saying
        if said.abstained:
            yield NOT_FOUND
            return _paid(said, writer, helper), []
        told = self._disagreements(said.citations, passages, barred, span, helper)
        cited = with_others(said.citations, told)
        said = replace(
            _paid(said, writer, helper), citations=[placed(citation, metadata[citation.document]) for citation in cited]
        )
        contradictions = [contradiction(one, said.citations) for one in told]
        yield "".join(f"\n\n{line}" for line in contradictions) + f"\n\n{sources(said.citations)}"
        return said, [*contradictions, *warned(suspected, withheld=bool(barred))]

    # steps ----------------------------------------------------------------------------------------------------------

    def _understood(self, request: ChatRequest) -> _Asked:
        extra = request.beyond_text()
        k, where = extra.pop("k", self.settings.k), extra.pop("where", None)
        access = extra.pop("access", self._access)
        if extra:
            raise Unsupported(f"The assistant has no parameter '{min(extra)}'.", "It knows `k`, `where` and `access`.")
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
        labels = access if isinstance(access, (list, tuple, set, frozenset)) else [None]
        if not all(isinstance(label, str) for label in labels):
            raise InputError(f"access is {access!r}, but must be a list of labels.")
        question = next((m.text.strip() for m in reversed(request.messages) if m.role == "user"), "")
        if not question:
            raise InputError("There is no question: the last user message is missing or empty.")
        return _Asked(question, recalled(request.messages, self.settings.memory), k, where, frozenset(access))

    def _alone(self, asked: _Asked, span: Span, helper: ChatModel | None) -> str:
        """The question as it can be searched for without knowing what was said before: rewritten by a language model
        where it points back (or always, where the variant says so), or by a rule where there is no model."""
        rewritten = self.settings.retrieve.rewrite or points_back(asked.question)
        if helper is not None and asked.history and rewritten:
            alone = Rewritten(self.index, helper, asked.history, recorder=self._recorder).alone(asked.question)
        else:
            alone = standing_alone(asked.question, asked.history)
        if alone != asked.question:
            span["windlass.question"] = alone
            span["windlass.memory.messages"] = len(asked.history)
        return alone

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

    def find(self, question: str, where: Mapping[str, Any] | None = None) -> Found:
        """The passages for a question that stands alone, and how well they fit it."""
        with one_version(self.index) as index:
            return self._found(index, question, self.settings.k, where, self._access, self.helper)

    def searched(self, index: Searchable, helper: ChatModel | None = None) -> Index:
        """The index with the steps that the settings name, or itself without any. Questions must stand alone. `helper`:
        asked by the steps in place of the assistant's own."""
        settings = replace(self.settings.retrieve, rewrite=False)
        return composed(index, settings, self._helpers(index, helper or self.helper), self._recorder)

    def _helpers(self, index: Searchable, helper: ChatModel | None) -> Helpers:
        dates = dated(index, self.settings.retrieve.date_key)
        return Helpers(helper, self.reranker, index.embedder, index.facets, dates, stored(index))

    def _found(
        self,
        index: Searchable,
        question: str,
        k: int,
        where: Mapping[str, Any] | None,
        access: Collection[str],
        helper: ChatModel | None,
    ) -> Found:
        with self._recorder.span("embed", "embeddings") as span:
            span.input = question
            span[semconv.REQUEST_MODEL] = index.meta.embedder_name
            span[semconv.EMBEDDER_DIGEST] = index.meta.embedder
            embedded = index.embedder.embed([question.encode("utf-8", "replace").decode()], "query")
            span[semconv.INPUT_TOKENS] = embedded.tokens
            span[semconv.EMBEDDING_DIMENSION] = index.meta.dimension
            if embedded.truncated:
                span["windlass.truncated"] = True
        with self._recorder.span("retrieve", "retrieval") as span:
            span.input = question
            span[semconv.RETRIEVAL_TOP_K] = k
            span[semconv.INDEX_DIGEST] = index.digest
            vector = embedded.vectors[0]
            plain = index.search(question, max(k, _SEARCHED), where, access=access, vector=vector)
            search = self.searched(index, helper)
            hits = plain[:k] if search is index else search.search(question, k, where, access=access, vector=vector)
            features = features_of(plain, lambda passages: index.coverage(question, passages))
            span.output = [
                {"document": h.citation.document, "start": h.citation.start, "end": h.citation.end, "score": h.score}
                for h in hits
            ]
        probability = float(self.settings.abstention.probabilities(features[None])[0])
        usage = Usage(input=embedded.tokens, output=0)
        return Found(question, hits, vector, features, probability, usage)

    def _whole(self, index: Searchable, found: Found, asked: _Asked, request: ChatRequest) -> Sequence[Citation]:
        """All passages, where they are to be read in place of those found; what they may hold, no search decides."""
        model = self.model
        assert model is not None
        window = window_of(model, self._windows)
        if not self.settings.whole or window is None or index.characters > _DENSEST * window.context:
            return ()
        everything = index.passages(asked.where, asked.access)
        chosen = route(
            model,
            lambda question, passages: grounded_request(question, passages, request, spotlight=self.settings.spotlight),
            found.question,
            everything,
            found.passages,
            windows=self._windows,
            questions=self.settings.whole,
        )
        if (span := current_span()) is not None:
            span["windlass.route"] = f"{'whole' if chosen.whole else 'passages'}: {chosen.reason}"
        return everything if chosen.whole else ()

    def readings(self, found: Found) -> list[Reading]:
        """What the reader sees in the passages, the likeliest answer first, given or not."""
        assert self.reader is not None
        barred = self._suspects(found.passages) if self.settings.injections == "withhold" else ()
        return readings_of(self.reader, found, self.settings.reading, barred)

    def _suspects(self, passages: Sequence[Citation]) -> list[Suspect]:
        return [] if self._scan is None or self.settings.injections == "ignore" else suspects(passages, self._scan)

    def _suspected(self, passages: Sequence[Citation], span: Span) -> list[Suspect]:
        found = self._suspects(passages)
        if found:
            span["windlass.injections"] = [
                {"document": s.place.document, "start": s.place.start, "end": s.place.end, "kind": s.kind}
                for s in found
            ]
        return found

    def _saying(
        self,
        index: Searchable,
        found: Found,
        everything: Sequence[Citation],
        barred: Sequence[Suspect],
        request: ChatRequest,
        span: Span,
        writer: ChatModel | None,
        streamed: bool,
    ) -> Saying:
        settings, threshold = self.settings, self.settings.abstention.threshold
        span["windlass.abstention.probability"] = round(found.probability, 4)
        span["windlass.abstention.threshold"] = threshold
        unfit = not found.hits or (found.probability < threshold and self.reader is None)
        if unfit and not everything:
            return nothing(found, "the passages found do not fit the question")
        if writer is not None:
            return written(
                writer,
                found.question,
                everything or found.passages,
                request,
                settings.spotlight,
                barred,
                self._recorder,
                streamed=streamed,
            )
        if self.reader is not None:
            most = settings.quotes.quotes
            return read(self.reader, found, settings.reading, most, barred, self._recorder)
        return quoted(index, found, settings.quotes, barred, self._recorder)

    def _disagreements(
        self,
        cited: Sequence[Citation],
        passages: Sequence[Citation],
        barred: Sequence[Suspect],
        span: Span,
        helper: ChatModel | None,
    ) -> list[Disagreement]:
        if self.settings.contradictions == "off":
            return []
        judge = self._disagreeing
        if self.settings.contradictions == "model" and helper is not None:
            judge = by_model(helper, self._recorder)
        try:
            told = disagreements(cited, passages, judge, barred=barred)
        except WindlassError as error:  # the answer itself stands: the rule has to do
            span[semconv.FALLBACK] = f"{type(error).__name__}: {error.message}"
            told = disagreements(cited, passages, barred=barred)
        if told:
            span["windlass.contradictions"] = [asdict(one) for one in told]
        return told


@dataclass(frozen=True, slots=True)
class _Asked:
    question: str
    history: Sequence[Message]
    k: int
    where: Mapping[str, Any] | None
    access: Collection[str]


def _metadata(index: Searchable, passages: Sequence[Citation]) -> Mapping[str, Mapping[str, Any]]:
    """Of the documents of passages, from the version of the index that the passages are of."""
    documents = list(dict.fromkeys(passage.document for passage in passages))
    return dict(zip(documents, index.metadata_of(documents), strict=True))


def _paid(said: Said, writer: Counted | None, helper: Counted | None) -> Said:
    """With what the steps of the search took from a language model."""
    if helper is None or not helper.calls:
        return said
    costs = [model.cost_usd for model in (writer, helper) if model is not None and model.calls]
    known = [cost for cost in costs if cost is not None]
    return replace(said, usage=said.usage + helper.usage, cost=sum(known) if len(known) == len(costs) else None)
