"""An adapter on an embedder, trained on what users asked and which documents answered.

The embedder stays as it is; only its finished vectors are corrected: `x' = normalise(x + (x @ down) @ up)`, with `up`
zero at the start, so that training begins at the identity, as LoRA does (Hu et al. 2021,
https://arxiv.org/abs/2106.09685). Vectors are computed once, an epoch takes a fraction of a second, and an index is
adapted by transforming what it stores.

The loss is InfoNCE (van den Oord et al. 2018, https://arxiv.org/abs/1807.03748) over all passages that any question's
search brought up, hard negatives among them. Two things make it fit the search that it will serve:

- The lexical score is part of the logit. Dense vectors that are trained alone relearn what BM25 knows; trained on top
  of it they learn what is missing (CLEAR, Gao et al. 2021, https://arxiv.org/abs/2004.13969).
- A document has several passages, any of which answers: the positives' probabilities are summed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from windlass.core.artifacts import Artifact
from windlass.core.errors import InputError, MissingExtra
from windlass.core.files import write_json
from windlass.core.runs import Run
from windlass.core.workspace import Workspace

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class AdaptSettings:
    rank: int = 64
    learning_rate: float = 1e-3
    epochs: int = 20
    """At most; training stops earlier when `patience` epochs brought no better held-back loss."""
    patience: int = 3
    batch: int = 128
    temperature: float = 0.05
    lexical_weight: float = 0.2
    """How much a lexical score of 1 (the best of its question) adds to a cosine similarity."""
    keep: Literal["best", "last"] = "best"
    """`last` keeps the last epoch however bad it is, and never stops early: for showing what a gate is good for."""

    def __post_init__(self) -> None:
        if min(self.rank, self.epochs, self.patience, self.batch) < 1:
            raise InputError("rank, epochs, patience and batch must be at least 1.")
        if self.learning_rate <= 0 or self.temperature <= 0 or self.lexical_weight < 0:
            raise InputError("learning_rate and temperature must be above 0, lexical_weight not below 0.")


@dataclass(frozen=True, slots=True)
class Examples:
    """What an adapter learns from. Q questions, P passages, D dimensions; vectors are unit vectors of the embedder."""

    questions: Floats
    """Shape (Q, D)."""
    passages: Floats
    """Shape (P, D)."""
    lexical: Floats
    """Shape (Q, P), from 0 to 1: the other retriever's score of each passage for each question."""
    positive: NDArray[np.bool_]
    """Shape (Q, P). Every question has at least one."""
    held: NDArray[np.bool_]
    """Shape (Q,): questions that are not trained on but choose the epoch; best from other files than the rest."""

    def __post_init__(self) -> None:
        shape = (len(self.questions), len(self.passages))
        if self.lexical.shape != shape or self.positive.shape != shape or self.held.shape != shape[:1]:
            raise InputError(
                f"{shape[0]} questions and {shape[1]} passages, but lexical scores {self.lexical.shape}, "
                f"positives {self.positive.shape} and held {self.held.shape}."
            )
        if not self.positive.any(1).all():
            raise InputError("A question has no passage that answers it.", "Leave such questions out.")
        if self.held.all() or not self.held.any():
            raise InputError(
                f"{shape[0]} questions, of which {int(self.held.sum())} are held back: too few to learn from.",
                "Collect feedback on more questions.",
            )


def info_nce(logits_QP: Tensor, positive_QP: Tensor) -> Tensor:
    """Mean over questions of -log(share of probability that falls on the positives).

    With one positive per row this is the cross entropy of classifying it. Every row needs a positive.
    """
    positives_Q = logits_QP.masked_fill(~positive_QP, -torch.inf).logsumexp(1)
    return (logits_QP.logsumexp(1) - positives_Q).mean()


def adapted(vectors_ND: Tensor, down_DR: Tensor, up_RD: Tensor) -> Tensor:
    """The corrected vectors, of unit length."""
    return normalize(vectors_ND + (vectors_ND @ down_DR) @ up_RD, dim=1)


def train_adapter(
    ws: Workspace,
    dataset: Artifact,
    examples: Examples,
    *,
    embedder: str,
    settings: AdaptSettings | None = None,
    seed: int = 0,
    name: str = "adapter",
    card: dict[str, Any] | None = None,
    progress: Callable[[int, str], object] | None = None,
) -> Artifact:
    """Trains an adapter for the embedder with digest `embedder` and stores it as an artifact of kind `adapter`.

    The best epoch on the held-back questions is kept; that may be epoch 0, the identity. `progress` is told the epochs
    done and a note. The same arguments give the same adapter.
    """
    settings = settings or AdaptSettings()
    config = {**asdict(settings), "dataset": dataset.digest, "embedder": embedder}
    with (
        ws.runs.start("adapt", name, config=config, seed=seed) as run,
        ws.artifacts.build("adapter", name, run=run.id) as draft,
    ):
        started = time.perf_counter()
        training = _Training(examples, settings, seed)
        best = training.fit(run, progress)
        _save(draft.path, best.down, best.up, embedder)
        draft.add_parent("dataset", dataset)
        draft.card = {
            "description": "Low-rank residual on the vectors of a frozen embedder, for questions and passages alike.",
            "questions": len(training.fitted),
            "held_back_questions": len(training.held),
            "passages": len(examples.passages),
            "epoch": best.epoch,
            "held_back_loss": best.loss,
            "held_back_loss_before": training.first_loss,
            "seconds": round(time.perf_counter() - started, 3),
            "seed": seed,
            "settings": asdict(settings),
            **(card or {}),
        }
    return draft.done


@dataclass(frozen=True, slots=True)
class _Best:
    epoch: int
    loss: float
    down: Tensor
    up: Tensor


class _Training:
    """The tensors of one training, split into questions to fit and questions held back."""

    def __init__(self, examples: Examples, settings: AdaptSettings, seed: int) -> None:
        self.settings = settings
        self.generator = torch.Generator().manual_seed(seed)
        self.questions = torch.tensor(examples.questions)
        self.passages = torch.tensor(examples.passages)
        self.lexical = torch.tensor(examples.lexical)
        self.positive = torch.tensor(examples.positive)
        self.held = torch.tensor(np.flatnonzero(examples.held))
        self.fitted = torch.tensor(np.flatnonzero(~examples.held))
        self.first_loss = float("nan")

    def fit(self, run: Run, progress: Callable[[int, str], object] | None) -> _Best:
        s = self.settings
        d = self.questions.shape[1]
        down = (torch.randn(d, s.rank, generator=self.generator) / d**0.5).requires_grad_()
        up = torch.zeros(s.rank, d, requires_grad=True)
        optimizer = torch.optim.AdamW([down, up], lr=s.learning_rate)
        self.first_loss = self.held_loss(down, up)
        best = _Best(0, self.first_loss, down.detach().clone(), up.detach().clone())
        run.log(0, held_back_loss=best.loss)
        for epoch in range(1, s.epochs + 1):
            order = self.fitted[torch.randperm(len(self.fitted), generator=self.generator)]
            total = 0.0
            for rows in torch.split(order, s.batch):
                loss = info_nce(self.logits(rows, down, up), self.positive[rows])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                total += float(loss.detach()) * len(rows)
            held = self.held_loss(down, up)
            run.log(epoch, loss=total / len(order), held_back_loss=held)
            if progress is not None:
                progress(epoch, f"loss {total / len(order):.3f}, held back {held:.3f}")
            if held < best.loss or s.keep == "last":
                best = _Best(epoch, held, down.detach().clone(), up.detach().clone())
            elif epoch - best.epoch >= s.patience:
                break
        return best

    def logits(self, rows: Tensor, down: Tensor, up: Tensor) -> Tensor:
        cosine = adapted(self.questions[rows], down, up) @ adapted(self.passages, down, up).T
        return (cosine + self.settings.lexical_weight * self.lexical[rows]) / self.settings.temperature

    @torch.no_grad()
    def held_loss(self, down: Tensor, up: Tensor) -> float:
        return float(info_nce(self.logits(self.held, down, up), self.positive[self.held]))


def _save(folder: Path, down: Tensor, up: Tensor, embedder: str) -> None:
    try:
        from safetensors.torch import save_file
    except ImportError as error:
        raise MissingExtra("Training an adapter", "build") from error
    save_file({"down": down.contiguous(), "up": up.contiguous()}, folder / "adapter.safetensors")
    dimension, rank = down.shape
    write_json(
        folder / "adapter_config.json",
        {"type": "low_rank_residual", "dimension": dimension, "rank": rank, "base_embedder": embedder},
    )
