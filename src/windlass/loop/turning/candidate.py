"""A candidate: the live variant with an adapter trained on the harvest, and settings fitted on the exam's `dev` split.

Nothing here ever receives a test question. Three recipes:

- `learned`: what a turn makes.
- `shuffled`: the answers are dealt out to the wrong questions and the last epoch is kept. Deliberately worse; a gate
  that lets it pass is broken.
- `same`: an adapter that changes nothing, under the incumbent's settings. For watching how often the gate errs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from windlass.apply.assistant import AssistantSettings
from windlass.apply.rag.answers.abstention import AbstentionRule, evidence, fit
from windlass.apply.rag.index import reindex
from windlass.apply.rag.indexes.fusion import SearchSettings
from windlass.apply.rag.indexes.search import HybridIndex
from windlass.build.adapt.contrastive import AdaptSettings, Examples, train_adapter
from windlass.core.artifacts import Artifact
from windlass.core.errors import InputError
from windlass.core.protocols import Embedder
from windlass.core.workspace import Workspace
from windlass.evaluate.exam.items import ExamItem, load_items
from windlass.evaluate.metrics.retrieval import judged_ranks, ndcg
from windlass.evaluate.statistics.paired import paired_difference
from windlass.loop.assistants.assemble import load_embedder
from windlass.loop.assistants.variant import VariantSpec, make_variant, parts, read_variant
from windlass.loop.harvesting.harvest import HarvestItem, check_leak, load_harvest

RecipeKind = Literal["learned", "shuffled", "same"]
Tell = Callable[[str], object]

WEIGHTS = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
"""Weights of the dense score among which the dev questions choose."""
CONTEXT_WEIGHTS = (1.0, 2.0, 4.0)
"""Weights of words in titles and headings among which they choose."""


@dataclass(frozen=True, slots=True)
class Known:
    """A question and the document that answers it."""

    question: str
    document: str
    cluster: str


@dataclass(frozen=True, slots=True)
class Recipe:
    kind: RecipeKind = "learned"
    seed: int = 0
    adapt: AdaptSettings = field(default_factory=AdaptSettings)
    candidates: int = 20
    """Passages that each question's own search puts into the pool that all questions are compared with."""
    pool: int = 12_000
    """Most passages in that pool; beyond it the rest is drawn at random."""


def first_variant(
    ws: Workspace, index: Artifact, exam: Artifact, embedder: Embedder, *, spec: VariantSpec | None = None
) -> Artifact:
    """The variant to begin with: the default search, and an abstention rule fitted on the exam's dev questions."""
    spec = spec or VariantSpec()
    opened = HybridIndex.open(index, embedder, None, spec.settings.search)
    settings = fit_abstention(opened, spec.settings, load_items(exam, "dev"))
    return make_variant(ws, replace(spec, settings=settings), index, card={"recipe": "first", "exam": exam.digest})


def variant_of_index(ws: Workspace, index: Artifact, task: str = "assistant") -> Artifact:
    """What answers from an index that was just built: fitted on the exam that it was built with, or with the default
    settings where it was built without. Raises `InputError` for an index whose embedder is not there."""
    spec = VariantSpec(task=task)
    exam = next((digest for role, digest in index.record.parents if role == "exam"), None)
    if exam is None:
        return make_variant(ws, spec, index, name=task)
    return first_variant(ws, index, ws.artifacts.get(exam), load_embedder(index), spec=spec)


def make_candidate(
    ws: Workspace,
    incumbent: Artifact,
    dataset: Artifact,
    exam: Artifact,
    embedder: Embedder,
    recipe: Recipe | None = None,
    *,
    key: str = "",
    tell: Tell = lambda _: None,
) -> Artifact:
    """Trains, adapts the index and fits the settings. The same arguments give the same variant.

    `key` goes on the card, for finding it again. Raises `InputError` when the dataset touches the exam's dev or test
    questions, or holds too little.
    """
    recipe = recipe or Recipe()
    check_leak(dataset, exam)
    spec = read_variant(incumbent)
    base = plain_index(ws, incumbent)
    dev = load_items(exam, "dev")
    opened = HybridIndex.open(base, embedder, None, spec.settings.search)
    search = spec.settings.search
    learned = load_harvest(dataset)
    if recipe.kind == "learned":  # the adapter is trained on top of the lexical scores that it will be fused with
        search = fit_search(opened, search, [*known(learned), *known(dev)], CONTEXT_WEIGHTS)
    opened = opened.with_settings(search)
    examples, facts = gather(opened, learned, dev, recipe)
    shape = f"{int((~examples.held).sum()):,} questions against {len(examples.passages):,} passages"
    tell(f"train an adapter ({recipe.kind}) on {shape}")
    adapter = train_adapter(
        ws,
        dataset,
        examples,
        embedder=embedder.digest,
        settings=_adapt_settings(recipe),
        seed=recipe.seed,
        name=f"{spec.task}-adapter",
        card={"recipe": recipe.kind, **facts},
        progress=lambda epoch, note: tell(f"epoch {epoch}: {note}"),
    )
    tell(f"adapt the index: {len(opened):,} passages")
    index = reindex(ws, base, adapter, name=f"{spec.task}-index")
    settings = spec.settings
    if recipe.kind != "same":
        adapted = HybridIndex.open(index, embedder, adapter, search)
        search = fit_search(adapted, search, known(dev), (search.context_weight,), near=spec.settings.search.dense)
        own, own_adapter = parts(ws, incumbent)
        live = HybridIndex.open(own, embedder, own_adapter, spec.settings.search)
        rule = keep_coverage(live, adapted.with_settings(search), settings.abstention, dev)
        settings = replace(settings, search=search, abstention=rule)
        tell(f"fitted on dev questions: dense weight {search.dense:g}, weight of titles {search.context_weight:g}")
    card = {"recipe": recipe.kind, "seed": recipe.seed, "turn": key}
    return make_variant(ws, replace(spec, settings=settings), index, adapter, card=card)


def plain_index(ws: Workspace, variant: Artifact) -> Artifact:
    """The variant's index before any adapter: every adapter starts from the embedder's own vectors."""
    index, adapter = parts(ws, variant)
    return index if adapter is None else ws.artifacts.get(index.parent("base"))


def _adapt_settings(recipe: Recipe) -> AdaptSettings:
    if recipe.kind == "shuffled":
        return replace(recipe.adapt, keep="last")
    if recipe.kind == "same":
        return replace(recipe.adapt, learning_rate=1e-30, epochs=1)  # `up` stays zero in float32: the identity
    return recipe.adapt


# what the adapter learns from ---------------------------------------------------------------------------------------


def gather(
    index: HybridIndex, items: Sequence[HarvestItem], dev: Sequence[ExamItem], recipe: Recipe
) -> tuple[Examples, dict[str, Any]]:
    """Vectors, lexical scores and answers of the harvested questions, and the facts for the adapter's card.

    The dev questions are held back, to choose the epoch; without any, a fifth of the harvested files is.
    """
    rows_of: dict[str, list[int]] = {}
    for row, document in enumerate(index.documents_of(np.arange(len(index)))):
        rows_of.setdefault(document, []).append(row)
    usable = [item for item in items if item.document in rows_of]
    if not usable:
        raise InputError(
            f"None of the {len(items):,} harvested documents is in the index.", "Harvest from traces of this index."
        )
    answers = [item.document for item in usable]
    if recipe.kind == "shuffled":
        answers = _dealt_wrongly(answers, recipe.seed)
    checks = [(item.question, item.document) for item in dev if item.document in rows_of]
    held = np.array([False] * len(usable) + [True] * len(checks))
    if not checks:
        held = _hold_back([item.cluster for item in usable], recipe.seed)
    questions = [item.question for item in usable] + [question for question, _ in checks]
    answers += [str(document) for _, document in checks]
    vectors = index.embed(questions).vectors
    needed = [*answers, *(document for item in usable for document in item.negatives if document in rows_of)]
    pool = _pool(index, questions, vectors, [row for document in needed for row in rows_of[document]], recipe)
    positive = np.zeros((len(questions), len(pool)), np.bool_)
    for number, answer in enumerate(answers):
        positive[number, np.searchsorted(pool, rows_of[answer])] = True
    examples = Examples(
        questions=vectors,
        passages=np.ascontiguousarray(index.vectors[pool]),
        lexical=_lexical(index, questions, pool),
        positive=positive,
        held=held,
    )
    return examples, {"harvested": len(items), "not_in_the_index": len(items) - len(usable), "pool": len(pool)}


def _hold_back(clusters: Sequence[str], seed: int, share: float = 0.2) -> np.ndarray:
    """Whole clusters, at least one, about `share` of the questions."""
    names, sizes = np.unique(clusters, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(names))
    taken = np.cumsum(sizes[order]) <= share * len(clusters)
    taken[0] = True
    return np.isin(clusters, names[order[taken]])


def _pool(
    index: HybridIndex, questions: Sequence[str], vectors: np.ndarray, needed: Sequence[int], recipe: Recipe
) -> np.ndarray:
    """Rows of the passages that all questions are compared with, ascending."""
    must = np.unique(np.array(needed, np.int64))
    found = [ranked.rows for ranked in index.rank_many(questions, recipe.candidates, vectors=vectors)]
    more = np.setdiff1d(np.unique(np.concatenate(found)), must)
    room = max(recipe.pool - len(must), 0)
    if len(more) > room:
        more = np.random.default_rng(recipe.seed).choice(more, room, replace=False)
    return np.sort(np.concatenate([must, more]))


def _lexical(index: HybridIndex, questions: Sequence[str], pool: np.ndarray) -> np.ndarray:
    """BM25 of the pool's passages, 1 for the best passage of the whole index, as the weighted fusion scales it."""
    scores = np.zeros((len(questions), len(pool)), np.float32)
    for number, terms in enumerate(index.lexical.tokenizer.terms(questions)):
        all_scores = index.lexical.scores(terms)
        most = float(all_scores.max(initial=0.0))
        if most > 0:
            scores[number] = all_scores[pool] / most
    return scores


def _dealt_wrongly(answers: Sequence[str], seed: int) -> list[str]:
    """The same answers, each given to the next question of a random order: hardly any is where it belongs."""
    order = np.random.default_rng(seed).permutation(len(answers))
    dealt = list(answers)
    for here, there in zip(order.tolist(), np.roll(order, 1).tolist(), strict=True):
        dealt[here] = answers[there]
    return dealt


# what is fitted on dev questions ------------------------------------------------------------------------------------


def known(items: Sequence[HarvestItem | ExamItem]) -> list[Known]:
    return [Known(item.question, item.document, item.cluster) for item in items if item.document is not None]


def fit_search(
    index: HybridIndex,
    search: SearchSettings,
    questions: Sequence[Known],
    contexts: Sequence[float],
    *,
    near: float | None = None,
) -> SearchSettings:
    """The weights of the weighted fusion with the best nDCG@10 on these questions; unchanged without any.

    With `near`, of all weights that are worse than the best by at most one standard error, the one closest to it is
    taken: a few hundred questions cannot tell them apart, and the smaller change is the surer one (the one-standard-
    error rule of Breiman et al. 1984, Classification and Regression Trees, 3.4.3).
    """
    if not questions:
        return search
    texts = [one.question for one in questions]
    vectors = index.embed(texts).vectors
    scores: dict[SearchSettings, NDArray[np.float64]] = {}
    for context in contexts:
        opened = index.with_settings(replace(search, context_weight=context))  # reads postings once for all weights
        for dense in WEIGHTS:
            option = replace(search, fusion="weighted", dense=dense, context_weight=context)
            rankings = opened.with_settings(option).rank_many(texts, 20, vectors=vectors)
            ranks = [
                _rank(one.document, index.documents_of(r.rows)) for one, r in zip(questions, rankings, strict=True)
            ]
            scores[option] = ndcg(judged_ranks(np.array(ranks), 10), 10)
    best = max(scores, key=lambda option: float(scores[option].mean()))
    if near is None:
        return best
    clusters = [one.cluster for one in questions]
    behind = {option: paired_difference(score, scores[best], clusters) for option, score in scores.items()}
    close = [option for option, lag in behind.items() if lag.difference.estimate <= lag.error]
    return min(close, key=lambda option: abs(option.dense - near))


def _rank(document: str, documents: Sequence[str]) -> int:
    """From 1, among distinct documents; 0 when it was not found."""
    distinct = list(dict.fromkeys(documents))
    return distinct.index(document) + 1 if document in distinct else 0


def fit_abstention(index: HybridIndex, settings: AssistantSettings, dev: Sequence[ExamItem]) -> AssistantSettings:
    """The abstention rule of the dev questions; unchanged when they do not hold both kinds."""
    answerable = [item.answerable for item in dev]
    if len(set(answerable)) < 2:
        return settings
    return replace(settings, abstention=fit(evidence(index, [item.question for item in dev]), answerable))


def keep_coverage(
    live: HybridIndex, candidate: HybridIndex, rule: AbstentionRule, dev: Sequence[ExamItem]
) -> AbstentionRule:
    """The live rule with the threshold at which the candidate answers as many answerable dev questions as live does.

    An adapter moves all similarities a little, and an unchanged threshold would mean something else. A rule fitted anew
    on a few dozen unanswerable questions would mean something else too: its threshold jumps from sample to sample.
    """
    questions = [item.question for item in dev if item.answerable]
    if not questions:
        return rule
    before, after = (np.sort(rule.probabilities(evidence(index, questions))) for index in (live, candidate))
    declined = int(np.searchsorted(before, rule.threshold))
    if declined == 0:
        return replace(rule, threshold=min(rule.threshold, float(after[0])))
    if declined == len(after):
        return replace(rule, threshold=max(rule.threshold, float(np.nextafter(after[-1], 1.0))))
    return replace(rule, threshold=float(after[declined - 1] + after[declined]) / 2)
