"""Questions of a conversation, made to stand alone: "and how often?" finds nothing by itself.

Condensing a question with what was said before is what conversational search does first (Vakulenko et al., "Question
Rewriting for Conversational Question Answering", WSDM 2021).
"""

from __future__ import annotations

from collections.abc import Sequence

from windlass.apply.rag.retrieving.step import Asked, Step
from windlass.core.protocols import ChatModel, Hit, Index
from windlass.core.spans import Span
from windlass.core.trace import Recorder
from windlass.core.values import Message

PROMPT = "retrieve-rewrite"
_LATEST = 8
"""Messages of the history that are read."""
_LONGEST = 2000
"""Characters of each."""


class Rewritten(Step):
    """Of one conversation: `history` is what was said before the question."""

    name = "rewrite"

    def __init__(
        self, index: Index, model: ChatModel, history: Sequence[Message], *, recorder: Recorder | None = None
    ) -> None:
        super().__init__(index, recorder)
        self.model = model
        self.history = [message for message in history if message.role in ("user", "assistant") and message.text]

    def _search(self, asked: Asked, span: Span) -> list[Hit]:
        return asked.instead(self._alone(asked.query, span)).on(self.index)

    def alone(self, question: str) -> str:
        """The question as it stands alone; itself where nothing was said before, or the model fails."""
        with self.recorder.span(self.name, "retrieval") as span:
            span.input = question
            span.output = alone = self._alone(question, span)
        return alone

    def _alone(self, question: str, span: Span) -> str:
        if not self.history:
            return question
        lines = [f"{message.role}: {message.text[:_LONGEST]}" for message in self.history[-_LATEST:]]
        told = "\n".join([*lines, "", f"Last question: {question}"])
        alone = self._helped(span, lambda: self._said(self.model, PROMPT, told, tokens=200)) or question
        alone = alone.splitlines()[0].strip() or question
        span["windlass.queries"] = [alone]
        return alone
