"""The parts of pre-training, each alone: schedule, pace, batches, optimizers, compiling, recipe."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from windlass.build.training.batches import DataState, next_batch
from windlass.build.training.compiling import forward_of
from windlass.build.training.optimizers import Optimizers
from windlass.build.training.pace import UNPLANNED, Pace
from windlass.build.training.recipe import derive
from windlass.build.training.schedule import Plan, fresh, revised
from windlass.build.training.settings import PretrainSettings
from windlass.build.training.shard import Shard
from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.init import initialise
from windlass.core.errors import InputError


def small() -> Decoder:
    model = Decoder(
        TransformerConfig(vocab_size=50, hidden=32, layers=2, heads=2, kv_heads=1, head_dim=16, ffn=48, context=24)
    )
    initialise(model, 3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)), alpha=0.05)
    return model


@given(st.integers(1, 500), st.floats(0, 1), st.integers(0, 20))
def test_the_rate_stays_within_bounds_and_never_rises_after_the_decay_began(steps, cooldown, warmup):
    plan = fresh(steps, cooldown)
    rates = [plan.multiplier(step, warmup) for step in range(steps)]
    assert all(0 <= rate <= 1 for rate in rates)
    falling = rates[plan.decay_from :]
    assert falling == sorted(falling, reverse=True)
    assert plan.multiplier(steps, warmup) == 0 or plan.decay_from == steps


@given(st.integers(0, 99), st.integers(1, 300))
def test_a_revised_plan_goes_on_from_the_rate_of_the_old_one(step, more):
    old = fresh(100, 0.6)
    new = revised(old, step, step + more, 0.6, 5)
    assert new.steps == step + more
    assert new.multiplier(step, 5) == pytest.approx(old.multiplier(step, 5), abs=1e-9)
    assert new.multiplier(new.steps - 1, 5) <= old.multiplier(step, 5) + 1e-9 or step < 5


def test_the_clock_decides_when_the_machine_slows_down():
    now = 0.0
    pace = Pace(100.0, 20.0, 0.0, clock=lambda: now)  # 20 s were used by an earlier process
    plan, step = UNPLANNED, 0
    while True:
        plan = pace.plan(plan, step, 0.5, 3)
        if step >= plan.steps or pace.must_stop():
            break
        seconds = 1.0 if step < 20 else 2.0
        now += seconds
        pace.measured(seconds)
        step += 1
    assert now <= 80.0
    assert now >= 76.0, "and the time is used"
    assert plan.multiplier(step, 3) < 0.15, "the rate had come down by then"


def test_an_epoch_holds_every_window_once_and_the_order_depends_on_the_seed_only():
    shard = Shard(np.arange(1003, dtype="<u2"), 1, 1, 0)

    def epoch(seed: int) -> list[list[int]]:
        state, rows = DataState(), []
        while state.epoch == 0:
            batch, state = next_batch(shard, state, batch=1, context=10, seed=seed)
            rows += batch.tolist()
        return rows

    rows = epoch(1)
    assert rows == epoch(1)
    assert rows != epoch(2)
    assert all(row == list(range(row[0], row[0] + 11)) for row in rows)
    predicted = sorted(token for row in rows for token in row[1:])
    assert len(predicted) == len(set(predicted)), "no token is predicted twice"
    assert len(predicted) >= 1002 - 2 * 10, "and only the ends are left out"


def test_batches_of_any_size_run_through_the_same_order():
    shard = Shard(np.arange(500, dtype="<u2"), 1, 1, 0)
    one, state = next_batch(shard, DataState(), batch=70, context=9, seed=4)
    rows, position = [], DataState()
    for size in (1, 30, 9, 30):
        part, position = next_batch(shard, position, batch=size, context=9, seed=4)
        rows.append(part)
    assert torch.equal(torch.cat(rows), one)
    assert position == state
    assert state.epoch == 1


def test_optimizer_groups_cover_every_weight_once():
    model = small()
    recipe, _ = derive(PretrainSettings(depth=1, steps=10), 50)
    optimizers = Optimizers(model, recipe)
    grouped = [p for o in optimizers._all for group in o.param_groups for p in group["params"]]
    assert len(grouped) == len({id(p) for p in grouped}) == len(list(model.parameters()))


def test_muon_turns_a_gradient_into_a_nearly_orthogonal_step():
    model = small()
    recipe, _ = derive(PretrainSettings(depth=1, steps=10), 50)
    optimizers = Optimizers(model, recipe)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    tokens = torch.randint(50, (4, 25), generator=torch.Generator().manual_seed(0))
    model(tokens[:, :-1]).square().mean().backward()
    optimizers.step(1.0)
    after = dict(model.named_parameters())["blocks.0.mlp.gate.weight"].detach()
    step = (after - before["blocks.0.mlp.gate.weight"]) / recipe.matrix_rate / (48 / 32) ** 0.5
    singular = torch.linalg.svdvals(step)
    assert singular.max() < 1.3
    assert singular.median() > 0.5
    assert all(p.grad is None for p in model.parameters())


def test_without_a_compiler_it_trains_uncompiled_and_says_so(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    forward = forward_of(small(), PretrainSettings(minutes=3))
    assert "no C++ compiler" in forward.how
    with pytest.raises(InputError, match="needs a C\\+\\+ compiler"):
        forward_of(small(), PretrainSettings(compile="yes"))
    assert "switched off" in forward_of(small(), PretrainSettings(compile="no")).how


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_compiled_passes_equal_the_plain_ones():
    model = small()
    settings = PretrainSettings(compile="yes", precision="fp32")
    compiled = forward_of(model, settings)
    plain = forward_of(model, PretrainSettings(compile="no", precision="fp32"))
    tokens = torch.randint(50, (3, 25), generator=torch.Generator().manual_seed(0))
    losses, gradients = [], []
    for forward in (compiled, plain):
        model.zero_grad()
        loss = forward.loss(tokens)
        loss.backward()
        losses.append(float(loss.detach()))
        gradients.append([p.grad.clone() for p in model.parameters()])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-3)
    with torch.inference_mode():
        x = tokens[:, :-1]
        torch.testing.assert_close(compiled.logits(x), plain.logits(x), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("depth", range(1, 25))
def test_the_dial_gives_a_valid_model_at_every_depth(depth):
    recipe, lines = derive(PretrainSettings(depth=depth), 1000)
    assert recipe.model.layers == depth
    assert recipe.model.heads % recipe.model.kv_heads == 0
    assert f"{recipe.model.parameters:,}" in " ".join(lines)


def test_plans_survive_json():
    plan = fresh(10, 0.5)
    assert Plan(**json.loads(json.dumps(asdict(plan)))) == plan
