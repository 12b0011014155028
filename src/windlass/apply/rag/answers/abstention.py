"""Whether the documents hold the answer: a decision from what the search found, before anything is said.

Five numbers describe how well the best passage fits the question; a logistic rule turns them into the probability
that the answer is there, and below a threshold the assistant says so instead of quoting. The rule is data: it stands
in a variant's settings, and `fit` learns it from questions with and without an answer. Fit on other questions than
those it will be measured on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from windlass.apply.rag.indexes.fusion import Ranked
from windlass.apply.rag.indexes.search import HybridIndex
from windlass.core.errors import InputError
from windlass.core.protocols import Hit

Features = NDArray[np.float64]

FEATURES = ("dense", "margin", "coverage", "coverage_of_three", "agreement")
"""Cosine of question and best passage; by how much it stands out from the ten best; share of the question's rare words
in the best passage, and in the best three; how high both retrievers rank the best passage (1: both first)."""

_DEPTH = 10


@dataclass(frozen=True, slots=True)
class AbstentionRule:
    """`P(answered) = 1 / (1 + exp(-(bias + weights . features)))`; below `threshold` the assistant abstains.

    The defaults were fitted for MiniLM by `bench.abstention`, on English XQuAD with the paragraphs of a third of the
    articles withheld. Your documents differ: fit your own.
    """

    bias: float = -9.07
    weights: tuple[float, ...] = (12.5, -1.39, 9.54, 0.49, 1.67)
    threshold: float = 0.42

    def __post_init__(self) -> None:
        if len(self.weights) != len(FEATURES) or not 0 <= self.threshold <= 1:
            raise InputError(
                f"An abstention rule has {len(FEATURES)} weights ({', '.join(FEATURES)}) and 0 <= threshold <= 1."
            )

    def probabilities(self, features: Features) -> NDArray[np.float64]:
        """Shape (questions, 5) -> (questions,)."""
        logits = self.bias + features @ np.asarray(self.weights)
        return np.asarray(1.0 / (1.0 + np.exp(-np.clip(logits, -50, 50))))


def features_of(hits: Sequence[Hit], coverage: Callable[[Sequence[int]], float]) -> Features:
    """The five numbers for one question, given its best hits, at least ten where there are so many, and how much of
    the question's words passages hold, shape (5,)."""
    if not hits:
        return np.zeros(len(FEATURES))
    ids = [hit.passage for hit in hits[:3]]
    ranks = (int(hits[0].parts["dense_rank"]), int(hits[0].parts["bm25_rank"]))
    dense = np.array([hit.parts["dense"] for hit in hits[:_DEPTH]])
    return _features(dense, ranks, coverage(ids[:1]), coverage(ids))


def _features(dense: Features, ranks: tuple[int, int], first: float, three: float) -> Features:
    agreement = sum(1.0 / rank if rank else 0.0 for rank in ranks) / 2
    return np.array([dense[0], dense[0] - dense.mean(), first, three, agreement])


def _ranked_features(index: HybridIndex, terms: Sequence[str], ranked: Ranked) -> Features:
    if not len(ranked.rows):
        return np.zeros(len(FEATURES))
    ranks = (int(ranked.dense_rank[0]), int(ranked.bm25_rank[0]))
    dense = ranked.dense[:_DEPTH].astype(np.float64)
    first, three = (index.lexical.coverage(terms, ranked.rows[:count]) for count in (1, 3))
    return _features(dense, ranks, first, three)


def evidence(
    index: HybridIndex,
    questions: Sequence[str],
    where: Mapping[str, Any] | None = None,
    *,
    vectors: NDArray[np.float32] | None = None,
) -> Features:
    """Features of many questions, shape (questions, 5): as `features_of`, over whole arrays."""
    terms = index.lexical.tokenizer.terms(questions)
    rankings = index.rank_many(questions, _DEPTH, where, vectors=vectors)
    rows = [_ranked_features(index, words, ranked) for words, ranked in zip(terms, rankings, strict=True)]
    return np.stack(rows) if rows else np.zeros((0, len(FEATURES)))


def fit(features: Features, answered: Sequence[bool], *, ridge: float = 1.0) -> AbstentionRule:
    """The rule for these examples: ridge-penalised logistic regression, both classes weighing the same, and the
    threshold with the best balanced accuracy. Raises `InputError` unless both kinds of questions occur.
    """
    wanted = np.asarray(answered, np.bool_)
    if len(wanted) != len(features) or not wanted.any() or wanted.all():
        raise InputError(
            "Abstention is learnt from questions with and without an answer; one kind is missing.",
            "Add unanswerable (or answerable) questions to the training split.",
        )
    rule = AbstentionRule(*balanced_logistic(features, wanted, ridge=ridge))
    return AbstentionRule(rule.bias, rule.weights, best_threshold(rule.probabilities(features), wanted))


def balanced_logistic(
    features: Features, wanted: NDArray[np.bool_], *, ridge: float = 1.0
) -> tuple[float, tuple[float, ...]]:
    """Bias and weights of a logistic regression on standardised features, both classes weighing the same."""
    mean, spread = features.mean(0), np.maximum(features.std(0), 1e-6)
    x = np.column_stack([np.ones(len(features)), (features - mean) / spread])
    share = np.where(wanted, 0.5 / wanted.sum(), 0.5 / (~wanted).sum()) * len(wanted)
    penalty = np.diag([0.0, *[ridge] * features.shape[1]])
    w = np.zeros(x.shape[1])
    for _ in range(100):  # Newton's method; the penalty keeps separable examples finite
        p = 1.0 / (1.0 + np.exp(-np.clip(x @ w, -30, 30)))
        gradient = x.T @ (share * (p - wanted)) + penalty @ w
        hessian = (x.T * (share * p * (1 - p))) @ x + penalty + 1e-9 * np.eye(len(w))
        step = np.linalg.solve(hessian, gradient)
        w -= step
        if np.abs(step).max() < 1e-8:
            break
    weights = w[1:] / spread
    return round(float(w[0] - weights @ mean), 6), tuple(round(float(v), 6) for v in weights)


def best_threshold(probabilities: NDArray[np.float64], answered: NDArray[np.bool_]) -> float:
    """The threshold with the largest sum of answered-right and abstained-right shares, midway between two examples."""
    order = np.argsort(probabilities)
    p, y = probabilities[order], answered[order]
    # cutting below position i abstains from the i smallest
    gain = np.concatenate([[0.0], np.cumsum(np.where(y, -1.0 / y.sum(), 1.0 / (~y).sum()))])
    edges = np.concatenate([[0.0], (p[1:] + p[:-1]) / 2, [1.0]])
    distinct = np.concatenate([[True], p[1:] > p[:-1], [True]])
    return round(float(edges[np.argmax(np.where(distinct, gain, -np.inf))]), 6)
