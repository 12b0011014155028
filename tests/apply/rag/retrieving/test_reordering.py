"""Steps that choose among hits: maximal marginal relevance, decay with age, reranking."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.apply.rag.retrieving.small_index import SmallIndex, named

from windlass.apply.rag.retrieving import Decayed, Diverse, Reranked
from windlass.apply.rag.retrieving.decay import when
from windlass.apply.rag.retrieving.mmr import chosen, scaled
from windlass.core.errors import InputError, ProviderError
from windlass.core.protocols import Hit, Relevance, Reranker

NOW = datetime(2026, 11, 22, tzinfo=UTC)
scores = st.lists(st.floats(-5, 5, allow_subnormal=False), min_size=1, max_size=12)


class Given:
    """An index whose hits have these scores, best first; the same `Hit`s at every search."""

    digest = "1" * 64

    def __init__(self, scores: Sequence[float]) -> None:
        index = SmallIndex()
        self.hits = [index.hit(0, score) for score in sorted(scores, reverse=True)]
        self.hits = [Hit(n, hit.score, hit.citation) for n, hit in enumerate(self.hits)]

    def __len__(self) -> int:
        return len(self.hits)

    def search(self, query: str, k: int = 10, where: Any = None, **_: Any) -> list[Hit]:
        return self.hits[:k]


class Says:
    """A reranker that gives these scores."""

    name, digest = "says", None

    def __init__(self, scores: Sequence[float]) -> None:
        self.scores = scores
        self.read: list[str] = []

    def rank(self, query: str, documents: Sequence[str]) -> Relevance:
        self.read = list(documents)
        return Relevance(self.scores[: len(documents)], 7, truncated=1)


def random_vectors(count: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, 6)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


# maximal marginal relevance -------------------------------------------------------------------------------------------


@given(scores, st.integers(1, 12))
def test_with_a_relevance_of_one_the_order_is_the_searchs(found: list[float], k: int) -> None:
    index = Given(found)
    order = chosen(scaled([hit.score for hit in index.hits]), random_vectors(len(found)), k, 1.0)
    assert order == list(range(min(k, len(found))))
    assert Diverse(index, lambda hits: random_vectors(len(hits)), 1.0).search("q", k) == index.hits[:k]


@given(scores, st.integers(1, 12), st.floats(0, 1))
def test_it_chooses_k_different_hits_and_the_best_first(found: list[float], k: int, relevance: float) -> None:
    index = Given(found)
    hits = Diverse(index, lambda hits: random_vectors(len(hits)), relevance).search("q", k)
    assert len(hits) == len({hit.passage for hit in hits}) == min(k, len(found))
    if relevance > 0:
        assert hits[0].score == index.hits[0].score


def test_of_two_that_say_the_same_one_waits() -> None:
    index = SmallIndex()
    query = "how many litres of water does the red pump move, Ada"
    assert named(index.search(query, 2)) == ["pump", "pump-again"]
    diverse = named(Diverse(index, index.embedder, 0.3).search(query, 2))
    assert diverse[0] == "pump" and diverse[1] != "pump-again"


def test_it_is_the_definition() -> None:
    fits, vectors = np.array([1.0, 0.9, 0.4, 0.2]), random_vectors(4, seed=3)
    left, order = {0, 1, 2, 3}, []
    while left:
        worth = {
            i: 0.6 * fits[i] - 0.4 * max((float(vectors[i] @ vectors[j]) for j in order), default=0.0) for i in left
        }
        order.append(max(sorted(left), key=lambda i: worth[i]))
        left.remove(order[-1])
    assert chosen(fits, vectors, 4, 0.6) == order


# decay ----------------------------------------------------------------------------------------------------------------


def decayed(index: Any, ages: Sequence[float | None], **settings: Any) -> list[Hit]:
    dates = {n: None if age is None else NOW - timedelta(days=age) for n, age in enumerate(ages)}
    return Decayed(index, lambda hits: [dates[hit.passage] for hit in hits], now=lambda: NOW, **settings).search(
        "q", len(ages)
    )


@given(st.lists(st.floats(0, 5000), min_size=2, max_size=8), st.floats(1, 400), st.floats(0, 1))
def test_of_equal_hits_the_older_one_is_never_put_first(ages: list[float], half_life: float, share: float) -> None:
    hits = decayed(Given([1.0] * len(ages)), ages, half_life=half_life, share=share)
    assert {hit.passage for hit in hits} == set(range(len(ages)))
    for before, after in pairwise(hits):
        assert before.score >= after.score
        assert ages[before.passage] <= ages[after.passage] or math.isclose(before.score, after.score)


@given(scores)
def test_with_a_share_of_nothing_age_does_not_matter(found: list[float]) -> None:
    ages = [float(n * 100) for n in range(len(found))][::-1]
    hits = decayed(Given(found), ages, half_life=30, share=0.0)
    assert [hit.passage for hit in hits] == list(range(len(found)))


def test_a_half_life_halves() -> None:
    hits = decayed(Given([1.0, 1.0, 1.0, 1.0]), [0, 30, 60, None], half_life=30, share=1.0)
    assert {hit.passage: hit.score for hit in hits} == pytest.approx({0: 1.0, 1: 0.5, 2: 0.25, 3: 0.5})
    assert decayed(Given([1.0]), [-10], half_life=30, share=1.0)[0].score == 1.0, "the future has no age"


def test_scores_below_nothing_do_not_gain_by_age() -> None:
    hits = decayed(Given([-1.0, -2.0, -2.0]), [0, 10, 1000], half_life=30, share=1.0)
    assert [hit.passage for hit in hits] == [0, 1, 2]


@pytest.mark.parametrize(
    ("value", "at"),
    [
        ("2023-05-04", datetime(2023, 5, 4, tzinfo=UTC)),
        ("2023-05", datetime(2023, 5, 1, tzinfo=UTC)),
        ("2023", datetime(2023, 1, 1, tzinfo=UTC)),
        (2023, datetime(2023, 1, 1, tzinfo=UTC)),
        (date(2023, 5, 4), datetime(2023, 5, 4, tzinfo=UTC)),
        (datetime(2023, 5, 4), datetime(2023, 5, 4, tzinfo=UTC)),
        ("2023-05-04T10:00:00+02:00", datetime(2023, 5, 4, 8, tzinfo=UTC)),
        ("2023-05-04T10:00:00Z", datetime(2023, 5, 4, 10, tzinfo=UTC)),
        ("Thu, 04 May 2023 10:00:00 +0200", datetime(2023, 5, 4, 8, tzinfo=UTC)),
        (1_683_187_200, datetime(2023, 5, 4, 8, tzinfo=UTC)),
        *((nothing, None) for nothing in (None, "", "soon", True, [], "2023-13-01", float("inf"), float("nan"), 1e30)),
    ],
)
def test_dates_as_metadata_holds_them(value: Any, at: datetime | None) -> None:
    assert when(value) == at


# reranking ------------------------------------------------------------------------------------------------------------


@given(scores, st.integers(1, 12), st.floats(0, 1))
def test_reranking_keeps_the_set(found: list[float], k: int, weight: float) -> None:
    index, reranker = Given(found), Says(list(np.random.default_rng(1).normal(size=12)))
    hits = Reranked(index, reranker, 12, weight=weight).search("q", k)
    assert len(hits) == min(k, len(found)) and {hit.passage for hit in hits} <= set(range(len(found)))
    whole = Reranked(index, reranker, 12, weight=weight).search("q", len(found))
    assert {hit.passage for hit in whole} == set(range(len(found))) and whole[: len(hits)] == hits
    if weight == 0:
        assert [hit.passage for hit in whole] == list(range(len(found)))


def test_what_is_asked_for_beyond_the_depth_follows_in_order() -> None:
    index, reranker = Given([9.0, 8.0, 7.0, 6.0, 6.0]), Says([0.1, 0.2, 0.9])
    hits = Reranked(index, reranker, 3).search("q", 5)
    assert [hit.passage for hit in hits] == [2, 1, 0, 3, 4] and len(reranker.read) == 3
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_the_reranker_reads_passages_below_their_titles_and_its_score_stands_on_the_hit() -> None:
    assert isinstance(Says([]), Reranker)
    reranker = Says([0.1, 0.9, 0.5])
    hits = Reranked(SmallIndex(), reranker, 3).search("red pump", 2)
    assert reranker.read[0].startswith("Pump\nThe red pump moves")
    assert named(hits) == ["pump-again", "ada"]
    assert hits[0].parts["rerank"] == 0.9 and "words" in hits[0].parts and hits[0].score == 1.0


@pytest.mark.parametrize("wrong", [[0.1], [0.1, float("nan"), 0.2]])
def test_scores_that_mean_nothing_are_not_used(wrong: list[float]) -> None:
    index = SmallIndex()
    assert Reranked(index, Says(wrong), 3).search("red pump", 3) == index.search("red pump", 3)


@pytest.mark.parametrize(
    "make",
    [
        lambda index: Diverse(index, index.embedder, 1.5),
        lambda index: Diverse(index, index.embedder, depth=0),
        lambda index: Decayed(index, lambda hits: [], 0),
        lambda index: Decayed(index, lambda hits: [], float("nan")),
        lambda index: Reranked(index, Says([]), weight=-1),
        lambda index: Reranked(index, Says([]), 0),
    ],
)
def test_settings_that_mean_nothing_are_refused(make: Any) -> None:
    with pytest.raises(InputError):
        make(SmallIndex())


def test_a_fault_of_the_program_is_not_a_fallback() -> None:
    class Broken(Says):
        def rank(self, query: str, documents: Sequence[str]) -> Relevance:
            raise KeyError("a mistake")

    with pytest.raises(KeyError):
        Reranked(SmallIndex(), Broken([])).search("red pump", 3)
    assert issubclass(ProviderError, Exception)
