"""Our side of `bench.pretrain`: the training loop of `windlass train`, on the common weights and batches."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from bench._pretrain_job import Job, OnStep
from torch import nn

from windlass.build.training.compiling import prepare
from windlass.build.training.data.batches import Batch, Number
from windlass.build.training.distributed.parallel import Spread
from windlass.build.training.distributed.workers import ALONE
from windlass.build.training.loop import TrainState, steps
from windlass.build.training.objectives import causal
from windlass.build.training.optim.groups import pretraining_groups
from windlass.build.training.optim.optimizers import Optimizers
from windlass.build.training.optim.schedule import Plan
from windlass.build.training.recipe import read_recipe
from windlass.build.training.sizes import derive
from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.hf import load_model
from windlass.core.memory import keep_freed_memory

MUON_RATES = (0.02, 0.01, 0.005)
"""Of the blocks' matrices, the embedding, and the head: the last two smaller than our recipe's, since the start is a
common one."""


class InOrder:
    """The common batches, in the common order whatever numbers the loop asks for."""

    def __init__(self, job: Job) -> None:
        self.windows, self.taken = job.windows(), 0

    def __len__(self) -> int:
        return len(self.windows)

    def batch(self, numbers: Sequence[Number]) -> Batch:
        rows = self.windows[self.taken : self.taken + len(numbers)].astype("int64")
        self.taken += len(numbers)
        return Batch(torch.from_numpy(rows[:, :-1].copy()), torch.from_numpy(rows[:, 1:].copy()))


def train(job: Job, on_step: OnStep, *, optimizer: str, rates: tuple[float, float, float] | None = None) -> nn.Module:
    """Trains as `job` says, telling `on_step` the loss of each step; the trained model.

    `rates`: of the blocks' matrices, the embedding, and the head. None: with `adamw` every rate is the job's, as the
    peers have it; with `muon` `MUON_RATES`.
    """
    rates = rates or ((job.rate,) * 3 if optimizer == "adamw" else MUON_RATES)
    changes = {
        "data.batch": job.batch,
        "optimizer.kind": optimizer,
        "optimizer.matrix_rate": rates[0],
        "optimizer.embedding_rate": rates[1],
        "optimizer.head_rate": rates[2],
        "optimizer.betas": list(job.betas),
        "optimizer.weight_decay": job.weight_decay,
        "optimizer.clip": job.clip,
        "schedule.kind": "cosine",
        "schedule.steps": job.steps,
        "schedule.warmup_steps": job.warmup,
        "run.compile": "yes",
    }
    settings = read_recipe(changes=changes)
    model = load_model(job.folder / "start")
    assert isinstance(model, Decoder)
    model.train()
    keep_freed_memory()
    math, _ = prepare(model, settings)
    sizes, _ = derive(settings, job.vocabulary, model.config)
    state = TrainState(
        model,
        Optimizers(model, pretraining_groups(model, sizes, settings.optimizer), settings.optimizer),
        Plan(job.steps),
    )
    loss_of = Spread(model, partial(causal, model, math=math), ALONE, "ddp")
    for report in steps(state, InOrder(job), loss_of, sizes, settings.schedule, 0, None):
        on_step(report.loss)
    return model
