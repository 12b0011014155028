"""GRPO makes a model better at what can be checked, from random weights; rewards by chance do not."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from digits_world import largest_of, random_base

from windlass.build.adapt.recipe import TUNING
from windlass.build.adapt.rl.rewards.reward import Reward
from windlass.build.adapt.tuning import tune
from windlass.core.workspace import Workspace
from windlass.loop.training.rollouts import EngineRollouts


def by_chance() -> Reward:
    draw = random.Random(0)
    return Reward(lambda answers: [float(draw.random() < 0.1) for _ in answers])


def learned(folder: Path, weights: list[float], steps: int) -> tuple[float, float]:
    """Share of right answers to prompts that were never trained on, before and after."""
    base = random_base(folder / "base", width=32)
    rows = largest_of(folder / "rows.jsonl", 3, 800)
    settings = TUNING.read(
        "grpo",
        {
            "model.base": str(base), "data.dataset": str(rows), "data.heldout": 0.25, "data.batch": 16,
            "data.micro_batch": 16, "adapter.kind": "none", "optimizer.matrix_rate": 6e-3, "schedule.steps": steps,
            "run.precision": "fp32", "rl.rewards": ["number", "chance"], "rl.weights": weights, "rl.group": 8,
            "rl.answer_tokens": 1,
        },
    )  # fmt: skip
    with Workspace(folder) as ws:
        model = tune(ws, settings, rollouts=EngineRollouts, rewards={"chance": by_chance()}, say=lambda line: None)
        first, last = (point.value for point in ws.store.metrics(model.record.run, "heldout_reward_number"))
    return first, last


@pytest.mark.slow
def test_grpo_learns_to_find_the_largest_of_three_digits(tmp_path):
    first, last = learned(tmp_path, [1.0, 0.0], 160)
    assert first < 0.15 and last > 0.5


@pytest.mark.slow
def test_rewards_by_chance_teach_nothing(tmp_path):
    """The control: all is the same but what the rewards say."""
    first, last = learned(tmp_path, [0.0, 1.0], 160)
    assert first < 0.15 and last < 0.25
