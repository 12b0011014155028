"""A question asked in several ways: what one wording misses, another finds.

The wordings of a language model are searched beside the question itself, and the rankings are fused (as in RAG-Fusion:
Rackauckas, arXiv 2402.03367).
"""

from __future__ import annotations

import re

from windlass.apply.rag.retrieving.step import Asked, Step, fused
from windlass.core.errors import InputError
from windlass.core.protocols import ChatModel, Hit, Index
from windlass.core.spans import Span
from windlass.core.trace import Recorder

PROMPT = "retrieve-variants"
_BULLET = re.compile(r"^\s*(?:[-*•]|\d{1,2}[.):])\s+")


class MultiQuery(Step):
    name = "multi_query"

    def __init__(
        self, index: Index, model: ChatModel, count: int = 3, *, depth: int = 30, recorder: Recorder | None = None
    ) -> None:
        """`count`: other wordings at most. `depth`: hits of each that are fused (at least k)."""
        super().__init__(index, recorder)
        if count < 1 or depth < 1:
            raise InputError("A question is asked in at least one other way, at least one hit deep.")
        self.model, self.count, self.depth = model, count, depth

    def _search(self, asked: Asked, span: Span) -> list[Hit]:
        others = self._helped(span, lambda: self._others(asked.query)) or []
        span["windlass.queries"] = others
        if not others:
            return asked.on(self.index)
        return fused(asked.deep(self.depth).on_each(self.index, [asked.query, *others]), asked.k)

    def _others(self, query: str) -> list[str]:
        said = self._said(self.model, PROMPT, f"Write {self.count} other wordings of this question:\n\n{query}")
        lines = [_BULLET.sub("", line).strip().strip('"“”') for line in said.splitlines()]
        return [line for line in dict.fromkeys(lines) if line and line != query][: self.count]
