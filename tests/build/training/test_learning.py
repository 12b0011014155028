"""What keeps a run on the road: 8-bit moments, averaged weights, the guard, and groups of weights."""

from __future__ import annotations

import math

import pytest
import torch
from test_objectives import batch_of, small

from windlass.build.training.guard import Best, Diverged, Guard, NotFinite, check_end, check_finite
from windlass.build.training.loop import accumulate
from windlass.build.training.objectives import arithmetic, causal
from windlass.build.training.optim.adamw8 import AdamW8
from windlass.build.training.optim.average import Average
from windlass.build.training.optim.groups import pretraining_groups
from windlass.build.training.optim.optimizers import Optimizers
from windlass.build.training.recipe import read_recipe
from windlass.build.training.sizes import derive


def regression(optimizer_of, steps=150, dtype=torch.float32) -> tuple[float, torch.nn.Parameter]:
    """Fits a matrix to noisy data of very different scales; returns the last loss and the matrix."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(96, 64, generator=generator)
    scales = torch.logspace(-1, 0.5, 64)
    weight = torch.nn.Parameter(torch.zeros(96, 64))
    optimizer = optimizer_of([weight])
    loss = torch.tensor(0.0)
    for _ in range(steps):
        x = torch.randn(128, 64, generator=generator) * scales
        loss = ((x @ (weight - truth).T) ** 2).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return float(loss.detach()), weight


def test_eight_bit_moments_learn_as_thirty_two_bit_ones_do():
    how = {"lr": 0.02, "betas": (0.9, 0.95), "eps": 1e-10, "weight_decay": 0.01}
    expected, exact = regression(lambda p: torch.optim.AdamW(p, **how))
    found, ours = regression(lambda p: AdamW8(p, **how))
    assert found == pytest.approx(expected, rel=0.05)
    assert float((ours - exact).detach().norm() / exact.detach().norm()) < 0.05


def test_a_small_tensor_gets_exactly_adamw():
    parameters = [torch.nn.Parameter(torch.linspace(-1, 1, 100)) for _ in range(2)]
    how = {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-10, "weight_decay": 0.1}
    optimizers = AdamW8([parameters[0]], **how), torch.optim.AdamW([parameters[1]], **how)
    for step in range(20):
        for parameter, optimizer in zip(parameters, optimizers, strict=True):
            parameter.grad = torch.sin(torch.arange(100.0) * (step + 1))
            optimizer.step()
    torch.testing.assert_close(parameters[0], parameters[1], rtol=1e-6, atol=1e-7)


def test_eight_bit_moments_take_a_quarter_of_the_memory():
    weight = torch.nn.Parameter(torch.zeros(256, 256))
    state = AdamW8.fresh(weight)
    assert sum(tensor.nbytes for tensor in state.values()) < 0.27 * 2 * weight.nbytes


@pytest.mark.parametrize("kind", ["muon", "adamw", "adamw8"])
def test_optimizers_learn_and_their_state_comes_back_whole(kind):
    """Half of the steps, then a new optimizer from the tensors of the first: bitwise the same weights at the end."""
    settings = read_recipe(None, {"optimizer.kind": kind, "model.depth": 1})
    sizes, _ = derive(settings, 50)
    ends = []
    for interrupted in (False, True):
        model = small(hidden=64)
        math_ = arithmetic(model)
        optimizers = Optimizers(model, pretraining_groups(model, sizes, settings.optimizer), settings.optimizer)
        losses = []
        for step in range(8):
            if interrupted and step == 4:
                tensors = {name: tensor.clone() for name, tensor in optimizers.tensors().items()}
                optimizers = Optimizers(model, pretraining_groups(model, sizes, settings.optimizer), settings.optimizer)
                for name, tensor in optimizers.tensors().items():
                    tensor.copy_(tensors[name])
            loss, _ = accumulate([batch_of(4)], lambda batch, m=model, a=math_: causal(m, batch, a))
            losses.append(loss)
            optimizers.clip()
            optimizers.step(0.3)
        assert losses[-1] < losses[0]
        ends.append([p.detach().clone() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


@pytest.mark.parametrize("kind", ["muon", "adamw"])
def test_scores_that_are_not_divided_learn_as_those_that_are(kind):
    settings = read_recipe(None, {"optimizer.kind": kind, "optimizer.weight_decay": 0.1, "model.depth": 1})
    sizes, _ = derive(settings, 50)
    plain, bare = small(hidden=64, layers=1), small(hidden=64, layers=1, attention_scale=1.0)
    plain_query, bare_query = plain.blocks[0].attention.query.weight, bare.blocks[0].attention.query.weight
    bare.load_state_dict(plain.state_dict())
    bare_query.data /= 4  # the root of the head's width
    before = plain_query.detach().clone()
    for model in (plain, bare):
        math_ = arithmetic(model)
        optimizers = Optimizers(model, pretraining_groups(model, sizes, settings.optimizer), settings.optimizer)
        for _ in range(5):
            accumulate([batch_of(4)], lambda batch, m=model, a=math_: causal(m, batch, a))
            optimizers.step(0.3)
    moved = (plain_query - before).norm()
    assert moved > 0.01 * before.norm()
    assert (bare_query * 4 - plain_query).norm() < 0.05 * moved  # Muon works in bfloat16


@pytest.mark.parametrize("kind", ["muon", "adamw"])
def test_every_weight_is_in_one_group_and_only_matrices_decay(kind):
    settings = read_recipe(None, {"optimizer.kind": kind, "optimizer.weight_decay": 0.5, "model.depth": 1})
    sizes, _ = derive(settings, 50)
    model = small()
    optimizers = Optimizers(model, pretraining_groups(model, sizes, settings.optimizer), settings.optimizer)
    groups = [group for optimizer in optimizers._all for group in optimizer.param_groups]
    grouped = [p for group in groups for p in group["params"]]
    assert len(grouped) == len({id(p) for p in grouped}) == len(list(model.parameters()))
    for group in groups:
        inside = [any(p is q for q in model.blocks.parameters()) and p.ndim == 2 for p in group["params"]]
        assert set(inside) == {group["weight_decay"] == 0.5}


def test_the_average_follows_the_weights_and_stands_in_for_them():
    model = torch.nn.Linear(3, 2, bias=False)
    average = Average(model, 0.9)
    expected = model.weight.detach().clone()
    for step in range(1, 60):
        with torch.no_grad():
            model.weight.add_(1.0)
        average.update(step)
        decay = min(0.9, step / (step + 10))
        expected = decay * expected + (1 - decay) * model.weight.detach()
    torch.testing.assert_close(average.tensors["weight"], expected)
    now = model.weight.detach().clone()
    with average.in_place():
        torch.testing.assert_close(model.weight.detach(), expected)
    assert torch.equal(model.weight.detach(), now)


def test_the_guard_stops_a_loss_that_climbed_and_stayed_up_and_no_other():
    calm = Guard()
    for step in range(400):  # falls, rises a little after the head start, has single bad batches
        calm.watch(step, 4 + math.exp(-step / 50) + (0.4 if step < 100 else 0) + (6 if step % 97 == 3 else 0))
    wild = Guard()
    with pytest.raises(Diverged, match=r"climbed from 4\.000") as caught:
        for step in range(400):
            wild.watch(step, 4.0 if step < 100 else 7.0)
    assert "optimizer.matrix_rate" in caught.value.hint
    with pytest.raises(NotFinite, match="gradient norm became inf in step 7"):
        check_finite(7, loss=1.0, gradient_norm=float("inf"))
    check_finite(7, loss=1.0)


def test_what_ended_without_numbers_is_not_stored():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    check_end(1, model, 0.5)
    for loss in (math.nan, math.inf):
        with pytest.raises(Diverged, match=f"ended after 1 step with a held-out loss of {loss}; nothing was stored"):
            check_end(1, model, loss)
    with torch.no_grad():
        model[1].bias[1] = math.inf
    with pytest.raises(Diverged, match=r"after 3 steps with numbers in 1\.bias that are not finite"):
        check_end(3, model, 0.5)
    check_end(3, model.requires_grad_(False), 0.5)  # what was not trained is as it came


def test_patience_counts_measurements_since_the_best():
    best = Best()
    for step, loss in enumerate((3.0, 2.0, 2.5, 2.1)):
        best.see(step, loss)
    assert (best.score, best.step, best.since) == (2.0, 1, 2)
    assert best.exhausted(2)
    assert not best.exhausted(3)
    assert not best.exhausted(None)
