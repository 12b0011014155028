"""Asking a question: the answer arrives as it is written, then with its numbered quotations.

A page without scripts posts the form and gets the whole page back. With scripts the same post asks for
`application/x-ndjson`: lines of `{"text": piece}` and at the end one `{"html": answer}` that the server rendered,
so that the browser never builds markup from what a model wrote.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from starlette.responses import Response

from windlass.apply.rag.answers.showing import sources
from windlass.core.errors import InputError
from windlass.core.protocols import ChatModel
from windlass.core.values import ChatRequest, ChatResponse, Citation, Message
from windlass.studio import indexes
from windlass.studio.web import Studio, Visit
from windlass.studio.writing import take_place, written

MAX_QUESTION = 8_000
"""Characters."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the answer template shows."""

    question: str
    model: str
    response: ChatResponse
    variant: str | None
    """The artifact behind the model, as `name@version`."""
    latency_ms: float
    parts: Sequence[tuple[str, int | None]]
    """The text in pieces: (text, None), or ("[2]", 2) for a reference to a quotation. Empty when it is nothing but
    the quotations, which are shown anyway."""
    quotes: Sequence[tuple[Citation, str | None]]
    """Each citation with the address of its document's page, None when the document is not in this workspace."""


def show(visit: Visit) -> Response:
    return visit.page("ask.html", "ask", **choices(visit), question=visit.query("q"), answer=None)


def answer(visit: Visit) -> Response:
    question = visit.form.get("question", "").strip()
    if not question:
        raise InputError("The question is empty.", "Type a question and press Enter.")
    if len(question) > MAX_QUESTION:
        raise InputError(f"The question has {len(question):,} characters.", f"At most {MAX_QUESTION:,} are taken.")
    name, model = choose(visit.studio, visit.form.get("model", ""))
    request = ChatRequest([Message("user", question)])
    started = time.monotonic()

    def shown(response: ChatResponse) -> Answer:
        return _answer(visit.studio, name, model, question, response, started)

    if visit.accepts("application/x-ndjson"):
        return written(
            visit.studio,
            model,
            request,
            lambda response: {"html": visit.studio.render("_answer.html", answer=shown(response))},
        )
    take_place(visit.studio)
    try:
        response = model.complete(request)
    finally:
        visit.studio.asking.release()
    return visit.page("ask.html", "ask", **choices(visit, name), question=question, answer=shown(response))


def choices(visit: Visit, chosen: str = "") -> dict[str, object]:
    models = list(visit.studio.models)
    default = chosen or visit.query("model") or ("assistant" if "assistant" in models else next(iter(models), ""))
    return {"models": models, "chosen": default}


def choose(studio: Studio, name: str) -> tuple[str, ChatModel]:
    if not studio.models:
        raise InputError("This server serves no model yet.", "Run `windlass demo`, then `windlass serve`.")
    if not name:
        name = "assistant" if "assistant" in studio.models else next(iter(studio.models))
    if name not in studio.models:
        raise InputError(f"There is no model '{name[:80]}' here.", f"There are: {', '.join(studio.models)}.")
    return name, studio.models[name]


def _answer(
    studio: Studio, name: str, model: ChatModel, question: str, response: ChatResponse, started: float
) -> Answer:
    digest = model.digest
    record = studio.ws.store.artifact(digest) if digest else None
    return Answer(
        question,
        name,
        response,
        record.ref if record else None,
        (time.monotonic() - started) * 1000,
        [] if only_quotes(response) else references(without_sources(response), len(response.citations)),
        [(citation, document_address(studio, digest, citation)) for citation in response.citations],
    )


def references(text: str, quotes: int) -> list[tuple[str, int | None]]:
    """Splits `text` at its `[n]` that name one of the quotations."""
    pieces: list[tuple[str, int | None]] = []
    for piece in re.split(r"(\[\d{1,3}\])", text):
        number = int(piece[1:-1]) if re.fullmatch(r"\[\d{1,3}\]", piece) else 0
        if piece:
            pieces.append((piece, number if 1 <= number <= quotes else None))
    return pieces


def without_sources(response: ChatResponse) -> str:
    """The text without the list of sources that an assistant adds for readers of plain text."""
    text = response.message.text
    return text.removesuffix(sources(response.citations)).rstrip() if response.citations else text


def only_quotes(response: ChatResponse) -> bool:
    """Whether the text consists of the quotations and their numbers alone."""
    rest = without_sources(response)
    for citation in sorted(response.citations, key=lambda c: -len(c.quote)):
        rest = rest.replace(citation.quote, "")
    return bool(response.citations) and not re.sub(r"\[\d{1,3}\]|[\s\"“”>*-]", "", rest)


def document_address(studio: Studio, digest: str | None, citation: Citation) -> str | None:
    """The page of the cited document, opened at the quotation; `digest` names what answered."""
    if digest is None or studio.ws.store.artifact(digest) is None:  # a version of a living index is no artifact
        found = indexes.address(studio.ws, digest or "", citation)
        if found is not None:
            return found
    corpus = studio.corpora.behind(digest)
    if corpus is None:
        return None
    place = urlencode({"id": citation.document, "start": citation.start, "end": citation.end})
    return f"/artifacts/{corpus}/document?{place}#quote"
