"""The request for an answer from passages, and what is left of the reply after its quotations were checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from windlass.apply.prompts import prompt
from windlass.apply.rag.answers.citations import CheckedSentence, Checking
from windlass.apply.rag.answers.untrusted import Lit, Spotlight, Suspect, spotlit
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


def rules(spotlight: Spotlight = "delimit", mark: str = "") -> str:
    """What the model is told before it sees a passage."""
    text, _ = prompt(PROMPT)
    if spotlight == "delimit":
        return text
    return f"{text.rstrip()}\n{prompt(f'{PROMPT}-{spotlight}')[0].replace('{mark}', mark)}"


def grounded_request(
    question: str,
    passages: Sequence[Citation],
    request: ChatRequest,
    *,
    spotlight: Spotlight = "delimit",
    left_out: Sequence[Suspect] = (),
    lit: Lit | None = None,
) -> ChatRequest:
    """The rules, then the passages, then the question; sampling parameters as in `request`.

    Passages stand between marks whose code is derived from all of them: whoever wrote one passage cannot write the mark
    that ends it, and the same passages are the same to the byte for each question, as providers' caches want them.
    `lit`: the passages as they are shown, where that is known already.
    """
    lit = lit or spotlit(passages, spotlight, left_out)
    parts = []
    for number, (passage, text) in enumerate(zip(passages, lit.texts, strict=True), start=1):
        about = " > ".join(part for part in (passage.title, passage.heading) if part)
        parts.append(f"<<passage {number} {lit.code}>> {about}\n{text}\n<<end {number} {lit.code}>>")
    body = "\n\n".join([*parts, f"Question: {question}"])
    return ChatRequest(
        [Message("system", rules(spotlight, lit.mark)), Message("user", body)],
        temperature=request.temperature,
        top_p=request.top_p,
        max_tokens=request.max_tokens,
        seed=request.seed,
    )


class Reply:
    """A reply while it is written: sentences may leave as soon as every quotation of theirs was found where the model
    says it stands. The others never leave."""

    def __init__(self, passages: Sequence[Citation], barred: Sequence[Suspect] = ()) -> None:
        self._checking = Checking(passages, barred)
        self._said: list[str] = []
        self._kept: list[str] = []
        self.citations: list[Citation] = []
        self.sentences: list[CheckedSentence] = []

    def add(self, piece: str) -> str:
        """The model said this: what may leave now. All of these together are the answer."""
        self._said.append(piece)
        return self._leaving(self._checking.add(piece))

    def end(self) -> str:
        return self._leaving(self._checking.end())

    @property
    def checked(self) -> Grounded:
        said = "".join(self._said).strip().rstrip(".").upper()
        if said == NO_ANSWER:
            return Grounded("", (), (), True)
        return Grounded("".join(self._kept), self.citations, self.sentences, False)

    def _leaving(self, sentences: Sequence[CheckedSentence]) -> str:
        self.sentences += sentences
        pieces = [f"{' ' if self._kept or n else ''}{self._marked(s)}" for n, s in enumerate(_supported(sentences))]
        self._kept += pieces
        return "".join(pieces)

    def _marked(self, sentence: CheckedSentence) -> str:
        marks = []
        for quote in sentence.quotes:
            assert quote.citation is not None
            if quote.citation not in self.citations:
                self.citations.append(quote.citation)
            marks.append(f"[{self.citations.index(quote.citation) + 1}]")
        said = sentence.text or f"“{sentence.quotes[0].quote}”"
        return f"{said} {' '.join(dict.fromkeys(marks))}"


def grounded_answer(reply: str, passages: Sequence[Citation], barred: Sequence[Suspect] = ()) -> Grounded:
    """Keeps the sentences whose every quotation is verbatim where the model says it is, drops the others."""
    read = Reply(passages, barred)
    read.add(reply)
    read.end()
    return read.checked


def _supported(sentences: Sequence[CheckedSentence]) -> list[CheckedSentence]:
    return [sentence for sentence in sentences if sentence.supported]
