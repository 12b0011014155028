"""Positions against formulas written out by hand, and T5's buckets against transformers."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.t5.modeling_t5 import T5Attention

from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.init import initialise
from windlass.build.transformer.positions import (
    alibi_slopes,
    positions_in_documents,
    relative_buckets,
    sinusoids,
)
from windlass.build.transformer.rope import frequencies, rotate, rotations

SHAPE = {
    "vocab_size": 23,
    "hidden": 16,
    "layers": 1,
    "heads": 3,
    "kv_heads": 3,
    "head_dim": 4,
    "ffn": 16,
    "context": 40,
}


def test_sinusoids_are_those_of_the_paper():
    table = sinusoids(torch.arange(50), 10)
    for position in (0, 1, 17, 49):
        for pair in range(5):
            angle = position / 10_000 ** (2 * pair / 10)
            assert float(table[position, 2 * pair]) == pytest.approx(math.sin(angle), abs=1e-5)
            assert float(table[position, 2 * pair + 1]) == pytest.approx(math.cos(angle), abs=1e-5)


def test_a_sinusoidal_decoder_is_a_learned_one_with_that_table():
    fixed, learned = (Decoder(TransformerConfig(**SHAPE, position=kind)) for kind in ("sinusoidal", "learned"))
    initialise(learned, 1)
    with torch.no_grad():
        for weight in learned.parameters():
            weight.add_(torch.randn(weight.shape), alpha=0.1)
        learned.positions.copy_(sinusoids(torch.arange(40), 16))
    fixed.load_state_dict({name: tensor for name, tensor in learned.state_dict().items() if name != "positions"})
    x = torch.randint(23, (2, 40))
    with torch.inference_mode():
        torch.testing.assert_close(fixed(x), learned(x))
        cache = fixed.new_cache(batch=2)
        fixed.prefill(x[:, :30], cache)
        torch.testing.assert_close(fixed.prefill(x[:, 30:], cache), learned(x)[:, -1], atol=1e-5, rtol=1e-4)


def test_alibi_slopes_are_those_of_the_paper():
    assert alibi_slopes(8).tolist() == [2.0**-n for n in range(1, 9)]
    assert alibi_slopes(4).tolist() == [2.0**-2, 2.0**-4, 2.0**-6, 2.0**-8]
    twelve = [2.0**-n for n in range(1, 9)] + [2.0**-0.5, 2.0**-1.5, 2.0**-2.5, 2.0**-3.5]
    torch.testing.assert_close(alibi_slopes(12), torch.tensor(twelve))


@pytest.mark.parametrize("causal", [True, False])
def test_alibi_attention_is_the_formula(causal):
    from windlass.build.transformer.encoder import Encoder

    config = TransformerConfig(**SHAPE, position="alibi", causal=causal, headless=not causal)
    model = (Decoder if causal else Encoder)(config)
    initialise(model, 1)
    attention = model.blocks[0].attention
    torch.nn.init.normal_(attention.output.weight, 0, 0.3)
    T, D = 9, config.head_dim
    x = torch.randn(1, T, 16)
    with torch.no_grad():
        _, (sight,) = model.enter(x)
        found = attention(x, sight)[0]
        out = []
        for head, slope in enumerate([2.0**-4, 2.0**-8, 2.0**-2]):
            q, k, v = (m(x)[0, :, head * D : (head + 1) * D] for m in (attention.query, attention.key, attention.value))
            scores = torch.full((T, T), -math.inf)
            for i in range(T):
                for j in range(i + 1 if causal else T):
                    scores[i, j] = q[i] @ k[j] / math.sqrt(D) - slope * abs(i - j)
            out.append(scores.softmax(-1) @ v)
        torch.testing.assert_close(found, torch.cat(out, dim=-1) @ attention.output.weight.T, atol=1e-5, rtol=1e-4)


@given(st.booleans(), st.sampled_from([8, 32]), st.sampled_from([20, 128]))
def test_relative_buckets_are_t5s(causal, buckets, far):
    distance = torch.arange(-300, 300)
    theirs = T5Attention._relative_position_bucket(distance, not causal, buckets, far)
    assert torch.equal(relative_buckets(distance, causal=causal, buckets=buckets, far=far), theirs)


@given(st.lists(st.lists(st.integers(0, 3), min_size=6, max_size=6), min_size=1, max_size=3))
def test_positions_restart_at_each_document(rows):
    found = positions_in_documents(torch.tensor(rows)).tolist()
    for row, places in zip(rows, found, strict=True):
        for index, place in enumerate(places):
            begins = index == 0 or row[index] != row[index - 1]
            assert place == (0 if begins else places[index - 1] + 1)


@settings(deadline=None)
@given(st.integers(0, 400), st.integers(0, 400), st.integers(0, 400), st.sampled_from([4, 6, 8]))
def test_rotated_products_depend_on_distance_only(i, j, shift, turned):
    frequency, _ = frequencies(turned, 10_000.0, None)
    generator = torch.Generator().manual_seed(i)
    q, k = torch.randn(2, 1, 1, 1, 8, generator=generator)

    def at(x: torch.Tensor, place: int) -> torch.Tensor:
        return rotate(x, *rotations(torch.tensor([place]), frequency))

    torch.testing.assert_close(
        (at(q, i) * at(k, j)).sum(), (at(q, i + shift) * at(k, j + shift)).sum(), atol=1e-3, rtol=1e-3
    )
    torch.testing.assert_close(at(q, i).norm(), q.norm(), atol=1e-4, rtol=1e-4)
    assert torch.equal(at(q, i)[..., turned:], q[..., turned:])
