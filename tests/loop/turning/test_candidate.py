"""What a candidate is trained on and fitted to, against the search it will be part of."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from tests.loop.loop_world import NoisyEmbedder, make_world

from windlass.apply.rag.answers.abstention import AbstentionRule, evidence
from windlass.apply.rag.indexes.fusion import SearchSettings
from windlass.apply.rag.indexes.search import HybridIndex
from windlass.core.errors import InputError
from windlass.core.workspace import Workspace
from windlass.evaluate.exam.items import ExamItem, load_items
from windlass.loop.harvesting.harvest import HarvestItem
from windlass.loop.turning.candidate import WEIGHTS, Recipe, _dealt_wrongly, fit_search, gather, keep_coverage, known


@pytest.fixture(scope="module")
def ws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    with make_world(tmp_path_factory.mktemp("candidate"), pages=120) as workspace:
        yield workspace


@pytest.fixture(scope="module")
def index(ws: Workspace) -> HybridIndex:
    return HybridIndex.open(ws.artifacts.get("index"), NoisyEmbedder())


def items(ws: Workspace, split: str) -> list[ExamItem]:
    return [i for i in load_items(ws.artifacts.get("exam")) if i.split == split and i.answerable]


def harvested(ws: Workspace) -> list[HarvestItem]:
    return [
        HarvestItem(i.id, i.question, str(i.document), [], "corrected", i.cluster, []) for i in items(ws, "harvest")
    ]


def test_examples_hold_every_answer_and_what_searches_find(ws: Workspace, index: HybridIndex) -> None:
    learned, dev = harvested(ws), items(ws, "dev")
    examples, facts = gather(index, learned, dev, Recipe(candidates=5))
    assert examples.held.sum() == len(dev)
    assert len(examples.questions) == len(learned) + len(dev)
    assert facts["pool"] == len(examples.passages) < len(index)
    assert len(np.unique(index.vectors, axis=0)) == len(index)  # so that a vector tells which passage it is
    rows = [np.flatnonzero((index.vectors == vector).all(1))[0] for vector in examples.passages]
    for number, item in enumerate(learned):
        answers = {index.documents_of(np.array([rows[at]]))[0] for at in np.flatnonzero(examples.positive[number])}
        assert answers == {item.document}
    for number, ranked in enumerate(index.rank_many([item.question for item in learned], 5)):
        assert set(ranked.rows.tolist()) <= set(rows)
        scores = index.lexical.scores(index.lexical.tokenizer.terms([learned[number].question])[0])
        np.testing.assert_allclose(examples.lexical[number] * scores.max(), scores[rows], atol=1e-5)
    assert examples.lexical.max() == pytest.approx(1.0)


def test_a_small_pool_keeps_all_answers(ws: Workspace, index: HybridIndex) -> None:
    examples, _ = gather(index, harvested(ws), items(ws, "dev"), Recipe(pool=10))
    assert examples.positive.any(1).all()
    assert len(examples.passages) == examples.positive.any(0).sum()


def test_without_dev_questions_whole_files_are_held_back(ws: Workspace, index: HybridIndex) -> None:
    learned = harvested(ws)
    examples, _ = gather(index, learned, [], Recipe())
    assert 0 < examples.held.sum() < 0.4 * len(learned)


def test_unknown_documents_are_counted_and_none_is_refused(ws: Workspace, index: HybridIndex) -> None:
    stranger = HarvestItem("x", "Where?", "no such document", [], "approved", "c", [])
    _, facts = gather(index, [*harvested(ws), stranger], items(ws, "dev"), Recipe())
    assert facts["not_in_the_index"] == 1
    with pytest.raises(InputError, match="None of the 1 harvested"):
        gather(index, [stranger], items(ws, "dev"), Recipe())


def test_shuffled_answers_are_the_same_answers_elsewhere() -> None:
    answers = [f"d{i}" for i in range(100)]
    dealt = _dealt_wrongly(answers, 3)
    assert sorted(dealt) == sorted(answers)
    assert not any(a == b for a, b in zip(answers, dealt, strict=True))


def test_fitted_weights_are_the_best_of_those_tried(ws: Workspace, index: HybridIndex) -> None:
    questions = known(items(ws, "dev"))
    fitted = fit_search(index, SearchSettings("rrf", dense=0.5), questions, (1.0, 4.0))
    assert fitted.fusion == "weighted"
    assert fit_search(index, fitted, questions, (1.0, 4.0)) == fitted

    def quality(search: SearchSettings) -> float:
        found = index.with_settings(search).search_many([one.question for one in questions], 20)
        scores = []
        for one, hits in zip(questions, found, strict=True):
            documents = list(dict.fromkeys(hit.citation.document for hit in hits))[:10]
            place = documents.index(one.document) + 1 if one.document in documents else None
            scores.append(1 / np.log2(place + 1) if place else 0.0)
        return float(np.mean(scores))

    options = [SearchSettings("weighted", w, context_weight=c) for w in WEIGHTS for c in (1.0, 4.0)]
    assert quality(fitted) == pytest.approx(max(map(quality, options)))
    assert fit_search(index, SearchSettings(), [], (1.0,)) == SearchSettings()


def test_near_keeps_to_what_is_live_as_far_as_noise_allows(ws: Workspace, index: HybridIndex) -> None:
    few = known(items(ws, "dev"))[:4]  # with so few questions nearly every weight is within the noise
    weights = {near: fit_search(index, SearchSettings(), few, (1.0,), near=near).dense for near in (0.5, 0.95)}
    assert weights[0.5] <= weights[0.95]
    best = fit_search(index, SearchSettings(), few, (1.0,))
    assert fit_search(index, SearchSettings(), few, (1.0,), near=best.dense) == best


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.7, 1.0])
def test_the_candidate_answers_as_many_as_the_live_one(ws: Workspace, index: HybridIndex, threshold: float) -> None:
    rule = AbstentionRule(threshold=threshold)
    dev = items(ws, "dev")
    questions = [item.question for item in dev]
    other = index.with_settings(SearchSettings(dense=0.95, context_weight=4.0))
    kept = keep_coverage(index, other, rule, load_items(ws.artifacts.get("exam"), "dev"))
    live = rule.probabilities(evidence(index, questions)) >= rule.threshold
    changed = kept.probabilities(evidence(other, questions)) >= kept.threshold
    assert changed.sum() == live.sum()
    assert (kept.bias, kept.weights) == (rule.bias, rule.weights)
    assert keep_coverage(index, other, rule, []) == rule
