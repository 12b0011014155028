"""The parts of pre-training, each alone: schedule, pace, optimizers, sizes."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from windlass.build.training.optim.groups import pretraining_groups
from windlass.build.training.optim.optimizers import Optimizers
from windlass.build.training.optim.schedule import Plan, multiplier
from windlass.build.training.pace import UNPLANNED, Pace
from windlass.build.training.settings import ModelSettings, PretrainSettings, ScheduleSettings
from windlass.build.training.sizes import derive
from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.hf import to_hf
from windlass.build.transformer.init import initialise
from windlass.core.errors import ConfigError


def small() -> Decoder:
    model = Decoder(
        TransformerConfig(vocab_size=50, hidden=32, layers=2, heads=2, kv_heads=1, head_dim=16, ffn=48, context=24)
    )
    initialise(model, 3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)), alpha=0.05)
    return model


SCHEDULES = [
    ScheduleSettings(kind=kind, cooldown=c, floor=f)
    for kind in ("wsd", "cosine")
    for c, f in ((0.6, 0), (1, 0.1), (0, 0))
]


@given(st.sampled_from(SCHEDULES), st.integers(1, 500), st.integers(0, 20))
def test_the_rate_warms_up_and_then_never_rises(schedule, steps, warmup):
    rates = [multiplier(schedule, Plan(steps), step, warmup) for step in range(steps + 1)]
    assert all(0 <= rate <= 1 for rate in rates)
    falling = rates[warmup:]
    assert falling == sorted(falling, reverse=True)
    if schedule.kind == "cosine" or schedule.cooldown:
        assert rates[-1] == pytest.approx(schedule.floor * min(1, (steps + 1) / (warmup + 1)), abs=1e-12)


def test_the_shapes_are_those_of_the_papers():
    wsd, cosine = ScheduleSettings(cooldown=0.6), ScheduleSettings(kind="cosine", floor=0.1)
    assert [multiplier(wsd, Plan(10), step, 0) for step in (0, 3, 4, 7, 9)] == pytest.approx([1, 1, 1, 0.5, 1 / 6])
    assert [multiplier(cosine, Plan(10), step, 0) for step in (0, 5, 10)] == pytest.approx([1, 0.55, 0.1])
    assert [multiplier(wsd, Plan(100), step, 3) for step in range(5)] == pytest.approx([0.25, 0.5, 0.75, 1, 1])


@given(st.sampled_from(SCHEDULES), st.integers(0, 99), st.integers(1, 300))
def test_a_revised_plan_goes_on_from_the_rate_of_the_old_one(schedule, step, more):
    old = Plan(100)
    new = old.revised(step, step + more)
    assert new.steps == step + more
    assert multiplier(schedule, new, step, 5) == pytest.approx(multiplier(schedule, old, step, 5), abs=1e-9)
    assert new.progress(new.steps) == 1


def test_the_clock_decides_when_the_machine_slows_down():
    now = 0.0
    pace = Pace(100.0, 20.0, 0.0, clock=lambda: now)  # 20 s were used by an earlier process
    plan, step = UNPLANNED, 0
    while True:
        plan = pace.plan(plan, step)
        if step >= plan.steps or pace.must_stop():
            break
        seconds = 1.0 if step < 20 else 2.0
        now += seconds
        pace.measured(seconds)
        step += 1
    assert now <= 80.0
    assert now >= 76.0, "and the time is used"
    assert multiplier(ScheduleSettings(), plan, step, 3) < 0.15, "the rate had come down by then"


def test_optimizer_groups_cover_every_weight_once():
    model = small()
    settings = PretrainSettings(model=ModelSettings(depth=1))
    sizes, _ = derive(settings, 50)
    optimizers = Optimizers(model, pretraining_groups(model, sizes, settings.optimizer), settings.optimizer)
    grouped = [p for o in optimizers._all for group in o.param_groups for p in group["params"]]
    assert len(grouped) == len({id(p) for p in grouped}) == len(list(model.parameters()))


def test_muon_turns_a_gradient_into_a_nearly_orthogonal_step():
    model = small()
    settings = PretrainSettings(model=ModelSettings(depth=1))
    sizes, _ = derive(settings, 50)
    optimizers = Optimizers(model, pretraining_groups(model, sizes, settings.optimizer), settings.optimizer)
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


@pytest.mark.parametrize("architecture", ["decoder", "encoder", "encoder-decoder"])
@pytest.mark.parametrize("depth", range(1, 25))
def test_the_dial_gives_a_valid_model_at_every_depth(architecture, depth):
    sizes, lines = derive(PretrainSettings(model=ModelSettings(architecture, depth=depth)), 1000)
    to_hf(sizes.model)  # some family can express it
    assert sizes.model.layers == depth
    assert sizes.model.heads % sizes.model.kv_heads == 0
    assert f"{sizes.model.parameters:,}" in " ".join(lines)


def test_the_fields_of_a_model_can_be_set_and_are_checked():
    changes = {"hidden": 128, "qk_norm": True, "experts": {"count": 4, "active": 2, "ffn": 32}}
    sizes, lines = derive(PretrainSettings(model=ModelSettings(depth=2, config=changes)), 100)
    assert (sizes.model.hidden, sizes.model.heads, sizes.model.qk_norm) == (128, 2, True)
    assert sizes.model.experts.count == 4
    assert any("a token passes" in line for line in lines)
    with pytest.raises(ConfigError) as caught:
        derive(PretrainSettings(model=ModelSettings(config={"qk_nrm": True})), 100)
    assert "unknown key 'model.config.qk_nrm'" in caught.value.message
    assert "model.config.qk_norm" in caught.value.hint


def test_plans_survive_json():
    plan = Plan(10).revised(3, 12)
    assert Plan(**json.loads(json.dumps(asdict(plan)))) == plan
