"""FID, KID, manifolds, CLIPScore and BERTScore beside torchmetrics, scipy and plain readings of the papers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from torchmetrics.image.fid import _compute_fid
from torchmetrics.image.kid import poly_mmd

from windlass.core.errors import InputError
from windlass.evaluate.metrics.features import clip_score, fid, kid, manifold
from windlass.evaluate.metrics.text.bertscore import Tokens, bertscore, inverse_frequencies

RNG = np.random.default_rng(0)
REAL = RNG.normal(size=(300, 12)) @ RNG.normal(size=(12, 12))
MADE = 0.8 * RNG.normal(size=(250, 12)) @ RNG.normal(size=(12, 12)) + 0.3


@pytest.mark.parametrize("samples", [300, 9], ids=["many", "fewer than features"])
def test_fid_is_that_of_the_roots_of_matrices(samples: int) -> None:
    a, b = REAL[:samples], MADE[:samples]
    means, covariances = [side.mean(axis=0) for side in (a, b)], [np.cov(side, rowvar=False) for side in (a, b)]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    wanted = np.sum((means[0] - means[1]) ** 2) + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert fid(a, b) == pytest.approx(float(wanted), rel=1e-4)
    theirs = _compute_fid(*(torch.tensor(part) for pair in zip(means, covariances) for part in pair))
    assert fid(a, b) == pytest.approx(float(theirs), rel=1e-4)


def test_fid_of_the_same_is_0_and_of_what_moved_its_square() -> None:
    assert fid(REAL, REAL) == pytest.approx(0, abs=1e-8)
    assert fid(REAL, REAL + 2.0) == pytest.approx(12 * 4)
    assert fid(REAL, MADE) == pytest.approx(fid(MADE, REAL)) == pytest.approx(fid(REAL[::-1], MADE[::-1]))


def test_kid_is_torchmetrics() -> None:
    a, b = REAL[:250], MADE
    theirs = poly_mmd(torch.tensor(a), torch.tensor(b))
    mean, spread = kid(a, b, subsets=1, size=250)
    assert mean == pytest.approx(float(theirs)) and spread == 0
    mean, spread = kid(REAL, MADE, subsets=30, size=100)
    assert spread > 0 and kid(REAL, MADE, subsets=30, size=100) == (mean, spread)
    halves = [kid(RNG.normal(size=(100, 4)), RNG.normal(size=(100, 4)), subsets=1, size=100)[0] for _ in range(60)]
    assert abs(np.mean(halves)) < 3 * np.std(halves) / math.sqrt(60) + 1e-9  # without bias: below 0 as often as above


def test_manifolds_by_the_definition() -> None:
    a, b, k = REAL[:120], MADE[:90], 4

    def apart(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.linalg.norm(x[:, None] - y, axis=-1)

    reach_a, reach_b = (np.sort(apart(side, side), axis=1)[:, k] for side in (a, b))
    between = apart(a, b)
    inside = between < reach_a[:, None]
    found = manifold(a, b, k)
    assert found.precision == inside.any(axis=0).mean()
    assert found.recall == (between < reach_b).any(axis=1).mean()
    assert found.density == pytest.approx(inside.sum(axis=0).mean() / k)
    assert found.coverage == (between.min(axis=1) < reach_a).mean()
    assert (manifold(a, a).precision, manifold(a, a).recall, manifold(a, a).coverage) == (1, 1, 1)
    far = manifold(a, b + 1e6)
    assert (far.precision, far.recall, far.density, far.coverage) == (0, 0, 0, 0)


def test_clip_scores() -> None:
    found = clip_score([[1.0, 0.0], [3.0, 3.0], [1.0, 0.0]], [[2.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    assert found == pytest.approx([2.5, 2.5 / math.sqrt(2), 0])


@pytest.mark.parametrize(
    ("metric", "arguments", "message"),
    [
        (fid, ([[1.0]], [[1.0], [2.0]]), "1 real samples, but at least 2"),
        (fid, (REAL, MADE[:, :5]), "Features of 12 and of 5 numbers"),
        (fid, (REAL, np.where(MADE > 3, np.nan, MADE)), "made samples hold NaN"),
        (fid, ([], []), "shape"),
        (manifold, (REAL, MADE, 0), "neighbour 0"),
        (manifold, (REAL[:5], MADE, 5), "5 real samples, but at least 6"),
        (clip_score, ([[1.0, 2.0]], [[0.0, 0.0]]), "all zeros"),
        (clip_score, ([[1.0, 2.0]], [[1.0, 2.0]] * 2), "1 embeddings of images and 2"),
    ],
)
def test_refused(metric, arguments, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=message):
        metric(*arguments)
    with pytest.raises(InputError, match="300 real and 250 made"):
        kid(REAL, MADE, size=1000)


def by_the_paper(said: np.ndarray, wanted: np.ndarray, said_idf: np.ndarray, wanted_idf: np.ndarray) -> list[float]:
    """Section 3 of the paper, a loop for each sum."""

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    precision = sum(w * max(cosine(v, u) for u in wanted) for v, w in zip(said, said_idf)) / said_idf.sum()
    recall = sum(w * max(cosine(v, u) for u in said) for v, w in zip(wanted, wanted_idf)) / wanted_idf.sum()
    return [precision, recall, 2 * precision * recall / (precision + recall)]


def test_bertscore_is_that_of_the_paper() -> None:
    texts = [RNG.normal(size=(n, 16)) + 0.7 for n in (5, 9, 3, 7)]
    weights = [RNG.random(len(text)) for text in texts]
    weights[1][[0, -1]] = 0.0  # the marks at both ends
    found = bertscore(
        [Tokens(texts[0], weights[0]), Tokens(texts[2])], [[Tokens(texts[1], weights[1])], [Tokens(texts[3])]]
    )
    first = by_the_paper(texts[0], texts[1], weights[0], weights[1])
    second = by_the_paper(texts[2], texts[3], np.ones(3), np.ones(7))
    for item, wanted in enumerate((first, second)):
        assert [column[item] for column in found] == pytest.approx(wanted)
    rescaled = found.rescaled([0.3, 0.4, 0.35])
    assert rescaled.f1 == pytest.approx((found.f1 - 0.35) / 0.65)
    assert rescaled.precision == pytest.approx((found.precision - 0.3) / 0.7)


@pytest.mark.slow  # it loads transformers
def test_bertscore_of_an_encoders_vectors() -> None:
    """A small encoder with random weights: the same text is perfect, its words in other order are not."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
    encoder = BertModel(config).eval()

    def tokens(ids: list[int]) -> Tokens:
        with torch.no_grad():
            vectors = encoder(torch.tensor([[1, *ids, 2]])).last_hidden_state[0].double().numpy()
        return Tokens(vectors, np.array([0.0, *[1.0] * len(ids), 0.0]))

    one, other, nothing = tokens([5, 6, 7, 8]), tokens([8, 7, 6, 5]), tokens([])
    found = bertscore([one, other, nothing, one], [[one], [one], [one], [other, one]])
    assert found.f1[0] == pytest.approx(1) == found.f1[3] and 0 < found.f1[1] < 0.99 and found.f1[2] == 0
    wanted = by_the_paper(other.vectors, one.vectors, *[np.array([0, 1, 1, 1, 1, 0.0])] * 2)
    assert [column[1] for column in found] == pytest.approx(wanted)


def test_inverse_frequencies_are_bert_scores() -> None:
    found = inverse_frequencies([["a", "b", "a"], ["a"], ["c"]])
    assert found == pytest.approx({"a": math.log(4 / 3), "b": math.log(4 / 2), "c": math.log(4 / 2)})


@pytest.mark.parametrize(
    ("found", "right", "message"),
    [
        ([], [], "no items"),
        ([Tokens(np.ones((1, 2)))], [], "1 answers but 0"),
        ([Tokens(np.ones((1, 2)))], [[]], "Item 1 has no reference"),
        ([Tokens(np.ones((1, 2)))], [[Tokens(np.ones((1, 3)))]], "Vectors of 2 and of 3"),
        ([Tokens(np.zeros((1, 2)))], [[Tokens(np.ones((1, 2)))]], "all zeros"),
        ([Tokens(np.ones((1, 2)), np.array([-1.0]))], [[Tokens(np.ones((1, 2)))]], "weights of 0 or more"),
        ([Tokens(np.full((1, 2), np.nan))], [[Tokens(np.ones((1, 2)))]], "token vectors of item 1 hold NaN"),
    ],
)
def test_tokens_that_are_refused(found, right, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=message):
        bertscore(found, right)


def test_a_baseline_of_1_is_refused() -> None:
    one = Tokens(np.ones((1, 2)))
    with pytest.raises(InputError, match="leaves nothing above"):
        bertscore([one], [[one]]).rescaled(1.0)
