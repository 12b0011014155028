"""Short texts in one row, learned from side by side: what each of them gives alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from windlass.build.transformer import side_by_side as shelf_file
from windlass.build.transformer.attention import Sight
from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.encoder import Encoder
from windlass.build.transformer.init import initialise
from windlass.build.transformer.side_by_side import shelves, side_by_side

CONFIG = TransformerConfig(
    vocab_size=40, context=90, hidden=24, layers=2, heads=3, kv_heads=3, head_dim=8, ffn=32, causal=False,
    position="learned",
)  # fmt: skip


def drawn(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("lengths", [[1], [3, 3, 9], [64], [40, 2, 17, 16, 1, 33], [5] * 30])
@pytest.mark.parametrize("padding", [0, 4])
def test_each_text_looks_at_itself_alone(lengths, padding, monkeypatch):
    monkeypatch.setattr(shelf_file, "_AT_ONCE", 50)
    total = sum(lengths)
    found = []
    for together in (True, False):
        q, k, v = (drawn(1, total + padding, 3, 8 + n).transpose(1, 2)[..., :8].requires_grad_() for n in range(3))
        leaves = q, k, v
        if together:
            out = side_by_side(q, k, v, shelves(lengths), 0.3)
            assert not out[:, :, total:].any()
        else:
            parts = (torch.split(x[:, :, :total], lengths, dim=2) for x in leaves)
            each = [F.scaled_dot_product_attention(*qkv, scale=0.3) for qkv in zip(*parts, strict=True)]
            out = F.pad(torch.cat(each, 2), (0, 0, 0, padding))
        weights = drawn(*out.shape)
        found.append([out, *torch.autograd.grad((out * weights).sum(), leaves)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(("dtype", "far"), [(None, 1e-5), (torch.bfloat16, 0.03)])
def test_an_encoder_learns_the_same_from_texts_side_by_side(dtype, far, monkeypatch):
    encoder = Encoder(CONFIG)
    initialise(encoder, 0)
    lengths = [2, 2, 7, 15, 18, 40]
    tokens = torch.randint(40, (1, sum(lengths)), generator=torch.Generator().manual_seed(0))
    goal = drawn(1, sum(lengths), 24, dtype=torch.float32)
    found = []
    for most in (64, 0):
        monkeypatch.setattr("windlass.build.transformer.stack.SHORT", most)
        encoder.zero_grad()
        (encoder.hidden(tokens, lengths=lengths, dtype=dtype).float() * goal).sum().backward()
        found.append({name: p.grad.clone() for name, p in encoder.named_parameters() if p.grad is not None})
    assert len(found[0]) == len(found[1]) > 10
    for name, one in found[0].items():
        assert float((one - found[1][name]).norm()) <= far * float(found[1][name].norm()) + 1e-4, name


def sight(config: TransformerConfig, lengths: list[int]) -> Sight:
    return Encoder(config)._sight_by_stretch(False, lengths, torch.device("cpu"))


def test_who_stands_side_by_side():
    assert sight(CONFIG, [3, 64]).shelves
    assert not sight(CONFIG, [3, 65]).shelves
    assert not sight(replace(CONFIG, position="alibi"), [3, 64]).shelves
    assert not sight(replace(CONFIG, position="rope"), [3, 64]).shelves
    assert not sight(replace(CONFIG, heads=6), [3, 64]).shelves
    with torch.no_grad():
        assert not sight(CONFIG, [3, 64]).shelves
