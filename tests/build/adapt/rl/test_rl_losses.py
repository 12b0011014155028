"""Losses and advantages against their definitions, computed in another way."""

from __future__ import annotations

import math

import pytest
import torch

from windlass.build.adapt.rl.advantages import generalised, relative, shares, whitened
from windlass.build.adapt.rl.losses import clipped, divergence, importance, value_loss


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_surrogate_is_that_of_the_paper():
    new, old, advantages = drawn(200), drawn(200, seed=1), drawn(200, seed=2)
    for n, o, a, found in zip(new, old, advantages, clipped(new, old, advantages, 0.1, 0.3)):
        ratio = math.exp(n - o)
        kept = min(max(ratio, 0.9), 1.3)
        assert float(found) == pytest.approx(-min(ratio * a, kept * a))


def test_a_ratio_that_went_where_it_should_go_gets_no_further_gradient():
    old = torch.zeros(4)
    new = torch.tensor([0.5, -0.5, 0.5, -0.5], requires_grad=True)  # ratios 1.65 and 0.61
    clipped(new, old, torch.tensor([1.0, 1.0, -1.0, -1.0]), 0.2, 0.2).sum().backward()
    assert new.grad[0] == 0 and new.grad[3] == 0
    assert new.grad[1] != 0 and new.grad[2] != 0


def test_at_the_first_update_the_gradient_is_that_of_reinforce():
    logits = drawn(6, 5).requires_grad_()
    tokens, advantages = torch.tensor([0, 1, 2, 3, 4, 0]), drawn(6, seed=3)
    new = logits.log_softmax(-1).gather(-1, tokens[:, None])[:, 0]
    (found,) = torch.autograd.grad(clipped(new, new.detach(), advantages, 0.2, 0.2).sum(), logits, retain_graph=True)
    (wanted,) = torch.autograd.grad(-(new * advantages).sum(), logits)
    assert torch.allclose(found, wanted)


def test_the_divergence_is_unbiased_and_never_negative():
    """Its expectation over what the policy draws, by summing over the whole vocabulary, is the divergence itself."""
    new, reference = drawn(50).log_softmax(-1), drawn(50, seed=1).log_softmax(-1)
    each = divergence(new, reference)
    assert (each >= 0).all()
    assert float((new.exp() * each).sum()) == pytest.approx(float((new.exp() * (new - reference)).sum()))


def test_importance_takes_the_expectation_over_to_the_trainers_distribution():
    trainer, sampler = drawn(50).log_softmax(-1), drawn(50, seed=1).log_softmax(-1)
    value = drawn(50, seed=2)
    weighed = (sampler.exp() * importance(trainer, sampler, math.inf) * value).sum()
    assert float(weighed) == pytest.approx(float((trainer.exp() * value).sum()))
    assert importance(trainer, sampler, 1.5).max() == 1.5
    assert not importance(trainer.requires_grad_(), sampler, 1.5).requires_grad


def test_generalised_advantages_are_weighted_sums_of_surprises():
    rewards, values = drawn(7), drawn(7, seed=1)
    discount, trace = 0.9, 0.7
    following = torch.cat([values[1:], torch.zeros(1, dtype=torch.float64)])
    surprise = rewards + discount * following - values
    wanted = [sum((discount * trace) ** (k - t) * surprise[k] for k in range(t, 7)) for t in range(7)]
    assert torch.allclose(generalised(rewards, values, discount, trace), torch.stack(wanted))
    told = generalised(rewards, values, 1.0, 1.0) + values  # without discount: what is yet to come
    assert torch.allclose(told, rewards.flip(0).cumsum(0).flip(0))


def test_values_gain_nothing_beyond_the_clip():
    values = torch.tensor([2.0, 0.1], requires_grad=True)
    loss = value_loss(values, torch.zeros(2), torch.tensor([3.0, 1.0]), 0.5)
    assert torch.allclose(loss, torch.tensor([(3 - 0.5) ** 2 / 2, 0.9**2 / 2]))
    loss.sum().backward()
    assert values.grad[0] == 0 and values.grad[1] != 0


def test_equal_rewards_give_no_advantage_whatever_they_are():
    rewards = torch.full((2, 7), 0.1, dtype=torch.float64)
    rewards[1, 3] = 1.0
    found = relative(rewards)
    assert (found[0] == 0).all() and found[1, 3] > 2
    assert torch.allclose(found.sum(dim=1), torch.zeros(2, dtype=torch.float64))
    plain = relative(rewards, deviation=False)
    assert torch.allclose(plain[1, 3], torch.tensor(0.9 * 6 / 7, dtype=torch.float64))


def test_whitened_advantages_have_mean_0_and_variance_1():
    found = whitened(drawn(1000) * 5 + 3)
    assert abs(float(found.mean())) < 1e-12 and float(found.var()) == pytest.approx(1, rel=1e-6)


def test_what_weighs_the_same():
    lengths, longest = [2, 5, 9], 16
    each = [drawn(length, seed=length) for length in lengths]

    def mean(kind) -> float:
        weighed = shares(lengths, kind, longest)
        total = sum(weight * float(tokens.sum()) for (weight, _), tokens in zip(weighed, each))
        return total / sum(count for _, count in weighed)

    assert mean("sequence") == pytest.approx(float(torch.stack([tokens.mean() for tokens in each]).mean()))
    assert mean("token") == pytest.approx(float(torch.cat(each).mean()))
    assert mean("constant") == pytest.approx(float(torch.cat(each).sum()) / 3 / longest)
