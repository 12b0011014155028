"""The mixture of experts against one token at a time, and what its balancing loss does to a lopsided router."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from windlass.build.transformer.config import Experts, TransformerConfig
from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.init import initialise
from windlass.build.transformer.moe import MoE, balancing_loss

SHAPE = {"vocab_size": 19, "hidden": 12, "layers": 2, "heads": 2, "kv_heads": 1, "head_dim": 6, "ffn": 8, "context": 32}


def filled(experts: Experts, **more: object) -> MoE:
    moe = MoE(TransformerConfig(**SHAPE, experts=experts, **more), experts)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for weight in moe.parameters():
            weight.normal_(0, 0.4, generator=generator)
    return moe


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.booleans(), st.sampled_from([0, 5]), st.booleans(), st.integers(1, 9))
def test_equals_one_token_at_a_time(count, active, normalise, shared, gated, tokens):
    experts = Experts(count, min(active, count), 7, normalise, shared)
    moe = filled(experts, gated=gated)
    x = torch.randn(2, tokens, 12, generator=torch.Generator().manual_seed(tokens))
    with torch.inference_mode():
        found = moe(x).flatten(0, 1)
        for token, out in zip(x.flatten(0, 1), found, strict=True):
            odds = (moe.router.weight @ token).softmax(0)
            chosen = odds.argsort(descending=True)[: experts.active]
            scale = odds[chosen].sum() if normalise else 1.0
            expected = torch.zeros(12)
            for e in chosen:
                up = moe.up[e] @ token
                inner = F.silu(moe.gate[e] @ token) * up if gated else F.silu(up)
                expected += odds[e] / scale * (moe.down[e] @ inner)
            if shared:
                expected += torch.sigmoid(moe.shared_gate(token)) * moe.shared(token)
            torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-4)


def test_the_same_input_gives_the_same_bits_and_only_visited_experts_learn():
    moe = filled(Experts(5, 1, 7))
    x = torch.randn(1, 3, 12, generator=torch.Generator().manual_seed(1))
    assert torch.equal(moe(x), moe(x))
    moe(x).sum().backward()
    visited = moe.router(x[0]).argmax(-1).unique().tolist()
    learned = [e for e in range(5) if moe.up.grad[e].abs().sum() > 0]
    assert learned == sorted(visited)
    assert len(learned) < 5


def test_balancing_loss_at_its_extremes():
    even = torch.full((8, 4), 0.25)
    each = torch.arange(8).remainder(4)[:, None]
    assert float(balancing_loss(even, each)) == pytest.approx(1.0)
    certain = F.one_hot(torch.zeros(8, dtype=torch.int64), 4).float()
    assert float(balancing_loss(certain, torch.zeros(8, 1, dtype=torch.int64))) == pytest.approx(4.0)


def test_training_on_the_balancing_loss_spreads_the_tokens():
    config = TransformerConfig(**SHAPE, experts=Experts(4, 1, 8))
    model = Decoder(config)
    initialise(model, 0)
    routers = [block.mlp.router.weight for block in model.blocks]
    x = torch.randint(19, (8, 32), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():  # a router that sends nearly every token to the first expert
        mean = F.rms_norm(model.embedding, (12,))[x.flatten()].mean(0)
        for router in routers:
            router[0] += 8 * mean

    def imbalance() -> torch.Tensor:
        routing: list[torch.Tensor] = []
        model(x, routing=routing)
        assert len(routing) == 2
        return torch.stack(routing).mean()

    before = float(imbalance().detach())
    optimizer = torch.optim.Adam(routers, lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        imbalance().backward()
        optimizer.step()
    after = float(imbalance().detach())
    assert before > 1.3
    assert after < 1.1 < before
    assert model(x).isfinite().all()
