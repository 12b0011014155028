"""The contrastive adapter: loss and gradient against references, learning, determinism, and the format it writes."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from windlass.apply.rag.embedding.adapter import load_adapter
from windlass.build.adapt import AdaptSettings, Examples, info_nce, train_adapter
from windlass.build.adapt.contrastive import adapted
from windlass.core.artifacts import Artifact
from windlass.core.errors import InputError
from windlass.core.workspace import Workspace


def test_loss_with_one_positive_is_cross_entropy() -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(7, 11, dtype=torch.float64), torch.randint(11, (7,))
    positive = torch.nn.functional.one_hot(targets, 11).bool()
    torch.testing.assert_close(info_nce(logits, positive), torch.nn.functional.cross_entropy(logits, targets))


def test_loss_with_several_positives_sums_their_probability() -> None:
    logits = torch.tensor([[0.0, math.log(2), math.log(5)]], dtype=torch.float64)
    value = info_nce(logits, torch.tensor([[True, True, False]]))
    assert value.item() == pytest.approx(-math.log(3 / 8))
    assert info_nce(logits, torch.tensor([[True, True, True]])).item() == pytest.approx(0.0, abs=1e-12)


def test_gradients_of_loss_and_adapter() -> None:
    torch.manual_seed(1)
    questions, passages = (torch.nn.functional.normalize(torch.randn(n, 5, dtype=torch.float64)) for n in (3, 6))
    positive = torch.zeros(3, 6, dtype=torch.bool)
    positive[0, 0] = positive[1, 2] = positive[1, 3] = positive[2, 5] = True
    down = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    up = torch.randn(2, 5, dtype=torch.float64, requires_grad=True)

    def loss(down: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        return info_nce(adapted(questions, down, up) @ adapted(passages, down, up).T / 0.1, positive)

    assert torch.autograd.gradcheck(loss, (down, up))


def planted(questions: int = 240, seed: int = 0, noise: float = 1.0) -> Examples:
    """Questions are their passage plus noise in half of the dimensions, which the adapter can learn to ignore."""
    rng = np.random.default_rng(seed)
    d = 24
    passages = rng.normal(size=(questions, d))
    asked = passages + noise * rng.normal(size=(questions, d)) * (np.arange(d) >= d // 2) * 2

    def unit(x: np.ndarray) -> np.ndarray:
        return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)

    lexical = rng.random((questions, questions)).astype(np.float32) * 0.1
    return Examples(unit(asked), unit(passages), lexical, np.eye(questions, dtype=bool), np.arange(questions) % 5 == 0)


@pytest.fixture
def ws(tmp_path: Path):
    with Workspace(tmp_path) as workspace:
        yield workspace


@pytest.fixture
def dataset(ws: Workspace) -> Artifact:
    with ws.artifacts.build("dataset", "harvest") as draft:
        (draft.path / "items.jsonl").write_text("{}\n")
    return draft.done


def rank_one(examples: Examples, artifact: Artifact | None) -> float:
    questions, passages = examples.questions, examples.passages
    if artifact is not None:
        adapter = load_adapter(artifact)
        questions, passages = adapter.apply(questions), adapter.apply(passages)
    return float((np.argmax(questions @ passages.T, 1) == np.arange(len(questions))).mean())


def test_learns_what_can_be_learned_and_says_how(ws: Workspace, dataset: Artifact) -> None:
    settings = AdaptSettings(rank=12, learning_rate=0.01, batch=32)
    notes: list[int] = []
    artifact = train_adapter(
        ws, dataset, planted(), embedder="e" * 64, settings=settings, progress=lambda n, _: notes.append(n)
    )
    unseen = planted(seed=9)
    assert rank_one(unseen, artifact) > rank_one(unseen, None) + 0.1
    assert artifact.card["held_back_loss"] < artifact.card["held_back_loss_before"]
    assert artifact.parent("dataset") == dataset.digest
    run = ws.store.run(artifact.record.run or "")
    assert run is not None and run.status == "done"
    curve = ws.store.metrics(run.id, "held_back_loss")
    assert [point.step for point in curve] == [0, *notes]
    assert min(point.value for point in curve) == pytest.approx(artifact.card["held_back_loss"])


def test_same_arguments_same_adapter(ws: Workspace, dataset: Artifact) -> None:
    settings = AdaptSettings(rank=4, epochs=2, batch=32)
    one, two, other = (
        train_adapter(ws, dataset, planted(), embedder="e" * 64, settings=settings, seed=seed) for seed in (1, 1, 2)
    )
    assert one.digest == two.digest != other.digest


def test_stays_the_identity_when_there_is_nothing_to_learn(ws: Workspace, dataset: Artifact) -> None:
    examples = planted()
    rng = np.random.default_rng(3)
    shuffled = Examples(
        examples.questions,
        examples.passages,
        examples.lexical,
        np.eye(len(examples.questions), dtype=bool)[rng.permutation(len(examples.questions))],
        examples.held,
    )
    artifact = train_adapter(
        ws, dataset, shuffled, embedder="e" * 64, settings=AdaptSettings(rank=4, learning_rate=0.05)
    )
    before = rank_one(planted(seed=9), None)
    assert abs(rank_one(planted(seed=9), artifact) - before) < 0.15


def test_interrupted_training_leaves_no_adapter(ws: Workspace, dataset: Artifact) -> None:
    def stop(epoch: int, _: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_adapter(ws, dataset, planted(), embedder="e" * 64, progress=stop)
    assert ws.store.artifacts("adapter") == []
    assert ws.store.runs("adapt")[0].status == "interrupted"


def test_refuses_what_cannot_be_learned_from() -> None:
    good = planted(40)
    with pytest.raises(InputError, match="no passage that answers"):
        Examples(good.questions, good.passages, good.lexical, np.zeros((40, 40), bool), good.held)
    with pytest.raises(InputError, match="too few to learn from"):
        Examples(good.questions, good.passages, good.lexical, good.positive, np.zeros(40, bool))
    with pytest.raises(InputError, match="lexical scores"):
        Examples(good.questions, good.passages, good.lexical[:, 1:], good.positive, good.held)
    for wrong in ({"rank": 0}, {"temperature": 0.0}, {"patience": 0}):
        with pytest.raises(InputError):
            AdaptSettings(**wrong)  # type: ignore[arg-type]
