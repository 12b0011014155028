"""The kernel finds what the reference finds, in every bit independent of company and of how a text was cut."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from windlass.build.transformer.cache import KVCache
from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.init import initialise
from windlass.build.transformer.ragged import Parts
from windlass.serve.engine.arithmetic import native
from windlass.serve.engine.arithmetic.attention import NativeAttention

pytestmark = pytest.mark.skipif(native.unavailable() is not None, reason=str(native.unavailable()))

LLAMA = TransformerConfig(vocab_size=61, hidden=24, layers=2, heads=4, kv_heads=2, head_dim=6, ffn=32, context=256)


def decoder(config: TransformerConfig) -> Decoder:
    model = Decoder(config)
    initialise(model, 0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.2)
    return model.eval().requires_grad_(False)


def tokens(count: int, seed: int = 0) -> Tensor:
    return torch.randint(LLAMA.vocab_size, (count,), generator=torch.Generator().manual_seed(seed))


def read(model: Decoder, caches: list[KVCache], new: list[Tensor], kernel: NativeAttention | None) -> list[Tensor]:
    """One pass over the next parts of several texts; the hidden vectors of each."""
    parts = Parts([len(ids) for ids in new], caches, kernel)
    with torch.inference_mode():
        return list(torch.split(model.hidden_of_parts(torch.cat(new), parts), parts.lengths))


SHAPES = {
    "grouped": LLAMA,
    "one key head": dataclasses.replace(LLAMA, kv_heads=1, head_dim=20),
    "wide heads": dataclasses.replace(LLAMA, heads=3, kv_heads=3, head_dim=80),
    "half turned": dataclasses.replace(LLAMA, head_dim=16, rotary_share=0.5),
    "window": dataclasses.replace(LLAMA, window=9, pattern="LG"),
    "no positions": dataclasses.replace(LLAMA, position="none", attention_scale=0.3, qk_norm=True),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_it_finds_what_the_reference_finds(shape: str) -> None:
    model = decoder(SHAPES[shape])
    passes = [[tokens(90, 1), tokens(1, 2), tokens(63, 3)], [tokens(1, 4), tokens(64, 5), tokens(2, 6)]]
    ours = [model.new_cache() for _ in passes[0]]
    theirs = [model.new_cache() for _ in passes[0]]
    for new in passes:
        found, expected = read(model, ours, new, NativeAttention()), read(model, theirs, new, None)
        for own, other in zip(found, expected, strict=True):
            torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-5)
    for own_cache, other_cache in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own_cache.keys, other_cache.keys, rtol=1e-4, atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(
    heads=st.sampled_from([(4, 2, 6), (2, 2, 33), (6, 1, 16)]),
    window=st.sampled_from([0, 1, 50]),
    cuts=st.lists(st.integers(1, 80), min_size=1, max_size=5),
)
def test_no_bit_hangs_on_company_or_on_cuts(heads: tuple[int, int, int], window: int, cuts: list[int]) -> None:
    query_heads, kv_heads, dim = heads
    config = dataclasses.replace(
        LLAMA, heads=query_heads, kv_heads=kv_heads, head_dim=dim, position="none", context=512, window=window or None
    )
    length, kernel = sum(cuts), NativeAttention()
    generator = torch.Generator().manual_seed(length)
    q, k, v = (torch.randn(1, h, length, dim, generator=generator) for h in (query_heads, kv_heads, kv_heads))
    whole = KVCache(config)
    plan = kernel.plan(config, True, Parts([length], [whole]), None)
    assert plan is not None
    at_once = plan(1, q, k, v)
    cut, other, start, found = KVCache(config), KVCache(config), 0, []
    for size in cuts:  # in company of a text that stands first in the pass
        parts = Parts([3, size], [other, cut])
        together = kernel.plan(config, True, parts, None)
        assert together is not None
        noise = [torch.randn(1, x.shape[1], 3, dim, generator=generator) for x in (q, k, v)]
        rows = [torch.cat([n, x[:, :, start : start + size]], 2) for n, x in zip(noise, (q, k, v), strict=True)]
        found.append(together(1, *rows)[:, :, 3:])
        start += size
        other.advance(3)
        cut.advance(size)
    assert torch.equal(torch.cat(found, 2), at_once)
    assert torch.equal(cut.keys[1, :, :, :length], k) and torch.equal(cut.values[1, :, :, :length], v)


def test_what_it_does_not_know_is_left_to_the_reference() -> None:
    kernel = NativeAttention()
    for change in ({"position": "alibi"}, {"attention_cap": 30.0}):
        config = dataclasses.replace(LLAMA, **change)
        assert kernel.plan(config, False, Parts([1], [KVCache(config)]), None) is None
    assert kernel.plan(LLAMA, False, Parts([1], [KVCache(LLAMA, dtype=torch.bfloat16)]), None) is None


def test_a_cache_without_room_is_refused() -> None:
    cache = KVCache(LLAMA, capacity=4)
    cache.advance(3)
    with pytest.raises(ValueError, match="3 and 2 new"):
        NativeAttention().plan(LLAMA, False, Parts([2], [cache]), None)
