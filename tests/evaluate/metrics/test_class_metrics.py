"""Classes, probabilities, scores and correlations beside scikit-learn, scipy and torchmetrics."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics as oracle
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from torchmetrics.functional.classification import binary_calibration_error

from windlass.core.errors import InputError
from windlass.evaluate.metrics.calibration import (
    average_precision,
    brier,
    calibration_error,
    log_loss,
    reliability,
    squared_error,
)
from windlass.evaluate.metrics.classification import (
    accuracy,
    balanced_accuracy,
    codes,
    confusion,
    f1,
    kappa,
    matthews,
    precision,
    recall,
)
from windlass.evaluate.metrics.correlation import kendall, pearson, spearman
from windlass.evaluate.metrics.likelihood import bits_per_byte, likelihood_counts, perplexity
from windlass.evaluate.statistics.bootstrap import bootstrap

LABELS = st.sampled_from(["cat", "dog", "eel", "fox"])


@settings(max_examples=25)
@given(st.lists(st.tuples(LABELS, LABELS), min_size=1, max_size=40))
@pytest.mark.filterwarnings("ignore::UserWarning")  # scikit-learn's, of classes that do not occur and shares of 0/0
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_classes_are_scored_as_by_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    right, said = [one for one, _ in pairs], [one for _, one in pairs]
    a, b, labels = codes(right, said)
    counts = confusion(a, b, len(labels))
    assert counts.tolist() == oracle.confusion_matrix(right, said, labels=labels).tolist()
    assert accuracy(counts) == pytest.approx(oracle.accuracy_score(right, said))
    assert balanced_accuracy(counts) == pytest.approx(oracle.balanced_accuracy_score(right, said))
    for average in ("macro", "micro", "weighted"):
        for ours, theirs in (
            (precision, oracle.precision_score),
            (recall, oracle.recall_score),
            (f1, oracle.f1_score),
        ):
            assert ours(counts, average) == pytest.approx(theirs(right, said, average=average, zero_division=0))
    assert matthews(counts) == pytest.approx(oracle.matthews_corrcoef(right, said))
    for weights in ("none", "linear", "quadratic"):
        theirs = oracle.cohen_kappa_score(right, said, weights=None if weights == "none" else weights)
        assert kappa(counts, weights) == pytest.approx(theirs, nan_ok=True)


def test_many_confusions_at_once() -> None:
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 9, size=(5, 2, 3, 3)).astype(float)
    for metric in (accuracy, balanced_accuracy, f1, matthews, kappa):
        whole = metric(counts)
        assert whole.shape == (5, 2) and whole[3, 1] == pytest.approx(metric(counts[3, 1]))


def test_a_macro_score_has_an_interval() -> None:
    rng = np.random.default_rng(1)
    right = rng.integers(0, 3, 300)
    said = np.where(rng.random(300) < 0.7, right, rng.integers(0, 3, 300))
    found = bootstrap(lambda i: float(f1(confusion(right[i], said[i], 3))), 300, seed=0, resamples=499)
    assert found.estimate == pytest.approx(oracle.f1_score(right, said, average="macro"))
    assert 0.03 < found.high - found.low < 0.15


def test_labels_that_are_refused() -> None:
    with pytest.raises(InputError, match="2 right labels and 1 said labels"):
        codes(["a", "b"], ["a"])
    with pytest.raises(InputError, match="no labels"):
        codes([], [])
    with pytest.raises(InputError, match="Item 1 has the label 'c', which is not among"):
        codes(["a", "b"], ["c", "a"], labels=["a", "b"])


PROBABILITIES = np.random.default_rng(2).dirichlet(np.ones(4), size=200)
RIGHT = np.random.default_rng(3).integers(0, 4, 200)
SURE, CORRECT = PROBABILITIES.max(axis=1), PROBABILITIES.argmax(axis=1) == RIGHT


def test_losses_of_probabilities() -> None:
    assert log_loss(PROBABILITIES, RIGHT).mean() == pytest.approx(oracle.log_loss(RIGHT, PROBABILITIES))
    certain = [[0.0, 1.0], [1.0, 0.0]]
    assert log_loss(certain, [0, 0]).mean() == pytest.approx(oracle.log_loss([0, 0], certain, labels=[0, 1]))
    assert squared_error(SURE, CORRECT).mean() == pytest.approx(oracle.brier_score_loss(CORRECT, SURE))
    assert brier(np.stack([1 - SURE, SURE], axis=1), CORRECT) == pytest.approx(2 * squared_error(SURE, CORRECT))
    assert brier(certain, [0, 0]).tolist() == [2, 0]


@pytest.mark.parametrize(("by", "strategy"), [("width", "uniform"), ("mass", "quantile")])
@pytest.mark.parametrize("bins", [1, 10, 15])
def test_reliability_is_scikit_learns(by: str, strategy: str, bins: int) -> None:
    found = reliability(SURE, CORRECT, bins, by)
    accuracy_there, confidence = calibration_curve(CORRECT, SURE, n_bins=bins, strategy=strategy)
    assert found.accuracy == pytest.approx(accuracy_there) and found.confidence == pytest.approx(confidence)
    assert found.items.sum() == 200


def test_calibration_error_is_torchmetrics() -> None:
    theirs = binary_calibration_error(torch.tensor(SURE), torch.tensor(CORRECT).long(), n_bins=15, norm="l1")
    assert calibration_error(SURE, CORRECT) == pytest.approx(float(theirs), abs=1e-6)
    assert calibration_error([1.0, 1.0, 0.0], [True, True, False]) == 0
    assert calibration_error([0.8] * 10, [True] * 8 + [False] * 2, by="mass") == pytest.approx(0)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.booleans(), st.integers(-3, 3)), min_size=1, max_size=30))
def test_average_precision_is_scikit_learns(pairs: list[tuple[bool, int]]) -> None:
    labels, scores = [one for one, _ in pairs], [one for _, one in pairs]
    if any(labels):
        assert average_precision(labels, scores) == pytest.approx(oracle.average_precision_score(labels, scores))
    else:
        with pytest.raises(InputError, match="something positive"):
            average_precision(labels, scores)


@pytest.mark.parametrize(
    ("metric", "arguments", "message"),
    [
        (log_loss, ([[0.5, 0.6]], [0]), "add up to 1"),
        (log_loss, ([[0.5, 0.5]], [2]), r"Number 1 of the right classes is 2, outside of 0 to 1"),
        (log_loss, ([[0.5, np.nan]], [0]), "1 of 1 rows of probabilities hold NaN"),
        (log_loss, ([], []), "shape"),
        (brier, ([[0.5, 0.5]], [0, 1]), "1 rows of probabilities and 2 right classes"),
        (calibration_error, ([1.5], [True]), "Number 1 of the confidences is 1.5"),
        (calibration_error, ([0.5], [2]), "other than true and false"),
        (reliability, ([0.5], [True], 0), "no 0 bins"),
        (pearson, ([1, 2], [1, 1]), "never changes"),
        (spearman, ([1, 2], [1, np.nan]), "not finite"),
        (kendall, ([1, 2], [1, 2, 3]), "2 values of the first series and 3 values"),
        (likelihood_counts, ([-1.0], [0]), "Number 1 of the lengths is 0"),
        (likelihood_counts, ([0.5], [1]), "log-likelihoods is 0.5"),
    ],
)
def test_refused(metric, arguments, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=message):
        metric(*arguments)


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=2, max_size=30))
def test_correlations_are_scipys(pairs: list[tuple[int, int]]) -> None:
    x, y = [float(one) for one, _ in pairs], [float(one) for _, one in pairs]
    if len(set(x)) < 2 or len(set(y)) < 2:
        return
    for ours, theirs in (
        (pearson, scipy.stats.pearsonr),
        (spearman, scipy.stats.spearmanr),
        (kendall, scipy.stats.kendalltau),
    ):
        assert ours(x, y) == pytest.approx(theirs(x, y).statistic, abs=1e-9)
        assert ours(x, y) == pytest.approx(ours(y, x)) == pytest.approx(-ours(x, [-one for one in y]))
        assert ours(x, x) == pytest.approx(1)


def test_correlations_of_many_and_of_large_values() -> None:
    rng = np.random.default_rng(4)
    x = rng.normal(size=3_000)
    y = 0.5 * x + rng.normal(size=3_000)
    assert kendall(x, y) == pytest.approx(scipy.stats.kendalltau(x, y).statistic)
    assert pearson(x * 1e200, y) == pytest.approx(scipy.stats.pearsonr(x, y).statistic)


def test_perplexity_by_hand() -> None:
    counts = likelihood_counts([-10.0, -20.0], [5, 10])
    assert perplexity(counts.sum(axis=0)) == pytest.approx(np.exp(2))
    assert bits_per_byte(counts.sum(axis=0)) == pytest.approx(2 / np.log(2))
    assert perplexity(counts) == pytest.approx([np.exp(2)] * 2)
