"""The three ways to say an answer: sentences quoted, words read out, or a language model that is held to quotations.

Each is a generator of the pieces of an answer that may leave, and returns what is to be known of it as a whole. Nothing
unchecked leaves: a piece of a language model's answer is a sentence whose quotations were found.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from windlass.apply.prompts import prompt
from windlass.apply.rag.answers.abstention import Features
from windlass.apply.rag.answers.citations import VERDICTS
from windlass.apply.rag.answers.grounded import PROMPT, Reply, grounded_request
from windlass.apply.rag.answers.quoting import QuoteSettings, quote
from windlass.apply.rag.answers.reading import Reading, ReadingRule, read_out
from windlass.apply.rag.answers.untrusted import Spotlight, Suspect, spotlit, without
from windlass.apply.rag.indexes.searchable import Searchable
from windlass.apply.tasks.running import note, plain
from windlass.core import semconv
from windlass.core.errors import WindlassError
from windlass.core.protocols import ChatModel, Extracting, Hit
from windlass.core.trace import Recorder
from windlass.core.values import ChatDelta, ChatRequest, Citation, Usage


@dataclass(frozen=True, slots=True)
class Found:
    """What a search brought for a question."""

    question: str
    """As it was searched for."""
    hits: Sequence[Hit]
    vector: Any
    features: Features
    """What the rule of `rag.answers.abstention` decides by."""
    probability: float
    """That the documents hold the answer, by the search alone."""
    usage: Usage

    @property
    def passages(self) -> Sequence[Citation]:
        return [hit.citation for hit in self.hits]


@dataclass(frozen=True, slots=True)
class Said:
    """An answer that was given, or, with a reason, one that was not."""

    citations: Sequence[Citation]
    usage: Usage
    cost: float | None = None
    reason: str = ""

    @property
    def abstained(self) -> bool:
        return not self.citations


Saying = Generator[str, None, Said]


def nothing(found: Found, reason: str) -> Saying:
    """That there is no answer."""
    return _given((), "", Said((), found.usage, reason=reason))


def quoted(
    index: Searchable, found: Found, settings: QuoteSettings, barred: Sequence[Suspect], recorder: Recorder
) -> Saying:
    """The sentences that fit the question best."""
    with recorder.span("quote", "embeddings") as span:
        span.input = found.question
        span[semconv.REQUEST_MODEL] = index.meta.embedder_name
        citations, tokens = quote(index, found.question, found.hits, settings, found.vector, barred)
        span[semconv.INPUT_TOKENS] = tokens
        span.output = [asdict(citation) for citation in citations]
    if not citations:
        return nothing(found, "the passages found hold nothing that may be quoted")
    return _given(citations, "\n\n", Said(citations, found.usage + Usage(input=tokens)))


def read(
    reader: Extracting,
    found: Found,
    rule: ReadingRule,
    most: int,
    barred: Sequence[Suspect],
    recorder: Recorder,
) -> Saying:
    """The very words that answer, out of the passages."""
    with recorder.span("read", "chat") as span:
        span.input = found.question
        span[semconv.REQUEST_MODEL] = reader.name
        if reader.digest is not None:
            span[semconv.MODEL_DIGEST] = reader.digest
        readings = readings_of(reader, found, rule, barred)
        span.output = [asdict(reading) for reading in readings]
        span["windlass.reading.probability"] = round(readings[0].probability, 4) if readings else 0.0
        span["windlass.reading.threshold"] = rule.threshold
    if not readings:
        return nothing(found, "the reader found no answer in the passages")
    citations = [reading.answer for reading in readings if reading.probability >= rule.threshold][:most]
    if not citations:
        return nothing(found, "the reader is not sure enough of any answer in the passages")
    return _given(citations, "\n", Said(citations, found.usage))


def readings_of(reader: Extracting, found: Found, rule: ReadingRule, barred: Sequence[Suspect]) -> list[Reading]:
    """All answers that the reader sees in the passages, the likeliest first; what is barred it does not see."""
    texts = [without(passage, barred, " ") for passage in found.passages]
    return read_out(reader, found.question, found.hits, rule, found.probability, texts)


def written(
    model: ChatModel,
    question: str,
    passages: Sequence[Citation],
    request: ChatRequest,
    spotlight: Spotlight,
    barred: Sequence[Suspect],
    recorder: Recorder,
    *,
    streamed: bool,
) -> Saying:
    """Sentences of a language model, each as soon as its quotations were found where it says they stand."""
    lit = spotlit(passages, spotlight, barred)
    asked = grounded_request(question, passages, request, spotlight=spotlight, lit=lit)
    reply, response = Reply(passages, barred), None
    span = recorder.span("generate", "chat").begin()
    deltas = _heard(model, asked, streamed)
    try:
        span.input = [plain(message) for message in asked.messages]
        span[semconv.REQUEST_MODEL] = model.name
        span[semconv.PROMPT_NAME] = PROMPT
        span["windlass.prompt.digest"] = prompt(PROMPT)[1]
        span["windlass.spotlight"] = spotlight
        span[semconv.COST_USD] = None  # until the model says what it cost, it is unknown
        while True:
            with span.active():
                delta = next(deltas, None)
            if delta is None:
                break
            response = delta.response or response
            if piece := reply.add(lit.read_back(delta.text)):
                yield piece
        if response is None:
            raise WindlassError(f"The model '{model.name}' ended its answer without a response.", "Ask again.")
        if piece := reply.end():
            yield piece
        note(span, response)
        answer = reply.checked
        quotes = [quote for sentence in answer.sentences for quote in sentence.quotes]
        for verdict in VERDICTS:
            span[f"windlass.citations.{verdict}"] = sum(quote.verdict == verdict for quote in quotes)
        span["windlass.sentences.dropped"] = answer.dropped
        if response.message.tool_calls:  # none was offered: an order of some document, and nobody follows it
            span["windlass.tool_calls.ignored"] = len(response.message.tool_calls)
    except BaseException as error:
        span.finish(error)
        raise
    finally:
        deltas.close()
    span.finish()
    # the search's own tokens are on its span: usage is what the language model is paid for
    reason = "" if answer.citations else "withheld: no sentence of the model's answer was supported by a quotation"
    if answer.declined:
        reason = "the model found no answer in the passages"
    return Said(answer.citations, response.usage, response.cost_usd, reason)


def _heard(model: ChatModel, request: ChatRequest, streamed: bool) -> Generator[ChatDelta, None, None]:
    """A model's answer as it comes, or, as most models answer cheaper and surer, in one piece."""
    if not streamed:
        response = model.complete(request)
        yield ChatDelta(response.message.text)
        yield ChatDelta(response=response)
        return
    deltas = model.stream(request)
    try:
        yield from deltas
    finally:
        if (close := getattr(deltas, "close", None)) is not None:
            close()


def _given(citations: Sequence[Citation], between: str, said: Said) -> Saying:
    """What is known at once, quotation by quotation."""
    for number, citation in enumerate(citations, start=1):
        yield f"{between if number > 1 else ''}“{citation.quote}” [{number}]"
    return said
