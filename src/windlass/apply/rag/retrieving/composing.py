"""Which steps a search takes, as data, and the search that takes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from windlass.apply.rag.retrieving.decay import DatesOf, Decayed
from windlass.apply.rag.retrieving.feedback import Feedback
from windlass.apply.rag.retrieving.hyde import Hyde
from windlass.apply.rag.retrieving.mmr import Diverse, VectorsOf
from windlass.apply.rag.retrieving.multi_hop import MultiHop
from windlass.apply.rag.retrieving.multi_query import MultiQuery
from windlass.apply.rag.retrieving.rerank import Reranked
from windlass.apply.rag.retrieving.rewriting import Rewritten
from windlass.apply.rag.retrieving.self_query import Facets, SelfQuery
from windlass.core.errors import ConfigError, InputError
from windlass.core.protocols import ChatModel, Embedder, Index, Reranker
from windlass.core.trace import Recorder
from windlass.core.values import Message


@dataclass(frozen=True, slots=True)
class RetrieveSettings:
    """The steps around a search; none by default. In the order in which they are taken."""

    rewrite: bool = False
    """A question of a conversation is made to stand alone."""
    self_query: bool = False
    """Filters that the question names are applied."""
    again: int = 0
    """Searches after the first, at most, each for what a language model finds missing."""
    variants: int = 0
    """Other wordings of the question that are searched too."""
    imagined: int = 0
    """Passages that a language model writes as an answer, to search with their vectors (HyDE)."""
    feedback: int = 0
    """Best passages towards which the question's vector is moved before it is searched again."""
    reranker: str = ""
    """A model's folder, one of the workspace, or `provider:model`. Empty: nothing is reranked. A variant that is to
    stay what it is names a version: `ranker@2`."""
    rerank_depth: int = 20
    """Hits that the reranker reads."""
    rerank_weight: float = 1.0
    """Of the reranker's scores, against those of the search."""
    half_life: float = 0.0
    """Days in which a document loses half of its bonus for being new. 0: age does not matter."""
    date_key: str = "date"
    """Where the documents' metadata says when they were written."""
    diversity: float = 0.0
    """How much a hit loses for being like one above it: 1 less the relevance of maximal marginal relevance."""

    def __post_init__(self) -> None:
        counts = {"again": self.again, "variants": self.variants, "imagined": self.imagined, "feedback": self.feedback}
        for name, count in counts.items():
            if count < 0:
                raise InputError(f"retrieve.{name} is {count}, but must be 0 or more.")
        for name, share in {"rerank_weight": self.rerank_weight, "diversity": self.diversity}.items():
            if not 0 <= share <= 1:
                raise InputError(f"retrieve.{name} is {share}, but must be from 0 to 1.")
        if self.half_life < 0 or self.rerank_depth < 1:
            raise InputError("retrieve.half_life must be 0 or more days, retrieve.rerank_depth at least 1.")

    @property
    def asks(self) -> bool:
        """Whether some step asks a language model."""
        return self.rewrite or self.self_query or bool(self.again or self.variants or self.imagined)


@dataclass(frozen=True, slots=True)
class Helpers:
    """What steps need besides an index, each only where its step is taken."""

    model: ChatModel | None = None
    reranker: Reranker | None = None
    embedder: Embedder | None = None
    """The index's own."""
    facets: Facets | None = None
    dates_of: DatesOf | None = None
    vectors: VectorsOf | None = None
    """Left out, the embedder makes them."""
    history: Sequence[Message] = field(default=())
    """What was said before the question."""


def composed(index: Index, settings: RetrieveSettings, helpers: Helpers, recorder: Recorder | None = None) -> Index:
    """The search that `settings` describe. Raises `ConfigError` naming the helper that a step lacks."""
    found: Index = index
    if settings.feedback:
        embedder = _needed(helpers.embedder, "feedback", "the index's embedder")
        found = Feedback(found, embedder, helpers.vectors, settings.feedback, recorder=recorder)
    if settings.variants:
        found = MultiQuery(found, _needed(helpers.model, "variants", _MODEL), settings.variants, recorder=recorder)
    if settings.imagined:
        model = _needed(helpers.model, "imagined", _MODEL)
        embedder = _needed(helpers.embedder, "imagined", "the index's embedder")
        found = Hyde(found, model, embedder, settings.imagined, recorder=recorder)
    if settings.reranker:
        reranker = _needed(helpers.reranker, "reranker", "the reranker that it names, loaded")
        depth, weight = settings.rerank_depth, settings.rerank_weight
        found = Reranked(found, reranker, depth, weight=weight, recorder=recorder)
    if settings.half_life:
        dates_of = _needed(helpers.dates_of, "half_life", "an index that tells the metadata of its documents")
        found = Decayed(found, dates_of, settings.half_life, recorder=recorder)
    if settings.diversity:
        vectors = helpers.vectors or _needed(helpers.embedder, "diversity", "vectors of passages, or an embedder")
        found = Diverse(found, vectors, 1 - settings.diversity, recorder=recorder)
    if settings.again:  # around the reranker: what bridges to an answer is no answer to the question itself
        found = MultiHop(found, _needed(helpers.model, "again", _MODEL), settings.again, recorder=recorder)
    if settings.self_query:
        facets = _needed(helpers.facets, "self_query", "an index that tells the metadata of its documents")
        found = SelfQuery(found, _needed(helpers.model, "self_query", _MODEL), facets, recorder=recorder)
    if settings.rewrite:
        found = Rewritten(found, _needed(helpers.model, "rewrite", _MODEL), helpers.history, recorder=recorder)
    return found


_MODEL = "a language model"
T = TypeVar("T")


def _needed(helper: T | None, step: str, what: str) -> T:
    if helper is None:
        raise ConfigError(f"retrieve.{step} needs {what}.", "Leave the step out, or give it what it needs.")
    return helper
