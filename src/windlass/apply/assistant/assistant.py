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
from dataclasses import asdict, replace
from typing import Any

from windlass.apply.assistant.asked import Asked, understood
from windlass.apply.assistant.finding import Finder
from windlass.apply.assistant.settings import AssistantSettings
from windlass.apply.rag.answers.answering import Found, Said, Saying, nothing, quoted, read, readings_of, written
from windlass.apply.rag.answers.disagreement import Disagreeing, Disagreement, by_model, disagreements
from windlass.apply.rag.answers.grounded import grounded_request
from windlass.apply.rag.answers.memory import points_back, standing_alone
from windlass.apply.rag.answers.places import placed
from windlass.apply.rag.answers.reading import Reading
from windlass.apply.rag.answers.showing import contradiction, sources, with_others
from windlass.apply.rag.answers.untrusted import Suspect, suspects, warned
from windlass.apply.rag.answers.whole import route
from windlass.apply.rag.indexes.searchable import Searchable, one_version
from windlass.apply.rag.retrieving import Rewritten
from windlass.apply.tasks.running import plain
from windlass.apply.wrappers.counted import Counted
from windlass.apply.wrappers.fitting import window_of
from windlass.core import semconv
from windlass.core.errors import ConfigError, InputError, WindlassError
from windlass.core.protocols import ChatModel, Extracting, Index, Reranker, Scan
from windlass.core.spans import Span, current_span
from windlass.core.trace import Recorder
from windlass.core.values import ChatDelta, ChatRequest, ChatResponse, Citation, Message
from windlass.core.windows import Window

NOT_FOUND = "The documents do not hold an answer to this question."
_DENSEST = 8
"""Characters that a token hardly ever exceeds on average: longer documents are not read to be counted."""


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
        self._recorder = recorder or Recorder(None)
        self._finder = Finder(self.settings, reranker, self._recorder)
        self._name = name
        self._digest = digest
        self._windows = windows
        self._scan = scan
        self._disagreeing = disagreeing
        self._access = frozenset(access)
        if self.settings.contradictions == "model" and self.helper is None:
            raise ConfigError("`contradictions` asks a language model, and there is none.", 'Set it to "rule".')
        with one_version(self.index) as opened:  # a step that lacks something is refused before anybody asks
            self._finder.check(opened, self.helper)

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
        asked = understood(request, self.settings, self._access, writes=self.model is not None)
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
        self, asked: Asked, request: ChatRequest, span: Span, streamed: bool
    ) -> Generator[str, None, tuple[Said, list[str]]]:
        """The main path: understood, found, decided, said, and what a reader should know besides."""
        helper = None if self.helper is None else Counted(self.helper)
        writer = None if self.model is None else Counted(self.model)
        question = self._alone(asked, span, helper)
        with one_version(self.index) as index:
            found = self._finder.found(index, question, asked.k, asked.where, asked.access, helper)
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

    def _alone(self, asked: Asked, span: Span, helper: ChatModel | None) -> str:
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
            return self._finder.found(index, question, self.settings.k, where, self._access, self.helper)

    def searched(self, index: Searchable, helper: ChatModel | None = None) -> Index:
        """The index with the steps that the settings name, or itself without any. Questions must stand alone. `helper`:
        asked by the steps in place of the assistant's own."""
        return self._finder.searched(index, helper or self.helper)

    def _whole(self, index: Searchable, found: Found, asked: Asked, request: ChatRequest) -> Sequence[Citation]:
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
