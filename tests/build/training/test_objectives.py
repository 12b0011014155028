"""Losses and how they are computed: in chunks, in passes, compiled, recomputed - always the same numbers."""

from __future__ import annotations

import shutil
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from windlass.build.training.compiling import prepare
from windlass.build.training.data.batches import IGNORE, Batch
from windlass.build.training.data.pairs import PairExamples
from windlass.build.training.data.shard import Shard
from windlass.build.training.loop import accumulate
from windlass.build.training.objectives import arithmetic, causal, contrastive
from windlass.build.training.recipe import read_recipe
from windlass.build.transformer.config import Experts, TransformerConfig
from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.encoder import Encoder
from windlass.build.transformer.init import initialise
from windlass.core.errors import InputError

V, T = 50, 24


def small(**changes) -> Decoder:
    shape = {"vocab_size": V, "hidden": 32, "layers": 2, "heads": 2, "kv_heads": 1, "head_dim": 16, "ffn": 48}
    model = Decoder(TransformerConfig(**{**shape, "context": T, **changes}))
    initialise(model, 3)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.05)
    return model


def batch_of(rows: int, ignored: float = 0.0, seed: int = 0) -> Batch:
    """Random tokens; a different share of each row's targets does not count."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(V, (rows, T + 1), generator=generator)
    share = torch.rand(rows, 1, generator=generator) * 2 * ignored
    targets = torch.where(torch.rand(rows, T, generator=generator) < share, IGNORE, tokens[:, 1:])
    return Batch(tokens[:, :-1], targets)


def gradients(model: Decoder, batches: list[Batch], **how) -> tuple[float, list[torch.Tensor]]:
    model.zero_grad()
    loss, _ = accumulate(batches, partial(causal, model, math=arithmetic(model, **how)))
    return loss, [p.grad.clone() for p in model.parameters()]


def assert_equal(found, expected, rel=1e-6):
    """Losses and whole gradients agree to `rel` of their size."""
    assert found[0] == pytest.approx(expected[0], rel=rel)
    for a, b in zip(found[1], expected[1], strict=True):
        assert float((a - b).norm()) <= rel * float(b.norm()) + 1e-9


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("ignored", [0.0, 0.4])
@pytest.mark.parametrize("chunk", [1, 7, 24, 1000])
def test_chunks_give_the_loss_and_gradients_of_the_plain_formula(tied, ignored, chunk):
    model, batch = small(tied=tied), batch_of(3, ignored)
    plain = F.cross_entropy(model(batch.inputs_BT).flatten(0, 1), batch.targets_BT.flatten(), ignore_index=IGNORE)
    model.zero_grad()
    plain.backward()
    expected = float(plain.detach()), [p.grad.clone() for p in model.parameters()]
    assert_equal(gradients(model, [batch], chunk=chunk), expected, rel=2e-6)
    with torch.no_grad():
        loss = causal(model, batch, arithmetic(model, chunk=chunk, accuracy=True))
        likeliest = model(batch.inputs_BT).argmax(-1)
    assert float(loss.sum) / loss.counted == pytest.approx(expected[0], rel=2e-6)
    assert int(loss.metrics["right"]) == int((likeliest == batch.targets_BT).sum())


class Largest(TorchDispatchMode):
    """The most numbers that any tensor holds that is made inside the block."""

    numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                self.numbers = max(self.numbers, tensor.numel())
        return made


def test_chunks_never_make_the_logits_of_all_positions():
    model, batch = small(vocab_size=2000), batch_of(16)  # a multiple of 128 positions, which are not filled up
    largest = {}
    for chunk in (10**6, 16):
        with Largest() as largest[chunk]:
            accumulate([batch], partial(causal, model, math=arithmetic(model, chunk=chunk)))
    assert largest[10**6].numbers == 16 * T * 2000
    assert largest[16].numbers == model.head.weight.numel() == 32 * 2000


@settings(max_examples=15)
@given(st.lists(st.integers(1, 3), min_size=2, max_size=4), st.integers(0, 9))
def test_passes_add_up_to_one_large_batch_whatever_counts_in_them(sizes, seed):
    """Passes hold unequal numbers of counted targets: a mean of their means would be another loss."""
    model = small()
    batch = batch_of(sum(sizes), 0.45, seed)
    parts = [Batch(i, t) for i, t in zip(batch.inputs_BT.split(sizes), batch.targets_BT.split(sizes))]
    assert_equal(gradients(model, parts), gradients(model, [batch]), rel=1e-6)


@pytest.mark.parametrize("changes", [{"run.recompute": True}, {"run.recompute": True, "run.precision": "bf16"}])
def test_recomputed_activations_give_equal_gradients(changes):
    found = []
    for recompute in (False, True):
        model = small()
        settings = read_recipe(
            None, {"run.compile": "no", "run.precision": "fp32"} | changes | {"run.recompute": recompute}
        )
        math, _ = prepare(model, settings)
        model.zero_grad()
        loss, _ = accumulate([batch_of(4)], partial(causal, model, math=math))
        found.append((loss, [p.grad.clone() for p in model.parameters()]))
    assert found[0][0] == found[1][0]
    for a, b in zip(found[0][1], found[1][1], strict=True):
        assert torch.equal(a, b)


def test_without_a_compiler_it_trains_uncompiled_and_says_so(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert "no C++ compiler" in prepare(small(), read_recipe(None, {"schedule.minutes": 3}))[1]
    with pytest.raises(InputError, match="needs a C\\+\\+ compiler"):
        prepare(small(), read_recipe(None, {"run.compile": "yes"}))
    assert "switched off" in prepare(small(), read_recipe(None, {"run.compile": "no"}))[1]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
@pytest.mark.parametrize("recompute", [False, True])
def test_compiled_passes_equal_the_plain_ones(recompute):
    found = []
    for asked in ("yes", "no"):
        model = small()
        changes = {"run.compile": asked, "run.precision": "fp32", "run.recompute": recompute}
        math, _ = prepare(model, read_recipe(None, changes))
        loss, _ = accumulate([batch_of(3)], partial(causal, model, math=math))
        with torch.no_grad():
            unseen = float(causal(model, batch_of(2), math).sum)
        found.append((loss, [p.grad.clone() for p in model.parameters()], unseen))
        assert set(model.state_dict()) == set(small().state_dict()), "names stay as they are"
    assert_equal(found[0], found[1], rel=1e-4)
    assert found[0][2] == pytest.approx(found[1][2], rel=1e-5)


def test_contrastive_training_tells_documents_apart():
    """The second passage shares no word with the first, but its words belong to it: that has to be learned."""
    generator = np.random.default_rng(0)
    parts = [[0]]
    for document in range(6):
        for passage in range(4):
            first = 1 + 8 * document + 4 * (passage % 2)
            parts.append(generator.integers(first, first + 4, 16))
        parts.append([0])
    tokens = np.concatenate(parts).astype("<u2")
    shape = {"vocab_size": V, "hidden": 32, "layers": 1, "heads": 2, "kv_heads": 2, "head_dim": 16, "ffn": 48}
    model = Encoder(TransformerConfig(**shape, context=16, causal=False, headless=True))
    initialise(model, 0)
    math = arithmetic(model, temperature=0.1)
    examples = PairExamples(Shard(tokens, 6, 1, 0), 16, pad=0)
    batch = examples.batch([(0, number) for number in range(0, len(examples), 2)])
    unseen = examples.batch([(0, number) for number in range(1, len(examples), 2)])
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    first = contrastive(model, batch, math)
    assert float(first.sum.detach()) / first.counted > 1.0
    for _ in range(30):
        loss = contrastive(model, batch, math)
        loss.sum.backward()
        optimizer.step()
        optimizer.zero_grad()
    last = contrastive(model, unseen, math)
    assert float(last.sum.detach()) / last.counted < 0.3
    assert int(last.metrics["right"]) == last.counted == 6


def test_a_neighbour_in_the_window_changes_nothing_when_documents_are_isolated():
    """Other tokens in document 1: the loss of document 2 stays, bit for bit; without isolation it moves."""
    model = small()
    tokens = torch.cat([torch.tensor([0]), torch.randint(1, V, (10,)), torch.tensor([0]), torch.randint(1, V, (12,))])
    other = tokens.clone()
    other[1:11] = (other[1:11] + 7) % (V - 1) + 1
    owner = torch.cumsum(tokens == 0, 0)
    for documents, same in ((owner[None], True), (None, False)):
        logits = [model(row[None], documents_BT=documents)[0, 11:] for row in (tokens, other)]
        assert torch.equal(*logits) == same


def test_experts_add_their_balancing_loss_in_proportion():
    model = small(experts=Experts(count=4, active=2, ffn=16))
    plain = causal(model, batch_of(3), arithmetic(model))
    weighted = causal(model, batch_of(3), arithmetic(model, routing_weight=0.5))
    added = float(weighted.sum.detach()) - float(plain.sum.detach())
    assert added == pytest.approx(0.5 * float(weighted.metrics["imbalance"]), rel=1e-4)
    assert float(weighted.metrics["imbalance"]) / weighted.counted >= 2 - 1e-3, "2 when all are visited equally"
    weighted.sum.backward()
    assert model.blocks[0].mlp.router.weight.grad.abs().sum() > 0
