"""All metrics by name: which direction is better, between which bounds they lie, what they are.

    metric("rouge-l").values(["the cat sat"], [["a cat sat"]])     one value per item; their mean is the score
    metric("bleu").pooled                                          a score of the whole corpus: no mean of items

A name is found whatever its case, and with `_` for `-`. Metrics at a cutoff are known for each: `recall@3`. Metrics
without `values` and `pooled` are of other things than texts; their functions stand in the file that `what` is from.
A metric of one's own is a `Metric` too, or just a function: nothing has to be registered.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from windlass.core.errors import InputError
from windlass.evaluate.metrics.answers import contains, exact, exact_strict, f1
from windlass.evaluate.metrics.choices import chosen
from windlass.evaluate.metrics.numeric import numeric
from windlass.evaluate.metrics.structured import json_field_f1, json_valid
from windlass.evaluate.metrics.text.bleu import bleu, bleu_counts, sentence_bleu
from windlass.evaluate.metrics.text.chrf import chrf, chrf_counts, sentence_chrf
from windlass.evaluate.metrics.text.edits import (
    edit_counts,
    edit_distance,
    edit_similarity,
    match_error_rate,
    word_error_rate,
    word_information_lost,
)
from windlass.evaluate.metrics.text.meteor import meteor
from windlass.evaluate.metrics.text.rouge import rouge_l, rouge_lsum, rouge_n
from windlass.evaluate.metrics.text.ter import ter, ter_counts
from windlass.evaluate.metrics.text.texts import References

Better = Literal["higher", "lower"]
Values = Callable[[Sequence[str], References], NDArray[np.float64]]
"""From texts and the references of each to one value per item."""


@dataclass(frozen=True, slots=True)
class Pooled:
    """A score of texts that belongs to the corpus: a function of what its items add up to."""

    counts: Values
    """Shape (items, k): what each item adds."""
    score: Callable[[NDArray[np.float64]], NDArray[np.float64]]
    """From sums of shape (..., k) to scores of shape (...)."""


@dataclass(frozen=True, slots=True)
class Metric:
    name: str
    better: Better
    bounds: tuple[float, float]
    """Between which every value lies."""
    what: str
    """One line for people."""
    corpus: bool = False
    """The score of many items is not the mean of theirs."""
    values: Values | None = None
    """Of texts, item by item."""
    pooled: Pooled | None = None
    """Of texts, as a corpus."""


def metric(name: str) -> Metric:
    """The metric of that name. Raises `InputError` that tells names which are near."""
    key = _key(name)
    if key in _BY_KEY:
        return _BY_KEY[key]
    at_cutoff = re.fullmatch(r"(.+)@([1-9]\d*)", key)
    if at_cutoff and (family := _BY_KEY.get(f"{at_cutoff[1]}@k")):
        return replace(family, name=key, what=family.what.replace(" k ", f" {at_cutoff[2]} "))
    near = difflib.get_close_matches(key, _BY_KEY, n=4, cutoff=0.5)
    hint = f"Near it: {', '.join(_BY_KEY[one].name for one in near)}." if near else "`windlass metrics` lists them."
    raise InputError(f"There is no metric '{name}'.", hint)


def _key(name: str) -> str:
    return name.strip().lower().replace("_", "-")


_SHARE = (0.0, 1.0)
_POINTS = (0.0, 100.0)
_EITHER_WAY = (-1.0, 1.0)
_COUNT = (0.0, math.inf)


def _items(name: str, what: str, values: Values, bounds: tuple[float, float] = _SHARE) -> Metric:
    return Metric(name, "higher", bounds, what, values=values)


def _corpus(
    name: str,
    what: str,
    counts: Values,
    score: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    better: Better = "lower",
    bounds: tuple[float, float] = _COUNT,
) -> Metric:
    return Metric(name, better, bounds, what, corpus=True, pooled=Pooled(counts, score))


_TEXTS = (
    _items("exact", "the answer is one of the right ones, as SQuAD compares them", exact),
    _items("exact-strict", "the answer is one of the right ones, character for character", exact_strict),
    _items("f1", "words shared with the nearest right answer, as SQuAD counts them", f1),
    _items("contains", "a right answer stands somewhere in what was said", contains),
    _items("number", "the number of the answer is a right one", numeric),
    _items("choice", "the answer chooses a right letter of A to D", chosen),
    _items("json-valid", "the answer is JSON and nothing else", lambda found, right: json_valid(found)),
    _items("json-f1", "fields of a JSON answer that are right (F1)", json_field_f1),
    _items("rouge-1", "words shared with the reference (F1)", lambda found, right: rouge_n(found, right, 1).f1),
    _items(
        "rouge-2", "pairs of words shared with the reference (F1)", lambda found, right: rouge_n(found, right, 2).f1
    ),
    _items("rouge-l", "longest common subsequence of words (F1)", lambda found, right: rouge_l(found, right).f1),
    _items("rouge-lsum", "the same, line by line of a summary (F1)", lambda found, right: rouge_lsum(found, right).f1),
    _items("meteor", "words aligned, exactly or by stem, and a price for disorder", meteor),
    _items("edit-similarity", "1 less the edits of characters as a share of the longer text", edit_similarity),
    Metric("edit-distance", "lower", _COUNT, "edits of characters to the nearest reference", values=edit_distance),
    _items("sentence-bleu", "BLEU of each item by itself, smoothed", sentence_bleu, _POINTS),
    _items("sentence-chrf", "chrF of each item by itself", sentence_chrf, _POINTS),
    _corpus("bleu", "shared n-grams of words, with a penalty for short texts", bleu_counts, bleu, "higher", _POINTS),
    _corpus("chrf", "F-score of shared n-grams of characters", chrf_counts, chrf, "higher", _POINTS),
    _corpus(
        "chrf++",
        "the same, with n-grams of words besides",
        lambda found, right: chrf_counts(found, right, words=2),
        chrf,
        "higher",
        _POINTS,
    ),
    _corpus("ter", "edits per word of the reference, where a run of words moves as one", ter_counts, ter),
    _corpus("wer", "errors per word of the reference", edit_counts, word_error_rate),
    _corpus(
        "cer",
        "errors per character of the reference",
        lambda found, right: edit_counts(found, right, characters=True),
        word_error_rate,
    ),
    _corpus("mer", "errors as a share of all hits and errors of words", edit_counts, match_error_rate, bounds=_SHARE),
    _corpus("wil", "what is lost of the words on both sides", edit_counts, word_information_lost, bounds=_SHARE),
)


def _given(name: str, what: str, bounds: tuple[float, float] = _SHARE, better: Better = "higher") -> Metric:
    return Metric(name, better, bounds, what)


def _given_corpus(name: str, what: str, bounds: tuple[float, float] = _SHARE, better: Better = "higher") -> Metric:
    return Metric(name, better, bounds, what, corpus=True)


_OTHERS = (
    _given("accuracy", "share of items that are right"),
    # of retrieval
    _given("recall@k", "share of the relevant documents that the first k hold"),
    _given("precision@k", "share of the first k that are relevant"),
    _given("hit@k", "one of the first k is relevant"),
    _given("ndcg@k", "discounted gain of the first k as a share of the best possible"),
    _given("mrr@k", "1 / rank of the first relevant document, if the first k hold it"),
    _given("mrr", "1 / rank of the first relevant document"),
    _given("map", "mean precision where each relevant document stands"),
    _given("r-precision", "share of relevant documents among as many as there are"),
    _given("context-precision", "mean precision where each relevant context stands"),
    _given("context-recall", "share of the right answer's claims that the contexts hold"),
    _given("citation-precision", "share of citations that are needed"),
    _given("citation-recall", "share of sentences that what they cite supports"),
    _given("right_decision", "answered what can be answered, abstained from what cannot"),
    _given("right_outcome", "right answer, or right abstention"),
    _given_corpus("aurc", "mean risk over all shares that could be answered, the surest first", better="lower"),
    # of classes, probabilities and scores
    _given_corpus("balanced-accuracy", "mean recall of the classes"),
    _given_corpus("f1-macro", "mean F1 of the classes"),
    _given_corpus("f1-micro", "F1 over all items"),
    _given_corpus("f1-weighted", "mean F1 of the classes, by how often they occur"),
    _given_corpus("mcc", "Matthews' correlation of right and said classes", _EITHER_WAY),
    _given_corpus("kappa", "agreement beyond chance (Cohen)", _EITHER_WAY),
    _given("log-loss", "negative logarithm of the probability of the right class", _COUNT, "lower"),
    _given("brier", "squared distance of probabilities to certainty", (0.0, 2.0), "lower"),
    _given_corpus("ece", "distance of accuracy from confidence (expected calibration error)", better="lower"),
    _given_corpus("auroc", "chance that a positive item scores above a negative one"),
    _given_corpus("auprc", "average precision over all thresholds"),
    _given_corpus("pearson", "correlation of values", _EITHER_WAY),
    _given_corpus("spearman", "correlation of ranks", _EITHER_WAY),
    _given_corpus("kendall", "pairs in the same order less those in opposite order (tau-b)", _EITHER_WAY),
    # of language models
    _given("acc", "the right choice is the likeliest, by log-likelihood"),
    _given("acc_norm", "the right choice is the likeliest per character"),
    _given("acc_bytes", "the right choice is the likeliest per byte"),
    _given("acc_token", "the right choice is the likeliest per token"),
    _given("acc_mutual_info", "the right choice gains the most likelihood by the question"),
    _given("mass", "share of the choices' probability that the right ones have"),
    _given("logprob", "natural logarithm of the right answer's probability", (-math.inf, 0.0)),
    _given_corpus("perplexity", "exp of the mean loss per token", (1.0, math.inf), "lower"),
    _given_corpus("bits-per-byte", "mean loss per byte in bits", _COUNT, "lower"),
    _given("bertscore", "tokens matched by their vectors (F1)", _EITHER_WAY),
    _given("similarity", "cosine of the texts' vectors", _EITHER_WAY),
    _given("pass@k", "chance that one of k programs passes its tests"),
    # of images
    _given_corpus("fid", "distance of features, as normal distributions", _COUNT, "lower"),
    _given_corpus("kid", "distance of features under a kernel", (-math.inf, math.inf), "lower"),
    _given_corpus("manifold-precision", "share of what was made that lies where what is real does"),
    _given_corpus("manifold-recall", "share of what is real that lies where what was made does"),
    _given_corpus("density", "how densely what is real surrounds what was made", _COUNT),
    _given_corpus("coverage", "share of what is real that has something made near it"),
    _given("clip-score", "cosine of an image's and its text's embedding, times 2.5", (0.0, 2.5)),
    # of safety
    _given("toxic", "the answer is toxic, by a classifier", better="lower"),
    _given("max-toxicity", "the most toxic of a prompt's samples", better="lower"),
    # of running
    _given("latency_ms", "milliseconds until the answer was there", _COUNT, "lower"),
    _given("cost_usd", "US dollars", _COUNT, "lower"),
)

METRICS: Mapping[str, Metric] = {one.name: one for one in (*_TEXTS, *_OTHERS)}
_BY_KEY = {_key(name): one for name, one in METRICS.items()}
