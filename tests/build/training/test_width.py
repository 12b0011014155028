"""What must not change: the size of an update when the model gets wider, and the losses when code is rearranged."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from windlass.build.training.bigram import bigram_start
from windlass.build.training.data.batches import Batch, CausalExamples
from windlass.build.training.data.shard import Shard
from windlass.build.training.distributed.parallel import Spread
from windlass.build.training.distributed.workers import ALONE
from windlass.build.training.loop import TrainState, accumulate, steps
from windlass.build.training.objectives import arithmetic, causal
from windlass.build.training.optim.groups import pretraining_groups
from windlass.build.training.optim.optimizers import Optimizers
from windlass.build.training.optim.schedule import Plan
from windlass.build.training.recipe import read_recipe
from windlass.build.training.sizes import BASE_WIDTH, derive
from windlass.build.training.start import first_model

WIDTHS = (32, 64, 128, 256)
V, T = 64, 16


def updates(kind: str, width: int, *, scaled: bool) -> list[float]:
    """How far four steps move what each block and the head say: root mean square over all coordinates."""
    shape = {"hidden": width, "heads": width // 16, "kv_heads": width // 16, "head_dim": 16, "ffn": 2 * width}
    changes = {"optimizer.kind": kind, "model.depth": 2, "model.context": T, "model.config": shape}
    settings = read_recipe(None, changes)
    sizes, _ = derive(settings, V)
    if not scaled:
        at_base, _ = derive(read_recipe(None, {**changes, "model.config": shape | {"hidden": BASE_WIDTH}}), V)
        sizes = replace(sizes, matrix_rate=at_base.matrix_rate, head_rate=at_base.head_rate)
    model = first_model(sizes.model, None, 0)
    optimizers = Optimizers(model, pretraining_groups(model, sizes, settings.optimizer), settings.optimizer)
    said: dict[int, torch.Tensor] = {}
    for layer, block in enumerate(model.blocks):
        block.register_forward_hook(lambda module, given, out, layer=layer: said.update({layer: out.detach()}))
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randint(V, (8, T + 1), generator=generator) for _ in range(4)]

    def look() -> list[torch.Tensor]:
        with torch.no_grad():
            logits = model(batches[0][:, :-1])
        return [*(said[layer] for layer in sorted(said)), logits]

    before = look()
    for tokens in batches:
        accumulate([Batch(tokens[:, :-1], tokens[:, 1:])], partial(causal, model, math=arithmetic(model)))
        optimizers.clip()
        optimizers.step(0.3)
    return [float((b - a).square().mean().sqrt()) for a, b in zip(before, look(), strict=True)]


@pytest.mark.parametrize("kind", ["muon", "adamw"])
def test_an_update_moves_every_width_by_as_much(kind):
    """The coordinate check of Yang et al. (arXiv 2203.03466, appendix D.1), and that it fails without the scaling."""
    moved = np.array([updates(kind, width, scaled=True) for width in WIDTHS])
    assert (moved > 0.01).all()
    assert (moved.max(0) / moved.min(0) < 1.6).all(), moved
    same = np.array([updates(kind, width, scaled=False) for width in WIDTHS])
    assert same[-1, -1] / same[0, -1] > 4, "with the same rates the logits of a wide model move further"


PINNED = [
    1.572123,
    1.200309,
    1.133945,
    1.188017,
    1.242569,
    1.252813,
    1.181163,
    1.176412,
    1.303537,
    1.345039,
    1.243265,
    1.27744,
    1.333365,
]


def test_losses_are_those_of_before():
    """The first steps of a run as it is by default, in float32. New numbers here need a reason in the commit."""
    changes = {"model.depth": 2, "model.context": 32, "model.config.hidden": 64, "data.batch": 4, "schedule.steps": 12}
    rates = {"optimizer.matrix_rate": 0.01, "optimizer.embedding_rate": 0.01, "optimizer.head_rate": 0.001}
    settings = read_recipe(None, {**changes, **rates, "schedule.warmup_steps": 2})
    sizes, _ = derive(settings, V)
    generator = np.random.default_rng(7)
    tokens = (np.cumsum(generator.integers(0, 3, 3000)) % (V - 1) + 1).astype("<u2")
    tokens[::150] = 0
    shard = Shard(np.append(tokens, 0).astype("<u2"), 20, 1, 0)
    model = first_model(sizes.model, None, 0)
    start = bigram_start(model, shard)
    loss_of = Spread(model, partial(causal, model, math=arithmetic(model)), ALONE, "ddp")
    state = TrainState(
        model, Optimizers(model, pretraining_groups(model, sizes, settings.optimizer), settings.optimizer), Plan(12)
    )
    examples = CausalExamples(shard, sizes.context, isolate=False, seed=0)
    reports = list(steps(state, examples, loss_of, sizes, settings.schedule, 0, None))
    assert [start, *(report.loss for report in reports)] == pytest.approx(PINNED, rel=2e-4)
