"""The passages for a question, and how well they fit: embedded once, searched plainly, and again with further steps."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from windlass.apply.assistant.settings import AssistantSettings
from windlass.apply.rag.answers.abstention import features_of
from windlass.apply.rag.answers.answering import Found
from windlass.apply.rag.indexes.searchable import Searchable
from windlass.apply.rag.retrieving import Helpers, composed
from windlass.apply.rag.retrieving.decay import dated
from windlass.apply.rag.retrieving.mmr import stored
from windlass.core import semconv
from windlass.core.protocols import ChatModel, Index, Reranker
from windlass.core.trace import Recorder
from windlass.core.values import Usage

SEARCHED = 10
"""Passages ranked for every question, so that the abstention rule always sees the same evidence."""


class Finder:
    """Safe to share between threads. `helper` is asked by steps of the search."""

    def __init__(self, settings: AssistantSettings, reranker: Reranker | None, recorder: Recorder) -> None:
        self._settings, self._reranker, self._recorder = settings, reranker, recorder

    def check(self, index: Searchable, helper: ChatModel | None) -> None:
        """Raises `ConfigError` for a step that lacks what it needs."""
        composed(index, self._settings.retrieve, self._helpers(index, helper))

    def searched(self, index: Searchable, helper: ChatModel | None) -> Index:
        """The index with the steps that the settings name, or itself without any. Questions must stand alone."""
        settings = replace(self._settings.retrieve, rewrite=False)
        return composed(index, settings, self._helpers(index, helper), self._recorder)

    def _helpers(self, index: Searchable, helper: ChatModel | None) -> Helpers:
        dates = dated(index, self._settings.retrieve.date_key)
        return Helpers(helper, self._reranker, index.embedder, index.facets, dates, stored(index))

    def found(
        self,
        index: Searchable,
        question: str,
        k: int,
        where: Mapping[str, Any] | None,
        access: Collection[str],
        helper: ChatModel | None,
    ) -> Found:
        """`question` stands alone; `k`, `where` and `access` as of `Index.search`."""
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
            plain = index.search(question, max(k, SEARCHED), where, access=access, vector=vector)
            search = self.searched(index, helper)
            hits = plain[:k] if search is index else search.search(question, k, where, access=access, vector=vector)
            features = features_of(plain, lambda passages: index.coverage(question, passages))
            span.output = [
                {"document": h.citation.document, "start": h.citation.start, "end": h.citation.end, "score": h.score}
                for h in hits
            ]
        probability = float(self._settings.abstention.probabilities(features[None])[0])
        usage = Usage(input=embedded.tokens, output=0)
        return Found(question, hits, vector, features, probability, usage)
