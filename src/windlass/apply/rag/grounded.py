"""The request for an answer from passages, and what is left of the reply after its quotations were checked."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from windlass.apply.prompts import prompt
from windlass.apply.rag.citations import CheckedSentence, check_answer
from windlass.core.values import ChatRequest, Citation, Message

PROMPT = "grounded"
NO_ANSWER = "NO ANSWER"


@dataclass(frozen=True, slots=True)
class Grounded:
    """A reply after the check. `text` holds only supported sentences, with `[n]` markers into `citations`."""

    text: str
    citations: Sequence[Citation]
    sentences: Sequence[CheckedSentence]
    declined: bool
    """The model itself said that the passages do not hold the answer."""

    @property
    def dropped(self) -> int:
        return sum(not sentence.supported for sentence in self.sentences)


def grounded_request(question: str, passages: Sequence[Citation], request: ChatRequest) -> ChatRequest:
    """The rules, then the passages, then the question; sampling parameters as in `request`.

    Passages stand between marks whose code is derived from all of them: whoever wrote one passage cannot write the mark
    that ends it, and the same passages are the same to the byte for each question, as providers' caches want them.
    """
    rules, _ = prompt(PROMPT)
    joined = "\0".join(p.quote for p in passages)
    code = hashlib.sha256(joined.encode("utf-8", "replace")).hexdigest()[:12]
    parts = []
    for number, passage in enumerate(passages, start=1):
        about = " > ".join(part for part in (passage.title, passage.heading) if part)
        parts.append(f"<<passage {number} {code}>> {about}\n{passage.quote}\n<<end {number} {code}>>")
    body = "\n\n".join([*parts, f"Question: {question}"])
    return ChatRequest(
        [Message("system", rules), Message("user", body)],
        temperature=request.temperature,
        top_p=request.top_p,
        max_tokens=request.max_tokens,
        seed=request.seed,
    )


def grounded_answer(reply: str, passages: Sequence[Citation]) -> Grounded:
    """Keeps the sentences whose every quotation is verbatim where the model says it is, drops the others."""
    if reply.strip().rstrip(".").upper() == NO_ANSWER:
        return Grounded("", (), (), True)
    sentences = check_answer(reply, passages)
    citations: list[Citation] = []
    kept: list[str] = []
    for sentence in sentences:
        if not sentence.supported:
            continue
        marks = []
        for quote in sentence.quotes:
            assert quote.citation is not None
            if quote.citation not in citations:
                citations.append(quote.citation)
            marks.append(f"[{citations.index(quote.citation) + 1}]")
        said = sentence.text or f"“{sentence.quotes[0].quote}”"
        kept.append(f"{said} {' '.join(dict.fromkeys(marks))}")
    return Grounded(" ".join(kept), citations, sentences, False)
