"""Candidates for a better assistant, each a variant that differs from the live one in one respect.

| name         | changes                                                                                              |
|--------------|------------------------------------------------------------------------------------------------------|
| `weights`    | how words and vectors are mixed, fitted on questions whose answers are known                         |
| `ranks`      | reciprocal rank fusion in place of mixed scores                                                      |
| `feedback`   | a second search with the question moved towards what the first one found                             |
| `diverse`    | passages that repeat others stand lower                                                              |
| `abstention` | when it says that there is no answer, fitted anew                                                    |
| `adapter`    | vectors that learned from users' questions (`candidate.py`), with hard negatives from the search |
| `reranker`   | a cross-encoder that learned from them reads the best passages                                       |
| `sentences`, `short` | other ways of cutting documents into passages                                                |

None of them sees a test question. What is fitted is fitted on dev questions, and on those harvested where the live
vectors have not learned from these already.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from windlass.apply.assistant import AssistantSettings
from windlass.apply.rag.chunking import ChunkSettings
from windlass.apply.rag.index import build_index, reindex
from windlass.apply.rag.indexes.fusion import SearchSettings
from windlass.apply.rag.indexes.search import HybridIndex
from windlass.apply.rag.retrieving.mmr import scaled
from windlass.apply.rag.retrieving.step import about
from windlass.build.adapt.recipe import TUNING
from windlass.build.adapt.tuning import tune
from windlass.core.artifacts import Artifact
from windlass.core.documents import read_documents
from windlass.core.errors import InputError
from windlass.core.files import sha256_json
from windlass.core.protocols import Embedder
from windlass.core.trace import Recorder
from windlass.core.workspace import Workspace
from windlass.evaluate.exam.items import ExamItem, load_items
from windlass.evaluate.exam.outcomes import METRICS, columns
from windlass.evaluate.exam.results import POLICY
from windlass.evaluate.experiments.stored import read_experiment
from windlass.evaluate.metrics.retrieval import judged_ranks, ndcg
from windlass.evaluate.policy import Policy
from windlass.evaluate.repeated import TOTAL_ERROR
from windlass.loop.assistants.assemble import cached, load_assistant, load_reranker
from windlass.loop.assistants.measure import measure
from windlass.loop.assistants.variant import make_variant, parts, read_variant, reader_of
from windlass.loop.harvesting.harvest import check_leak, load_harvest
from windlass.loop.harvesting.ranking import ranking_dataset
from windlass.loop.releasing.releases import live_variant
from windlass.loop.turning.candidate import (
    CONTEXT_WEIGHTS,
    Known,
    Recipe,
    fit_abstention,
    fit_search,
    keep_coverage,
    known,
    make_candidate,
    plain_index,
)
from windlass.loop.turning.comparison import compared, exam_of, made
from windlass.loop.turning.ground import Compared, Gain, Proposal, Tell
from windlass.loop.turning.race import Positions, Score

DECISIONS = ("right_decision", "right_outcome")
"""Metrics for which it matters when the assistant abstains."""
RANKED = 200
"""Questions below which no reranker is trained."""
RERANK_DEPTH = 10
RERANK_WEIGHTS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
_CHUNKS: Mapping[str, tuple[str, ChunkSettings]] = {
    "sentences": ("documents cut into windows of sentences", ChunkSettings.named("sentence")),
    "short": ("documents cut into shorter passages", ChunkSettings.named("structure", target=400)),
}
_TRIED = 64
"""Passages that are embedded to see how long all of them take."""


class Retrieval:
    """The `Ground` of an assistant over an index that was built with an exam. Made for one turn.

    `dataset`: harvested, curated, or made-up questions with their documents. Raises `InputError` when it touches dev or
    test questions, or the index has no exam.
    """

    def __init__(
        self,
        ws: Workspace,
        dataset: Artifact,
        *,
        task: str = "assistant",
        embedder: Embedder,
        recipe: Recipe | None = None,
        policy: Policy = POLICY,
        minutes: float = 3.0,
        total_error: float = TOTAL_ERROR,
        tell: Tell = lambda _: None,
    ) -> None:
        """`minutes`: of training the reranker."""
        self.task, self.dataset = task, dataset
        self._ws, self._tell, self._total, self._minutes = ws, tell, total_error, minutes
        self._embedder = cached(ws, embedder)
        self._recipe, self._policy = recipe or Recipe(), policy
        self.incumbent = live_variant(ws, task)
        self._base = plain_index(ws, self.incumbent)
        self._exam = exam_of(ws, self._base)
        check_leak(dataset, self._exam)
        self._spec = read_variant(self.incumbent)
        self._index, self._adapter = parts(ws, self.incumbent)

    @property
    def lesson(self) -> str:
        settings = [asdict(self._recipe), asdict(self._policy), self._minutes]
        return sha256_json([self.dataset.digest, self._exam.digest, settings])

    @cached_property
    def _dev(self) -> list[ExamItem]:
        """Those that the primary metric says something of."""
        items = load_items(self._exam, "dev")
        return items if self._policy.primary in DECISIONS else [item for item in items if item.answerable]

    @property
    def clusters(self) -> Sequence[str]:
        return [item.cluster for item in self._dev]

    @cached_property
    def test_questions(self) -> int:
        return len(load_items(self._exam, "test"))

    def spent(self) -> dict[str, float]:
        return {}

    def go_on(self, spent: Mapping[str, float]) -> None:
        """No language model is asked."""

    # candidates -----------------------------------------------------------------------------------------------------

    def proposals(self) -> list[Proposal]:
        settings = self._spec.settings
        retrieve = settings.retrieve
        found = [
            Proposal("weights", "another weight of words against meaning in the search", self._weights),
            Proposal("ranks", "rankings by words and by meaning fused by rank alone", self._ranks),
        ]
        if not retrieve.feedback:
            moved = replace(settings, retrieve=replace(retrieve, feedback=2))
            what = "a second search, moved towards what the first one found"
            found.append(Proposal("feedback", what, partial(self._same_index, moved)))
        if not retrieve.diversity:
            varied = replace(settings, retrieve=replace(retrieve, diversity=0.1))
            found.append(
                Proposal("diverse", "passages that repeat others stand lower", partial(self._same_index, varied))
            )
        if self._policy.primary in DECISIONS:
            found.append(Proposal("abstention", "when it says that it does not know, fitted anew", self._abstention))
        found.append(Proposal("adapter", "a search that learned from the questions", self._learned))
        reranker = Proposal(
            "reranker", "a second model that learned from the questions reads the best passages", self._reranker,
            self._minutes + 0.002 * len(self._dev),
        )  # fmt: skip
        found.append(reranker)
        return found + [
            Proposal(name, what, partial(self._cut, cut), self._embedding_minutes)
            for name, (what, cut) in _CHUNKS.items()
        ]

    def _weights(self, key: str) -> Artifact:
        """Fitted on harvested questions too, unless the live vectors learned from them and look too good there."""
        questions = known(self._dev) if self._adapter is not None else self._known()
        search = fit_search(self._live, self._live.settings, questions, CONTEXT_WEIGHTS)
        return self._same_index(self._covering(self._live.with_settings(search), search), key)

    def _ranks(self, key: str) -> Artifact:
        search = replace(self._live.settings, fusion="rrf", dense=0.5)
        return self._same_index(self._covering(self._live.with_settings(search), search), key)

    def _abstention(self, key: str) -> Artifact:
        return self._same_index(fit_abstention(self._live, self._spec.settings, load_items(self._exam, "dev")), key)

    def _learned(self, key: str) -> Artifact:
        return make_candidate(
            self._ws, self.incumbent, self.dataset, self._exam, self._embedder, self._recipe, key=key, tell=self._tell
        )

    def _reranker(self, key: str) -> Artifact:
        name = f"{self.task}-reranker"
        items = load_harvest(self.dataset)
        if len(items) < RANKED:
            raise InputError(f"{len(items):,} questions are too few to learn ranking from, it takes {RANKED:,}.")
        rows = ranking_dataset(
            self._ws, self._index, self._embedder, questions=self.dataset, most=len(items), name=f"{self.task}-ranking"
        )
        changes = {
            "data.dataset": rows.digest, "data.overlong": "cut", "model.context": 192, "data.heldout": 0.05,
            "schedule.minutes": self._minutes, "run.name": name, "run.seed": self._recipe.seed,
        }  # fmt: skip
        model = tune(self._ws, TUNING.read("rank", changes), say=self._say)
        weight = self._rerank_weight(model.ref)
        retrieve = replace(
            self._spec.settings.retrieve, reranker=model.ref, rerank_depth=RERANK_DEPTH, rerank_weight=weight
        )
        return self._same_index(replace(self._spec.settings, retrieve=retrieve), key)

    def _say(self, line: str) -> None:
        self._tell(line)

    def _rerank_weight(self, model: str) -> float:
        """The weight of the reranker against the search that is best on dev questions."""
        reranker = load_reranker(self._ws, model)
        questions = known(self._dev)
        found = self._live.search_many([one.question for one in questions], RERANK_DEPTH)
        judged = [
            (one, hits, scaled(list(reranker.rank(one.question, [about(hit) for hit in hits]).scores)))
            for one, hits in zip(questions, found, strict=True)
            if hits
        ]

        def quality(weight: float) -> float:
            ranks = []
            for one, hits, scores in judged:
                mixed = weight * scores + (1 - weight) * scaled([hit.score for hit in hits])
                order = [hits[i].citation.document for i in np.argsort(-mixed, kind="stable")]
                ranks.append(_rank(one, order))
            return float(ndcg(judged_ranks(np.array(ranks), 10), 10).mean()) if ranks else 0.0

        return max(RERANK_WEIGHTS, key=quality)

    def _cut(self, settings: ChunkSettings, key: str) -> Artifact:
        """Another index of the same documents, with the live adapter if there is one."""
        name = f"{self.task}-index"
        corpus = self._ws.artifacts.get(self._base.parent("corpus"))
        index = build_index(
            self._ws, corpus, self._embedder, exam=self._exam, kinds=self._kinds(corpus), settings=settings, name=name
        )
        if self._adapter is not None:
            index = reindex(self._ws, index, self._adapter, name=name)
        opened = HybridIndex.open(index, self._embedder, self._adapter, self._spec.settings.search)
        spec = replace(self._spec, settings=self._covering(opened, self._spec.settings.search))
        return make_variant(self._ws, spec, index, self._adapter, reader=self._reader, card={"turn": key})

    def _kinds(self, corpus: Artifact) -> set[str] | None:
        """Of the documents that the live index holds; None: all."""
        held = set(self._live.documents_of(np.arange(len(self._live))))
        kinds: dict[bool, set[str]] = {True: set(), False: set()}
        for document in read_documents(corpus.path / "documents.jsonl"):
            kinds[document.id in held].add(str(document.metadata.get("kind", "")))
        return kinds[True] if kinds[False] - kinds[True] else None

    @cached_property
    def _embedding_minutes(self) -> float:
        """About how long all passages take to embed."""
        texts = [passage.quote for passage in self._live.passages()[:_TRIED]]
        began = time.perf_counter()
        self._embedder.embed([f"{text} " for text in texts])  # with a space more: not as the cache has them
        return (time.perf_counter() - began) / max(1, len(texts)) * len(self._live) / 60 * 1.2

    # parts ----------------------------------------------------------------------------------------------------------

    @cached_property
    def _live(self) -> HybridIndex:
        return HybridIndex.open(self._index, self._embedder, self._adapter, self._spec.settings.search)

    @property
    def _reader(self) -> Artifact | None:
        return reader_of(self._ws, self.incumbent)

    def _known(self) -> list[Known]:
        return [*known(load_harvest(self.dataset)), *known(self._dev)]

    def _covering(self, opened: HybridIndex, search: SearchSettings) -> AssistantSettings:
        """The live settings with this search, and the threshold that answers as many dev questions as before."""
        rule = keep_coverage(self._live, opened, self._spec.settings.abstention, load_items(self._exam, "dev"))
        return replace(self._spec.settings, search=search, abstention=rule)

    def _same_index(self, settings: AssistantSettings, key: str) -> Artifact:
        spec = replace(self._spec, settings=settings)
        return make_variant(self._ws, spec, self._index, self._adapter, reader=self._reader, card={"turn": key})

    # what judges them -----------------------------------------------------------------------------------------------

    def score(self, variant: Artifact) -> Score:
        assistant = load_assistant(self._ws, variant, embedder=self._embedder, recorder=Recorder(None))
        metric = METRICS[self._policy.primary]
        sign = 1.0 if metric.better == "higher" else -1.0

        def values(positions: Positions) -> NDArray[np.float64]:
            items = [self._dev[at] for at in positions.tolist()]
            found = columns(items, measure(assistant, items))
            return np.where(metric.applies(found), sign * metric.values(found), np.nan)

        return values

    def compare(self, name: str, candidate: Artifact, key: str, lesson: str) -> Compared:
        own = sha256_json([key, candidate.digest])
        experiment = made(self._ws, "experiment", own) or compared(
            self._ws,
            self.incumbent,
            candidate,
            self.dataset,
            self._exam,
            self._embedder,
            self._total,
            {"turn": own, "lesson": lesson, "of": key, "origin": name},
            self._policy,
        )
        return self.compared(experiment)

    def compared(self, experiment: Artifact) -> Compared:
        found = read_experiment(experiment)
        shown = dict.fromkeys((found.policy.primary, "recall@1", *found.policy.guards))
        gains = []
        for name in shown:
            if any(one.metric == name for one in found.comparisons):
                one = found.comparison(name)
                share = METRICS[name].bounds == (0.0, 1.0)
                what = _SAID.get(name, one.label)
                sides = one.incumbent.estimate, one.candidate.estimate
                gains.append(Gain(what, *sides, one.difference, share, one.direction))
        return Compared.of(self._ws, experiment, gains)


_SAID: Mapping[str, str] = {
    "ndcg@10": "How near the top the right document stands (nDCG@10)",
    "recall@1": "Questions for which the right document comes first",
    "right_decision": "Questions rightly answered, or rightly left without an answer",
}


def _rank(one: Known, documents: Sequence[str]) -> int:
    distinct = list(dict.fromkeys(documents))
    return distinct.index(one.document) + 1 if one.document in distinct else 0
