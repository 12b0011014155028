"""Packed float32 weights give what the weights give."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from windlass.build.transformer.config import Experts, TransformerConfig
from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.init import initialise
from windlass.serve.engine.arithmetic.packed import Packed, no_packing, pack
from windlass.serve.engine.arithmetic.places import Served

LLAMA = TransformerConfig(
    vocab_size=101, hidden=48, layers=2, heads=4, kv_heads=2, head_dim=12, ffn=80, context=64, qkv_bias=True
)
SHAPES = {
    "llama": LLAMA,
    "tied": dataclasses.replace(LLAMA, tied=True, qkv_bias=False),
    "plain": dataclasses.replace(LLAMA, gated=False, mlp_bias=True, output_bias=True, norm="layer", head_bias=True),
    "experts": dataclasses.replace(LLAMA, experts=Experts(count=4, active=2, ffn=32, shared_ffn=16)),
}


def decoder(config: TransformerConfig = LLAMA) -> Decoder:
    model = Decoder(config)
    initialise(model, 0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.1)
    return model.eval().requires_grad_(False)


def tokens(config: TransformerConfig, rows: int = 2, length: int = 20) -> Tensor:
    return torch.randint(config.vocab_size, (rows, length), generator=torch.Generator().manual_seed(2))


@pytest.mark.skipif(no_packing() is not None, reason=str(no_packing()))
@pytest.mark.parametrize("shape", SHAPES)
def test_packed_weights_give_the_same_numbers(shape: str) -> None:
    model, packed = decoder(SHAPES[shape]), decoder(SHAPES[shape])
    pack(packed)
    assert isinstance(packed.blocks[0].attention.output, Served)
    for rows, length in ((1, 1), (1, 7), (2, 20), (3, 45)):  # one row, few, and numbers that are filled up
        ids = tokens(SHAPES[shape], rows, length)
        with torch.inference_mode():
            assert torch.allclose(packed(ids), model(ids), rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(no_packing() is not None, reason=str(no_packing()))
def test_what_packing_would_change_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Packed.__call__

    def wrong(self: Packed, x: Tensor) -> Tensor:
        out = right(self, x)
        return out * 1.001 if out.shape[-1] == LLAMA.hidden else out

    monkeypatch.setattr(Packed, "__call__", wrong)
    model, packed = decoder(), decoder()
    pack(packed)
    attention = packed.blocks[0].attention
    assert isinstance(attention.query, Served) and not isinstance(attention.output, Served)
    with torch.inference_mode():
        assert torch.allclose(packed(tokens(LLAMA)), model(tokens(LLAMA)), rtol=1e-4, atol=1e-4)
