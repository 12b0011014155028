"""The same losses and gradients as TRL's GRPO on fixed log-probabilities, in every normalisation that both have."""

from __future__ import annotations

import warnings
from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch

from windlass.build.adapt.data.rows import Row
from windlass.build.adapt.rl.advantages import relative, shares
from windlass.build.adapt.rl.batches import RLBatch, lay_out
from windlass.build.adapt.rl.objective import _loss
from windlass.build.adapt.rl.prompts import Prompt
from windlass.build.adapt.rl.rollouts import Rollout
from windlass.build.adapt.rl.settings import RLSettings
from windlass.build.adapt.rl.tally import Tally


@pytest.fixture(scope="module")
def trl():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of others' imports
        pytest.importorskip("trl", reason="TRL is not installed")
        from trl.trainer import grpo_trainer

        return grpo_trainer


LENGTHS = [3, 7, 1, 5]
LONGEST = 9


def fixed() -> dict[str, list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)

    def near(tensors, by):
        return [one + by * torch.randn(len(one), generator=generator) for one in tensors]

    old = [-torch.rand(length, generator=generator) * 3 for length in LENGTHS]
    return {"old": old, "new": near(old, 0.3), "reference": near(old, 0.5), "sampler": near(old, 0.4)}


def theirs(trl, kind: str, advantages: torch.Tensor, values, asked: RLSettings) -> tuple[float, list[torch.Tensor]]:
    """TRL's own method, on a stand-in for the trainer that returns the fixed log-probabilities."""

    def padded(name: str) -> torch.Tensor:
        return torch.nn.utils.rnn.pad_sequence(values[name], batch_first=True)

    new = padded("new").requires_grad_()
    mask = torch.nn.utils.rnn.pad_sequence(
        [torch.ones(length, dtype=torch.long) for length in LENGTHS], batch_first=True
    )
    accelerator = SimpleNamespace(num_processes=1, gather=lambda x: x, reduce=lambda x, reduction: x)
    trainer = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *a, **k: (new, torch.zeros_like(new), None),
        _metrics=defaultdict(lambda: defaultdict(list)), _entropy_bonus_enabled=False, accelerator=accelerator,
        args=SimpleNamespace(delta=None, use_bias_correction_kl=False, steps_per_generation=1),
        aux_loss_enabled=False, beta=asked.kl,
        current_gradient_accumulation_steps=1, epsilon_high=asked.clip_high, epsilon_low=asked.clip_low,
        importance_sampling_level="token", loss_type=kind, max_completion_length=LONGEST,
        model=SimpleNamespace(training=True), off_policy_mask_threshold=None, top_entropy_quantile=1.0, use_vllm=True,
        vllm_importance_sampling_correction=True,
    )  # fmt: skip
    ratio = (padded("old") - padded("sampler")).exp().clamp(max=asked.importance_cap)
    inputs = {
        "prompt_ids": mask[:, :1], "prompt_mask": mask[:, :1], "completion_ids": mask, "completion_mask": mask,
        "advantages": advantages, "old_per_token_logps": padded("old"), "ref_per_token_logps": padded("reference"),
        "importance_sampling_ratio": ratio, "num_items_in_batch": mask.sum(),
    }  # fmt: skip
    loss = trl.GRPOTrainer._compute_loss(trainer, None, inputs)
    loss.backward()
    return float(loss.detach()), [row[:length] for row, length in zip(new.grad, LENGTHS, strict=True)]


@pytest.mark.parametrize(("kind", "share"), [("grpo", "sequence"), ("dapo", "token"), ("dr_grpo", "constant")])
@pytest.mark.parametrize("kl", [0.0, 0.04])
def test_grpo(trl, kind, share, kl):
    asked = RLSettings(group=2, share=share, kl=kl, clip_high=0.28, importance_cap=1.3, answer_tokens=LONGEST)
    values = fixed()
    advantages = relative(torch.tensor([[1.0, 0.0], [0.2, 0.7]])).flatten()
    wanted, gradients = theirs(trl, kind, advantages, values, asked)

    prompts = [Prompt((1, 2), Row("row", {}))] * 4
    laid = lay_out(prompts, [Rollout([3] * length, [0.0] * length, True) for length in LENGTHS], 0)
    weighed = shares(LENGTHS, share, LONGEST)
    new = [one.clone().requires_grad_() for one in values["new"]]
    batch = RLBatch(
        *(laid.batch.inputs_BT, laid.batch.targets_BT, laid.batch.documents_BT),
        advantages_BT=laid.placed([one.expand(length) for one, length in zip(advantages, LENGTHS, strict=True)]),
        shares_BT=laid.placed([torch.full((n,), weight) for (weight, _), n in zip(weighed, LENGTHS, strict=True)]),
        counts_B=torch.tensor([sum(weighed[n][1] for n in row) for row in laid.rows]),
        sampler_BT=laid.placed(values["sampler"]),
        old_BT=laid.placed(values["old"]),
        reference_BT=laid.placed(values["reference"]) if kl else None,
    )
    flat = torch.cat([new[number] for row in laid.rows for number in row])
    loss = _loss(lambda _: (flat, None), asked, Tally(), batch)
    (loss.sum / loss.counted).backward()
    assert float(loss.sum.detach()) / loss.counted == pytest.approx(wanted, rel=1e-5)
    for one, gradient in zip(new, gradients, strict=True):
        torch.testing.assert_close(one.grad, gradient)
