"""The engine writes answers with the very weights that are trained, and says how likely they were."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from digits_world import END, largest_of, random_base

from windlass.build.adapt.recipe import TUNING
from windlass.build.adapt.rl.rollouts import PlainRollouts, Rollout, Writing, twin
from windlass.build.adapt.rl.scoring import logprobs
from windlass.build.adapt.settings import TuneSettings
from windlass.build.adapt.tuning import tune
from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.hf import load_decoder
from windlass.core.workspace import Workspace
from windlass.loop.training.rollouts import EngineRollouts

PROMPTS = [(1, 2, 10), (3, 4, 10), (1, 2, 10), (9, 9, 9, 9, 10), (0, 10)]


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return random_base(tmp_path_factory.mktemp("base"), width=64, layers=2, context=96, noise=0.1)


def by_trainer(decoder: Decoder, prompt, rollout: Rollout, temperature: float) -> torch.Tensor:
    tokens = torch.tensor([*prompt, *rollout.tokens])
    with torch.no_grad():
        x_TC = decoder.hidden(tokens[None, :-1])[0, len(prompt) - 1 :]
        return logprobs(decoder, x_TC, tokens[len(prompt) :], temperature)


@pytest.mark.parametrize("temperature", [1.0, 0.6, 1.5])
def test_what_the_engine_reports_is_what_the_trainer_finds(base, temperature):
    """Of the distribution that was drawn from, at whatever temperature."""
    decoder = load_decoder(base)
    rollouts = EngineRollouts(twin(decoder), Writing(12, frozenset({END}), temperature))
    for prompt, rollout in zip(PROMPTS, rollouts.sample(PROMPTS, range(5)), strict=True):
        assert rollout.ended == (rollout.tokens[-1] == END) and len(rollout.tokens) <= 12
        found = by_trainer(decoder, prompt, rollout, temperature)
        torch.testing.assert_close(torch.tensor(rollout.logprobs), found, rtol=0, atol=2e-5)
    # It draws as often as it says: the first token, of many answers.
    first = [one.tokens[0] for one in rollouts.sample([PROMPTS[0]] * 600, range(600))]
    wanted = (decoder(torch.tensor([PROMPTS[0]]))[0, -1].detach().double() / temperature).softmax(-1)
    assert (torch.bincount(torch.tensor(first), minlength=13) / 600 - wanted).abs().max() < 0.08


def test_answers_hang_on_weights_prompt_and_seed_alone(base):
    decoder = load_decoder(base)
    rollouts = EngineRollouts(twin(decoder), Writing(12, frozenset({END})))
    together = rollouts.sample(PROMPTS * 8, range(40))
    assert rollouts.sample(PROMPTS * 8, range(40)) == together
    assert rollouts.sample(PROMPTS[1:2], [1]) == together[1:2]
    fresh = EngineRollouts(twin(load_decoder(base)), Writing(12, frozenset({END})))
    assert fresh.sample(PROMPTS[3:], [3, 4]) == together[3:5]


def test_the_engine_follows_every_update(base):
    """Nothing that was read with other weights is used again, though the prompts are the same."""
    decoder = load_decoder(base).train()
    long = tuple(range(10)) * 8
    rollouts = EngineRollouts(twin(decoder), Writing(4, frozenset({END})))
    before = rollouts.sample([long], [0])
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    (after,) = rollouts.sample([long], [0])
    torch.testing.assert_close(torch.tensor(after.logprobs), by_trainer(decoder, long, after, 1.0), rtol=0, atol=2e-5)
    assert [after] != before
    assert all(parameter.requires_grad for parameter in decoder.parameters()) and decoder.training


@pytest.mark.parametrize("kind", ["none", "lora", "dora"])
def test_tuning_with_the_engine(base, tmp_path, kind):
    """The mismatch of engine and trainer is measured in every step, and small where the arithmetic is the same."""
    settings: TuneSettings = TUNING.read(
        "grpo",
        {
            "model.base": str(base), "data.dataset": str(largest_of(tmp_path / "rows.jsonl", 2, 30)), "data.batch": 4,
            "adapter.kind": kind, "optimizer.matrix_rate": 1e-2, "schedule.steps": 4, "run.precision": "fp32",
            "rl.answer_tokens": 4, "rl.group": 8, "rl.temperature": 0.9,
        },
    )  # fmt: skip
    with Workspace(tmp_path) as ws:
        model = tune(ws, settings, rollouts=EngineRollouts, say=lambda line: None)
        worst = [point.value for point in ws.store.metrics(model.record.run, "mismatch_largest")]
        plain = tune(ws, settings, rollouts=PlainRollouts, say=lambda line: None)
    assert len(worst) == 4 and max(worst) < 1e-4
    assert plain.kind == model.kind


def test_a_sampler_in_other_arithmetic_is_seen(base, tmp_path):
    """Trained with bfloat16 activations, written in float32: the difference is there, and is logged."""
    settings = TUNING.read(
        "grpo",
        {
            "model.base": str(base), "data.dataset": str(largest_of(tmp_path / "rows.jsonl", 2, 30)), "data.batch": 4,
            "adapter.kind": "none", "schedule.steps": 3, "run.precision": "bf16", "rl.answer_tokens": 4,
        },
    )  # fmt: skip
    with Workspace(tmp_path) as ws:
        model = tune(ws, settings, rollouts=EngineRollouts, say=lambda line: None)
        found = {
            name: [p.value for p in ws.store.metrics(model.record.run, name)] for name in ("mismatch", "importance")
        }
    assert all(1e-5 < one < 0.1 for one in found["mismatch"])
    assert all(abs(one - 1) < 0.05 for one in found["importance"])


@pytest.mark.parametrize("writer", [EngineRollouts, PlainRollouts])
def test_a_student_that_answers_itself_does_so_by_the_engine(base, tmp_path, writer):
    """On-policy distillation, from a teacher that is the student with noise: it comes nearer to it."""
    teacher = random_base(tmp_path / "teacher", width=64, layers=2, context=96, noise=0.3)
    given = [json.loads(line) for line in largest_of(tmp_path / "given.jsonl", 2, 30).read_text().splitlines()]
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"question": r["prompt"], "answer": r["answer"]}) + "\n" for r in given))
    settings = TUNING.read(
        "distil-own",
        {
            "model.base": str(base), "objective.teacher": str(teacher), "data.dataset": str(rows), "data.batch": 4,
            "adapter.kind": "lora", "optimizer.matrix_rate": 1e-2, "schedule.steps": 8, "run.precision": "fp32",
            "rl.answer_tokens": 4,
        },
    )  # fmt: skip
    with Workspace(tmp_path) as ws:
        model = tune(ws, settings, rollouts=writer, say=lambda line: None)
        apart = [point.value for point in ws.store.metrics(model.record.run, "heldout_divergence")]
        written = [point.value for point in ws.store.metrics(model.record.run, "own_tokens")]
    assert apart[-1] < apart[0] and len(written) > 4 and max(written) <= 4
