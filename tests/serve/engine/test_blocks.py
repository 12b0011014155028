"""All blocks in one native call give what the modules give, and leave to these what they do not know."""

from __future__ import annotations

import pytest
import torch
from tiny_decoders import answers, ask, decoder, greedy, prompts
from torch import Tensor

from windlass.build.transformer.cache import KVCache
from windlass.build.transformer.config import Experts
from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.ragged import Parts
from windlass.serve.engine.arithmetic import native
from windlass.serve.engine.arithmetic.attention import NativeAttention, kernel_here
from windlass.serve.engine.arithmetic.blocks import Blocks, blocks_of
from windlass.serve.engine.arithmetic.linears import prepare
from windlass.serve.engine.engine import Engine
from windlass.serve.engine.reproducibility import prove

needs_kernels = pytest.mark.skipif(native.unavailable() is not None, reason=str(native.unavailable()))

PLAIN: dict[str, dict[str, object]] = {
    "llama": {},
    "tied": {"tied": True, "kv_heads": 1},
    "biased": {"qkv_bias": True, "output_bias": True, "mlp_bias": True},
    "windows": {"window": 5, "pattern": "LG", "local_rope_theta": 100.0},
    "normed heads": {"qk_norm": True, "norm_offset": True},
    "half turned": {"head_dim": 16, "rotary_share": 0.5, "attention_scale": 0.1},
    "no positions": {"position": "none", "embedding_scale": 3.0},
}
OTHER: dict[str, dict[str, object]] = {
    "experts": {"experts": Experts(count=4, active=2, ffn=32)},
    "norms behind": {"norm_placement": "sandwich"},
    "no gate": {"gated": False},
    "gelu": {"activation": "gelu"},
    "layer norm": {"norm": "layer"},
    "no first norm": {"first_norm": False},
    "learned positions": {"position": "learned"},
    "distances": {"position": "alibi"},
    "capped": {"attention_cap": 5.0},
    "normed embedding": {"embedding_norm": True},
}


def read(model: Decoder, passes: list[list[list[int]]], blocks: Blocks | None) -> list[Tensor]:
    """Hidden vectors of each pass over the next parts of some texts, and then all keys and values."""
    caches = [model.new_cache() for _ in passes[0]]
    found = []
    with torch.inference_mode():
        for new in passes:
            parts, tokens = (
                Parts([len(ids) for ids in new], caches, NativeAttention()),
                [token for ids in new for token in ids],
            )
            found.append(
                model.hidden_of_parts(torch.tensor(tokens), parts) if blocks is None else blocks(tokens, parts)
            )
    return found + [kept for cache in caches for kept in (cache.keys, cache.values)]


@needs_kernels
@pytest.mark.parametrize("policy", ["int8", "int4"])
@pytest.mark.parametrize("shape", PLAIN)
def test_they_give_what_the_modules_give(shape: str, policy: str) -> None:
    model = decoder(**PLAIN[shape])
    assert prepare(model, policy).policy == policy
    blocks = blocks_of(model)
    assert blocks is not None
    passes = [prompts(20, 1, 9), prompts(1, 1, 1, seed=2), prompts(1, 30, 2, seed=3)]
    for own, expected in zip(read(model, passes, blocks), read(model, passes, None), strict=True):
        assert torch.equal(own, expected)


@needs_kernels
@pytest.mark.parametrize("shape", OTHER)
def test_they_are_not_made_of_what_they_do_not_know(shape: str) -> None:
    model = decoder(**OTHER[shape])
    assert prepare(model, "int4").policy in ("int4", "int8")
    assert blocks_of(model) is None


@needs_kernels
def test_packed_weights_are_needed() -> None:
    model = decoder()
    assert blocks_of(model) is None
    prepare(model, "bf16")
    assert blocks_of(model) is None


@needs_kernels
def test_rotations_are_prepared_for_as_many_places_as_are_read() -> None:
    model = decoder(context=2_000)
    prepare(model, "int8")
    blocks = blocks_of(model)
    assert blocks is not None
    passes = [prompts(500, 3), prompts(100, 1, seed=2), prompts(1_300, 1, seed=3), prompts(1, 1, seed=4)]
    for own, expected in zip(read(model, passes, blocks), read(model, passes, None), strict=True):
        assert torch.equal(own, expected)


@needs_kernels
def test_caches_that_they_cannot_read_are_refused() -> None:
    model = decoder()
    prepare(model, "int8")
    blocks = blocks_of(model)
    assert blocks is not None
    with pytest.raises(ValueError, match="float32"):
        blocks([1], Parts([1], [KVCache(model.config, dtype=torch.bfloat16)]))
    with pytest.raises(ValueError, match="4 positions cannot hold"):
        blocks([1, 2, 3, 4, 5], Parts([5], [KVCache(model.config, capacity=4)]))


@needs_kernels
def test_an_engine_uses_them(monkeypatch: pytest.MonkeyPatch) -> None:
    model, asked = decoder(), prompts(9, 40, 3)
    prepare(model, "int8")
    expected = [greedy(model, prompt, 8) for prompt in asked]
    monkeypatch.setattr(Decoder, "through", lambda *_: pytest.fail("the modules were asked"))
    engine = Engine(model, kernel=kernel_here(), token_budget=16)
    found = answers(engine, [ask(prompt, 8) for prompt in asked])
    engine.close()
    assert [[token.id for token in answer] for answer in found] == expected


@needs_kernels
@pytest.mark.parametrize("shape", ["llama", "normed heads"])
def test_no_bit_of_theirs_depends_on_company_or_chunks(shape: str) -> None:
    model = decoder(**PLAIN[shape])
    prepare(model, "int8")
    assert blocks_of(model) is not None
    prove(model, kernel_here())


def test_without_kernels_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_library", lambda: "no compiler")
    model, (prompt,) = decoder(), prompts(9)
    report = prepare(model, "int8")
    assert report.policy != "int8" and blocks_of(model) is None and kernel_here() is None
    engine = Engine(model)
    (found,) = answers(engine, [ask(prompt, 8)])
    engine.close()
    assert [token.id for token in found] == greedy(model, prompt, 8)
