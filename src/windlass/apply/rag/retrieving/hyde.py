"""Searching with an answer in place of the question: passages lie nearer to passages than questions do.

A language model writes the passage that would answer; it may be wrong in every fact and still lie where the right one
lies. Searched is the mean of its vector and the question's (HyDE: Gao et al., arXiv 2212.10496, section 3.2). The words
of the question are searched as they are.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from windlass.apply.rag.retrieving.step import Asked, Step
from windlass.core import semconv
from windlass.core.errors import InputError
from windlass.core.protocols import ChatModel, Embedder, Hit, Index
from windlass.core.spans import Span
from windlass.core.trace import Recorder

PROMPT = "retrieve-passage"


class Hyde(Step):
    name = "hyde"

    def __init__(
        self,
        index: Index,
        model: ChatModel,
        embedder: Embedder,
        count: int = 1,
        *,
        recorder: Recorder | None = None,
    ) -> None:
        """`embedder`: the index's own. `count`: passages that are written; the model should not be at temperature 0 for
        more than one."""
        super().__init__(index, recorder)
        if count < 1:
            raise InputError("At least one passage has to be imagined.")
        self.model, self.embedder, self.count = model, embedder, count

    def _search(self, asked: Asked, span: Span) -> list[Hit]:
        passages = self._helped(span, lambda: self._imagined(asked.query))
        if passages is None:
            return asked.on(self.index)
        span["windlass.imagined"] = passages
        imagined = self.embedder.embed(passages, "passage")
        tokens = imagined.tokens
        own = asked.vector
        if own is None:
            embedded = self.embedder.embed([asked.query], "query")
            own, tokens = embedded.vectors[0], tokens + embedded.tokens
        span[semconv.INPUT_TOKENS] = tokens
        mean = np.vstack([own[None], imagined.vectors]).mean(0)
        length = float(np.linalg.norm(mean))
        vector = (mean / length).astype(np.float32) if length > 0 else own
        return replace(asked, vector=vector).on(self.index)

    def _imagined(self, query: str) -> list[str]:
        return [self._said(self.model, PROMPT, query) for _ in range(self.count)]
