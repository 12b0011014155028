"""The parts of pre-training, each alone: schedule, pace, optimizers, sizes."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from windlass.build.training.optimizers import Optimizers
from windlass.build.training.pace import UNPLANNED, Pace
from windlass.build.training.schedule import Plan, fresh, revised
from windlass.build.training.settings import ModelSettings, PretrainSettings
from windlass.build.training.sizes import derive
from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.init import initialise


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


def test_optimizer_groups_cover_every_weight_once():
    model = small()
    settings = PretrainSettings(model=ModelSettings(depth=1))
    sizes, _ = derive(settings, 50)
    optimizers = Optimizers(model, sizes, settings.optimizer)
    grouped = [p for o in optimizers._all for group in o.param_groups for p in group["params"]]
    assert len(grouped) == len({id(p) for p in grouped}) == len(list(model.parameters()))


def test_muon_turns_a_gradient_into_a_nearly_orthogonal_step():
    model = small()
    settings = PretrainSettings(model=ModelSettings(depth=1))
    sizes, _ = derive(settings, 50)
    optimizers = Optimizers(model, sizes, settings.optimizer)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    tokens = torch.randint(50, (4, 25), generator=torch.Generator().manual_seed(0))
    model(tokens[:, :-1]).square().mean().backward()
    optimizers.clip()
    optimizers.step(1.0)
    after = dict(model.named_parameters())["blocks.0.mlp.gate.weight"].detach()
    step = (after - before["blocks.0.mlp.gate.weight"]) / sizes.matrix_rate / (48 / 32) ** 0.5
    singular = torch.linalg.svdvals(step)
    assert singular.max() < 1.3
    assert singular.median() > 0.5
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("depth", range(1, 25))
def test_the_dial_gives_a_valid_model_at_every_depth(depth):
    sizes, lines = derive(PretrainSettings(model=ModelSettings(depth=depth)), 1000)
    assert sizes.model.layers == depth
    assert sizes.model.heads % sizes.model.kv_heads == 0
    assert f"{sizes.model.parameters:,}" in " ".join(lines)


def test_plans_survive_json():
    plan = fresh(10, 0.5)
    assert Plan(**json.loads(json.dumps(asdict(plan)))) == plan
