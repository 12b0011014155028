"""Losses of encoders: those of transformers and of plain references, however texts are spread over passes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from encoder_world import save_encoder

from windlass.build.adapt.data.texts import Example, TextExamples, Tokens
from windlass.build.adapt.objectives.classification import by_class
from windlass.build.adapt.objectives.embedding import Contrast, cosent, in_batch
from windlass.build.adapt.objectives.extraction import by_ends, threshold
from windlass.build.adapt.objectives.ranking import ranked
from windlass.build.adapt.objectives.regression import squares
from windlass.build.adapt.objectives.tagging import by_tag
from windlass.build.training.loop import accumulate
from windlass.build.transformer.classifier_files import load_classifier
from windlass.build.transformer.embedder_files import Embedder
from windlass.build.transformer.hf import load_encoder
from windlass.build.transformer.spans import best_span

LENGTHS = (5, 9, 5, 3, 12, 7, 3, 4)


def texts(seed: int = 0, lengths=LENGTHS) -> list[Tokens]:
    generator = np.random.default_rng(seed)
    return [Tokens(generator.integers(5, 20, length), np.zeros(length, np.int64)) for length in lengths]


def batch_of(examples: list[Example], *, by_token: bool = False):
    return TextExamples(examples, by_token=by_token).batch([(0, number) for number in range(len(examples))])


def padded(found: list[Tokens], fill: int = 1) -> dict[str, torch.Tensor]:
    longest = max(len(one.ids) for one in found)
    ids = np.full((len(found), longest), fill)
    for row, one in zip(ids, found, strict=True):
        row[: len(one.ids)] = one.ids
    mask = np.arange(longest)[None] < np.array([len(one.ids) for one in found])[:, None]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask).long()}


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


CASES = {
    "one": ("SequenceClassification", {"num_labels": 3}, by_class),
    "several": ("SequenceClassification", {"num_labels": 3, "problem_type": "multi_label_classification"}, by_class),
    "number": ("SequenceClassification", {"num_labels": 1, "problem_type": "regression"}, squares),
    "tag": ("TokenClassification", {"num_labels": 4}, by_tag),
    "span": ("QuestionAnswering", {}, by_ends),
}


@pytest.mark.parametrize("case", CASES)
def test_loss_is_that_of_transformers_with_padding(case: str, tmp_path: Path) -> None:
    head, settings, loss_of = CASES[case]
    theirs = save_encoder(tmp_path, "Bert", f"For{head}", **settings)
    ours = load_classifier(
        tmp_path, {"one": "texts", "several": "texts", "number": "texts", "tag": "tokens"}.get(case, "spans")
    )
    # Where an answer begins, transformers lets padding compete: rows without any compare with ours.
    found, generator = texts(lengths=(7,) * 8 if case == "span" else LENGTHS), np.random.default_rng(1)
    match case:
        case "one":
            targets = [generator.integers(0, 3, 1) for _ in found]
            labels = {"labels": torch.tensor(np.concatenate(targets))}
        case "several":
            targets = [generator.integers(0, 2, (1, 3)).astype(np.float32) for _ in found]
            labels = {"labels": torch.tensor(np.concatenate(targets))}
        case "number":
            targets = [generator.normal(size=(1, 1)).astype(np.float32) for _ in found]
            labels = {"labels": torch.tensor(np.concatenate(targets))[:, 0]}
        case "tag":
            targets = [
                np.where(generator.random(len(one.ids)) < 0.3, -100, generator.integers(0, 4, len(one.ids)))
                for one in found
            ]
            wide = np.full((len(found), max(LENGTHS)), -100)
            for row, own in zip(wide, targets, strict=True):
                row[: len(own)] = own
            labels = {"labels": torch.tensor(wide)}
        case _:
            targets = [np.sort(generator.integers(0, len(one.ids), (1, 2))) for one in found]
            both = torch.tensor(np.concatenate(targets))
            labels = {"start_positions": both[:, 0], "end_positions": both[:, 1]}
    examples = [Example([one], target) for one, target in zip(found, targets, strict=True)]
    batch = batch_of(examples, by_token=case == "tag")
    loss = loss_of(ours, batch)
    expected = theirs(**padded(found), **labels).loss
    assert torch.allclose(loss.sum / loss.counted, expected, atol=1e-5)
    assert loss.counted == batch.counted
    expected.backward()
    (loss.sum / loss.counted).backward()
    assert torch.allclose(
        ours.encoder.blocks[0].attention.query.weight.grad,
        theirs.bert.encoder.layer[0].attention.self.query.weight.grad,
        atol=1e-5,
    )


@pytest.mark.parametrize("case", ["one", "tag", "list"])
def test_eight_passes_of_one_are_one_of_eight(case: str, tmp_path: Path) -> None:
    labels = {"one": 3, "tag": 4, "list": 1}[case]
    save_encoder(
        tmp_path, "Bert", "ForTokenClassification" if case == "tag" else "ForSequenceClassification", num_labels=labels
    )
    model = load_classifier(tmp_path, "tokens" if case == "tag" else "texts").train()
    found, generator = texts(), np.random.default_rng(1)
    if case == "tag":
        examples = [Example([one], np.where(generator.random(len(one.ids)) < 0.6, -100, 1)) for one in found]
    elif case == "one":
        examples = [Example([one], np.array([number % 3])) for number, one in enumerate(found)]
    else:
        pairs = [found[i : i + 1 + i % 3] for i in range(6)]
        examples = [Example(pair, np.eye(len(pair), dtype=np.float32)[0]) for pair in pairs]
    loss_of = {"one": by_class, "tag": by_tag, "list": lambda m, b: ranked(m, b, True)}[case]
    made = TextExamples(examples, by_token=case == "tag")
    results = []
    for size in (1, 3, len(examples)):
        batches = [
            made.batch([(0, n) for n in range(start, min(start + size, len(examples)))])
            for start in range(0, len(examples), size)
        ]
        loss, counted = accumulate(batches, lambda batch: loss_of(model, batch))
        results.append((loss, counted, gradients(model)))
    for loss, counted, found_gradients in results[1:]:
        assert counted == results[0][1] and abs(loss - results[0][0]) < 1e-5
        for name, gradient in found_gradients.items():
            assert torch.allclose(gradient, results[0][2][name], atol=2e-5), name


@pytest.mark.parametrize("listwise", [True, False])
def test_ranking_is_the_plain_formula(listwise: bool, tmp_path: Path) -> None:
    save_encoder(tmp_path, "Bert", "ForSequenceClassification", num_labels=1)
    model = load_classifier(tmp_path)
    found = texts()
    gains = [np.array([1, 0, 0], np.float32), np.array([1, 1, 0, 0, 0], np.float32)]
    batch = batch_of([Example(found[:3], gains[0]), Example(found[3:], gains[1])])
    with torch.no_grad():
        alone = torch.stack([model(torch.tensor(one.ids)[None], [len(one.ids)])[0, 0] for one in found])
        loss = ranked(model, batch, listwise)
    expected = 0.0
    for logits, gain in zip(alone.split([3, 5]), map(torch.tensor, gains), strict=True):
        if listwise:
            expected += float(F.cross_entropy(logits[None], (gain / gain.sum())[None]))
        else:
            expected += float(F.binary_cross_entropy_with_logits(logits, gain))
    assert abs(float(loss.sum) - expected) < 1e-4 and loss.counted == 2
    assert torch.allclose(loss.metrics["logits"], alone, atol=1e-5)


@pytest.fixture(scope="module")
def embedder(tmp_path_factory) -> Embedder:
    folder = tmp_path_factory.mktemp("embedder")
    save_encoder(folder, "Bert", "Model")
    return Embedder(load_encoder(folder), "mean")


def vectors_of(model: Embedder, found: list[Tokens]) -> torch.Tensor:
    return torch.cat([model(torch.tensor(one.ids)[None], [len(one.ids)]) for one in found])


@pytest.mark.parametrize("dimensions", [(), (4, 16)])
def test_contrast_is_the_plain_formula(embedder: Embedder, dimensions: tuple[int, ...]) -> None:
    found = texts(lengths=(4, 6, 3, 8, 5, 7, 4, 9))
    value = np.ones(1, np.float32)
    batch = batch_of([Example(found[:2], value), Example(found[2:5], value), Example(found[5:], value)])
    with torch.no_grad():
        loss = in_batch(embedder, batch, Contrast(0.05, dimensions))
        whole = vectors_of(embedder, found)
        expected = []
        for size in (whole.shape[1], *dimensions):
            cut = F.normalize(whole[:, :size], dim=-1)
            queries, passages = cut[[0, 2, 5]], cut[[1, 3, 4, 6, 7]]
            own = torch.tensor([0, 1, 3])
            expected.append(float(F.cross_entropy(queries @ passages.T / 0.05, own, reduction="sum")))
    assert abs(float(loss.sum) - np.mean(expected)) < 1e-3 and loss.counted == 3


def test_what_is_right_elsewhere_is_no_wrong_answer(embedder: Embedder) -> None:
    """Two rows of one query, and two of one passage: neither is told from the other."""
    q, p, r, other = texts(lengths=(4, 6, 3, 8))
    value = np.ones(1, np.float32)
    pairs = [(q, p), (q, r), (other, p)]
    batch = batch_of([Example(pair, value) for pair in pairs])
    with torch.no_grad():
        loss = in_batch(embedder, batch, Contrast(0.05))
        _, own, wrong, asking = vectors_of(embedder, [q, p, r, other]) / 0.05**0.5
        # Both passages of q are right, so its two rows have nothing to be told from.
        expected = float(torch.logsumexp(torch.stack([asking @ own, asking @ wrong]), 0) - asking @ own)
    assert abs(float(loss.sum) - expected) < 1e-3


def test_pairs_are_ordered_by_the_plain_formula(embedder: Embedder) -> None:
    found, scores = texts(), (0.2, 1.0, 0.2, 0.6)
    examples = [Example(found[2 * i : 2 * i + 2], np.array([score], np.float32)) for i, score in enumerate(scores)]
    with torch.no_grad():
        loss = cosent(embedder, batch_of(examples), Contrast(0.05))
        whole = vectors_of(embedder, found)
        cosine = (whole[0::2] * whole[1::2]).sum(-1) / 0.05
        terms = [cosine[j] - cosine[i] for i in range(4) for j in range(4) if scores[i] > scores[j]]
        expected = torch.logsumexp(torch.stack([torch.zeros(()), *terms]), 0)
    assert loss.counted == 4 and abs(float(loss.sum) / 4 - float(expected)) < 1e-4


def test_the_likeliest_span_is_found_by_looking_at_all() -> None:
    generator = np.random.default_rng(0)
    for _ in range(50):
        logits = generator.normal(size=(20, 2)).astype(np.float32)
        inside = np.arange(20) >= 6
        score, first, last = best_span(logits[:20], inside[:20])
        every = {(i, j): logits[i, 0] + logits[j, 1] for i in range(6, 20) for j in range(i, 20)}
        assert (first, last) == max(every, key=every.__getitem__) and abs(score - max(every.values())) < 1e-6


def test_a_threshold_answers_what_is_worth_answering() -> None:
    margin, gain = np.array([3.0, 1.0, 2.0, -1.0]), np.array([1.0, -1.0, 0.5, 1.0])
    assert 1.0 < threshold(margin, gain) < 2.0 or threshold(margin, gain) < -1.0
    assert threshold(margin, -np.ones(4)) >= 3.0 and threshold(margin, np.ones(4)) < -1.0
