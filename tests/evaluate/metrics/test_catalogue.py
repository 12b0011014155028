"""Metrics by name, and their scores with intervals."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU
from tests.evaluate.metrics.texts_at_hand import texts

from windlass.core.errors import InputError
from windlass.evaluate.exam.outcomes import METRICS as OF_EXAMS
from windlass.evaluate.metrics.catalogue import METRICS, metric
from windlass.evaluate.metrics.measure import difference, measured, values_of
from windlass.evaluate.statistics.bootstrap import bootstrap, bootstrap_mean, bootstrap_sums

FOUND, RIGHT = texts(60, seed=9, references=2)
OF_TEXTS = [one for one in METRICS.values() if one.values or one.pooled]
FREE = [one for one in OF_TEXTS if one.name not in ("number", "choice", "json-f1")]
"""Those that take any text as a reference."""


def test_names_are_found_as_people_write_them() -> None:
    assert metric("ROUGE_L") is metric("rouge-l") is METRICS["rouge-l"]
    assert metric("latency-ms").name == "latency_ms" and metric("recall@7").name == "recall@7"
    assert metric("recall@7").what == "share of the relevant documents that the first 7 hold"
    assert all(name == one.name and metric(name) is one for name, one in METRICS.items())
    with pytest.raises(InputError, match=r"no metric 'rouge3'\.\nNear it: rouge-"):
        metric("rouge3")
    with pytest.raises(InputError, match=r"no metric 'zzz'\.\n`windlass metrics` lists them"):
        metric("zzz")
    with pytest.raises(InputError, match="no metric 'recall@0'"):
        metric("recall@0")


def test_the_exams_metrics_are_in_it_with_the_same_direction_and_bounds() -> None:
    for name, one in OF_EXAMS.items():
        assert (metric(name).better, metric(name).bounds) == (one.better, one.bounds), name


@pytest.mark.parametrize("one", OF_TEXTS, ids=lambda one: one.name)
def test_what_each_promises(one) -> None:  # type: ignore[no-untyped-def]
    assert one.bounds[0] < one.bounds[1] and one.what and (one.corpus == (one.values is None))
    if one.pooled:
        whole = one.pooled.score(one.pooled.counts(FOUND, RIGHT))
    else:
        right = {"number": ["7"], "choice": ["A"], "json-f1": ['{"a": 7}']}.get(one.name)
        whole = one.values(FOUND, [right] * 60 if right else RIGHT)
    assert whole.shape == (60,) and np.isfinite(whole).all()
    assert (one.bounds[0] <= whole).all() and (whole <= one.bounds[1] + 1e-9).all()


@pytest.mark.parametrize("one", FREE, ids=lambda one: one.name)
def test_order_says_nothing_and_the_same_is_best(one) -> None:  # type: ignore[no-untyped-def]
    order = list(range(60))
    random.Random(0).shuffle(order)
    found = measured(one, FOUND, RIGHT)
    mixed = measured(one, [FOUND[i] for i in order], [RIGHT[i] for i in order])
    assert found.estimate == pytest.approx(mixed.estimate)
    assert one.bounds[0] <= found.low <= found.estimate <= found.high <= one.bounds[1]
    if one.name == "json-valid":
        return
    same = measured(one, [some[0] for some in RIGHT], RIGHT).estimate
    assert same >= found.estimate if one.better == "higher" else same <= found.estimate
    if one.name not in ("meteor", "rouge-1", "rouge-2", "rouge-l", "rouge-lsum"):  # their words are not all words
        best = one.bounds[1] if one.better == "higher" else one.bounds[0]
        assert same == pytest.approx(best, abs=1e-9)


def test_a_corpus_gets_an_interval_from_its_counts() -> None:
    """The very replicates that scoring each resample anew gives."""
    oracle = BLEU()
    found = measured(metric("bleu"), FOUND, RIGHT, seed=3)
    columns = [list(column) for column in zip(*RIGHT)]
    assert found.estimate == pytest.approx(oracle.corpus_score(FOUND, columns).score)
    counts = metric("bleu").pooled.counts(FOUND, RIGHT)  # type: ignore[union-attr]
    score = metric("bleu").pooled.score  # type: ignore[union-attr]
    slow = bootstrap(lambda i: float(score(counts[i].sum(axis=0))), 60, seed=3, resamples=999)
    fast = bootstrap_sums(counts, score, seed=3, resamples=999)
    assert (fast.low, fast.high) == pytest.approx((slow.low, slow.high))
    clustered = measured(metric("bleu"), FOUND, RIGHT, clusters=[i // 6 for i in range(60)])
    assert clustered.clusters == 10 and clustered.n == 60


def test_sums_of_means_are_the_bootstrap_of_a_mean() -> None:
    rng = np.random.default_rng(0)
    x, clusters = rng.normal(size=200), rng.integers(0, 40, 200)
    parts = np.stack([x, np.ones(200)], axis=1)
    ours = bootstrap_sums(parts, lambda sums: sums[..., 0] / sums[..., 1], clusters, seed=5, resamples=999)
    wanted = bootstrap_mean(x, clusters, seed=5, resamples=999)
    assert (ours.estimate, ours.low, ours.high) == pytest.approx((wanted.estimate, wanted.low, wanted.high))


@pytest.mark.slow
def test_intervals_of_a_ratio_hold_what_they_promise() -> None:
    """A ratio of sums over clusters, as an error rate is: 95 % intervals hold the truth in about 95 % of 600 worlds."""
    rng = np.random.default_rng(1)
    held = 0
    for world in range(600):
        lengths = rng.integers(3, 30, size=(50, 3))
        rate = np.clip(0.2 + 0.08 * rng.normal(size=(50, 1)), 0.01, 0.9)
        parts = np.stack([rng.binomial(lengths, rate), lengths], axis=-1).reshape(150, 2)
        found = bootstrap_sums(
            parts, lambda s: s[..., 0] / s[..., 1], np.repeat(np.arange(50), 3), seed=world, resamples=999
        )
        held += found.low <= 0.2 <= found.high
    assert 0.92 <= held / 600 <= 0.975


def test_two_systems_on_the_same_items() -> None:
    worse = [" ".join(text.split()[:-2]) for text in FOUND]
    for name in ("bleu", "rouge-l", "f1"):
        found = difference(metric(name), worse, FOUND, RIGHT)
        assert found.low > 0, name
        back = difference(metric(name), FOUND, worse, RIGHT)
        assert back.estimate == pytest.approx(-found.estimate)
    assert difference(metric("wer"), worse, FOUND, RIGHT).estimate < 0
    assert difference(metric("chrf"), FOUND, FOUND, RIGHT).estimate == 0


def test_what_has_no_interval_is_refused() -> None:
    with pytest.raises(InputError, match="'fid' belongs to a corpus"):
        measured(metric("fid"), FOUND, RIGHT)
    with pytest.raises(InputError, match="'ndcg@10' is not made of texts"):
        measured(metric("ndcg@10"), FOUND, RIGHT)
    with pytest.raises(InputError, match="'bleu' belongs to a corpus"):
        values_of(metric("bleu"), FOUND, RIGHT)
    with pytest.raises(InputError, match="at least 2"):
        measured(metric("bleu"), ["a"], [["a"]])
    with pytest.raises(InputError, match="60 values but 2 cluster labels"):
        measured(metric("bleu"), FOUND, RIGHT, clusters=[1, 2])
    for parts, message in (([[math.nan]] * 3, "not finite"), ([1.0, 2.0], "a row for each item")):
        with pytest.raises(InputError, match=message):
            bootstrap_sums(parts, lambda sums: sums[..., 0], seed=0)
    with pytest.raises(InputError, match="undefined on"):
        bootstrap_sums(np.zeros((3, 2)), lambda sums: np.full(sums.shape[:-1], np.nan), seed=0)


@settings(max_examples=15)
@given(st.lists(st.tuples(st.text(max_size=15), st.text(max_size=15)), min_size=2, max_size=4))
def test_no_text_leaves_the_bounds(pairs: list[tuple[str, str]]) -> None:
    found, right = [one for one, _ in pairs], [[one] for _, one in pairs]
    for one in FREE:
        whole = one.pooled.score(one.pooled.counts(found, right)) if one.pooled else one.values(found, right)
        assert np.isfinite(whole).all() and (one.bounds[0] <= whole).all(), one.name
        assert (whole <= one.bounds[1] + 1e-9).all(), one.name
