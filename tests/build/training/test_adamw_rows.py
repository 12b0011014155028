"""AdamW of the rows that were read: the same numbers as of the whole table, in every way that a run can take."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from windlass.build.training.distributed.workers import ALONE, Workers
from windlass.build.training.optim.adamw_rows import RowAdamW, name_rows
from windlass.build.training.optim.groups import tuning_groups
from windlass.build.training.optim.optimizers import Optimizers
from windlass.build.training.settings import OptimizerSettings
from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.encoder import Encoder

ROWS, WIDTH, TOKENS = 300, 16, 6
ADAMW = OptimizerSettings(kind="adamw", betas=(0.9, 0.999), eps=1e-8, clip=2.0)


class Reader(nn.Module):
    """Looks tokens up and judges them; with `tied` it also says how much each token of the table is like them."""

    def __init__(self, by_rows: bool, tied: bool = False) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.embedding = nn.Parameter(torch.randn(ROWS, WIDTH, generator=generator))
        self.judge = nn.Parameter(torch.randn(3, WIDTH, generator=generator))
        self.by_rows, self.tied = by_rows, tied

    def loss(self, tokens: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        x = F.embedding(tokens, self.embedding, sparse=self.by_rows).mean(1)
        loss = F.cross_entropy(x @ self.judge.T, labels)
        return loss + F.cross_entropy(x @ self.embedding.T, labels) if self.tied else loss


def begun(model: Reader) -> Optimizers:
    return Optimizers(model, tuning_groups(model.named_parameters(), 0.01, 0.0), ADAMW)


def train(model: Reader, optimizers: Optimizers, steps: range, passes: int = 2) -> list[float]:
    """Later steps read other rows, so that some rest again, and some are read for the first time; the gradients'
    norms."""
    norms = []
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        for _ in range(passes):
            tokens = torch.randint(20, (4, TOKENS), generator=generator) + 4 * step
            model.loss(tokens, torch.randint(3, (4,), generator=generator)).backward()
        assert model.embedding.grad is not None
        assert model.embedding.grad.is_sparse == (model.by_rows and not model.tied)
        norms.append(optimizers.clip())
        optimizers.step(1.0 - step / 100)
    return norms


def same(one: Optimizers, other: Optimizers) -> None:
    for name, parameter in one.named.items():
        torch.testing.assert_close(parameter, other.named[name], rtol=1e-6, atol=1e-7)
    expected = other.tensors()
    for name, tensor in one.tensors().items():
        torch.testing.assert_close(tensor, expected[name], rtol=2e-5, atol=1e-8)


@pytest.mark.parametrize("passes", [1, 3])
@pytest.mark.parametrize("tied", [False, True])
def test_the_rows_alone_are_what_the_whole_table_is(passes, tied):
    model, whole = Reader(True, tied), Reader(False, tied)
    before = model.embedding.detach().clone()
    found, expected = begun(model), begun(whole)
    norms = train(model, found, range(50), passes)
    assert norms == pytest.approx(train(whole, expected, range(50), passes), rel=1e-5)
    assert max(norms) > ADAMW.clip
    same(found, expected)
    assert tied or torch.equal(model.embedding[220:], before[220:]), "nobody has read these"


def test_a_row_goes_on_moving_when_nobody_reads_it():
    """Which is what tells AdamW from its lazy variants."""
    model = Reader(True)
    optimizers = begun(model)
    train(model, optimizers, range(10))
    before = model.embedding.detach().clone()
    train(model, optimizers, range(40, 41))
    moved = (model.embedding - before).detach().abs().amax(1)
    assert (moved[:50] > 1e-4).all()
    assert not moved[60:160].any()


def test_a_run_that_is_taken_up_goes_on_to_the_same_bits():
    straight, model, again = Reader(True), Reader(True), Reader(True)
    train(straight, begun(straight), range(30))
    stopped, resumed = begun(model), begun(again)
    train(model, stopped, range(12))
    train(again, resumed, range(50, 52))  # whatever it has read by then is forgotten
    again.load_state_dict(model.state_dict())
    for name, tensor in resumed.tensors().items():
        tensor.copy_(stopped.tensors()[name])
    train(again, resumed, range(12, 30))
    assert torch.equal(again.embedding, straight.embedding)
    assert torch.equal(again.judge, straight.judge)


def test_the_kind_of_gradient_may_change_within_a_run():
    model, whole = Reader(True), Reader(False)
    found, expected = begun(model), begun(whole)
    train(whole, expected, range(30))
    for start in range(0, 30, 10):
        model.by_rows = start != 10
        train(model, found, range(start, start + 10))
    same(found, expected)


def test_weight_decay_reaches_every_row():
    tables = []
    for sparse in (True, False):
        table = nn.Parameter(torch.linspace(-1, 1, ROWS * WIDTH).view(ROWS, WIDTH))
        optimizer = RowAdamW([table], lr=0.01, weight_decay=0.1, fused=True)
        for step in range(5):
            F.embedding(torch.arange(step, step + 3), table, sparse=sparse).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        tables.append(table)
    torch.testing.assert_close(*tables, rtol=1e-6, atol=1e-7)
    assert tables[0][-1, -1] < 0.996


def test_the_decay_is_not_for_tables():
    named = {"a.embedding": (9, 2), "positions": (4, 2), "token_types": (2, 2), "dense.weight": (2, 2), "norm": (2,)}
    groups = tuning_groups([(name, nn.Parameter(torch.ones(shape))) for name, shape in named.items()], 1e-3, 0.1)
    assert [(len(group.parameters), group.decay) for group in groups] == [(1, 0.1), (3, 0.0), (1, 0.0)]


def test_who_names_rows():
    config = TransformerConfig(vocab_size=50, context=8, hidden=16, layers=1, heads=2, kv_heads=2, head_dim=8, ffn=16)
    encoder = Encoder(replace(config, causal=False))
    name_rows(nn.Sequential(encoder), ALONE)
    assert encoder.by_rows
    name_rows(encoder, Workers(0, 2))
    assert not encoder.by_rows, "workers exchange dense gradients"
    encoder.embedding.requires_grad_(False)
    name_rows(encoder, ALONE)
    assert not encoder.by_rows
