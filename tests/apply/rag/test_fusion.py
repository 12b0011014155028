"""Two rankings into one, against the formulas written out plainly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass.apply.rag.indexes.fusion import SearchSettings, alone, best, fuse
from windlass.core.errors import InputError

COSINES = st.lists(st.integers(-100, 100), min_size=1, max_size=30)
"""Hundredths, so that there are ties."""


@given(COSINES, st.integers(1, 35))
def test_the_best_are_those_of_a_stable_sort(scores: list[int], k: int) -> None:
    expected = sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:k]
    assert best(np.array(scores, np.float32), k).tolist() == expected


@given(COSINES, st.sampled_from(["rrf", "weighted"]))
def test_vectors_alone_score_as_where_no_passage_holds_a_word(hundredths: list[int], fusion: str) -> None:
    dense = np.sort(np.array(hundredths, np.float32) / 100)[::-1]
    settings = SearchSettings(fusion, 1.0)  # type: ignore[arg-type]
    expected = fuse(dense, np.zeros(len(dense), np.float32), len(dense), settings).score
    assert alone(dense.tolist(), settings) == pytest.approx(expected.tolist(), abs=1e-6)


@given(COSINES, st.data())
def test_a_fused_ranking_is_the_plain_formula(hundredths: list[int], data: st.DataObject) -> None:
    n = len(hundredths)
    dense = np.array(hundredths, np.float32) / 100
    bm25 = np.array(data.draw(st.lists(st.integers(0, 40), min_size=n, max_size=n)), np.float32) / 4
    k, depth = data.draw(st.integers(1, 35)), data.draw(st.integers(1, 35))
    share = data.draw(st.sampled_from([0.0, 0.3, 0.5, 1.0]))
    fusion = data.draw(st.sampled_from(["rrf", "weighted"]))
    ranked = fuse(dense, bm25, k, SearchSettings(fusion, share, depth=depth))

    deep = max(depth, min(k, n))
    by_dense = sorted(range(n), key=lambda i: (-dense[i], i))[:deep]
    by_bm25 = [i for i in sorted(range(n), key=lambda i: (-bm25[i], i))[:deep] if bm25[i] > 0]
    candidates = set(by_dense) | set(by_bm25)
    if fusion == "rrf":
        parts = [{i: 1 / (60 + order.index(i) + 1) if i in order else 0.0 for i in candidates}
                 for order in (by_dense, by_bm25)]  # fmt: skip
    else:
        parts = []
        for scores, least in ((dense, -1.0), (bm25, 0.0)):
            most = max([least, *(float(scores[i]) for i in candidates)])
            parts.append({i: (float(scores[i]) - least) / (most - least) if most > least else 0.0 for i in candidates})
    expected = {i: share * parts[0][i] + (1 - share) * parts[1][i] for i in candidates}
    assert len(ranked.rows) == min(k, len(candidates)) and set(ranked.rows.tolist()) <= candidates
    assert ranked.score.tolist() == pytest.approx([expected[i] for i in ranked.rows.tolist()], abs=1e-6)
    left = [expected[i] for i in candidates - set(ranked.rows.tolist())]
    assert not left or max(left) <= min(ranked.score.tolist()) + 1e-6, "a better one was left out"
    for rank, order in ((ranked.dense_rank, by_dense), (ranked.bm25_rank, by_bm25)):
        assert rank.tolist() == [order.index(i) + 1 if i in order else 0 for i in ranked.rows.tolist()]


def test_nothing_to_rank_gives_nothing() -> None:
    none = np.zeros(0, np.float32)
    assert len(fuse(none, none, 5, SearchSettings()).rows) == 0


@pytest.mark.parametrize("wrong", [{"dense": 1.1}, {"context_weight": -1}, {"rrf_k": 0}, {"depth": 0}, {"fusion": "x"}])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError):
        SearchSettings(**wrong)  # type: ignore[arg-type]
