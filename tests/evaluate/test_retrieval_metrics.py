"""Retrieval metrics beside scikit-learn and beside a plain reading of the TREC definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from windlass.core.errors import InputError
from windlass.evaluate.metrics.retrieval import (
    average_precision,
    hit,
    judge,
    judged_ranks,
    ndcg,
    precision,
    r_precision,
    recall,
    reciprocal_rank,
)

RANKINGS = [["d1", "d2", "d3", "d4", "d5"], ["d9", "d2"], [], ["d3"]]
RELEVANCES = [{"d2": 3, "d5": 1, "d8": 2, "d1": 0}, {"d2": 1}, {"d1": 1, "d2": 1}, {"d3": 2}]


def test_by_hand() -> None:
    """Every figure worked out on paper from trec_eval's definitions (recall.k, success.k, recip_rank, ndcg_cut.k)."""
    judged = judge(RANKINGS, RELEVANCES)
    assert recall(judged, 5) == pytest.approx([2 / 3, 1, 0, 1])
    assert recall(judged, 2) == pytest.approx([1 / 3, 1, 0, 1])
    assert hit(judged, 1) == pytest.approx([0, 0, 0, 1])
    assert hit(judged, 5) == pytest.approx([1, 1, 0, 1])
    assert reciprocal_rank(judged) == pytest.approx([1 / 2, 1 / 2, 0, 1])
    assert reciprocal_rank(judged, 1) == pytest.approx([0, 0, 0, 1])
    first = (3 / math.log2(3) + 1 / math.log2(6)) / (3 + 2 / math.log2(3) + 1 / math.log2(4))
    assert ndcg(judged, 5) == pytest.approx([first, 1 / math.log2(3), 0, 1])
    assert ndcg(judged, 2)[0] == pytest.approx((3 / math.log2(3)) / (3 + 2 / math.log2(3)))
    steep = (7 / math.log2(3) + 1 / math.log2(6)) / (7 + 3 / math.log2(3) + 1 / math.log2(4))
    assert ndcg(judged, 5, "exponential")[0] == pytest.approx(steep)


@settings(max_examples=100, deadline=None)
@given(
    relevance=st.lists(st.integers(0, 4), min_size=2, max_size=30).filter(any),
    k=st.integers(1, 35),
    seed=st.integers(0, 2**32 - 1),
)
def test_ndcg_is_scikit_learns(relevance: list[int], k: int, seed: int) -> None:
    scores = np.random.default_rng(seed).permutation(len(relevance)).astype(float)
    ranking = [str(i) for i in np.argsort(-scores)]
    judged = judge([ranking], [{str(i): r for i, r in enumerate(relevance)}])
    assert ndcg(judged, k)[0] == pytest.approx(ndcg_score([relevance], [scores], k=k))


@settings(max_examples=50, deadline=None)
@given(ranks=st.lists(st.integers(0, 30), min_size=1, max_size=20), k=st.integers(1, 25))
def test_ranks_are_a_short_form_of_rankings(ranks: list[int], k: int) -> None:
    rankings = [[f"x{i}" if i != rank else "right" for i in range(1, 21)] for rank in ranks]
    long, short = judge(rankings, [{"right": 1.0}] * len(ranks)), judged_ranks(np.array(ranks), 20)
    for metric in (recall, hit, ndcg):
        assert metric(long, k) == pytest.approx(metric(short, k))
    assert reciprocal_rank(long) == pytest.approx(reciprocal_rank(short))


@pytest.mark.parametrize(
    ("rankings", "relevances", "message"),
    [
        ([], [], "no rankings"),
        ([["a"]], [], "1 rankings but 0"),
        ([["a"]], [{"a": 0}], "Item 1 has no relevant"),
        ([["a"]], [{}], "Item 1 has no relevant"),
        ([["a", "a"]], [{"a": 1}], "more than once"),
        ([["a"]], [{"a": math.nan}], "relevance of 'a' is nan"),
        ([["a"]], [{"a": 1, "b": -1}], "relevance of 'b' is -1"),
    ],
)
def test_refused(rankings: list[list[str]], relevances: list[dict[str, float]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        judge(rankings, relevances)


def test_refuses_a_cutoff_of_nothing() -> None:
    with pytest.raises(InputError, match="k = 0"):
        recall(judge([["a"]], [{"a": 1}]), 0)
    with pytest.raises(InputError, match="not empty"):
        judged_ranks(np.array([], dtype=int), 10)


@settings(max_examples=60, deadline=None)
@given(
    items=st.lists(
        st.tuples(
            st.dictionaries(st.integers(0, 15), st.integers(0, 3), min_size=1), st.permutations(range(20))
        ).filter(lambda item: any(item[0].values())),
        min_size=1,
        max_size=4,
    ),
    depth=st.integers(1, 20),
)
def test_metrics_are_trec_evals(items: list[tuple[dict[int, int], list[int]]], depth: int) -> None:
    relevances = [{f"d{key}": value for key, value in judged.items()} for judged, _ in items]
    rankings = [[f"d{key}" for key in order[:depth]] for _, order in items]
    measures = {"map", "recip_rank", "Rprec", "P.5,10", "recall.5,10", "ndcg_cut.5,10", "success.5,10"}
    oracle = pytrec_eval.RelevanceEvaluator({f"q{i}": one for i, one in enumerate(relevances)}, measures)
    theirs = oracle.evaluate(
        {f"q{i}": {key: float(-rank) for rank, key in enumerate(one)} for i, one in enumerate(rankings)}
    )
    judged = judge(rankings, relevances)
    for name, ours in {
        "map": average_precision(judged),
        "recip_rank": reciprocal_rank(judged),
        "Rprec": r_precision(judged),
        **{f"P_{k}": precision(judged, k) for k in (5, 10)},
        **{f"recall_{k}": recall(judged, k) for k in (5, 10)},
        **{f"ndcg_cut_{k}": ndcg(judged, k) for k in (5, 10)},
        **{f"success_{k}": hit(judged, k) for k in (5, 10)},
    }.items():
        assert ours == pytest.approx([theirs[f"q{i}"][name] for i in range(len(items))]), name
