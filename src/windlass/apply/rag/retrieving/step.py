"""What every step of retrieval shares: it is searched as an index is, and searches another one.

What is asked for travels as one value from step to step, so that no step can forget the filter or the labels of who
asks: those are what keeps documents from people who may not see them.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from windlass.apply.prompts import prompt
from windlass.apply.tasks.running import asked as call_of
from windlass.apply.tasks.running import note
from windlass.core import semconv
from windlass.core.errors import ProviderError, WindlassError
from windlass.core.protocols import BatchIndex, ChatModel, Hit, Index
from windlass.core.spans import Span
from windlass.core.trace import Recorder
from windlass.core.values import ChatRequest, Message

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Asked:
    """A search: the arguments of `Index.search`."""

    query: str
    k: int = 10
    where: Mapping[str, Any] | None = None
    access: Collection[str] = ()
    vector: NDArray[np.float32] | None = None

    def on(self, index: Index) -> list[Hit]:
        return index.search(self.query, self.k, self.where, access=self.access, vector=self.vector)

    def on_each(self, index: Index, queries: Sequence[str]) -> list[list[Hit]]:
        """What the same search finds with other words, distinct ones; all at once where the index can do that. A vector
        is of the query itself, which is searched apart then."""
        if not isinstance(index, BatchIndex):
            return [self.instead(query).on(index) for query in queries]
        together = [query for query in queries if self.vector is None or query != self.query]
        many = index.search_many(together, self.k, self.where, access=self.access) if together else []
        found = dict(zip(together, many, strict=True))
        return [found[query] if query in found else self.on(index) for query in queries]

    def instead(self, query: str) -> Asked:
        """The same with other words. A vector was of the old ones."""
        return self if query == self.query else replace(self, query=query, vector=None)

    def deep(self, depth: int) -> Asked:
        """The same with at least so many hits, for a step that chooses among them."""
        return replace(self, k=max(self.k, depth))


class Step(abc.ABC):
    """Implements `core.protocols.Index` on top of another. Safe to share between threads."""

    name: ClassVar[str]
    """Of its spans."""

    def __init__(self, index: Index, recorder: Recorder | None = None) -> None:
        self.index = index
        self.recorder = recorder or Recorder(None)

    @property
    def digest(self) -> str:
        return self.index.digest

    def __len__(self) -> int:
        return len(self.index)

    def search(
        self,
        query: str,
        k: int = 10,
        where: Mapping[str, Any] | None = None,
        *,
        access: Collection[str] = (),
        vector: NDArray[np.float32] | None = None,
    ) -> list[Hit]:
        with self.recorder.span(self.name, "retrieval") as span:
            span.input = query
            span[semconv.RETRIEVAL_TOP_K] = k
            hits = self._search(Asked(query, k, where, access, vector), span)
            span.output = [
                {"document": h.citation.document, "start": h.citation.start, "end": h.citation.end, "score": h.score}
                for h in hits
            ]
        return hits

    @abc.abstractmethod
    def _search(self, asked: Asked, span: Span) -> list[Hit]: ...

    def _helped(self, span: Span, help: Callable[[], T]) -> T | None:
        """What a helper gives, or None where it fails: then the span says why, and the search goes on without."""
        try:
            return help()
        except WindlassError as error:
            span[semconv.FALLBACK] = f"{type(error).__name__}: {error.message}"
            return None

    def _said(self, model: ChatModel, name: str, question: str, *, tokens: int = 400) -> str:
        """What the model answers when it is told `NAME.md` of the prompts. A span of its own says what that cost.
        Raises `WindlassError`."""
        rules, digest = prompt(name)
        messages = [Message("system", rules), Message("user", question)]
        request = ChatRequest(messages, max_tokens=tokens)
        with call_of(self.recorder, model, request) as span:
            span[semconv.PROMPT_NAME] = name
            span[semconv.PROMPT_DIGEST] = digest
            response = model.complete(request)
            note(span, response)
        text = response.message.text.strip()
        if not text:
            raise ProviderError(f"{model.name} answered without a word ({response.finish_reason}).")
        return text


def fused(lists: Sequence[Sequence[Hit]], k: int, rrf_k: int = 60) -> list[Hit]:
    """The best `k` of several rankings by reciprocal rank fusion (Cormack, Clarke & Büttcher, SIGIR 2009). Each hit
    keeps the `parts` of the ranking that names it first; of equals the one that was met first comes first."""
    found: dict[int, Hit] = {}
    scores: dict[int, float] = {}
    for hits in lists:
        for rank, hit in enumerate(hits, start=1):
            found.setdefault(hit.passage, hit)
            scores[hit.passage] = scores.get(hit.passage, 0.0) + 1.0 / (rrf_k + rank)
    best = sorted(found, key=lambda passage: -scores[passage])[:k]
    return [replace(found[passage], score=scores[passage]) for passage in best]


def about(hit: Hit, longest: int = 120) -> str:
    """What a passage says, below where it stands: as passages are embedded."""
    c = hit.citation
    above = " > ".join(part for part in (c.title, c.heading) if part)[:longest]
    return f"{above}\n{c.quote}" if above else c.quote
