"""The losses of preference optimisation: what they are at known places, and that TRL's are the same numbers."""

from __future__ import annotations

import math
from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from windlass.build.adapt.objectives import preference_losses as losses
from windlass.build.training.data.batches import IGNORE
from windlass.build.training.head import token_nats

LN2 = math.log(2)
N, T, V = 5, 12, 17


def at(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_without_a_margin_nothing_is_known():
    zero = at(0.0)
    assert losses.sigmoid(zero, 0.1).item() == pytest.approx(LN2)
    assert losses.hinge(zero, 0.1).item() == 1
    assert losses.ipo(zero, 0.5).item() == 1
    assert losses.simpo(at(-2.0), at(-2.0), 2.0, 0.0).item() == pytest.approx(LN2)
    assert losses.bradley_terry(at(3.0), at(3.0)).item() == pytest.approx(LN2)
    assert losses.kto(at(2.0, 2.0), torch.tensor([True, False]), 2.0, 0.1).tolist() == [0.5, 0.5]


def test_what_each_loss_calls_enough():
    assert losses.hinge(at(10.0, 20.0), 0.1).tolist() == [0, 0]
    assert losses.ipo(at(5.0), 0.1).item() == 0 and losses.ipo(at(6.0), 0.1).item() > 0
    assert losses.sigmoid(at(100.0), 1.0).item() < 1e-40
    assert losses.simpo(at(-1.0), at(-1.5), 2.0, 1.0).item() == pytest.approx(LN2)


def test_smoothing_is_what_is_to_be_expected_of_wrong_labels():
    margin = at(-3.0, 0.5, 7.0)
    for loss in (losses.sigmoid, losses.hinge, losses.ipo):
        expected = 0.8 * loss(margin, 0.3) + 0.2 * loss(-margin, 0.3)
        assert torch.equal(loss(margin, 0.3, 0.2), expected)


def test_a_baseline_is_never_negative():
    assert losses.kto_baseline(at(-3.0, 1.0)).item() == 0
    assert losses.kto_baseline(at(3.0, 1.0)).item() == 2


def test_orpo_is_likelihood_and_odds():
    chosen, rejected = at(-0.3, -2.0), at(-1.0, -0.01)
    odds = [p.exp() / (1 - p.exp()) for p in (chosen, rejected)]
    expected = -chosen - 0.25 * torch.log(torch.sigmoid(torch.log(odds[0] / odds[1])))
    torch.testing.assert_close(losses.orpo(chosen, rejected, 0.25), expected)


@pytest.mark.parametrize("logp", [0.0, -1e-7, -1e-3, -40.0])
def test_orpo_has_gradients_where_an_answer_is_certain(logp):
    chosen = torch.tensor([logp, -1.0], requires_grad=True)
    rejected = torch.tensor([-1.0, logp], requires_grad=True)
    losses.orpo(chosen, rejected, 0.1).sum().backward()
    assert chosen.grad.isfinite().all() and rejected.grad.isfinite().all()


def drawn(seed: int) -> SimpleNamespace:
    """Logits of a policy and of a reference for random pairs of unequal length."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(V, (2 * N, T), generator=generator)
    ends = torch.randint(6, T + 1, (2 * N, 1), generator=generator)
    starts = torch.randint(1, 5, (2 * N, 1), generator=generator)
    places = torch.arange(T)
    return SimpleNamespace(
        tokens=tokens,
        there=(places < ends).long(),
        said=((places >= starts) & (places < ends)).long(),
        policy=torch.randn(2 * N, T, V, generator=generator) * 2,
        reference=torch.randn(2 * N, T, V, generator=generator) * 2,
    )


def summed(made: SimpleNamespace, logits: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of the answers as windlass computes them: the logits stand for what the head reads."""
    targets = torch.where(made.said[:, 1:] == 1, made.tokens[:, 1:], IGNORE)
    return -token_nats(lambda x: x, logits[:, :-1], targets, [], chunk=7).sum(1)


def outputs(made: SimpleNamespace) -> SimpleNamespace:
    """What a model gives TRL's trainers: log-probabilities of the next tokens, by plain PyTorch, and figures to log."""
    logits, said = made.policy[:, :-1], made.said[:, 1:]
    logps = logits.log_softmax(-1).gather(-1, made.tokens[:, 1:, None])[..., 0] * said
    return SimpleNamespace(log_probs=logps, entropy=said * 1.0, mean_logits=said * 1.0, is_top1=said == 1)


def trl_self(**changes) -> SimpleNamespace:
    """What the losses of TRL's trainers read of their trainer."""
    device = SimpleNamespace(device=torch.device("cpu"), gather=lambda x: x, gather_for_metrics=lambda x: x)
    values = {
        "accelerator": device, "model": SimpleNamespace(training=True), "aux_loss_enabled": False, "ld_alpha": None,
        "precompute_ref_logps": True, "f_divergence_type": "reverse_kl", "use_weighting": False, "label_smoothing": 0.0,
        "loss_weights": [1.0], "calculate_KL": True, "_metrics": defaultdict(lambda: defaultdict(list)),
        "_total_train_tokens": 0, "_tp_size": 1, "alpha": 0.0,
    }  # fmt: skip
    return SimpleNamespace(**{**values, **changes})


@pytest.mark.slow
@pytest.mark.parametrize("beta", [0.1, 0.7])
@pytest.mark.parametrize("kind", ["sigmoid", "hinge", "ipo"])
def test_dpo_is_that_of_trl(kind, beta):
    trainer = pytest.importorskip("trl.trainer.dpo_trainer", reason="TRL is not installed").DPOTrainer
    made = drawn(1)
    own, reference = summed(made, made.policy), summed(made, made.reference)
    inputs = {
        "input_ids": made.tokens, "attention_mask": made.there, "completion_mask": made.said,
        "ref_chosen_logps": reference[:N], "ref_rejected_logps": reference[N:],
    }  # fmt: skip
    fake = trl_self(loss_types=[kind], beta=beta)
    expected = trainer._compute_loss(fake, lambda **_: outputs(made), inputs, False)
    ratios = own - reference
    if kind == "ipo":
        ratios = ratios / made.said.sum(1)
    found = getattr(losses, kind)(ratios[:N] - ratios[N:], beta).mean()
    torch.testing.assert_close(found, expected)
    (margin,) = fake._metrics["train"]["rewards/margins"]
    assert beta * (own - reference)[:N].sub((own - reference)[N:]).mean().item() == pytest.approx(margin, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("shift", [-30.0, 30.0])
def test_kto_is_that_of_trl(shift):
    """`shift` makes the reference point positive, where it counts."""
    trainer = pytest.importorskip("trl.trainer.kto_trainer", reason="TRL is not installed").KTOTrainer
    made, other = drawn(2), drawn(3)
    label = torch.tensor([True, False] * N)
    own, reference = summed(made, made.policy), summed(made, made.reference)
    strays = summed(other, other.policy), summed(other, other.reference) - shift
    inputs = {
        "input_ids": made.tokens, "attention_mask": made.there, "completion_mask": made.said, "label": label,
        "ref_logps": reference, "ref_KL_logps": strays[1],
    }  # fmt: skip
    fake = trl_self(loss_type="kto", beta=0.1, desirable_weight=1.5, undesirable_weight=0.5)
    fake._compute_kl_logps = lambda model, batch: strays[0]
    expected = trainer._compute_loss(fake, lambda **_: outputs(made), inputs, False)
    baseline = losses.kto_baseline(strays[0] - strays[1])
    assert (baseline > 0) == (shift > 0)
    found = losses.kto(own - reference, label, baseline, 0.1) * torch.where(label, 1.5, 0.5)
    torch.testing.assert_close(found.mean(), expected)


@pytest.mark.slow
def test_orpo_is_that_of_trl():
    """TRL learns the prompt of the chosen answer too; the part that compares is the same."""
    trainer = pytest.importorskip("trl.experimental.orpo.orpo_trainer", reason="TRL is not installed").ORPOTrainer
    made = drawn(4)
    means = summed(made, made.policy) / made.said[:, 1:].sum(1)
    ratio, *_ = trainer.odds_ratio_loss(trl_self(beta=0.3), means[:N], means[N:])
    torch.testing.assert_close(losses.orpo(means[:N], means[N:], 0.3), -means[:N] - ratio)
    labels = torch.where(made.said == 1, made.tokens, -100)
    torch.testing.assert_close(trainer.get_batch_logps(made.policy, labels, average_log_prob=True), means)


@pytest.mark.slow
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_simpo_is_that_of_trl(smoothing):
    trainer = pytest.importorskip("trl.experimental.cpo.cpo_trainer", reason="TRL is not installed").CPOTrainer
    made = drawn(5)
    means = summed(made, made.policy) / made.said[:, 1:].sum(1)
    fake = trl_self(loss_type="simpo", beta=2.0, simpo_gamma=0.5, label_smoothing=smoothing)
    expected, *_ = trainer.cpo_loss(fake, means[:N], means[N:])
    torch.testing.assert_close(losses.simpo(means[:N], means[N:], 2.0, 0.5, smoothing), expected)


@pytest.mark.slow
def test_the_smoothed_sigmoid_is_that_of_trl():
    """Its CPO has the smoothing that its DPO lost."""
    trainer = pytest.importorskip("trl.experimental.cpo.cpo_trainer", reason="TRL is not installed").CPOTrainer
    chosen, rejected = torch.randn(2, 20, generator=torch.Generator().manual_seed(6)) * 9
    fake = trl_self(loss_type="sigmoid", beta=0.2, label_smoothing=0.15)
    expected, *_ = trainer.cpo_loss(fake, chosen, rejected)
    torch.testing.assert_close(losses.sigmoid(chosen - rejected, 0.2, 0.15), expected)


@pytest.mark.slow
def test_the_loss_of_rewards_is_that_of_trl():
    trainer = pytest.importorskip("trl.trainer.reward_trainer", reason="TRL is not installed").RewardTrainer
    scores = torch.randn(2 * N, 1, generator=torch.Generator().manual_seed(7)) * 3
    fake = trl_self(args=SimpleNamespace(center_rewards_coefficient=None))
    inputs = {"input_ids": torch.zeros(2 * N, 3, dtype=torch.long), "attention_mask": torch.ones(2 * N, 3)}
    expected = trainer.compute_loss(fake, lambda **_: SimpleNamespace(logits=scores), inputs)
    torch.testing.assert_close(losses.bradley_terry(scores[:N, 0], scores[N:, 0]).mean(), expected)


def test_nats_in_chunks_are_those_at_once():
    """Their gradients too, of what the head reads and of the head, whatever each target weighs."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 11, 6, generator=generator)
    targets = torch.where(torch.rand(3, 11, generator=generator) < 0.7, torch.randint(V, (3, 11)), IGNORE)
    weighs = torch.randn(3, 11, generator=generator)
    found = {}
    for trained in (True, False):
        for chunk in (4, 100):
            head = torch.nn.Parameter(torch.randn(V, 6, generator=torch.Generator().manual_seed(1)), trained)
            read = x.clone().requires_grad_()
            weights = [head] if trained else []
            nats = token_nats(lambda v, head=head: F.linear(v, head), read, targets, weights, chunk)
            assert torch.equal(nats == 0, targets == IGNORE)
            (nats * weighs).sum().backward()
            found[trained, chunk] = nats.detach(), read.grad, head.grad
            assert (head.grad is not None) == trained
    for trained in (True, False):
        for one, other in zip(found[trained, 4], found[trained, 100], strict=True):
            if one is not None:
                torch.testing.assert_close(one, other)
    torch.testing.assert_close(found[True, 4][1], found[False, 4][1])
